package lease

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
)

// The errors a [Cluster] tells apart. Any other error of a writing method
// means that the outcome is unknown: the write may have taken effect, may
// take effect later, or never.
var (
	// ErrNotFound: the object does not exist.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the write did not take effect and never will, because the
	// object has another version than the one judged, exists where it must
	// not, or is gone. Read again, judge again.
	ErrConflict = errors.New("the object was changed by somebody else")
	// ErrRefused: the write did not take effect and never will, for a reason
	// that reading again does not mend at once: overload, validation, lack
	// of permission.
	ErrRefused = errors.New("refused by the API server")
)

// Cluster is the shared state. Reads, but for Roomy, are quorum reads: what they
// return was true at some moment after the call. Every write is guarded by the
// Version of the value it was judged on; an empty Version creates. Writes return
// the value as stored, with its new Version. The real one is a Kubernetes API
// server; leasetest has one that loses races and answers.
type Cluster interface {
	// Block returns a block by name ([ErrNotFound]).
	Block(ctx context.Context, name string) (Block, error)
	// Roomy returns blocks of some regions ([RegionOf]) in which something can
	// be claimed. It is no quorum read: it may be late and need not be
	// complete, so it tells where to look, and is evidence of nothing.
	Roomy(ctx context.Context, regions []netip.Prefix) ([]Block, error)
	// PutBlock writes a block ([ErrConflict], [ErrRefused], unknown).
	PutBlock(ctx context.Context, b Block) (Block, error)
	// DeleteBlock removes a block ([ErrConflict], [ErrRefused], unknown).
	DeleteBlock(ctx context.Context, b Block) error

	// Endpoint returns the endpoint of a pod ([ErrNotFound]).
	Endpoint(ctx context.Context, namespace, pod string) (Endpoint, error)
	// PutEndpoint writes an endpoint ([ErrConflict], [ErrRefused], unknown).
	PutEndpoint(ctx context.Context, e Endpoint) (Endpoint, error)
	// DeleteEndpoint removes an endpoint ([ErrConflict], [ErrRefused],
	// unknown).
	DeleteEndpoint(ctx context.Context, e Endpoint) error

	// PodAt returns UID and node name of the pod that bears the name
	// ([ErrNotFound]). A pod that has finished counts like any other: its
	// object exists.
	PodAt(ctx context.Context, namespace, pod string) (PodAt, error)
}

// PodAt tells where the pod of a name lives.
type PodAt struct {
	UID string
	// Node is spec.nodeName, empty before the pod is bound.
	Node string
	// Finished is true when no container of the pod runs or ever will.
	Finished bool
}

// Endpoint is what the protocol needs of a SpiderEndpoint: for an identity
// the pointer from its name to its addresses.
type Endpoint struct {
	Namespace string
	Pod       string
	// Version is the resourceVersion, empty for an endpoint yet to be
	// created.
	Version string
	// PodUID and Node tell which pod it spoke of last.
	PodUID string
	Node   string
	// Sticky is set when the endpoint outlives its pod. OwnerKind and
	// OwnerName are the pod's top owner, for people.
	Sticky    bool
	OwnerKind string
	OwnerName string
	Addresses []EndpointAddress
}

// EndpointAddress is one address of one interface.
type EndpointAddress struct {
	Interface string
	Addr      netip.Addr
	// Detail is what the agent wants back with the address: see [Entry].
	Detail json.RawMessage
}

// Of returns the addresses of one interface.
func (e *Endpoint) Of(ifname string) []EndpointAddress {
	var of []EndpointAddress
	for _, a := range e.Addresses {
		if a.Interface == ifname {
			of = append(of, a)
		}
	}
	return of
}
