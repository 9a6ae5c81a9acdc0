package checker

import (
	"net/netip"
	"slices"
	"testing"

	"go4.org/netipx"

	"github.com/holdfast-ipam/holdfast/lease"
)

// good is a cluster in order: web-0 runs on node a, web-1's pod is away and
// its address is retained on b, and the pod of a Deployment runs on b.
func good() *Snapshot {
	return &Snapshot{
		Sticky: true,
		Nodes: []Node{
			{
				Name: "a", UID: "node-a",
				Namespaces: []Namespace{namespace("web-0", "pod-0", "10.6.0.1/16")},
				Journal:    []lease.Entry{entry("web-0", "pod-0", "10.6.0.1", lease.Assigned)},
			},
			{
				Name: "b", UID: "node-b",
				Namespaces: []Namespace{namespace("front", "pod-f", "10.6.0.3/16")},
				Journal: []lease.Entry{
					entry("web-1", "pod-1", "10.6.0.2", lease.Retained),
					entry("front", "pod-f", "10.6.0.3", lease.Assigned),
				},
			},
		},
		Pods: []Pod{
			{Namespace: "ns", Name: "web-0", UID: "pod-0", Node: "a", Running: true, Addrs: addrs("10.6.0.1"), StatefulSet: "web"},
			{Namespace: "ns", Name: "front", UID: "pod-f", Node: "b", Running: true, Addrs: addrs("10.6.0.3")},
			{Namespace: "kube-system", Name: "agent", UID: "pod-agent", Node: "a", HostNetwork: true, Running: true, Addrs: addrs("172.18.0.2")},
		},
		StatefulSets: []StatefulSet{{Namespace: "ns", Name: "web", Replicas: 2}},
		Endpoints: []Endpoint{
			endpoint("web-0", "pod-0", "a", "StatefulSet", "10.6.0.1/16"),
			endpoint("web-1", "pod-1", "b", "StatefulSet", "10.6.0.2/16"),
			endpoint("front", "pod-f", "b", "Deployment", "10.6.0.3/16"),
		},
		Pools: []Pool{{
			Name: "pool", Subnet: netip.MustParsePrefix("10.6.0.0/16"), Range: ips("10.6.0.1-10.6.0.10"),
			Allocated: map[netip.Addr]Holder{
				netip.MustParseAddr("10.6.0.1"): {"ns/web-0", "pod-0"},
				netip.MustParseAddr("10.6.0.2"): {"ns/web-1", "pod-1"},
				netip.MustParseAddr("10.6.0.3"): {"ns/front", "pod-f"},
			},
			AllocatedCount: 3, TotalCount: 10,
		}},
		Blocks: []Block{{
			Name: "10.6.0.0-28", Prefix: netip.MustParsePrefix("10.6.0.0/28"),
			Leases: []Lease{
				{Node: "a", NodeUID: "node-a", Addrs: addrs("10.6.0.1")},
				{Node: "b", NodeUID: "node-b", Addrs: addrs("10.6.0.2", "10.6.0.3", "10.6.0.4")},
			},
			Pins: []Pin{
				{Addr: netip.MustParseAddr("10.6.0.1"), Pod: "ns/web-0", Interface: "eth0"},
				{Addr: netip.MustParseAddr("10.6.0.2"), Pod: "ns/web-1", Interface: "eth0"},
			},
		}},
	}
}

func namespace(pod, uid, address string) Namespace {
	return Namespace{
		Path: "/var/run/netns/" + pod, Sandbox: "sandbox-" + uid, Namespace: "ns", Pod: pod, PodUID: uid,
		Addresses: []InterfaceAddress{{"eth0", netip.MustParsePrefix(address)}},
	}
}

func entry(pod, uid, address string, state lease.State) lease.Entry {
	return lease.Entry{
		Addr: netip.MustParseAddr(address), State: state, Owner: lease.Owner{PodUID: uid, Interface: "eth0"},
		Container: "sandbox-" + uid, Namespace: "ns", Pod: pod,
	}
}

func endpoint(pod, uid, node, kind, address string) Endpoint {
	return Endpoint{
		Namespace: "ns", Name: pod, PodUID: uid, Node: node, OwnerKind: kind,
		Addresses: []EndpointAddress{{"eth0", netip.MustParsePrefix(address), "pool"}},
	}
}

func addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, t := range texts {
		all = append(all, netip.MustParseAddr(t))
	}
	return all
}

func ips(ranges ...string) *netipx.IPSet {
	set, err := offer(ranges, nil)
	if err != nil {
		panic(err)
	}
	return set
}

func TestClusterInOrderHasNoViolations(t *testing.T) {
	if found := Compare(*good()); len(found) > 0 {
		t.Errorf("found %v", found)
	}
}

// breach is one thing broken in a cluster in order, and the rule that must
// notice.
type breach struct {
	name  string
	rule  string
	spoil func(*Snapshot)
}

func breaches() []breach {
	return []breach{
		{"two pods with one address on two nodes", "one address, one pod", func(s *Snapshot) {
			s.Nodes[1].Namespaces[0].Addresses = s.Nodes[0].Namespaces[0].Addresses
		}},
		{"a forgotten namespace with the address of a pod", "one address, one pod", func(s *Snapshot) {
			s.Nodes[1].Namespaces = append(s.Nodes[1].Namespaces, Namespace{Path: "/var/run/netns/old", Addresses: s.Nodes[0].Namespaces[0].Addresses})
		}},
		{"an address leased twice", "one address, one lessee", func(s *Snapshot) {
			s.Blocks[0].Leases[0].Addrs = addrs("10.6.0.1", "10.6.0.4")
		}},
		{"an address pinned twice", "one address, one lessee", func(s *Snapshot) {
			s.Blocks[0].Pins = append(s.Blocks[0].Pins, Pin{Addr: netip.MustParseAddr("10.6.0.1"), Pod: "ns/web-1", Interface: "eth0"})
		}},
		{"a lease outside of its block", "one address, one lessee", func(s *Snapshot) {
			s.Blocks[0].Leases[0].Addrs = addrs("10.6.0.1", "10.6.0.17")
		}},
		{"a block that is not what its name says", "one address, one lessee", func(s *Snapshot) {
			s.Blocks[0].Name = "10.6.0.16-28"
		}},
		{"no node", "everything is seen", func(s *Snapshot) { s.Nodes = nil }},
		{"a node without its namespaces", "everything is seen", func(s *Snapshot) { s.Nodes[0].Namespaces = nil }},
		{"a node without its journal", "everything is seen", func(s *Snapshot) { s.Nodes[0].Journal = nil }},
		{"a running pod without namespace", "everything is seen", func(s *Snapshot) { s.Nodes[0].Namespaces = []Namespace{} }},
		{"a running pod without address", "everything is seen", func(s *Snapshot) { s.Nodes[0].Namespaces[0].Addresses = nil }},
		{"a list that could not be read", "everything is seen", func(s *Snapshot) { s.Unseen = []string{"pods: refused"} }},
		{"one address assigned on two nodes", "one address, one assignment", func(s *Snapshot) {
			s.Nodes[1].Journal[0] = entry("web-0", "pod-0", "10.6.0.1", lease.Assigned)
		}},
		{"an address the journal does not know", "a pod's address is assigned to it", func(s *Snapshot) { s.Nodes[0].Journal = []lease.Entry{} }},
		{"an address that the journal retains", "a pod's address is assigned to it", func(s *Snapshot) { s.Nodes[0].Journal[0].State = lease.Retained }},
		{"an address assigned to an earlier sandbox", "a pod's address is assigned to it", func(s *Snapshot) { s.Nodes[0].Journal[0].Container = "older" }},
		{"an address assigned to an earlier pod", "a pod's address is assigned to it", func(s *Snapshot) { s.Nodes[0].Journal[0].Owner.PodUID = "older" }},
		{"an assignment that no pod has", "an assigned address is a pod's", func(s *Snapshot) {
			s.Nodes[1].Journal = append(s.Nodes[1].Journal, entry("gone", "pod-g", "10.6.0.4", lease.Assigned))
		}},
		{"a journal that speaks of an unleased address", "a journal speaks of leased addresses", func(s *Snapshot) {
			s.Blocks[0].Leases = s.Blocks[0].Leases[:1]
		}},
		{"a journal that speaks of another's address", "a journal speaks of leased addresses", func(s *Snapshot) {
			s.Blocks[0].Leases[0].Addrs, s.Blocks[0].Leases[1].Addrs = s.Blocks[0].Leases[1].Addrs, s.Blocks[0].Leases[0].Addrs
		}},
		{"a lease of a node that is gone", "a lessee exists", func(s *Snapshot) {
			s.Blocks[0].Leases = append(s.Blocks[0].Leases, Lease{Node: "a", NodeUID: "node-a-before", Addrs: addrs("10.6.0.9")})
		}},
		{"a pod whose status lags", "a pod's status tells its address", func(s *Snapshot) { s.Pods[0].Addrs = addrs("10.6.0.9") }},
		{"a running pod without status", "a pod's status tells its address", func(s *Snapshot) { s.Pods[0].Addrs = nil }},
		{"a pod without endpoint", "a pod has an endpoint that agrees", func(s *Snapshot) { s.Endpoints = s.Endpoints[:2] }},
		{"an endpoint of an earlier pod", "a pod has an endpoint that agrees", func(s *Snapshot) { s.Endpoints[0].PodUID = "older" }},
		{"an endpoint of another node", "a pod has an endpoint that agrees", func(s *Snapshot) { s.Endpoints[0].Node = "b" }},
		{"an endpoint with another address", "a pod has an endpoint that agrees", func(s *Snapshot) { s.Endpoints[0] = endpoint("web-0", "pod-0", "a", "StatefulSet", "10.6.0.9/16") }},
		{"an endpoint with another mask", "a pod has an endpoint that agrees", func(s *Snapshot) { s.Endpoints[0] = endpoint("web-0", "pod-0", "a", "StatefulSet", "10.6.0.1/24") }},
		{"an endpoint with too much", "a pod has an endpoint that agrees", func(s *Snapshot) {
			s.Endpoints[0].Addresses = append(s.Endpoints[0].Addresses, EndpointAddress{"net1", netip.MustParsePrefix("10.6.0.9/16"), "pool"})
		}},
		{"an endpoint of no pool", "a pod has an endpoint that agrees", func(s *Snapshot) { s.Endpoints[0].Addresses[0].Pool = "other" }},
		{"an endpoint outside of its pool", "a pod has an endpoint that agrees", func(s *Snapshot) { s.Pools[0].Range = ips("10.6.0.2-10.6.0.11") }},
		{"an endpoint of a pod that is gone", "an endpoint has an owner", func(s *Snapshot) { s.Pods = slices.Delete(s.Pods, 1, 2) }},
		{"an endpoint above the replica count", "an endpoint has an owner", func(s *Snapshot) { s.StatefulSets[0].Replicas = 1 }},
		{"an endpoint below the first ordinal", "an endpoint has an owner", func(s *Snapshot) { s.StatefulSets[0].Start = 5 }},
		{"an endpoint of a StatefulSet that is gone", "an endpoint has an owner", func(s *Snapshot) { s.StatefulSets = nil }},
		{"an endpoint that outlives its pod though nothing sticks", "an endpoint has an owner", func(s *Snapshot) { s.Sticky = false }},
		{"a StatefulSet pod without pin", "a StatefulSet pod's address is pinned", func(s *Snapshot) { s.Blocks[0].Pins = s.Blocks[0].Pins[1:] }},
		{"a StatefulSet pod with another's pin", "a StatefulSet pod's address is pinned", func(s *Snapshot) { s.Blocks[0].Pins[0].Pod = "ns/web-1" }},
		{"a pin without endpoint", "a pin has an endpoint", func(s *Snapshot) { s.Endpoints = s.Endpoints[1:] }},
		{"a pin that its endpoint does not name", "a pin has an endpoint", func(s *Snapshot) { s.Blocks[0].Pins[1].Addr = netip.MustParseAddr("10.6.0.4") }},
		{"a pin above the replica count", "a pin has an owner", func(s *Snapshot) { s.StatefulSets[0].Replicas = 1 }},
		{"a pin that stays marked", "a pin has an owner", func(s *Snapshot) { s.Blocks[0].Pins[0].Releasing = true }},
		{"a status that lists too much", "a pool's status tells its use", func(s *Snapshot) {
			s.Pools[0].Allocated[netip.MustParseAddr("10.6.0.9")] = Holder{"ns/gone", "pod-g"}
			s.Pools[0].AllocatedCount = 4
		}},
		{"a status that lists too little", "a pool's status tells its use", func(s *Snapshot) {
			delete(s.Pools[0].Allocated, netip.MustParseAddr("10.6.0.3"))
			s.Pools[0].AllocatedCount = 2
		}},
		{"a status with an earlier pod", "a pool's status tells its use", func(s *Snapshot) {
			s.Pools[0].Allocated[netip.MustParseAddr("10.6.0.1")] = Holder{"ns/web-0", "older"}
		}},
		{"a status that counts wrong", "a pool's status tells its use", func(s *Snapshot) { s.Pools[0].AllocatedCount = 2 }},
		{"a status with a wrong total", "a pool's status tells its use", func(s *Snapshot) { s.Pools[0].TotalCount = 11 }},
	}
}

// What else a breach must set off is its own affair; what it must not do is
// pass.
func TestEveryBreachIsReported(t *testing.T) {
	for _, c := range breaches() {
		t.Run(c.name, func(t *testing.T) {
			s := good()
			c.spoil(s)
			found := Compare(*s)
			if !slices.ContainsFunc(found, func(v Violation) bool { return v.Rule == c.rule }) {
				t.Errorf("rule %q is not reported, only %v", c.rule, found)
			}
		})
	}
}

func TestEmptySnapshotIsAViolation(t *testing.T) {
	found := Compare(Snapshot{})
	if len(found) != 1 || found[0].Rule != "everything is seen" {
		t.Errorf("found %v, want only that nothing was seen", found)
	}
}

func TestEveryRuleHasABreach(t *testing.T) {
	for _, r := range rules() {
		if !slices.ContainsFunc(breaches(), func(b breach) bool { return b.rule == r.name }) {
			t.Errorf("no breach of rule %q", r.name)
		}
	}
}

func TestOnlyDoubleUseIsNeverExcused(t *testing.T) {
	s := good()
	s.Nodes[1].Namespaces[0].Addresses = s.Nodes[0].Namespaces[0].Addresses
	for _, v := range Compare(*s) {
		if want := v.Rule == "one address, one pod"; v.Never != want {
			t.Errorf("%s: Never is %v, want %v", v, v.Never, want)
		}
	}
}
