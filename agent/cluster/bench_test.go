package cluster

import (
	"fmt"
	"net/netip"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// sharedBlock is as busy as a block gets: leased to four nodes in turn, each
// address pinned.
func sharedBlock(b *testing.B) lease.Block {
	b.Helper()
	block, err := lease.NewBlock(netip.MustParsePrefix("10.6.168.96/28"))
	if err != nil {
		b.Fatal(err)
	}
	for i := range 4 {
		node := lease.Node{Name: fmt.Sprintf("worker-%d", i), UID: fmt.Sprintf("%d0f2a4be-3c76-4d0f-9c27-0d5b8a0e7f11", i)}
		var mine lease.Set
		for o := i; o < lease.Size; o += 4 {
			mine |= 1 << o
		}
		block.Claim(node, mine)
		for o := range mine.Offsets() {
			id := lease.Identity{Namespace: "default", Pod: fmt.Sprintf("web-%d", o), Interface: "eth0"}
			if err := block.Pin(node.UID, block.Addr(o), id); err != nil {
				b.Fatal(err)
			}
		}
	}
	return block
}

func BenchmarkBlockEncode(b *testing.B) {
	block := sharedBlock(b)
	b.ReportAllocs()
	for b.Loop() {
		if spec := encodeBlock(&block); len(spec.Pins) != lease.Size {
			b.Fatalf("%d pins", len(spec.Pins))
		}
	}
}

func BenchmarkBlockDecode(b *testing.B) {
	block := sharedBlock(b)
	stored := &v1alpha1.IPBlock{ObjectMeta: metav1.ObjectMeta{Name: block.Name()}, Spec: encodeBlock(&block)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeBlock(stored); err != nil {
			b.Fatal(err)
		}
	}
}
