package checker

import (
	"github.com/holdfast-ipam/holdfast/lease"
)

// addressesAreAssigned: what a pod has, its node's agent knows it has.
func addressesAreAssigned(v *view, report reporter) {
	for i := range v.Nodes {
		n := &v.Nodes[i]
		for j := range n.Namespaces {
			ns := &n.Namespaces[j]
			for _, a := range ns.Addresses {
				reportAssignment(n, ns, a, report)
			}
		}
	}
}

func reportAssignment(n *Node, ns *Namespace, a InterfaceAddress, report reporter) {
	addr := a.Prefix.Addr()
	e := n.entry(addr)
	switch {
	case e == nil:
		report("%s has %s on %s, and the journal of %s knows nothing of it", ns.key(), addr, a.Interface, n.Name)
	case e.State != lease.Assigned:
		report("%s has %s on %s, and the journal of %s says it is %s", ns.key(), addr, a.Interface, n.Name, e.State)
	case e.Owner.PodUID != ns.PodUID || e.Owner.Interface != a.Interface || e.Container != ns.Sandbox:
		report("%s has %s on %s (pod %s, sandbox %s), and the journal of %s says it is assigned to %s/%s %s (pod %s, sandbox %s)",
			ns.key(), addr, a.Interface, ns.PodUID, ns.Sandbox, n.Name, e.Namespace, e.Pod, e.Owner.Interface, e.Owner.PodUID, e.Container)
	}
}

// assignmentsAreReal: an assignment without a pod is a leaked address.
func assignmentsAreReal(v *view, report reporter) {
	for i := range v.Nodes {
		n := &v.Nodes[i]
		n.assignments(func(e *lease.Entry) bool {
			if !n.has(e) {
				report("the journal of %s assigns %s to %s/%s (sandbox %s), where it was not seen", n.Name, e.Addr, e.Namespace, e.Pod, e.Container)
			}
			return true
		})
	}
}

func (n *Node) has(e *lease.Entry) bool {
	for _, ns := range n.Namespaces {
		for _, a := range ns.Addresses {
			if a.Prefix.Addr() == e.Addr && a.Interface == e.Owner.Interface && ns.Sandbox == e.Container {
				return true
			}
		}
	}
	return false
}

// journalIsLeased: an agent that speaks of an address it does not lease could
// answer with one that is somebody else's.
func journalIsLeased(v *view, report reporter) {
	for i := range v.Nodes {
		n := &v.Nodes[i]
		for _, e := range n.Journal {
			if v.leased[e.Addr] != n.UID {
				report("the journal of %s says that %s is %s, and the blocks lease it to %s", n.Name, e.Addr, e.State, v.lessee(e))
			}
		}
	}
}

func (v *view) lessee(e lease.Entry) string {
	uid, leased := v.leased[e.Addr]
	switch {
	case !leased:
		return "nobody"
	case v.nodes[uid] == nil:
		return "a node that does not exist (UID " + uid + ")"
	}
	return v.nodes[uid].Name
}

// lesseesExist: the lease of a node that is gone is a lost address.
func lesseesExist(v *view, report reporter) {
	for _, b := range v.Blocks {
		for _, l := range b.Leases {
			if n := v.nodes[l.NodeUID]; n == nil || n.Name != l.Node {
				report("block %s leases %d addresses to %s (UID %s), and there is no such node", b.Name, len(l.Addrs), l.Node, l.NodeUID)
			}
		}
	}
}
