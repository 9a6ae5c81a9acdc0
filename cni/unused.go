package cni

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/holdfast-ipam/holdfast/cni/detect"
)

// moves is how often an ADD goes on to other addresses after the first ones
// were found in use. With three moves it takes 4 s at most to tell the user
// that somebody else lives in the pool, and every move sets an address aside.
const moves = 3

// whatHelps says what to do about a machine that uses an address of a pool.
const whatHelps = "find that machine by its hardware address and take the address away from it, or list the address in the pool's excludeIPs or in a SpiderReservedIP"

// addUnused asks for addresses until nobody else uses what it is given, where
// the agent wants that to be found out.
func addUnused(ctx context.Context, agent *Client, request AddRequest, netns string) (*AddResult, error) {
	var used []Conflict
	for range moves + 1 {
		answer, err := agent.Add(ctx, request)
		if err != nil {
			return nil, after(used, err)
		}
		found, err := probe(ctx, &request, answer, netns)
		if err != nil {
			return nil, err
		}
		conflicts, unreachable := judge(answer, found)
		if len(conflicts) == 0 {
			return answer, unreachable
		}
		result, err := agent.Conflict(ctx, ConflictRequest{Attachment: request.Attachment, Conflicts: conflicts})
		if err != nil {
			return nil, after(append(used, conflicts...), err)
		}
		if !result.SetAside {
			return nil, inUse(conflicts, result.Reason)
		}
		used = append(used, conflicts...)
	}
	return nil, inUse(used, fmt.Sprintf("they are set aside, and after %d others it is given up for now", moves))
}

// probe finds out what the agent wants to know of the addresses it answered.
// Nothing is found on a link that is not there yet or has no neighbours.
func probe(ctx context.Context, request *AddRequest, answer *AddResult, netns string) ([]detect.Finding, error) {
	var targets []detect.Target
	for _, a := range answer.Addresses {
		target := detect.Target{Addr: a.Prefix.Addr(), Conflict: a.ConflictDetection}
		if a.GatewayDetection {
			target.Gateway = a.Gateway
		}
		if target.Conflict || target.Gateway.IsValid() {
			targets = append(targets, target)
		}
	}
	if len(targets) == 0 {
		return nil, nil
	}
	found, err := detect.Probe(ctx, netns, request.Interface, targets)
	if errors.Is(err, detect.ErrNoLink) || errors.Is(err, detect.ErrNoNeighbours) {
		return nil, nil
	}
	if err != nil {
		return nil, &Error{
			Code: types.ErrTryAgainLater, Message: AddFailed + ": " + err.Error(),
			Details: "it is not known whether the addresses are in use, so the pod does not get them; see whether the interface's master is up and has a carrier, or switch ipam.enableIPConflictDetection and ipam.enableGatewayDetection off",
		}
	}
	return found, nil
}

// judge returns the addresses that somebody else uses, and if there are none,
// an error for the gateways that do not answer.
func judge(answer *AddResult, found []detect.Finding) (conflicts []Conflict, unreachable error) {
	var silent []string
	for _, f := range found {
		if f.UsedBy != nil {
			conflicts = append(conflicts, Conflict{Address: f.Addr, MAC: f.UsedBy.String()})
		}
		if f.NoGateway {
			silent = append(silent, gatewayOf(answer, f.Addr))
		}
	}
	if len(conflicts) > 0 || len(silent) == 0 {
		return conflicts, nil
	}
	return nil, &Error{
		Code:    types.ErrTryAgainLater,
		Message: fmt.Sprintf("%s: gateway %s does not answer", AddFailed, strings.Join(silent, " and ")),
		Details: "the pod keeps its addresses and it is tried again by itself; see whether the gateway is up, whether spec.gateway of the pool is right, and whether the interface is in the right VLAN",
	}
}

// gatewayOf names the gateway of an address and its pool.
func gatewayOf(answer *AddResult, addr netip.Addr) string {
	for _, a := range answer.Addresses {
		if a.Prefix.Addr() == addr {
			return fmt.Sprintf("%s of pool %s", a.Gateway, a.Pool)
		}
	}
	return "of " + addr.String()
}

// inUse says which addresses are used by whom.
func inUse(used []Conflict, why string) error {
	details := whatHelps
	if why != "" {
		details = why + "; " + details
	}
	return &Error{Code: types.ErrTryAgainLater, Message: AddFailed + ": IP conflict: " + list(used), Details: details}
}

// list names addresses with their users: 10.6.168.101 is used by 02:…
func list(used []Conflict) string {
	var parts []string
	for _, c := range used {
		parts = append(parts, fmt.Sprintf("%s is used by %s", c.Address, c.MAC))
	}
	return strings.Join(parts, ", ")
}

// after adds to what the agent said why it was asked more than once.
func after(used []Conflict, err error) error {
	if len(used) == 0 {
		return err
	}
	said, ok := errors.AsType[*Error](err)
	if !ok {
		return fmt.Errorf("after IP conflicts (%s): %w", list(used), err)
	}
	return &Error{Code: said.Code, Message: said.Message, Details: strings.TrimPrefix(said.Details+"; ", "; ") + "before, " + list(used) + ": " + whatHelps}
}
