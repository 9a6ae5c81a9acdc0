package coordinator

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// del removes what belongs to an interface from the node.
func (c *config) del(args *skel.CmdArgs) error {
	node, err := openNode()
	if err != nil {
		return err
	}
	defer node.close()
	if err := node.lock(); err != nil {
		return err
	}
	name := hostVethOf(args.ContainerID)
	if args.IfName == c.PodDefaultCniNIC {
		err = node.removePair(name, args.ContainerID)
	} else {
		err = node.removeRoutes(name, c.PodDefaultCniNIC, args)
	}
	if err != nil {
		return err
	}
	return node.tidy()
}

// removePair removes the pair of a container, and its routes and neighbours with
// it. The name says whose it is, unless an alias says otherwise.
func (s *space) removePair(name, container string) error {
	l, err := byName(s, name)
	if err != nil || l == nil {
		return err
	}
	alias := l.Attrs().Alias
	if l.Type() != "veth" || strings.HasPrefix(alias, aliasPrefix) && !strings.HasSuffix(alias, " "+container) {
		return nil
	}
	return s.removeLink(l)
}

func (s *space) removeLink(l netlink.Link) error {
	err := s.LinkDel(l)
	if err == nil || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return fmt.Errorf("remove %s: %w", l.Attrs().Name, err)
}

// removeRoutes removes the node's routes and neighbours of a pod's addresses
// that are none of the other interfaces' of the pod. Without the pod's
// namespace there is nothing: its end of the pair is gone, and so is the node's.
func (s *space) removeRoutes(name, firstNIC string, args *skel.CmdArgs) error {
	if args.Netns == "" {
		return nil
	}
	pod, err := openPod(args.Netns)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return err
	}
	defer pod.close()
	podView, err := pod.look()
	if err != nil {
		return fmt.Errorf("look at the pod: %w", err)
	}
	now, err := s.look()
	if err != nil {
		return fmt.Errorf("look at the node: %w", err)
	}
	dev := now.link(name)
	if first := podView.link(firstNIC); dev == nil && first != nil {
		dev = now.linkAt(first.peer)
		if dev != nil && dev.peer != first.index {
			dev = nil
		}
	}
	if dev == nil {
		return nil
	}
	return leftovers(now, podView, dev.name, args.IfName).removeStale(s, now)
}

// leftovers returns the node's routes and neighbours through an interface that
// lead to none of the pod's interfaces but the one that goes.
func leftovers(node, pod *view, dev, going string) *side {
	var stay []netip.Addr
	for _, l := range pod.links {
		if l.name != going {
			for _, a := range l.addrs {
				stay = append(stay, a.prefix.Addr())
			}
		}
	}
	d := &side{}
	for _, r := range node.routes {
		if r.dev == dev && r.protocol == protocol && !slices.Contains(stay, r.destination.Addr()) {
			d.staleRoutes = append(d.staleRoutes, r)
		}
	}
	for _, n := range node.neighbours {
		if n.dev == dev && n.permanent && slices.ContainsFunc(d.staleRoutes, func(r route) bool { return r.destination == whole(n.addr) }) {
			d.staleNeighbours = append(d.staleNeighbours, n)
		}
	}
	return d
}

// tidy brings what the node's pods share to what its routes say: it removes
// the rules for tables of pods that are empty, and keeps the list of pods that
// are masqueraded. Whoever makes a route holds the lock until that is done.
func (s *space) tidy() error {
	now := &view{}
	names, err := s.lookLinks(now)
	if err != nil {
		return err
	}
	if err := errors.Join(s.lookRoutes(now, names), s.lookRules(now)); err != nil {
		return err
	}
	return errors.Join(s.removeRules(now), s.masquerade(now))
}

func (s *space) removeRules(now *view) error {
	for _, r := range now.rules {
		if r.priority != sharedPriority || r.protocol != protocol || r.other || slices.ContainsFunc(now.routes, func(there route) bool {
			return there.table == r.table && there.family() == r.family
		}) {
			continue
		}
		if err := s.RuleDel(r.kernel()); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove the rule %d for table %d: %w", r.priority, r.table, err)
		}
	}
	return nil
}

// collect removes the pairs of the network whose sandboxes are over.
func (c *config) collect() error {
	node, err := openNode()
	if err != nil {
		return err
	}
	defer node.close()
	if err := node.lock(); err != nil {
		return err
	}
	links, err := again(node.LinkList)
	if err != nil {
		return fmt.Errorf("list the interfaces: %w", err)
	}
	var failed error
	for _, l := range links {
		container, ours := strings.CutPrefix(l.Attrs().Alias, aliasOf("", c.Name))
		if !ours || l.Type() != "veth" || l.Attrs().Name != hostVethOf(container) || c.isValid(container) {
			continue
		}
		failed = errors.Join(failed, node.removeLink(l))
	}
	return errors.Join(failed, node.tidy())
}

func (c *config) isValid(container string) bool {
	for _, valid := range *c.ValidAttachments {
		if valid.ContainerID == container {
			return true
		}
	}
	return false
}
