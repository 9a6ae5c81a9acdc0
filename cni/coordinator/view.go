package coordinator

import (
	"net/netip"
	"slices"
)

// The types of this file are what a network namespace has, and what it is to
// have, as plain values that can be compared. Interfaces are named, not
// numbered: a plan tells of some that are not made yet.

// family is an IP version.
type family int

const (
	ipv4 family = 4
	ipv6 family = 6
)

// families are both, in the order in which things are listed.
func families() []family { return []family{ipv4, ipv6} }

func familyOf(addr netip.Addr) family {
	if addr.Is4() {
		return ipv4
	}
	return ipv6
}

// everything is the destination of the family's default route.
func (f family) everything() netip.Prefix {
	if f == ipv4 {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// whole is the network of one address.
func whole(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }

// view is what a namespace has at one moment.
type view struct {
	links      []link
	routes     []route
	rules      []rule
	neighbours []neighbour
}

// link is an interface.
type link struct {
	index int
	name  string
	kind  string
	mac   string
	alias string
	// peer is the index of the other end of a veth pair, which may be in
	// another namespace.
	peer  int
	addrs []address
}

// address is an address of an interface.
type address struct {
	prefix netip.Prefix
	// tentative: it cannot be used as a source yet (RFC 4862, section 5.4).
	tentative bool
}

// route is a route to a network through one interface. Of a route with several
// next hops, a view has one for each.
type route struct {
	table int
	// destination is masked.
	destination netip.Prefix
	// gateway is the zero Addr for neighbours on the link.
	gateway netip.Addr
	// source is what connections without a source begin with, or the zero Addr.
	source netip.Addr
	dev    string
	// metric 0 in a plan is what the kernel makes of it.
	metric      int
	mtu, advMSS int
	// protocol is who made the route.
	protocol int
}

func (r route) family() family  { return familyOf(r.destination.Addr()) }
func (r route) isDefault() bool { return r.destination.Bits() == 0 }

// rule is a rule of policy routing.
type rule struct {
	family   family
	priority int
	// from is the family's everything where the rule is for all sources.
	from  netip.Prefix
	mark  uint32
	table int
	// protocol is who made the rule.
	protocol int
	// other: it has conditions that the coordinator does not use.
	other bool
}

// neighbour is an entry that stays as it is (NUD_PERMANENT) in a plan, and any
// in a view.
type neighbour struct {
	dev       string
	addr      netip.Addr
	mac       string
	permanent bool
}

// link returns the interface with the name, or nil.
func (v *view) link(name string) *link {
	return v.find(func(l *link) bool { return l.name == name })
}

// linkAt returns the interface with the index, or nil.
func (v *view) linkAt(index int) *link {
	return v.find(func(l *link) bool { return l.index == index })
}

func (v *view) find(is func(*link) bool) *link {
	for i := range v.links {
		if is(&v.links[i]) {
			return &v.links[i]
		}
	}
	return nil
}

// routesOf returns the family's routes of a table through an interface.
func (v *view) routesOf(table int, dev string, f family) []route {
	var of []route
	for _, r := range v.routes {
		if r.table == table && r.dev == dev && r.family() == f {
			of = append(of, r)
		}
	}
	return of
}

// defaultsOf returns the family's default routes of a table through an
// interface.
func (v *view) defaultsOf(table int, dev string, f family) []route {
	return slices.DeleteFunc(v.routesOf(table, dev, f), func(r route) bool { return !r.isDefault() })
}

// global returns the addresses of a family that others can reach.
func (l *link) global(f family) []address {
	var of []address
	for _, a := range l.addrs {
		if familyOf(a.prefix.Addr()) == f && a.prefix.Addr().IsGlobalUnicast() {
			of = append(of, a)
		}
	}
	return of
}

// globals returns the addresses that others can reach, IPv4 first.
func (l *link) globals() []address { return append(l.global(ipv4), l.global(ipv6)...) }
