package coordinator

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ipam/holdfast/cni"
)

// A pod with several interfaces has, beside its main table, one table for each:
// what has an interface's address as its source leaves through that interface.
// Which one has the default route of the main table is for the user to say.

// planTables plans the tables of a pod with several interfaces of a family. It
// returns the tables to which the routes of this interface belong: the main
// one, its own one, or both.
func (p *planner) planTables(f family) ([]int, error) {
	nics := p.nics(f)
	if !p.tune || len(nics) < 2 || p.ifName == p.firstNIC {
		return []int{unix.RT_TABLE_MAIN}, nil
	}
	owner, err := p.owner(f, nics)
	if err != nil {
		return nil, err
	}
	own := p.table(p.nic)
	for _, nic := range nics {
		if nic == p.nic || nic == owner || nic.name == p.firstNIC || len(p.pod.defaultsOf(unix.RT_TABLE_MAIN, nic.name, f)) > 0 {
			p.planTable(f, nic, p.table(nic))
			if owner != nil && nic != owner {
				p.demote(f, nic)
			}
		}
	}
	if owner != nil {
		p.promote(f, owner)
	}
	if owner == p.nic {
		return []int{unix.RT_TABLE_MAIN, own}, nil
	}
	return []int{own}, nil
}

// checkRouteNIC refuses an interface for the default route that the pod never
// gets. The cluster's word is for all pods, those without it too, and so is a
// network's for those of one interface.
func (p *planner) checkRouteNIC() error {
	name := p.routeNIC
	switch {
	case name == "" || !p.tune || p.interfaces == nil || slices.Contains(p.interfaces, name) || p.pod.link(name) != nil:
		return nil
	case p.byPod:
		return wrong(fmt.Sprintf("the pod's annotation %s is %q, and the pod gets no such interface", routeAnnotation, name),
			"name one of "+strings.Join(p.interfaces, ", "))
	case !p.byNetwork || len(p.interfaces) < 2:
		return nil
	}
	return wrong(fmt.Sprintf("podDefaultRouteNic is %q, and the pod gets no such interface", name),
		fmt.Sprintf("name one of %s, in the network or in the pod's annotation %s", strings.Join(p.interfaces, ", "), routeAnnotation))
}

// owner returns the interface that is to have the main table's default route:
// the one that is asked for, the one that has it, or this one. Nil: none of
// them has a router.
//
// The one that is asked for may not be there yet, as a pod gets its interfaces
// one by one; it takes the route over when it comes.
func (p *planner) owner(f family, nics []*link) (*link, error) {
	var owner *link
	for _, nic := range nics {
		switch {
		case nic.name == p.routeNIC && len(p.defaults(f, nic)) > 0:
			return nic, nil
		case nic == p.nic || len(p.pod.defaultsOf(unix.RT_TABLE_MAIN, nic.name, f)) == 0:
		case owner == nil || nic.name == p.firstNIC:
			owner = nic
		}
	}
	if p.ifName == p.routeNIC && owner != nil && !p.canOwn() {
		return nil, wrong(fmt.Sprintf("%s is to have the pod's default route, and has no router", p.ifName),
			"give its pool a gateway, or name another interface in podDefaultRouteNic or the pod's annotation "+routeAnnotation)
	}
	if owner == nil && len(p.defaults(f, p.nic)) > 0 {
		owner = p.nic
	}
	return owner, nil
}

// canOwn reports whether the interface has a router of any family. With one of
// IPv4 only, IPv6 stays where it is.
func (p *planner) canOwn() bool {
	for _, f := range families() {
		if len(p.defaults(f, p.nic)) > 0 {
			return true
		}
	}
	return false
}

// defaults returns the default routes that an interface has or, after an ADD
// that ended half way or a change by hand, is to have: those of the main
// table, of its own table, or of the main plugin's result.
func (p *planner) defaults(f family, nic *link) []route {
	if routes := p.pod.defaultsOf(unix.RT_TABLE_MAIN, nic.name, f); len(routes) > 0 {
		return routes
	}
	if own := p.ruled(nic); own != 0 {
		if routes := p.pod.defaultsOf(own, nic.name, f); len(routes) > 0 {
			return routes
		}
	}
	if nic != p.nic {
		return nil
	}
	gateway := p.routed[f]
	if !gateway.IsValid() && nic.name == p.routeNIC {
		gateway = p.offered[f]
	}
	if !gateway.IsValid() {
		return nil
	}
	return []route{{destination: f.everything(), gateway: gateway, dev: nic.name}}
}

// planTable plans the table of one interface: its own routes, and those
// through the node.
func (p *planner) planTable(f family, nic *link, table int) {
	routes := slices.Concat(p.defaults(f, nic), p.pod.routesOf(unix.RT_TABLE_MAIN, nic.name, f))
	if nic == p.nic {
		routes = append(routes, p.throughNode(f, table)...)
	} else {
		routes = slices.Concat(routes, p.pod.routesOf(unix.RT_TABLE_MAIN, p.dev, f), p.planned(f))
	}
	for _, r := range routes {
		if r.destination.Addr().IsLinkLocalUnicast() || r.dev == p.dev && slices.Contains(p.plan.pod.staleRoutes, r) {
			continue // who asks for a link's neighbour names the link; see leaveToLink
		}
		if r.dev == p.dev && r.protocol == protocol {
			r.source = netip.Addr{} // who looks here has a source
		}
		r.table, r.protocol = table, protocol
		if !slices.ContainsFunc(p.plan.pod.routes, r.replaces) {
			p.plan.pod.routes = append(p.plan.pod.routes, r)
		}
	}
	for _, a := range nic.global(f) {
		p.plan.pod.rules = append(p.plan.pod.rules, rule{family: f, priority: sourcePriority, from: whole(a.prefix.Addr()), table: table, protocol: protocol})
	}
}

// planned returns the routes through the node that this very plan adds to the
// main table.
func (p *planner) planned(f family) []route {
	return slices.DeleteFunc(slices.Clone(p.plan.pod.routes), func(r route) bool {
		return r.table != unix.RT_TABLE_MAIN || r.dev != p.dev || r.family() != f
	})
}

// replaces reports whether the kernel keeps only one of two routes.
func (r route) replaces(other route) bool {
	return r.table == other.table && r.destination == other.destination && (r.metric == other.metric || r.metric == 0 || other.metric == 0)
}

// demote takes an interface's default routes from the main table.
func (p *planner) demote(f family, nic *link) {
	p.plan.pod.staleRoutes = append(p.plan.pod.staleRoutes, p.pod.defaultsOf(unix.RT_TABLE_MAIN, nic.name, f)...)
	if f == ipv6 {
		// A router that advertises itself would be back with its next message
		// (RFC 4861, section 6.3.4).
		p.plan.pod.sysctls = append(p.plan.pod.sysctls, sysctl{"ipv6/conf/" + nic.name + "/accept_ra_defrtr", "0", true})
	}
}

// promote sees to it that an interface has the main table's default route.
func (p *planner) promote(f family, nic *link) {
	if len(p.pod.defaultsOf(unix.RT_TABLE_MAIN, nic.name, f)) > 0 {
		return
	}
	for _, r := range p.defaults(f, nic) {
		r.table, r.protocol = unix.RT_TABLE_MAIN, protocol
		p.plan.pod.routes = append(p.plan.pod.routes, r)
	}
}

// ruled returns the table that an interface's addresses have a rule for, or 0.
func (p *planner) ruled(nic *link) int {
	for _, r := range p.pod.rules {
		if r.priority == sourcePriority && !r.other && slices.ContainsFunc(nic.globals(), func(a address) bool { return whole(a.prefix.Addr()) == r.from }) {
			return r.table
		}
	}
	return 0
}

// table returns the table of an interface, the same for both families: the one
// that it has by a rule, or a free one.
func (p *planner) table(nic *link) int {
	table := orElse(p.tables[nic.name], p.ruled(nic))
	switch {
	case table != 0:
	case nic.name == p.firstNIC && p.overlay:
		table = replyTable
	case nic.name == p.firstNIC:
		table = firstTable
	default:
		for table = nicTable; !p.free(table, nic); table++ {
		}
	}
	p.tables[nic.name] = table
	return table
}

// free reports whether nobody but the interface uses a table. Routes of its own
// or through the node may be there from an ADD that ended half way.
func (p *planner) free(table int, nic *link) bool {
	for _, given := range p.tables {
		if table == given {
			return false
		}
	}
	for _, r := range p.pod.rules {
		if r.table == table {
			return false
		}
	}
	for _, r := range p.pod.routes {
		if r.table == table && r.dev != nic.name && r.dev != p.dev {
			return false
		}
	}
	return true
}

// planPolicyRoutes plans the routes that are asked for, in the tables of the
// interface.
func (p *planner) planPolicyRoutes(f family, tables []int) error {
	for _, r := range slices.Concat(p.policyRoutes, p.clusterRoutes) {
		if familyOf(r.Gateway) != f {
			continue
		}
		if !slices.ContainsFunc(p.nic.global(f), func(a address) bool { return a.prefix.Masked().Contains(r.Gateway) }) {
			if slices.Contains(p.clusterRoutes, r) {
				continue // another interface's
			}
			return wrong(fmt.Sprintf("policyRoutes leads to %s through %s, and %s is not on %s", r.Destination, r.Gateway, r.Gateway, p.ifName),
				"use a router of a network that the interface has an address of: "+prefixesOf(p.nic.global(f)))
		}
		for _, table := range tables {
			if err := p.planPolicyRoute(r, table); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *planner) planPolicyRoute(r cni.PolicyRoute, table int) error {
	wanted := route{table: table, destination: r.Destination.Masked(), gateway: r.Gateway, dev: p.ifName, protocol: protocol}
	for _, there := range slices.Concat(p.pod.routes, p.plan.pod.routes) {
		if there.table == table && there.destination == wanted.destination && (there.dev != wanted.dev || there.gateway != wanted.gateway) {
			return wrong(fmt.Sprintf("policyRoutes leads to %s through %s, and the pod has a route there already through %s on %s", r.Destination, r.Gateway, orLink(there.gateway), there.dev),
				"leave one of the two out: it comes from the pool, from hijackCIDR, or from another network of the pod")
		}
	}
	p.plan.pod.routes = append(p.plan.pod.routes, wanted)
	return nil
}

func orLink(gateway netip.Addr) string {
	if !gateway.IsValid() {
		return "no router"
	}
	return gateway.String()
}

func prefixesOf(addrs []address) string {
	text := ""
	for i, a := range addrs {
		if i > 0 {
			text += ", "
		}
		text += a.prefix.Masked().String()
	}
	return text
}
