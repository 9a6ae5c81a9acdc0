package cni

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// Versions are the versions of the CNI specification that the plugins of this
// module speak: 0.3.0, 0.3.1, 0.4.0, 1.0.0 and 1.1.0. (0.1.0 and 0.2.0 know
// only one address of each family and no interfaces.)
func Versions() version.PluginInfo {
	return version.VersionsStartingFrom("0.3.0")
}

// Add gets the addresses of an interface from the agent, finds out whether they
// are used if the agent says so (unused.go), and prints them in the
// configuration's version (CNI spec, section 2, ADD). The errors of all
// verbs are *types.Error.
func Add(ctx context.Context, args *skel.CmdArgs) error {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	pod, err := ParsePod(args.Args)
	if err != nil {
		return err
	}
	master, err := conf.master()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, AddTimeout)
	defer cancel()
	answer, err := addUnused(ctx, conf.client(AddPatience), AddRequest{
		Attachment:       Attachment{ContainerID: args.ContainerID, Interface: args.IfName, Pod: pod},
		Network:          conf.Name,
		DefaultIPv4Pools: conf.IPAM.DefaultIPv4Pools,
		DefaultIPv6Pools: conf.IPAM.DefaultIPv6Pools,
		CleanGateway:     conf.IPAM.CleanGateway,
		Master:           master,
	}, args.Netns)
	if err != nil {
		return Printable(err, AddFailed+": ")
	}
	return types.PrintResult(answer.cniResult(), conf.CNIVersion)
}

// Del gives an interface's addresses back; it succeeds when there are none
// (CNI spec, section 2, DEL).
//
// With no agent it fails, with "try again later", and the runtime does: the
// pod stays Terminating until the agent is back. To succeed instead would
// leave an address behind that only the agent's own check finds later, and
// would start the successor of a StatefulSet's pod while the record still
// names its predecessor.
func Del(ctx context.Context, args *skel.CmdArgs) error {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, DelTimeout)
	defer cancel()
	err = conf.client(DelPatience).Del(ctx, DelRequest{Attachment: attachmentOf(args)})
	return Printable(err, "")
}

// Check fails when the agent does not hold the addresses of prevResult for
// the interface any more (CNI spec, section 2, CHECK).
func Check(ctx context.Context, args *skel.CmdArgs) error {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	addresses, err := conf.addresses(args.IfName)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, AddTimeout)
	defer cancel()
	err = conf.client(AddPatience).Check(ctx, CheckRequest{Attachment: attachmentOf(args), Addresses: addresses})
	return Printable(err, "")
}

// GC gives back the addresses of all attachments of the network that are not
// in cni.dev/valid-attachments (CNI spec 1.1.0, section 2, GC). A
// configuration without that list is refused: what is not known to be free
// is taken.
func GC(ctx context.Context, args *skel.CmdArgs) error {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	if conf.ValidAttachments == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "GC needs the list cni.dev/valid-attachments, and the network configuration has none",
			"nothing was given back; a runtime without attachments must say so with an empty list")
	}
	request := GCRequest{Network: conf.Name, Valid: []ValidAttachment{}}
	for _, valid := range *conf.ValidAttachments {
		request.Valid = append(request.Valid, ValidAttachment{ContainerID: valid.ContainerID, Interface: valid.IfName})
	}
	ctx, cancel := context.WithTimeout(ctx, AddTimeout)
	defer cancel()
	return Printable(conf.client(AddPatience).GC(ctx, request), "")
}

// Ready is the verb STATUS (CNI spec 1.1.0, section 2): it fails while an ADD
// would fail. Because an ADD waits for an agent that is being replaced,
// STATUS does too: containerd makes the whole node NotReady when it fails.
//
// The code is 50 and not 51 whatever is wrong: pods that have their addresses
// need no agent to use them.
func Ready(ctx context.Context, args *skel.CmdArgs) error {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, AddTimeout)
	defer cancel()
	return conf.client(AddPatience).Ready(ctx)
}

// Ready fails, with the *types.Error of the verb STATUS, while the agent would
// not serve an ADD.
func (c *Client) Ready(ctx context.Context) error {
	status, err := c.Status(ctx)
	if err != nil {
		return unavailable(err)
	}
	if !status.Ready {
		return types.NewError(types.ErrPluginNotAvailable,
			fmt.Sprintf("the Holdfast agent of node %s is not ready", status.Node), status.Reason)
	}
	return nil
}

// client returns a client for the agent that the configuration names.
func (c *config) client(patience time.Duration) *Client {
	return &Client{Socket: c.IPAM.Socket, Patience: patience}
}

// attachmentOf returns the attachment of a DEL or CHECK. CNI_ARGS that cannot
// be read are no reason to fail here: container ID and interface say which
// one it is, and a DEL that fails for it would fail for ever.
func attachmentOf(args *skel.CmdArgs) Attachment {
	attachment := Attachment{ContainerID: args.ContainerID, Interface: args.IfName}
	if pod, err := ParsePod(args.Args); err == nil {
		attachment.Pod = pod
	}
	return attachment
}

// Printable returns a Client's error as the CNI error that is printed: what
// the agent says unchanged, everything else with prefix in front.
func Printable(err error, prefix string) error {
	if err == nil {
		return nil
	}
	if said, ok := errors.AsType[*Error](err); ok {
		return types.NewError(said.Code, said.Message, said.Details)
	}
	switch {
	case errors.Is(err, ErrNoAnswer):
		return types.NewError(types.ErrTryAgainLater, prefix+err.Error(),
			"it is tried again by itself; if that does not help, see whether the agent's pod on this node runs and what it logs, and whether ipam_unix_socket_path is where it listens")
	case errors.Is(err, ErrNotUnderstood):
		return types.NewError(types.ErrDecodingFailure, prefix+err.Error(),
			"see what listens there, and restart the agent's pod on this node: it installs the plugin of its own version")
	default:
		return types.NewError(types.ErrInternal, prefix+err.Error(), "")
	}
}

// unavailable returns a Client's error as STATUS reports it. An agent may
// itself say 50 or 51.
func unavailable(err error) error {
	if said, ok := errors.AsType[*Error](err); ok {
		code := types.ErrPluginNotAvailable
		if said.Code == types.ErrLimitedConnectivity {
			code = said.Code
		}
		return types.NewError(code, said.Message, said.Details)
	}
	return types.NewError(types.ErrPluginNotAvailable, err.Error(),
		"no pod can start on this node until it does: see whether the agent's pod on this node runs and what it logs")
}
