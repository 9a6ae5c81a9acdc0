package checker

import (
	"net/netip"
	"slices"
	"strings"
)

// podsTellTheirAddress: the first address that kubelet reports is the one
// that eth0 has.
func podsTellTheirAddress(v *view, report reporter) {
	v.eachRunning(func(p *Pod, ns *Namespace) {
		if len(p.Addrs) == 0 {
			report("%s runs and its status has no address", p.key())
		}
		for _, addr := range p.Addrs {
			if !slices.ContainsFunc(ns.Addresses, func(a InterfaceAddress) bool { return a.Prefix.Addr() == addr }) {
				report("the status of %s says %s, and its network namespace has %v", p.key(), addr, ns.Addresses)
			}
		}
	})
}

// podsHaveEndpoints: the record that users look at says what the kernel says.
func podsHaveEndpoints(v *view, report reporter) {
	v.eachRunning(func(p *Pod, ns *Namespace) {
		e := v.endpoints[p.key()]
		if e == nil {
			report("%s has %v and no endpoint", p.key(), ns.Addresses)
			return
		}
		if e.PodUID != p.UID || e.Node != p.Node {
			report("%s is pod %s on %s, and its endpoint says pod %s on %s", p.key(), p.UID, p.Node, e.PodUID, e.Node)
		}
		reportAddresses(e, ns, report)
		v.reportPools(e, report)
	})
}

func reportAddresses(e *Endpoint, ns *Namespace, report reporter) {
	said := func(a InterfaceAddress) bool {
		return slices.ContainsFunc(e.Addresses, func(x EndpointAddress) bool {
			return x.Interface == a.Interface && x.Prefix == a.Prefix
		})
	}
	for _, a := range ns.Addresses {
		if !said(a) {
			report("%s has %s on %s, and its endpoint does not say so: %v", e.key(), a.Prefix, a.Interface, e.Addresses)
		}
	}
	if len(e.Addresses) > len(ns.Addresses) {
		report("the endpoint of %s says %v, and its network namespace has %v", e.key(), e.Addresses, ns.Addresses)
	}
}

func (v *view) reportPools(e *Endpoint, report reporter) {
	for _, a := range e.Addresses {
		pool := v.pools[a.Pool]
		switch {
		case pool == nil:
			report("the endpoint of %s says %s is of pool %q, which does not exist", e.key(), a.Prefix, a.Pool)
		case !pool.Range.Contains(a.Prefix.Addr()) || pool.Subnet.Bits() != a.Prefix.Bits():
			report("the endpoint of %s says %s is of pool %s, which does not offer it", e.key(), a.Prefix, a.Pool)
		}
	}
}

// eachRunning calls f for every running pod whose network namespace was seen.
func (v *view) eachRunning(f func(*Pod, *Namespace)) {
	for i := range v.Nodes {
		for j := range v.Nodes[i].Namespaces {
			ns := &v.Nodes[i].Namespaces[j]
			if p := v.pod(ns); p != nil && p.Running && !p.HostNetwork && len(ns.Addresses) > 0 {
				f(p, ns)
			}
		}
	}
}

// endpointsHaveOwners: an endpoint outlives its pod only for an ordinal that
// a StatefulSet wants.
func endpointsHaveOwners(v *view, report reporter) {
	for i := range v.Endpoints {
		e := &v.Endpoints[i]
		if p := v.pods[e.key()]; p != nil && p.UID == e.PodUID {
			continue
		}
		if v.Sticky && e.OwnerKind == "StatefulSet" && v.wanted(e.Namespace, e.Name) {
			continue
		}
		report("the endpoint of %s (%v) is nobody's: pod %s is gone, and no StatefulSet wants the ordinal", e.key(), e.Addresses, e.PodUID)
	}
}

// stickyIsPinned: an address without its pin goes to anybody once the pod is
// away.
func stickyIsPinned(v *view, report reporter) {
	if !v.Sticky {
		return
	}
	v.eachRunning(func(p *Pod, ns *Namespace) {
		if p.StatefulSet == "" || !v.wanted(p.Namespace, p.Name) {
			return
		}
		for _, a := range ns.Addresses {
			if pin, ok := v.pins[a.Prefix.Addr()]; !ok || pin.Pod != p.key() || pin.Interface != a.Interface {
				report("%s has %s on %s, and the blocks pin it for %q %s", p.key(), a.Prefix.Addr(), a.Interface, pin.Pod, pin.Interface)
			}
		}
	})
}

// pinsHaveEndpoints: a pin counts only together with the pointer that names
// its address.
func pinsHaveEndpoints(v *view, report reporter) {
	for addr, pin := range v.pins {
		e := v.endpoints[pin.Pod]
		if e == nil || !e.names(addr, pin.Interface) {
			report("%s is pinned for %s %s, and no endpoint of it says so", addr, pin.Pod, pin.Interface)
		}
	}
}

func (e *Endpoint) names(addr netip.Addr, ifname string) bool {
	return slices.ContainsFunc(e.Addresses, func(a EndpointAddress) bool {
		return a.Prefix.Addr() == addr && a.Interface == ifname
	})
}

// pinsHaveOwners: the pin of an ordinal that nobody wants is a lost address.
func pinsHaveOwners(v *view, report reporter) {
	for addr, pin := range v.pins {
		namespace, name, _ := strings.Cut(pin.Pod, "/")
		if v.pods[pin.Pod] == nil && !v.wanted(namespace, name) {
			report("%s is pinned for %s, which neither runs nor is wanted by a StatefulSet", addr, pin.Pod)
		}
		if pin.Releasing {
			report("%s is pinned for %s and has been about to be released for too long", addr, pin.Pod)
		}
	}
}

// statusAgrees: the status of a pool tells exactly what the endpoints tell.
func statusAgrees(v *view, report reporter) {
	used := map[string]map[netip.Addr]Holder{}
	for i := range v.Endpoints {
		e := &v.Endpoints[i]
		for _, a := range e.Addresses {
			if used[a.Pool] == nil {
				used[a.Pool] = map[netip.Addr]Holder{}
			}
			used[a.Pool][a.Prefix.Addr()] = Holder{e.key(), e.PodUID}
		}
	}
	for i := range v.Pools {
		p := &v.Pools[i]
		reportUse(p, used[p.Name], report)
		if total := size(p.Range); p.TotalCount != total {
			report("pool %s offers %d addresses, and its status counts %d", p.Name, total, p.TotalCount)
		}
	}
}

func reportUse(p *Pool, used map[netip.Addr]Holder, report reporter) {
	if p.AllocatedCount != int64(len(p.Allocated)) {
		report("the status of pool %s counts %d addresses and lists %d", p.Name, p.AllocatedCount, len(p.Allocated))
	}
	for addr, said := range p.Allocated {
		if is, ok := used[addr]; !ok || is != said {
			report("the status of pool %s says that %s has %s, and the endpoints say %q", p.Name, said, addr, is)
		}
	}
	for addr, is := range used {
		if _, ok := p.Allocated[addr]; !ok {
			report("%s has %s of pool %s, whose status does not list it", is, addr, p.Name)
		}
	}
}

// String returns the pod and its UID.
func (h Holder) String() string { return h.Pod + " (" + h.PodUID + ")" }
