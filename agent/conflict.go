package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	cnitypes "github.com/containernetworking/cni/pkg/types"

	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/lease"
)

// migrationTarget is on a pod to which KubeVirt moves a virtual machine: its
// address is in use until the move is done, by the machine itself.
const migrationTarget = "kubevirt.io/migrationJobName"

// detection says what the plugin has to find out before the pod gets its
// addresses.
func (a *Agent) detection(q *cni.AddRequest, result *cni.AddResult) {
	conflict := a.config.EnableIPConflictDetection
	if conflict {
		pod, ok := a.pods.cached(q.Pod.Namespace, q.Pod.Name)
		conflict = !ok || pod.Annotations[migrationTarget] == ""
	}
	for i := range result.Addresses {
		address := &result.Addresses[i]
		address.ConflictDetection = conflict
		address.GatewayDetection = a.config.EnableGatewayDetection && address.Gateway.IsValid()
	}
}

// conflict takes note of addresses that machines outside the cluster use. A
// stateless pod's are set aside, and its next ADD gets others. A StatefulSet
// pod's stay its own, and it says so in its events.
func (a *Agent) conflict(ctx context.Context, q *cni.ConflictRequest) (*cni.ConflictResult, error) {
	addrs, err := conflicting(q)
	if err != nil {
		return nil, err
	}
	aside, err := a.lessee.SetAside(ctx, sandbox(q.Attachment), addrs, a.config.ConflictRest.Duration)
	if errors.Is(err, lease.ErrNotHeld) {
		return nil, &cni.Error{
			Code:    uint(cnitypes.ErrInternal),
			Message: fmt.Sprintf("%s: a conflict on addresses %s is not taken note of: not all of them are assigned to interface %s of this sandbox", cni.AddFailed, joined(addrs), q.Interface),
			Details: "nothing has changed; it is tried again by itself",
		}
	}
	if err != nil {
		return nil, err
	}
	a.metrics.conflict(aside, len(addrs))
	if aside {
		return &cni.ConflictResult{SetAside: true}, nil
	}
	if !a.anySticky(addrs) {
		return &cni.ConflictResult{Reason: "another sandbox of the pod has asked for the address too, and may be what answers"}, nil
	}
	a.warnOfConflict(ctx, q)
	return &cni.ConflictResult{
		Reason: fmt.Sprintf("pod %s/%s keeps its address, as StatefulSets' pods and virtual machines do, and starts when nobody else uses it", q.Pod.Namespace, q.Pod.Name),
	}, nil
}

// conflicting returns the addresses of a report that makes sense.
func conflicting(q *cni.ConflictRequest) (addrs []netip.Addr, err error) {
	if len(q.Conflicts) == 0 {
		err = errors.New("it names no address")
	}
	for _, c := range q.Conflicts {
		if !c.Address.IsValid() {
			err = errors.New("it has an element of conflicts without an address")
		}
		if _, bad := net.ParseMAC(c.MAC); bad != nil {
			err = fmt.Errorf("the user of %s: %w", c.Address, bad)
		}
		addrs = append(addrs, c.Address)
	}
	if err != nil {
		return nil, &cni.Error{Code: uint(cnitypes.ErrDecodingFailure), Message: "the agent cannot read the report of an IP conflict", Details: err.Error()}
	}
	return addrs, nil
}

func joined(addrs []netip.Addr) string {
	var s []string
	for _, addr := range addrs {
		s = append(s, addr.String())
	}
	return strings.Join(s, ", ")
}

// anySticky reports whether an identity has one of the addresses.
func (a *Agent) anySticky(addrs []netip.Addr) bool {
	for _, e := range a.lessee.Entries() {
		for _, addr := range addrs {
			if e.Addr == addr && e.Sticky {
				return true
			}
		}
	}
	return false
}

// warnOfConflict writes an event of a pod that cannot start before somebody
// does something. The answer to the plugin says the same, so it is no reason
// to fail when the event cannot be written.
func (a *Agent) warnOfConflict(ctx context.Context, q *cni.ConflictRequest) {
	for _, c := range q.Conflicts {
		message := fmt.Sprintf("IP conflict on %s: %s, which this pod keeps, is used by a machine with hardware address %s: take the address away from that machine, and the pod starts",
			q.Interface, c.Address, c.MAC)
		if err := a.events.warn(ctx, a.reference(q.Pod), reasonConflict, message); err != nil {
			a.log.Warn("event", "outcome", "error", "pod", q.Pod.Namespace+"/"+q.Pod.Name, "err", err)
		}
	}
}
