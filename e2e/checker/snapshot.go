// Package checker holds a running cluster against the promises that Holdfast
// makes. [Gather] takes a [Snapshot] of four independent witnesses: what `ip
// addr` says inside every pod's network namespace, what blocks and journals
// say, what endpoints say, and what the status of pools says. [Compare]
// reports every disagreement between them.
//
// It fails closed: a witness that cannot be heard is a violation too, because
// an empty answer looks just like a cluster in order.
package checker

import (
	"net/netip"

	"go4.org/netipx"

	"github.com/holdfast-ipam/holdfast/lease"
)

// Snapshot is the state of a cluster as its witnesses tell it. They are heard
// one after the other, so a snapshot of a cluster in motion may disagree with
// itself: see [Violation.Never].
type Snapshot struct {
	Nodes        []Node
	Pods         []Pod
	StatefulSets []StatefulSet
	Endpoints    []Endpoint
	Pools        []Pool
	Blocks       []Block
	// Sticky is what ipam.enableStatefulSet says: whether StatefulSet pods
	// keep their addresses.
	Sticky bool
	// Unseen says, one line each, what could not be read at all.
	Unseen []string
}

// Node is what is known on and of one node.
type Node struct {
	Name string
	UID  string
	// Namespaces are the network namespaces on the node. Nil is no answer.
	Namespaces []Namespace
	// Journal is the answer of the node's agent. Nil is no answer.
	Journal []lease.Entry
}

// Namespace is a network namespace of a pod sandbox.
type Namespace struct {
	// Path is where the namespace is mounted on its node.
	Path string
	// Sandbox is the container ID that the runtime gave it. A namespace that
	// the runtime no longer knows has none, and no pod either.
	Sandbox   string
	Namespace string
	Pod       string
	PodUID    string
	// Addresses are those of global scope on every interface but lo.
	Addresses []InterfaceAddress
}

// InterfaceAddress is an address as the kernel has it.
type InterfaceAddress struct {
	Interface string
	Prefix    netip.Prefix
}

// Pod is a pod as the API server has it.
type Pod struct {
	Namespace string
	Name      string
	UID       string
	Node      string
	// HostNetwork pods have no address of their own.
	HostNetwork bool
	// Running is set while the pod's phase is Running and nobody has asked
	// for its deletion.
	Running bool
	// Addrs is status.podIPs.
	Addrs []netip.Addr
	// StatefulSet is the name of the controller if it is an apps/v1
	// StatefulSet.
	StatefulSet string
}

// StatefulSet is how many ordinals of a set are wanted, and from which on.
type StatefulSet struct {
	Namespace string
	Name      string
	Start     int
	Replicas  int
}

// Endpoint is a SpiderEndpoint.
type Endpoint struct {
	Namespace string
	Name      string
	PodUID    string
	Node      string
	OwnerKind string
	Addresses []EndpointAddress
}

// EndpointAddress is one address of one interface of an endpoint.
type EndpointAddress struct {
	Interface string
	Prefix    netip.Prefix
	Pool      string
}

// Pool is a SpiderIPPool: what its spec offers and what its status says.
type Pool struct {
	Name   string
	Subnet netip.Prefix
	// Range is spec.ips without spec.excludeIPs.
	Range *netipx.IPSet
	// Allocated is status.allocatedIPs.
	Allocated map[netip.Addr]Holder
	// AllocatedCount and TotalCount are the counts in the status, -1 where it
	// has none yet.
	AllocatedCount int64
	TotalCount     int64
}

// Holder is to whom the status of a pool ascribes an address.
type Holder struct {
	// Pod is "namespace/name".
	Pod    string `json:"pod"`
	PodUID string `json:"podUid"`
}

// Block is an IPBlock.
type Block struct {
	Name   string
	Prefix netip.Prefix
	Leases []Lease
	Pins   []Pin
}

// Lease is what one node may hand out of a block.
type Lease struct {
	Node    string
	NodeUID string
	Addrs   []netip.Addr
}

// Pin is the mark that a StatefulSet pod's interface owns an address.
type Pin struct {
	Addr netip.Addr
	// Pod is "namespace/name".
	Pod       string
	Interface string
	Releasing bool
}
