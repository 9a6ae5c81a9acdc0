package coordinator

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"go4.org/netipx"
	"golang.org/x/sys/unix"
)

// apply gives both namespaces what the plan says. What is there already stays
// as it is, so that it can be done again after it ended half way. What must go
// from the pod goes last, when its replacement is there.
func (p *plan) apply(node, pod *space) error {
	if p.pair != nil {
		if err := p.pair.make(node, pod); err != nil {
			return err
		}
	}
	if err := p.applyNIC(pod); err != nil {
		return err
	}
	if err := p.pod.apply(pod, p.pair, podVeth); err != nil {
		return fmt.Errorf("in the pod: %w", err)
	}
	if err := applyMarks(pod, p.pod.marks); err != nil {
		return fmt.Errorf("in the pod: %w", err)
	}
	host := ""
	if p.pair != nil {
		host = p.pair.host
	}
	if err := p.node.apply(node, p.pair, host); err != nil {
		return fmt.Errorf("on the node: %w", err)
	}
	return nil
}

// applyNIC sets what concerns the interface itself.
func (p *plan) applyNIC(pod *space) error {
	nic, err := pod.LinkByName(p.nic)
	if err != nil {
		return fmt.Errorf("look %s up: %w", p.nic, err)
	}
	if p.mac != "" && nic.Attrs().HardwareAddr.String() != p.mac {
		mac, err := net.ParseMAC(p.mac)
		if err != nil {
			return fmt.Errorf("set the hardware address of %s: %w", p.nic, err)
		}
		if err := pod.LinkSetHardwareAddr(nic, mac); err != nil {
			return fmt.Errorf("set the hardware address of %s to %s, as podMACPrefix asks for (links of type %s may not have one of their own): %w", p.nic, mac, nic.Type(), err)
		}
	}
	if p.queue > 0 && nic.Attrs().TxQLen != p.queue {
		if err := pod.LinkSetTxQLen(nic, p.queue); err != nil {
			return fmt.Errorf("set the transmit queue of %s to %d: %w", p.nic, p.queue, err)
		}
	}
	return nil
}

// apply gives a namespace its side. The end of a pair gets its sysctls before
// it is set up.
func (d *side) apply(in *space, p *pair, end string) error {
	if err := in.inside(func() error {
		for _, s := range d.sysctls {
			if err := s.set(); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if p != nil {
		if err := in.up(end); err != nil {
			return err
		}
	}
	for _, a := range d.addresses {
		if err := in.addAddress(a); err != nil {
			return err
		}
	}
	now, err := in.look()
	if err != nil {
		return err
	}
	for _, step := range []func(*space, *view) error{d.applyNeighbours, d.applyRoutes, d.applyRules, d.removeStale} {
		if err := step(in, now); err != nil {
			return err
		}
	}
	return nil
}

func (s *space) up(name string) error {
	l, err := s.LinkByName(name)
	if err == nil {
		err = s.LinkSetUp(l)
	}
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

func (s *space) addAddress(a ownAddress) error {
	l, err := s.LinkByName(a.dev)
	if err == nil {
		addr := &netlink.Addr{IPNet: netipx.PrefixIPNet(a.prefix)}
		if a.prefix.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		} else {
			addr.Scope = unix.RT_SCOPE_LINK
		}
		err = s.AddrReplace(l, addr)
	}
	if err != nil {
		return fmt.Errorf("give %s the address %s: %w", a.dev, a.prefix.Addr(), err)
	}
	return nil
}

func (d *side) applyNeighbours(in *space, now *view) error {
	for _, n := range d.neighbours {
		if slices.Contains(now.neighbours, n) {
			continue
		}
		entry, err := n.kernel(now)
		if err == nil {
			err = in.NeighSet(entry)
		}
		if err != nil {
			return fmt.Errorf("make the neighbour %s on %s: %w", n.addr, n.dev, err)
		}
	}
	return nil
}

func (n neighbour) kernel(now *view) (*netlink.Neigh, error) {
	l := now.link(n.dev)
	if l == nil {
		return nil, fmt.Errorf("there is no interface %s", n.dev)
	}
	entry := &netlink.Neigh{LinkIndex: l.index, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT, IP: n.addr.AsSlice()}
	if n.addr.Is6() {
		entry.Family = netlink.FAMILY_V6
	}
	if n.mac == "" {
		return entry, nil
	}
	mac, err := net.ParseMAC(n.mac)
	entry.HardwareAddr = mac
	return entry, err
}

func (d *side) applyRoutes(in *space, now *view) error {
	for _, r := range d.routes {
		if slices.ContainsFunc(now.routes, r.is) {
			continue
		}
		entry, err := r.kernel(now)
		if err == nil {
			err = in.RouteReplace(entry)
		}
		if err != nil {
			return fmt.Errorf("make the route to %s through %s in table %d: %w", r.destination, r.dev, r.table, err)
		}
	}
	return nil
}

// is reports whether a planned route is one of the kernel's.
func (r route) is(there route) bool {
	return r.leadsLike(there) && r.gateway == there.gateway && (r.source == there.source || !r.source.IsValid()) &&
		(r.mtu == there.mtu && r.advMSS == there.advMSS)
}

// leadsLike reports whether a planned route and one of the kernel's lead to the
// same destination through the same interface.
func (r route) leadsLike(there route) bool {
	return r.table == there.table && r.destination == there.destination && r.dev == there.dev && (r.metric == 0 || r.metric == there.metric)
}

func (r route) kernel(now *view) (*netlink.Route, error) {
	l := now.link(r.dev)
	if l == nil {
		return nil, fmt.Errorf("there is no interface %s", r.dev)
	}
	entry := &netlink.Route{
		LinkIndex: l.index, Table: r.table, Dst: netipx.PrefixIPNet(r.destination), Scope: netlink.SCOPE_LINK, Src: stdIP(r.source),
		Priority: r.metric, MTU: r.mtu, AdvMSS: r.advMSS, Protocol: netlink.RouteProtocol(r.protocol),
	}
	if r.gateway.IsValid() {
		entry.Gw, entry.Scope = r.gateway.AsSlice(), netlink.SCOPE_UNIVERSE
		entry.SetFlag(netlink.FLAG_ONLINK)
	}
	return entry, nil
}

// stdIP returns nil for the zero Addr.
func stdIP(addr netip.Addr) net.IP { return addr.AsSlice() }

func (d *side) applyRules(in *space, now *view) error {
	for _, r := range d.rules {
		if slices.ContainsFunc(now.rules, r.is) {
			continue
		}
		if err := in.RuleAdd(r.kernel()); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make the rule %d for table %d: %w", r.priority, r.table, err)
		}
	}
	return nil
}

// is reports whether a planned rule is one of the kernel's, whoever made it.
func (r rule) is(there rule) bool {
	there.protocol = r.protocol
	return r == there
}

func (r rule) kernel() *netlink.Rule {
	entry := netlink.NewRule()
	entry.Family, entry.Priority, entry.Table, entry.Mark, entry.Protocol = netlink.FAMILY_V4, r.priority, r.table, r.mark, uint8(r.protocol)
	if r.family == ipv6 {
		entry.Family = netlink.FAMILY_V6
	}
	if r.from.Bits() > 0 {
		entry.Src = netipx.PrefixIPNet(r.from)
	}
	return entry
}

// removeStale removes what must go; what is gone already is no error.
func (d *side) removeStale(in *space, now *view) error {
	for _, r := range d.staleRoutes {
		entry, err := r.kernel(now)
		if err == nil {
			entry.Flags, entry.Protocol = 0, 0
			err = in.RouteDel(entry)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove the route to %s through %s from table %d: %w", r.destination, r.dev, r.table, err)
		}
	}
	for _, n := range d.staleNeighbours {
		entry, err := n.kernel(now)
		if err == nil {
			err = in.NeighDel(entry)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove the old neighbour %s on %s: %w", n.addr, n.dev, err)
		}
	}
	return nil
}
