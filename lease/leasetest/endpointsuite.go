package leasetest

import (
	"net/netip"
	"testing"

	"github.com/holdfast-ipam/holdfast/lease"
)

// endpoint returns a sticky endpoint of two interfaces, one with both
// families.
func endpoint(c ClusterSubject, pod string) lease.Endpoint {
	e := lease.Endpoint{
		Namespace: "default",
		Pod:       pod,
		PodUID:    "52e6f2a0-0000-4000-8000-00000000000a",
		Node:      "worker-1",
		Sticky:    true,
		OwnerKind: "StatefulSet",
		OwnerName: "web",
	}
	for _, a := range []struct{ ifname, addr string }{
		{"eth0", "192.0.2.7"}, {"eth0", "2001:db8::7"}, {"net1", "198.51.100.9"},
	} {
		addr := netip.MustParseAddr(a.addr)
		e.Addresses = append(e.Addresses, lease.EndpointAddress{Interface: a.ifname, Addr: addr, Detail: c.Detail(addr)})
	}
	return e
}

func endpointRoundTrip(t *testing.T, c ClusterSubject) {
	sticky := endpoint(c, "web-0")
	stateless := endpoint(c, "web-7f9c-abcde")
	stateless.Sticky = false
	stateless.OwnerKind, stateless.OwnerName = "Deployment", "web-7f9c"
	stateless.PodUID = c.SetPod("default", stateless.Pod, "worker-1", false)
	stateless.Addresses = stateless.Addresses[1:]
	bare := endpoint(c, "bare-0")
	bare.Addresses = nil
	for _, want := range []lease.Endpoint{sticky, stateless, bare} {
		put := must[lease.Endpoint](t)(c.PutEndpoint(t.Context(), want))
		if put.Version == "" {
			t.Errorf("%s: stored without a version", want.Pod)
		}
		want.Version = put.Version
		same(t, want, put)
		same(t, want, must[lease.Endpoint](t)(c.Endpoint(t.Context(), want.Namespace, want.Pod)))
	}
}

func endpointCreatedOnce(t *testing.T, c ClusterSubject) {
	first := must[lease.Endpoint](t)(c.PutEndpoint(t.Context(), endpoint(c, "web-0")))
	second := endpoint(c, "web-0")
	second.Node = "worker-2"
	_, err := c.PutEndpoint(t.Context(), second)
	wantErr(t, err, lease.ErrConflict)
	same(t, first, must[lease.Endpoint](t)(c.Endpoint(t.Context(), "default", "web-0")))
}

func endpointOldVersion(t *testing.T, c ClusterSubject) {
	old := must[lease.Endpoint](t)(c.PutEndpoint(t.Context(), endpoint(c, "web-0")))
	next := old
	next.Node = "worker-2"
	next = must[lease.Endpoint](t)(c.PutEndpoint(t.Context(), next))
	_, err := c.PutEndpoint(t.Context(), old)
	wantErr(t, err, lease.ErrConflict)
	same(t, next, must[lease.Endpoint](t)(c.Endpoint(t.Context(), "default", "web-0")))
}

func endpointFollows(t *testing.T, c ClusterSubject) {
	e := must[lease.Endpoint](t)(c.PutEndpoint(t.Context(), endpoint(c, "web-0")))
	e.PodUID, e.Node = c.SetPod("default", "web-0", "worker-2", false), "worker-2"
	e.Addresses = e.Addresses[:1]
	e.OwnerKind, e.OwnerName = "CloneSet", "shop"
	e.Version = must[lease.Endpoint](t)(c.PutEndpoint(t.Context(), e)).Version
	same(t, e, must[lease.Endpoint](t)(c.Endpoint(t.Context(), "default", "web-0")))

	// A name may change hands between a sticky pod and another one.
	for _, sticky := range []bool{false, true} {
		e.Sticky = sticky
		e.Version = must[lease.Endpoint](t)(c.PutEndpoint(t.Context(), e)).Version
		same(t, e, must[lease.Endpoint](t)(c.Endpoint(t.Context(), "default", "web-0")))
	}
}

func endpointRemovalGuarded(t *testing.T, c ClusterSubject) {
	old := must[lease.Endpoint](t)(c.PutEndpoint(t.Context(), endpoint(c, "web-0")))
	next := old
	next.Node = "worker-2"
	next = must[lease.Endpoint](t)(c.PutEndpoint(t.Context(), next))
	wantErr(t, c.DeleteEndpoint(t.Context(), old), lease.ErrConflict)
	same(t, next, must[lease.Endpoint](t)(c.Endpoint(t.Context(), "default", "web-0")))
	if err := c.DeleteEndpoint(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	_, err := c.Endpoint(t.Context(), "default", "web-0")
	wantErr(t, err, lease.ErrNotFound)
	wantErr(t, c.DeleteEndpoint(t.Context(), next), lease.ErrConflict)
	_, err = c.PutEndpoint(t.Context(), next)
	wantErr(t, err, lease.ErrConflict)
}

func endpointNamespaces(t *testing.T, c ClusterSubject) {
	here := must[lease.Endpoint](t)(c.PutEndpoint(t.Context(), endpoint(c, "web-0")))
	there := endpoint(c, "web-0")
	there.Namespace = "kube-system"
	there.Node = "worker-2"
	there.Version = must[lease.Endpoint](t)(c.PutEndpoint(t.Context(), there)).Version
	same(t, here, must[lease.Endpoint](t)(c.Endpoint(t.Context(), "default", "web-0")))
	same(t, there, must[lease.Endpoint](t)(c.Endpoint(t.Context(), "kube-system", "web-0")))
}
