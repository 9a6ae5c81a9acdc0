package lease_test

import (
	"testing"

	"github.com/holdfast-ipam/holdfast/lease"
)

// useAndYield has a pod use an address of the pool, and the node then yield what
// is free. It returns the block as it was while the pod had the address.
func (n *node) useAndYield(p lease.Pool) lease.Block {
	n.w.Helper()
	s := n.add(n.w.pod("web", n), p)
	old := n.w.block(s.addrs[0])
	n.del(s)
	n.w.pass(coolDown)
	n.tidy()
	if err := n.Yield(n.w.Context(), n.Free()); err != nil {
		n.w.Fatal(err)
	}
	return old
}

// A watch that lags reports a lease that was yielded meanwhile; by then the
// address is another node's.
func TestLaggingWatchBringsNoLeaseBack(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		first := a.add(w.pod("web", a), p)
		old := w.block(first.addrs[0])
		a.del(first)
		w.pass(coolDown)
		a.tidy()
		if err := a.Yield(w.Context(), a.Free()); err != nil {
			w.Fatal(err)
		}
		a.tidy() // forgets blocks that do not concern it
		second := b.add(w.pod("db", b), p)
		w.wantAddrs(second.addrs, first.addrs)

		if err := a.Observe(old); err != nil {
			w.Fatal(err)
		}
		if free := a.Free(); len(free) != 0 {
			w.Fatalf("a would hand out %v, which b's pod has\n%s", free, w)
		}
	})
}

// The same after the block itself was deleted in between.
func TestLaggingWatchBringsNoDeletedBlockBack(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		old := a.useAndYield(p)
		if err := w.cluster.DeleteBlock(w.Context(), w.block(addr("10.0.0.1"))); err != nil {
			w.Fatal(err)
		}
		if err := a.Missing(w.Context(), old.Prefix()); err != nil {
			w.Fatal(err)
		}
		if err := a.Observe(old); err != nil {
			w.Fatal(err)
		}
		if free := a.Free(); len(free) != 0 {
			w.Fatalf("a would hand out %v of a block that is no more", free)
		}
	})
}

// The same after a restart: the memory of what was seen is gone, and a watch may
// begin with what was before the process read its leases.
func TestWatchThatBeginsBeforeTheStartBringsNoLeaseBack(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		old := a.useAndYield(p)
		a.restart()

		if err := a.Observe(old); err != nil {
			w.Fatal(err)
		}
		if free := a.Free(); len(free) != 0 {
			w.Fatalf("a would hand out %v, which it yielded before it was restarted\n%s", free, w)
		}
	})
}

// What a node that leases nothing in a block knows of it is kept fresh by
// nobody, so a claim begins with a read.
func TestStaleViewOfUnwatchedBlockIsNotTrusted(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.1-10.0.0.2")
		b.add(w.pod("b-0", b), p)
		if err := a.Observe(w.block(addr("10.0.0.1"))); err != nil {
			w.Fatal(err)
		}
		b.add(w.pod("b-1", b), p)
		_, err := a.tryAdd(w.Context(), w.pod("a-0", a), p)
		wantExhausted(w, err, "p")

		w.change(addr("10.0.0.2"), func(b *lease.Block) error {
			b.Yield("uid-of-b", 1<<2)
			return nil
		})
		w.pass(fullFor)
		got := a.add(w.pod("a-1", a), p)
		if got.addrs[0] != addr("10.0.0.2") {
			w.Fatalf("got %v", got.addrs)
		}
	})
}

// A watch that was interrupted may report a block as gone from a list of long
// ago. The block is there, and so is what this node leases in it.
func TestMissingBlockIsReadBeforeItIsForgotten(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 16, "10.0.0.0-10.0.0.15")
		s := a.add(w.pod("web", a), p)
		cooling := a.add(w.pod("db", a), p)
		a.del(cooling)
		w.costs(func() {
			if err := a.Missing(w.Context(), lease.BlockOf(s.addrs[0])); err != nil {
				w.Fatal(err)
			}
		}, "Block")
		a.tidy()
		a.wantState(cooling.addrs[0], lease.Cooling)
		w.costs(func() { w.wantAddrs(a.add(s.pod, p).addrs, s.addrs) })
	})
}
