package coordinator

import (
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// excluded are the beginnings of names of a node's interfaces whose addresses
// are no pod's to talk to: bridges and ends of other networks of containers.
func excluded() []string {
	return []string{"docker", "cbr", "dummy", "virbr", "lxcbr", "veth", "cali", "flannel", "kube-ipvs", "cni", "vx-submariner", "cilium"}
}

// hostsOf returns the addresses of a node that its pods talk to it by: first
// those that the node would itself use towards these by its main table, then
// all others. Those of the pod's own peer, nodeDev, are among them: the kernel
// prefers them.
func hostsOf(node *view, nodeDev string, pod []address) map[family][]netip.Addr {
	hosts := make(map[family][]netip.Addr)
	add := func(addr netip.Addr) {
		if f := familyOf(addr); addr.IsValid() && !slices.Contains(hosts[f], addr) {
			hosts[f] = append(hosts[f], addr)
		}
	}
	for _, a := range pod {
		add(towards(node, nodeDev, a.prefix.Addr()))
	}
	for i := range node.links {
		l := &node.links[i]
		if l.name == "lo" || l.name != nodeDev && slices.ContainsFunc(excluded(), func(begin string) bool { return strings.HasPrefix(l.name, begin) }) {
			continue
		}
		for _, a := range l.globals() {
			add(a.prefix.Addr())
		}
	}
	return hosts
}

// towards returns the node's source towards an address by its main table, the
// zero Addr if it has none. The kernel is not asked, because with the pod's
// own route in place its answer would be another one.
func towards(node *view, nodeDev string, to netip.Addr) netip.Addr {
	var best *route
	for i := range node.routes {
		r := &node.routes[i]
		if r.table != unix.RT_TABLE_MAIN || r.dev == nodeDev || !r.destination.Contains(to) {
			continue
		}
		if best == nil || r.destination.Bits() > best.destination.Bits() ||
			r.destination.Bits() == best.destination.Bits() && r.metric < best.metric {
			best = r
		}
	}
	if best == nil {
		return netip.Addr{}
	}
	if best.source.IsValid() {
		return best.source
	}
	if l := node.link(best.dev); l != nil {
		if addrs := l.global(familyOf(to)); len(addrs) > 0 {
			return addrs[0].prefix.Addr()
		}
	}
	return netip.Addr{}
}
