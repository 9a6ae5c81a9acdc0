package checker

import (
	"net/netip"
	"slices"

	"github.com/holdfast-ipam/holdfast/lease"
)

// everythingIsSeen: the other rules find nothing wrong with what they are not
// shown, so this one counts what must be there.
func everythingIsSeen(v *view, report reporter) {
	for _, what := range v.Unseen {
		report("%s", what)
	}
	if len(v.Nodes) == 0 {
		report("no node was seen")
	}
	seen := map[string]bool{}
	for i := range v.Nodes {
		n := &v.Nodes[i]
		if n.Namespaces == nil {
			report("node %s: its network namespaces were not seen", n.Name)
		}
		if n.Journal == nil {
			report("node %s: its journal was not seen", n.Name)
		}
		for j := range n.Namespaces {
			if p := v.pod(&n.Namespaces[j]); p != nil && len(n.Namespaces[j].Addresses) > 0 {
				seen[p.UID] = true
			}
		}
	}
	for i := range v.Pods {
		if p := &v.Pods[i]; p.Running && !p.HostNetwork && !seen[p.UID] {
			report("%s runs on %s, but no address was seen in a network namespace of it", p.key(), p.Node)
		}
	}
}

// oneHolder is promise 1: two pods never hold one address.
func oneHolder(v *view, report reporter) {
	holders := map[netip.Addr][]string{}
	for i := range v.Nodes {
		n := &v.Nodes[i]
		for j := range n.Namespaces {
			ns := &n.Namespaces[j]
			for _, a := range ns.Addresses {
				holder := ns.key() + " " + a.Interface + " on " + n.Name + " (sandbox " + ns.Sandbox + ")"
				holders[a.Prefix.Addr()] = append(holders[a.Prefix.Addr()], holder)
			}
		}
	}
	for addr, h := range holders {
		if len(h) > 1 {
			report("%s is held by %q", addr, h)
		}
	}
}

// oneLessee is what the whole protocol rests on.
func oneLessee(v *view, report reporter) {
	leased, pinned := map[netip.Addr]string{}, map[netip.Addr]string{}
	for _, b := range v.Blocks {
		if b.Prefix != lease.BlockOf(b.Prefix.Addr()) || b.Name != lease.Name(b.Prefix) {
			report("block %s covers %s, which is not what its name says", b.Name, b.Prefix)
		}
		for _, l := range b.Leases {
			for _, a := range l.Addrs {
				if other, twice := leased[a]; twice {
					report("%s is leased to %s and to %s", a, other, l.Node)
				}
				leased[a] = l.Node
				reportOutside(b, a, "lease", report)
			}
		}
		for _, p := range b.Pins {
			if other, twice := pinned[p.Addr]; twice {
				report("%s is pinned for %s and for %s", p.Addr, other, p.Pod)
			}
			pinned[p.Addr] = p.Pod
			reportOutside(b, p.Addr, "pin", report)
		}
	}
}

func reportOutside(b Block, addr netip.Addr, what string, report reporter) {
	if !b.Prefix.Contains(addr) {
		report("block %s has a %s of %s, which lies outside", b.Name, what, addr)
	}
}

// oneAssignment: two journals that both think an address in use is two agents
// ready to answer with it.
func oneAssignment(v *view, report reporter) {
	on := map[netip.Addr][]string{}
	for i := range v.Nodes {
		n := &v.Nodes[i]
		n.assignments(func(e *lease.Entry) bool {
			on[e.Addr] = append(on[e.Addr], n.Name)
			return true
		})
	}
	for addr, nodes := range on {
		if len(nodes) > 1 {
			slices.Sort(nodes)
			report("%s is assigned in the journals of %q", addr, nodes)
		}
	}
}
