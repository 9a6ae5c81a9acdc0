package elected

import (
	"net/netip"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/holdfast-ipam/holdfast/lease"
)

// Window is the ordinals a StatefulSet wants, [Start, Start+Replicas)
// (StatefulSetSpec.ordinals and .replicas, KEP-3335).
type Window struct {
	Start    int32
	Replicas int32
}

// WindowOf returns the ordinals that a StatefulSet wants, with the defaults of
// StatefulSetSpec: one replica, from 0.
func WindowOf(set *appsv1.StatefulSet) Window {
	w := Window{Replicas: 1}
	if set.Spec.Replicas != nil {
		w.Replicas = *set.Spec.Replicas
	}
	if set.Spec.Ordinals != nil {
		w.Start = set.Spec.Ordinals.Start
	}
	return w
}

// Wants reports whether the ordinal lies in the window.
func (w Window) Wants(ordinal int32) bool {
	return ordinal >= w.Start && int64(ordinal) < int64(w.Start)+int64(w.Replicas)
}

// SplitPodName splits the name of a StatefulSet's pod, "web-3", into the name
// of the StatefulSet and the ordinal. It refuses what the StatefulSet
// controller never writes: leading zeros, signs, ordinals above an int32.
func SplitPodName(pod string) (statefulSet string, ordinal int32, ok bool) {
	i := strings.LastIndexByte(pod, '-')
	if i < 1 {
		return "", 0, false
	}
	n, err := strconv.ParseInt(pod[i+1:], 10, 32)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != pod[i+1:] {
		return "", 0, false
	}
	return pod[:i], int32(n), true
}

// verdict is what is to be done about a pin.
type verdict int

const (
	// keep: somebody wants the address.
	keep verdict = iota
	// wait: nobody will want it, but a pod of the name still exists.
	wait
	// release: nobody wants it.
	release
)

// standing is what the API server said about the pod that an identity is
// named after, every field by a quorum read.
type standing struct {
	// exists is set when there is a pod of the name, in whatever phase, and
	// podUID is its UID, empty if there are two. node is where it is bound to,
	// empty if that is not known.
	exists bool
	podUID string
	node   string
	// wanted is set when a StatefulSet wants the pod's ordinal.
	wanted bool
	// pointer is the pod's endpoint, nil when there is none or no pod is
	// wanted.
	pointer *lease.Endpoint
}

// names reports whether the endpoint points from the interface to the
// address.
func (s *standing) names(ifname string, addr netip.Addr) bool {
	if s.pointer == nil {
		return false
	}
	for _, a := range s.pointer.Of(ifname) {
		if a.Addr == addr {
			return true
		}
	}
	return false
}

// elsewhere reports whether the very pod that exists has another address of
// addr's family on the interface. Its agent writes the endpoint's UID and
// addresses in one, so an endpoint with this UID tells what this pod uses.
func (s *standing) elsewhere(ifname string, addr netip.Addr) bool {
	if s.podUID == "" || s.pointer == nil || s.pointer.PodUID != s.podUID || s.names(ifname, addr) {
		return false
	}
	for _, a := range s.pointer.Of(ifname) {
		if a.Addr.Is4() == addr.Is4() {
			return true
		}
	}
	return false
}

// astray reports whether the pod that exists will never ask for addr, because
// another node than its own leases it: of other nodes' addresses its agent takes
// over what the endpoint names. An endpoint deleted by hand leads here, when the
// pod moves before it is written anew; while there is none, its lessee will.
func (s *standing) astray(lessee, ifname string, addr netip.Addr) bool {
	return s.podUID != "" && s.node != "" && s.node != lessee && s.pointer != nil && !s.names(ifname, addr)
}

// judge decides on a pin of an address that the node named lessee leases, or
// none. A pod that exists keeps what is pinned for it, also when its endpoint
// does not name the address: a pod that is placed for the first time pins before
// it writes the endpoint. Only when the endpoint gives this pod another address
// instead, as after a change of pools, or leaves out one of another node, is the
// pin garbage. Without a pod, a pin that nobody points to is garbage too, because
// no later pod on another node would follow it; and so it is without a lease,
// because only a node that leases the address can be placing it, and who fenced
// the node looked for pods that have it.
func judge(pin lease.Pin, lessee string, s standing) verdict {
	id := pin.Identity
	switch {
	case s.wanted && (s.elsewhere(id.Interface, pin.Addr) || s.astray(lessee, id.Interface, pin.Addr)):
		return release
	case s.wanted && lessee == "" && !s.names(id.Interface, pin.Addr):
		return release
	case s.exists && s.wanted:
		return keep
	case s.exists:
		return wait
	case s.wanted && s.names(id.Interface, pin.Addr):
		return keep
	}
	return release
}
