package elected

import (
	"math"
	"net/netip"
	"testing"

	"github.com/holdfast-ipam/holdfast/lease"
)

func TestWindowWantsItsOrdinalsOnly(t *testing.T) {
	for _, test := range []struct {
		window  Window
		ordinal int32
		want    bool
	}{
		{Window{0, 2}, 0, true},
		{Window{0, 2}, 1, true},
		{Window{0, 2}, 2, false},
		{Window{0, 0}, 0, false},
		{Window{5, 2}, 4, false},
		{Window{5, 2}, 5, true},
		{Window{5, 2}, 6, true},
		{Window{5, 2}, 7, false},
		{Window{math.MaxInt32, 2}, math.MaxInt32, true}, // the sum overflows an int32
		{Window{math.MaxInt32, 2}, 0, false},
	} {
		if got := test.window.Wants(test.ordinal); got != test.want {
			t.Errorf("%+v wants %d: %v, want %v", test.window, test.ordinal, got, test.want)
		}
	}
}

func TestPodNameSplitsAtItsLastDash(t *testing.T) {
	for _, test := range []struct {
		pod, name string
		ordinal   int32
		ok        bool
	}{
		{"test-sts-0", "test-sts", 0, true},
		{"web-10", "web", 10, true},
		{"a-1-2", "a-1", 2, true},
		{"web-2147483647", "web", math.MaxInt32, true},
		{"web-2147483648", "", 0, false},
		{"web-01", "", 0, false},
		{"web-+1", "", 0, false},
		{"web--1", "web-", 1, true},
		{"web-", "", 0, false},
		{"-1", "", 0, false},
		{"web", "", 0, false},
		{"web-7d4b9c-x2x4z", "", 0, false},
	} {
		name, ordinal, ok := SplitPodName(test.pod)
		if name != test.name || ordinal != test.ordinal || ok != test.ok {
			t.Errorf("%q: %q %d %v, want %q %d %v", test.pod, name, ordinal, ok, test.name, test.ordinal, test.ok)
		}
	}
}

func TestJudgement(t *testing.T) {
	addr, other := netip.MustParseAddr("10.6.168.101"), netip.MustParseAddr("10.6.168.102")
	pin := lease.Pin{Addr: addr, Identity: lease.Identity{Namespace: "default", Pod: "web-0", Interface: "eth0"}}
	pointer := func(ifname string, addr netip.Addr) *lease.Endpoint {
		return &lease.Endpoint{PodUID: "old", Addresses: []lease.EndpointAddress{{Interface: ifname, Addr: addr}}}
	}
	of := func(uid string, e *lease.Endpoint) *lease.Endpoint {
		e.PodUID = uid
		return e
	}
	for _, test := range []struct {
		claim string
		standing
		want verdict
	}{
		{"a running pod keeps its address", standing{exists: true, wanted: true, pointer: pointer("eth0", addr)}, keep},
		{"a pod that is being placed keeps its address", standing{exists: true, wanted: true}, keep},
		{"a pod between two lives keeps its address", standing{wanted: true, pointer: pointer("eth0", addr)}, keep},
		{"a pod above the replica count keeps its address until it is gone", standing{exists: true, pointer: pointer("eth0", addr)}, wait},
		{"the pod that is there uses another address", standing{exists: true, podUID: "new", wanted: true, pointer: of("new", pointer("eth0", other))}, release},
		{"an earlier pod used another address", standing{exists: true, podUID: "new", wanted: true, pointer: pointer("eth0", other)}, keep},
		{"the pod's other interface is placed already", standing{exists: true, podUID: "new", wanted: true, pointer: of("new", pointer("net1", other))}, keep},
		{"the pod's other family is placed already", standing{exists: true, podUID: "new", wanted: true, pointer: of("new", pointer("eth0", netip.MustParseAddr("fd00::1")))}, keep},
		{"the pod has left it on another node", standing{exists: true, podUID: "new", node: "b", wanted: true, pointer: of("new", pointer("net1", other))}, release},
		{"the pod is to take it over from another node", standing{exists: true, podUID: "new", node: "b", wanted: true, pointer: of("new", pointer("eth0", addr))}, keep},
		{"an earlier pod has left it on another node", standing{exists: true, podUID: "new", node: "b", wanted: true, pointer: pointer("net1", other)}, release},
		{"the node that leases it is to write the endpoint anew", standing{exists: true, podUID: "new", node: "b", wanted: true}, keep},
		{"the pod is bound to no node yet", standing{exists: true, podUID: "new", wanted: true, pointer: pointer("net1", other)}, keep},
		{"the pod is being placed on the node that leases it", standing{exists: true, podUID: "new", node: "a", wanted: true, pointer: of("new", pointer("net1", other))}, keep},
		{"nobody wants it", standing{pointer: pointer("eth0", addr)}, release},
		{"no pod would follow a pin without pointer", standing{wanted: true}, release},
		{"the pointer names another address", standing{wanted: true, pointer: pointer("eth0", other)}, release},
		{"the pointer names another interface", standing{wanted: true, pointer: pointer("net1", addr)}, release},
	} {
		if got := judge(pin, "a", test.standing); got != test.want {
			t.Errorf("%s: verdict %d, want %d", test.claim, got, test.want)
		}
	}
}

func TestPinOfNobodysLeaseIsKeptForWhoPointsToItOnly(t *testing.T) {
	pin := lease.Pin{Addr: netip.MustParseAddr("10.6.168.101"), Identity: lease.Identity{Namespace: "default", Pod: "web-0", Interface: "eth0"}}
	pointer := &lease.Endpoint{Addresses: []lease.EndpointAddress{{Interface: "eth0", Addr: pin.Addr}}}
	for _, test := range []struct {
		claim string
		standing
		want verdict
	}{
		{"the node that placed it is gone", standing{exists: true, podUID: "new", wanted: true}, release},
		{"the pod's endpoint names it", standing{exists: true, podUID: "new", wanted: true, pointer: pointer}, keep},
		{"the pod is still there and not wanted", standing{exists: true, podUID: "new"}, wait},
	} {
		if got := judge(pin, "", test.standing); got != test.want {
			t.Errorf("%s: verdict %d, want %d", test.claim, got, test.want)
		}
	}
}
