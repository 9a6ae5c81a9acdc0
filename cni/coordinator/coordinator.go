package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/cni/detect"
)

// Failed is how a message begins that says why a pod's interface could not be
// coordinated, when it is not the configuration's fault.
const Failed = "the coordinator failed: "

// Add connects the pod with its node as the mode says, announces the
// interface's addresses, and prints prevResult in the configuration's version,
// with the interface's hardware address if that was changed (CNI spec, section
// 2, ADD). It may be run again, whatever an earlier run left. The errors of all
// verbs are *types.Error.
func Add(ctx context.Context, args *skel.CmdArgs) error {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	if err := conf.parsePrevResult("ADD"); err != nil {
		return err
	}
	if conf.Mode == modeDisabled {
		return types.PrintResult(conf.PrevResult, conf.CNIVersion)
	}
	ctx, cancel := context.WithTimeout(ctx, cni.AddTimeout)
	defer cancel()
	s, err := conf.ask(ctx, args)
	if err != nil {
		return err
	}
	if s.mode == modeDisabled {
		return types.PrintResult(conf.PrevResult, conf.CNIVersion)
	}
	result, err := conf.add(ctx, s, args)
	if err != nil {
		return printable(err)
	}
	return types.PrintResult(result, conf.CNIVersion)
}

// ask returns the settings of an interface.
func (c *config) ask(ctx context.Context, args *skel.CmdArgs) (*settings, error) {
	attachment := cni.Attachment{ContainerID: args.ContainerID, Interface: args.IfName}
	var err error
	if attachment.Pod, err = cni.ParsePod(args.Args); err != nil {
		return nil, err
	}
	client := &cni.Client{Socket: c.Socket, Patience: cni.AddPatience}
	cluster, err := client.Coordination(ctx, cni.CoordinationRequest{Attachment: attachment, Mode: c.Mode})
	if err != nil {
		return nil, cni.Printable(err, Failed)
	}
	return c.settings(cluster)
}

// add coordinates an interface and returns the result to print.
func (c *config) add(ctx context.Context, s *settings, args *skel.CmdArgs) (types.Result, error) {
	result, err := current.NewResultFromResult(c.PrevResult)
	if err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "prevResult cannot be read", err.Error())
	}
	node, pod, err := openBoth(args.Netns)
	if err != nil {
		return nil, err
	}
	defer node.close()
	defer pod.close()
	if err := up(pod, args.IfName); err != nil {
		return nil, err
	}
	p, err := c.carryOut(s, args, result, node, pod)
	if err != nil {
		return nil, err
	}
	if err := announce(ctx, args, pod); err != nil {
		return nil, err
	}
	if p.mac == "" {
		return c.PrevResult, nil
	}
	for _, i := range result.Interfaces {
		if i.Name == args.IfName && i.Sandbox != "" {
			i.Mac = p.mac
		}
	}
	return result, nil
}

// carryOut makes the plan of an interface come true, while nobody else changes
// what the node's pods share.
func (c *config) carryOut(s *settings, args *skel.CmdArgs, result *current.Result, node, pod *space) (*plan, error) {
	if err := node.lock(); err != nil {
		return nil, err
	}
	p, err := c.plan(s, args, result, node, pod)
	if err != nil {
		return nil, err
	}
	if err := p.apply(node, pod); err != nil {
		return nil, err
	}
	if err := node.tidy(); err != nil {
		return nil, err
	}
	return p, node.unlock()
}

// plan looks at both namespaces and returns the plan of an interface.
func (c *config) plan(s *settings, args *skel.CmdArgs, result *current.Result, node, pod *space) (*plan, error) {
	nodeView, err := node.look()
	if err != nil {
		return nil, fmt.Errorf("look at the node: %w", err)
	}
	podView, err := pod.look()
	if err != nil {
		return nil, fmt.Errorf("look at the pod: %w", err)
	}
	r := request{settings: s, container: args.ContainerID, network: c.Name, ifName: args.IfName, pod: podView, node: nodeView}
	r.routed, r.offered = gateways(result, args.IfName)
	return newPlan(r)
}

// gateways returns what a result says of the routers of an interface: of its
// default routes, and of its addresses.
func gateways(result *current.Result, ifName string) (routed, offered map[family]netip.Addr) {
	routed, offered = make(map[family]netip.Addr), make(map[family]netip.Addr)
	for _, ip := range result.IPs {
		if i := ip.Interface; i != nil && (*i < 0 || *i >= len(result.Interfaces) || result.Interfaces[*i].Name != ifName) {
			continue
		}
		if gateway := addrOf(ip.Gateway); gateway.IsValid() && !offered[familyOf(gateway)].IsValid() {
			offered[familyOf(gateway)] = gateway
		}
	}
	for _, r := range result.Routes {
		to, ok := netipx.FromStdIPNet(&r.Dst)
		if !ok || to.Bits() != 0 {
			continue
		}
		f := familyOf(to.Addr())
		routed[f] = orElse(addrOf(r.GW), offered[f])
	}
	return routed, offered
}

// up sets the interface up.
func up(pod *space, ifName string) error {
	l, err := byName(pod, ifName)
	if err != nil || l == nil {
		return err // without it, there is no plan, which says so
	}
	if err := pod.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", ifName, err)
	}
	return nil
}

// announce tells the neighbours who has the interface's addresses, as these may
// have had another node and another hardware address until just now. Where
// there is no carrier, nobody hears it.
func announce(ctx context.Context, args *skel.CmdArgs, pod *space) error {
	l, err := pod.LinkByName(args.IfName)
	if err != nil {
		return fmt.Errorf("look %s up: %w", args.IfName, err)
	}
	addrs, err := again(func() ([]netlink.Addr, error) { return pod.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list the addresses of %s: %w", args.IfName, err)
	}
	var targets []detect.Target
	for _, a := range addrs {
		if addr := addrOf(a.IP); addr.IsGlobalUnicast() {
			targets = append(targets, detect.Target{Addr: addr})
		}
	}
	if len(targets) == 0 {
		return nil
	}
	if _, err := detect.Probe(ctx, args.Netns, args.IfName, targets); err != nil && !errors.Is(err, detect.ErrNoNeighbours) && !errors.Is(err, detect.ErrNoCarrier) {
		return fmt.Errorf("announce the addresses of %s: %w", args.IfName, err)
	}
	return nil
}

// openBoth opens the node's and the pod's namespaces.
func openBoth(path string) (node, pod *space, err error) {
	if node, err = openNode(); err != nil {
		return nil, nil, err
	}
	if pod, err = openPod(path); err != nil {
		node.close()
		return nil, nil, err
	}
	return node, pod, nil
}

// Check fails when something is missing that an ADD makes, and names it (CNI
// spec, section 2, CHECK).
func Check(ctx context.Context, args *skel.CmdArgs) error {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	if err := conf.parsePrevResult("CHECK"); err != nil {
		return err
	}
	if conf.Mode == modeDisabled {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, cni.AddTimeout)
	defer cancel()
	s, err := conf.ask(ctx, args)
	if err != nil || s.mode == modeDisabled {
		return err
	}
	missing, err := conf.check(s, args)
	if err != nil {
		return printable(err)
	}
	if len(missing) > 0 {
		return types.NewError(types.ErrInternal, fmt.Sprintf("%s of the pod lacks %s", args.IfName, strings.Join(missing, "; ")),
			"somebody has removed it; it is made again when the pod is recreated")
	}
	return nil
}

func (c *config) check(s *settings, args *skel.CmdArgs) ([]string, error) {
	result, err := current.NewResultFromResult(c.PrevResult)
	if err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "prevResult cannot be read", err.Error())
	}
	node, pod, err := openBoth(args.Netns)
	if err != nil {
		return nil, err
	}
	defer node.close()
	defer pod.close()
	p, err := c.plan(s, args, result, node, pod)
	if err != nil {
		return nil, err
	}
	return p.missing(node, pod)
}

// Del removes what an ADD made on the node. It needs no agent, no pod and no
// prevResult, and succeeds for what is not there (CNI spec, section 2, DEL).
//
// With the pod's first interface goes its pair, known by the container ID, and
// the kernel takes the routes with it. With another one go its routes alone; for
// that the pod's namespace is looked at, and if it is gone, so are they.
func Del(args *skel.CmdArgs) error {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		// What was made must go even if nobody can read any more what for.
		conf = &config{PodDefaultCniNIC: defaultNIC}
	}
	return printable(conf.del(args))
}

// GC removes the pairs of all sandboxes of the network that are not in
// cni.dev/valid-attachments (CNI spec 1.1.0, section 2, GC). A configuration
// without that list is refused: what is not known to be over is in use.
func GC(args *skel.CmdArgs) error {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	if conf.ValidAttachments == nil {
		return wrong("GC needs the list cni.dev/valid-attachments, and the network configuration has none",
			"nothing was removed; a runtime without attachments must say so with an empty list")
	}
	return printable(conf.collect())
}

// Ready is the verb STATUS (CNI spec 1.1.0, section 2): it fails while an ADD
// would fail, which needs the agent.
func Ready(ctx context.Context, args *skel.CmdArgs) error {
	conf, err := parseConfig(args.StdinData)
	if err != nil || conf.Mode == modeDisabled {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, cni.AddTimeout)
	defer cancel()
	return (&cni.Client{Socket: conf.Socket, Patience: cni.AddPatience}).Ready(ctx)
}

// printable returns an error as the CNI error that is printed.
func printable(err error) error {
	if err == nil {
		return nil
	}
	if said, ok := errors.AsType[*types.Error](err); ok {
		return said
	}
	advice := "it is tried again by itself; if that does not help, see the kernel's log on this node for the reason"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		advice = "the pod is gone, or the kernel of this node lacks something"
	case errors.Is(err, unix.EPERM):
		advice = "the plugin needs the rights of root on the node: a container runtime must start it as root, in the node's own network namespace"
	case errors.Is(err, unix.EOPNOTSUPP):
		advice = "the node's kernel lacks the driver, or the interface is of a kind that cannot have this: leave the setting out"
	case errors.Is(err, netlink.ErrDumpInterrupted):
		advice = "the node's network changes all the time; it is tried again"
	}
	return types.NewError(types.ErrInternal, Failed+err.Error(), advice)
}
