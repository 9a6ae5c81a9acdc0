package cluster

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// FuzzBlockDecodesToWhatItEncodes also compares with an oracle that knows
// nothing of ranges: it lists the addresses one by one.
func FuzzBlockDecodesToWhatItEncodes(f *testing.F) {
	f.Add([]byte{10, 6, 168, 101}, uint16(0b1), uint16(0b10), uint16(0b11), uint16(0b1))
	f.Add([]byte{255, 255, 255, 255}, uint16(0xffff), uint16(0), uint16(0), uint16(0))
	f.Add(netip.MustParseAddr("fd00::ff7").AsSlice(), uint16(0b1010_1010_1010_1010), uint16(0x5555), uint16(0xffff), uint16(0xf0f0))
	f.Fuzz(func(t *testing.T, ip []byte, first, second, pinned, releasing uint16) {
		addr, ok := netip.AddrFromSlice(ip)
		if !ok || addr.Is4In6() {
			return
		}
		b, err := lease.NewBlock(lease.BlockOf(addr))
		if err != nil {
			t.Fatal(err)
		}
		b.Claim(lease.Node{Name: "a", UID: "1"}, lease.Set(first))
		b.Claim(lease.Node{Name: "b", UID: "2"}, lease.Set(second))
		for o := range (lease.Set(pinned) & b.Leased()).Offsets() {
			id := lease.Identity{Namespace: "ns", Pod: "p", Interface: "eth0"}
			lessee, _ := b.LesseeOf(b.Addr(o))
			if err := b.Pin(lessee.UID, b.Addr(o), id); err != nil {
				t.Fatal(err)
			}
			if lease.Set(releasing).Has(o) {
				if err := b.MarkReleasing(b.Addr(o), id); err != nil {
					t.Fatal(err)
				}
			}
		}
		spec := encodeBlock(&b)
		got, err := decodeBlock(&v1alpha1.IPBlock{ObjectMeta: metav1.ObjectMeta{Name: b.Name()}, Spec: spec})
		if err != nil {
			t.Fatalf("%+v: %v", spec, err)
		}
		if !got.Equal(&b) {
			t.Fatalf("%+v became %+v", b, got)
		}
		for i, l := range spec.Leases {
			if diff := cmp.Diff(oneByOne(&b, b.Leases[i].Addrs), spread(t, l.Addresses)); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

func oneByOne(b *lease.Block, set lease.Set) []string {
	var all []string
	for a := b.Prefix().Addr(); b.Prefix().Contains(a); a = a.Next() {
		if set.Has(lease.Offset(a)) {
			all = append(all, a.String())
		}
	}
	return all
}

func spread(t *testing.T, ranges []string) []string {
	t.Helper()
	var all []string
	for _, r := range ranges {
		first, last, ok := strings.Cut(r, "-")
		if !ok {
			last = first
		}
		for a := netip.MustParseAddr(first); a.Compare(netip.MustParseAddr(last)) <= 0 && a.IsValid(); a = a.Next() {
			all = append(all, a.String())
		}
	}
	return all
}

// FuzzEndpointNeverBreaksTheReader reads endpoints as anybody may have
// written them; what is understood must say the same when written again.
func FuzzEndpointNeverBreaksTheReader(f *testing.F) {
	f.Add([]byte(`{"current":{"uid":"u","node":"n","ips":[{"interface":"eth0","ipv4":"10.6.0.5/16","ipv4Gateway":"10.6.0.1","ipv6":"fd00::5/64",` +
		`"cleanGateway":true,"routes":[{"dst":"10.7.0.0/16","gw":"10.6.0.2"},{"dst":"fd01::/64","gw":"fd00::2"}]}]}}`))
	f.Add([]byte(`{"current":{"ips":[{"interface":"","ipv4":"10.6.0.5/33"},{"ipv6":"10.6.0.5/16"}]}}`))
	f.Add([]byte(`{"current":{"ips":[{"ipv4":"10.6.0.5/16","vlan":7,"mac":"x","routes":[{"dst":"0.0.0.0/0","gw":""}]}]}}`))
	f.Fuzz(func(t *testing.T, status []byte) {
		var stored v2beta1.SpiderEndpoint
		if json.Unmarshal(status, &stored.Status) != nil {
			return
		}
		e, err := FromSpiderEndpoint(&stored)
		if err != nil {
			return
		}
		if stored.Status, err = encodeStatus(&e); err != nil {
			return // the same interface twice, for instance
		}
		again, err := FromSpiderEndpoint(&stored)
		if err != nil {
			t.Fatalf("%+v was written and is not understood: %v", e, err)
		}
		if diff := cmp.Diff(e, again, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Fatal(diff)
		}
	})
}
