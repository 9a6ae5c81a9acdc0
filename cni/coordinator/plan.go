package coordinator

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Names and numbers that an operator meets in `ip link`, `ip route` and
// `ip rule`. The tables, the mark and the rule of the node are Spiderpool's.
const (
	// podVeth is the pod's end of the pair, and hostVeth with the beginning of
	// the container ID the node's.
	podVeth    = "veth0"
	hostVeth   = "veth"
	hostVethID = 11
	// replyTable has the way back to the node, replyMark is the mark of what
	// goes there.
	replyTable = 100
	replyMark  = 0x1
	// sharedPriority is that of the node's rule for the table of pods, and of
	// the pod's for marked packets. sourcePriority comes behind it, before the
	// main table's 32766.
	sharedPriority = 1000
	sourcePriority = 1100
	// firstTable is the table of the first interface of a pod with several, and
	// nicTable where those of the others begin.
	firstTable = 99
	nicTable   = 101
	// protocol is who made a route or a rule, as `ip` shows it ("proto 72").
	// The numbers up to 255 are for routing daemons to choose; see
	// /etc/iproute2/rt_protos.
	protocol = 72
)

// plan is what the coordinator sees to, for one interface of one pod.
type plan struct {
	// nic is the interface, mac the hardware address it is to have (empty: the
	// one it has) and queue its transmit queue (0: the one it has).
	nic   string
	mac   string
	queue int
	// pair is nil where the pod's own veth pair serves.
	pair *pair
	pod  side
	node side
}

// side is what one namespace is to have, and what must go from it.
type side struct {
	sysctls    []sysctl
	addresses  []ownAddress
	neighbours []neighbour
	routes     []route
	rules      []rule
	// marks are the families whose replies are marked.
	marks []family

	staleRoutes     []route
	staleNeighbours []neighbour
}

// sysctl is a file below /proc/sys/net. One that is optional may be missing, in
// kernels without IPv6 or before 3.15.
type sysctl struct {
	file, value string
	optional    bool
}

// ownAddress is an address of an interface, for itself alone.
type ownAddress struct {
	dev    string
	prefix netip.Prefix
}

// request is what a plan is made from.
type request struct {
	*settings
	container, network, ifName string
	// routed are the gateways of default routes in prevResult, and offered
	// those of its addresses.
	routed, offered map[family]netip.Addr
	pod, node       *view
}

// planner makes a plan.
type planner struct {
	request
	nic *link
	// overlay: the pod's first interface serves in place of the pair.
	overlay bool
	// dev leads from the pod to its node and has podMAC, nodeDev from there to
	// the pod and has nodeMAC.
	dev, podMAC, nodeDev, nodeMAC string
	// hosts are the node's addresses. A family without has no way to the node.
	hosts map[family][]netip.Addr
	// tables are those that interfaces were given, by name.
	tables map[string]int
	plan   *plan
}

// newPlan returns what an interface needs, from what is asked and what the
// namespaces have. Nothing is changed. Errors are *types.Error.
func newPlan(r request) (*plan, error) {
	p := &planner{request: r, nic: r.pod.link(r.ifName), tables: make(map[string]int),
		plan: &plan{nic: r.ifName, queue: r.queue}}
	if p.nic == nil {
		return nil, wrong(fmt.Sprintf("the pod has no interface %s", r.ifName), "the main plugin before the coordinator has to make it: see its type and its master")
	}
	if err := p.setMode(); err != nil {
		return nil, err
	}
	if err := p.setEnds(); err != nil {
		return nil, err
	}
	if err := p.checkRouteNIC(); err != nil {
		return nil, err
	}
	p.hosts = hostsOf(r.node, p.nodeDev, p.nic.globals())
	p.setMAC()
	p.planSysctls()
	p.planNode()
	for _, f := range families() {
		if err := p.planPod(f); err != nil {
			return nil, err
		}
	}
	return p.plan, nil
}

// setMode decides between underlay and overlay.
func (p *planner) setMode() error {
	first, paired := p.ifName == p.firstNIC, p.pod.link(podVeth) != nil
	mode := p.mode
	if mode == modeAuto {
		mode = modeOverlay
		if first || paired {
			mode = modeUnderlay
		}
	}
	switch {
	case mode == modeUnderlay && !first && !paired:
		return wrong(fmt.Sprintf("mode underlay of %s needs the interface %s, and the pod has none", p.ifName, podVeth),
			fmt.Sprintf("the network of the pod's first interface, %s, must have the coordinator too; if that is an overlay network, use mode overlay or auto", p.firstNIC))
	case mode == modeOverlay && first:
		return wrong(fmt.Sprintf("mode overlay cannot be that of %s, the pod's first interface", p.ifName),
			"use mode underlay or auto in this network, or name the first interface in podDefaultCniNic")
	case mode == modeOverlay && paired:
		return wrong(fmt.Sprintf("mode overlay of %s, but the pod's first interface is one of an underlay network", p.ifName), "use mode underlay or auto")
	}
	p.overlay = mode == modeOverlay
	return nil
}

// setEnds finds out what connects pod and node.
func (p *planner) setEnds() error {
	if !p.overlay {
		if p.vethMTU < minMTU6 && len(p.nic.global(ipv6)) > 0 {
			return wrong(fmt.Sprintf("vethMTU is %d, and %s has an IPv6 address", p.vethMTU, p.ifName), fmt.Sprintf("IPv6 needs %d at least", minMTU6))
		}
		pair := pairOf(p.container, p.network, p.vethMTU)
		p.dev, p.podMAC, p.nodeDev, p.nodeMAC = podVeth, pair.podMAC, pair.host, pair.hostMAC
		if p.ifName == p.firstNIC {
			p.plan.pair = pair
		}
		return nil
	}
	first := p.pod.link(p.firstNIC)
	if first == nil {
		return wrong(fmt.Sprintf("mode overlay needs the pod's first interface, and there is no %s", p.firstNIC), "name the pod's first interface in podDefaultCniNic")
	}
	peer := p.node.linkAt(first.peer)
	if first.kind != "veth" || peer == nil || peer.kind != "veth" || peer.peer != first.index {
		return wrong(fmt.Sprintf("mode overlay needs %s to be a veth pair with its other end on the node, and it is of type %s", p.firstNIC, first.kind),
			"give the pod's first network the coordinator too, or switch it off for this one with mode disabled")
	}
	p.dev, p.podMAC, p.nodeDev, p.nodeMAC = first.name, first.mac, peer.name, peer.mac
	return nil
}

// setMAC sets the hardware address that begins with the prefix and ends with
// the interface's first address.
func (p *planner) setMAC() {
	addrs := p.nic.globals()
	if p.macPrefix == nil || len(addrs) == 0 {
		return
	}
	b := addrs[0].prefix.Addr().AsSlice()
	p.plan.mac = net.HardwareAddr(slices.Concat(p.macPrefix, b[len(b)-4:])).String()
}

// first reports whether the interface is the one that brings the pod its way
// to the node: in an underlay the pod's first; in an overlay, and for a family
// that the first one lacks, the first further one.
func (p *planner) first(f family) bool {
	if p.ifName == p.firstNIC {
		return true
	}
	for _, l := range p.nics(f) {
		if l.name != p.ifName && (l.name != p.firstNIC || !p.overlay) {
			return false
		}
	}
	return true
}

// nics returns the pod's interfaces with addresses of the family, but for the
// end of its pair.
func (p *planner) nics(f family) []*link {
	var nics []*link
	for i := range p.pod.links {
		if l := &p.pod.links[i]; l.name != podVeth && len(l.global(f)) > 0 {
			nics = append(nics, l)
		}
	}
	return nics
}

// planNode plans the node's way to the pod: one rule, and for each address a
// route and a neighbour. A route has no source, because the kernel removes
// one with its source when the node's address changes.
func (p *planner) planNode() {
	n := &p.plan.node
	for _, a := range p.nic.globals() {
		addr := a.prefix.Addr()
		f := familyOf(addr)
		if len(p.hosts[f]) == 0 {
			continue
		}
		n.neighbours = append(n.neighbours, neighbour{p.nodeDev, addr, p.podMAC, true})
		n.routes = append(n.routes, route{table: p.hostTable, destination: whole(addr), dev: p.nodeDev, protocol: protocol})
		shared := rule{family: f, priority: sharedPriority, from: f.everything(), table: p.hostTable, protocol: protocol}
		if !slices.Contains(n.rules, shared) {
			n.rules = append(n.rules, shared)
		}
		for _, known := range p.node.neighbours {
			if known.addr == addr && known.dev != p.nodeDev {
				n.staleNeighbours = append(n.staleNeighbours, known)
			}
		}
	}
}

// planPod plans what concerns one family in the pod.
func (p *planner) planPod(f family) error {
	if len(p.nic.global(f)) == 0 {
		return nil
	}
	d := &p.plan.pod
	for _, host := range p.hosts[f] {
		d.neighbours = append(d.neighbours, neighbour{p.dev, host, p.nodeMAC, true})
	}
	if p.first(f) {
		if err := p.planMain(f); err != nil {
			return err
		}
	} else {
		p.leaveToLink(f)
	}
	tables, err := p.planTables(f)
	if err != nil {
		return err
	}
	return p.planPolicyRoutes(f, tables)
}

// planMain plans the way to the node and through it in the main table, and in
// an underlay the way back for what comes from there.
func (p *planner) planMain(f family) error {
	d := &p.plan.pod
	for _, r := range p.throughNode(f, unix.RT_TABLE_MAIN) {
		for _, there := range p.pod.routes {
			if there.table == r.table && there.destination == r.destination && there.dev != p.dev {
				return wrong(fmt.Sprintf("%s is to be reached through the node, and %s has a route to it", r.destination, there.dev),
					"leave it out of hijackCIDR, serviceCIDR and overlayPodCIDR, or give parts of it")
			}
		}
		r.source = p.source(f)
		d.routes = append(d.routes, r)
	}
	if p.overlay || len(p.hosts[f]) == 0 {
		return nil
	}
	back := p.hop(f, f.everything(), replyTable)
	d.routes = append(d.routes, back)
	d.rules = append(d.rules, rule{family: f, priority: sharedPriority, from: f.everything(), mark: replyMark, table: replyTable, protocol: protocol})
	d.marks = append(d.marks, f)
	return nil
}

// leaveToLink takes networks from the main table that were led through the node
// before this interface was there, and are on its link.
func (p *planner) leaveToLink(f family) {
	for _, r := range p.pod.routesOf(unix.RT_TABLE_MAIN, p.dev, f) {
		if r.protocol == protocol && !r.destination.IsSingleIP() && p.nic.connects(r.destination) && !slices.Contains(p.hijack, r.destination) {
			p.plan.pod.staleRoutes = append(p.plan.pod.staleRoutes, r)
		}
	}
}

// source returns what connections to and through the node come from: the first
// usable address of the pod's first interface, or of this one.
func (p *planner) source(f family) netip.Addr {
	for _, nic := range []*link{p.pod.link(p.firstNIC), p.nic} {
		if nic == nil {
			continue
		}
		for _, a := range nic.global(f) {
			if !a.tentative {
				return a.prefix.Addr()
			}
		}
	}
	return netip.Addr{}
}

// throughNode returns the routes to the node's addresses, and through it to
// the networks that it is to be asked for.
func (p *planner) throughNode(f family, table int) []route {
	if len(p.hosts[f]) == 0 {
		return nil
	}
	var routes []route
	for _, host := range p.hosts[f] {
		routes = append(routes, route{table: table, destination: whole(host), dev: p.dev, protocol: protocol})
	}
	for _, network := range slices.Concat(p.hijack, slices.DeleteFunc(slices.Clone(p.found), p.isElsewhere)) {
		network = network.Masked()
		if familyOf(network.Addr()) == f && !slices.ContainsFunc(routes, func(r route) bool { return r.destination == network }) {
			routes = append(routes, p.hop(f, network, table))
		}
	}
	return routes
}

// isElsewhere reports whether a network of the cluster's pods needs no node
// between: it lies within one that an interface of the pod is connected to, or
// has a route of its own. Where the cluster has no other network plugin, its
// pods' network is often the pools'.
func (p *planner) isElsewhere(network netip.Prefix) bool {
	return slices.ContainsFunc(p.nics(familyOf(network.Addr())), func(nic *link) bool { return nic.connects(network) }) ||
		slices.ContainsFunc(p.pod.routes, func(r route) bool {
			return r.table == unix.RT_TABLE_MAIN && r.destination == network.Masked() && r.dev != p.dev
		})
}

// connects reports whether a network lies within one of the interface's.
func (l *link) connects(network netip.Prefix) bool {
	return slices.ContainsFunc(l.globals(), func(a address) bool {
		return a.prefix.Bits() <= network.Bits() && a.prefix.Contains(network.Addr())
	})
}

// hop is a route through the node. Any of its addresses would do, and goes on
// doing when the node loses it: its neighbour entry is what counts.
func (p *planner) hop(f family, to netip.Prefix, table int) route {
	return route{table: table, destination: to, gateway: p.hosts[f][0], dev: p.dev, protocol: protocol}
}
