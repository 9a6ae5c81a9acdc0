package checker

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/holdfast-ipam/holdfast/lease"
)

// view is a snapshot with indexes.
type view struct {
	Snapshot
	nodes     map[string]*Node // by UID
	pods      map[string]*Pod  // by "namespace/name"
	sets      map[string]*StatefulSet
	endpoints map[string]*Endpoint // by "namespace/name"
	pools     map[string]*Pool
	leased    map[netip.Addr]string // to a node UID
	pins      map[netip.Addr]Pin
}

func newView(s Snapshot) *view {
	v := &view{
		Snapshot:  s,
		nodes:     map[string]*Node{},
		pods:      map[string]*Pod{},
		sets:      map[string]*StatefulSet{},
		endpoints: map[string]*Endpoint{},
		pools:     map[string]*Pool{},
		leased:    map[netip.Addr]string{},
		pins:      map[netip.Addr]Pin{},
	}
	for i := range s.Nodes {
		v.nodes[s.Nodes[i].UID] = &s.Nodes[i]
	}
	for i := range s.Pods {
		v.pods[s.Pods[i].key()] = &s.Pods[i]
	}
	for i := range s.StatefulSets {
		v.sets[s.StatefulSets[i].Namespace+"/"+s.StatefulSets[i].Name] = &s.StatefulSets[i]
	}
	for i := range s.Endpoints {
		v.endpoints[s.Endpoints[i].key()] = &s.Endpoints[i]
	}
	for i := range s.Pools {
		v.pools[s.Pools[i].Name] = &s.Pools[i]
	}
	v.indexBlocks()
	return v
}

func (v *view) indexBlocks() {
	for _, b := range v.Blocks {
		for _, l := range b.Leases {
			for _, a := range l.Addrs {
				v.leased[a] = l.NodeUID
			}
		}
		for _, p := range b.Pins {
			v.pins[p.Addr] = p
		}
	}
}

func (p *Pod) key() string      { return p.Namespace + "/" + p.Name }
func (e *Endpoint) key() string { return e.Namespace + "/" + e.Name }
func (n *Namespace) key() string {
	if n.Sandbox == "" {
		return "a namespace without sandbox (" + n.Path + ")"
	}
	return n.Namespace + "/" + n.Pod
}

// pod returns the pod of a network namespace, nil if it is not the pod that
// bears the name now.
func (v *view) pod(n *Namespace) *Pod {
	p := v.pods[n.Namespace+"/"+n.Pod]
	if n.Sandbox == "" || p == nil || p.UID != n.PodUID {
		return nil
	}
	return p
}

// wanted tells whether a StatefulSet wants the ordinal of the pod name.
func (v *view) wanted(namespace, pod string) bool {
	i := strings.LastIndex(pod, "-")
	if i < 0 {
		return false
	}
	ordinal, err := strconv.Atoi(pod[i+1:])
	set := v.sets[namespace+"/"+pod[:i]]
	return err == nil && set != nil && set.Start <= ordinal && ordinal < set.Start+set.Replicas
}

// assignments yields the entries of a journal that say an address is in use.
func (n *Node) assignments(yield func(*lease.Entry) bool) {
	for i := range n.Journal {
		if n.Journal[i].State == lease.Assigned && !yield(&n.Journal[i]) {
			return
		}
	}
}

func (n *Node) entry(addr netip.Addr) *lease.Entry {
	for i := range n.Journal {
		if n.Journal[i].Addr == addr {
			return &n.Journal[i]
		}
	}
	return nil
}
