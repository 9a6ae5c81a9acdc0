package lease_test

import (
	"errors"
	"net/netip"
	"sync"
	"testing"

	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// give makes the address free on the node and yields it, whatever comes of
// that.
func (n *node) give(s sandbox) error {
	n.w.Helper()
	n.del(s)
	n.w.pass(coolDown)
	n.tidy()
	return n.Yield(n.w.Context(), s.addrs)
}

func TestYieldedAddressIsClaimableElsewhere(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		s := a.add(w.pod("web", a), p)
		if err := a.give(s); err != nil {
			w.Fatal(err)
		}
		if _, ok := a.entry(s.addrs[0]); ok {
			w.Fatalf("a's journal still has what it yielded\n%s", w)
		}
		w.wantAddrs(b.add(w.pod("db", b), p).addrs, s.addrs)
	})
}

func TestYieldPassesOverWhatIsNotFree(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 16, "10.0.0.0-10.0.0.15")
		used, cooling, pinned := a.add(w.pod("used", a), p), a.add(w.pod("cooling", a), p), a.add(w.member("web-0", a), p)
		a.del(cooling)
		if err := a.Yield(w.Context(), []netip.Addr{
			used.addrs[0], cooling.addrs[0], pinned.addrs[0], addr("10.9.9.9"),
		}); err != nil {
			w.Fatal(err)
		}
		if got := w.block(used.addrs[0]); got.LeasedTo(a.id.UID).Len() != 16 {
			w.Fatalf("yielded what is not free\n%s", w)
		}
	})
}

// A yield whose answer was lost may land at any time as long as the version
// stands, so the address is not handed out until another update has settled
// which it is.
func TestLostYieldIsSettledByAnotherUpdate(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		s := a.add(w.pod("web", a), p)
		w.fault = always("PutBlock", leasetest.Late)
		if err := a.give(s); err == nil {
			w.Fatal("the yield succeeded without an answer")
		}
		w.fault = nil
		a.wantState(s.addrs[0], lease.Yielding)
		if free := a.Free(); len(free) != 0 {
			w.Fatalf("%v are free while their yield is under way", free)
		}
		// Here the address would have been given out, had the read, which
		// still shows the lease, been believed.
		a.watch(0)
		_, err := a.tryAdd(w.Context(), w.pod("next", a), p)
		wantExhausted(w, err, "p")
		w.cluster.Land()
		w.pass(fullFor)
		w.wantAddrs(b.add(w.pod("db", b), p).addrs, s.addrs)
		a.tidy()
		if entries := a.Entries(); len(entries) != 0 {
			w.Fatalf("a keeps %v", entries)
		}
	})
}

// Settled before it lands, the lost yield is dead.
func TestSettledYieldLandsNoMore(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		s := a.add(w.pod("web", a), p)
		w.fault = always("PutBlock", leasetest.Late)
		_ = a.give(s) // its answer is lost
		w.fault = nil
		a.tidy()
		w.pass(fullFor)
		again := a.add(w.pod("next", a), p)
		if n := w.cluster.Land(); n != 0 {
			w.Fatalf("%d late writes took effect on %v, which is in use\n%s", n, again.addrs, w)
		}
	})
}

// The lost yield survives a crash of its node in the journal.
func TestLostYieldOutlivesACrash(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		s := a.add(w.pod("web", a), p)
		w.fault = always("PutBlock", leasetest.Late)
		_ = a.give(s) // its answer is lost
		w.fault = nil
		a.restart()
		if free := a.Free(); len(free) != 0 {
			w.Fatalf("after a restart %v are free while their yield is under way", free)
		}
		w.cluster.Land()
		w.wantAddrs(b.add(w.pod("db", b), p).addrs, s.addrs)
	})
}

// A disk that fails keeps the lease: a yield that only memory knows of would
// be forgotten by a crash and land after the address was given out again.
func TestNoYieldBeforeTheJournalHasIt(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		s := a.add(w.pod("web", a), p)
		a.del(s)
		w.pass(coolDown)
		a.tidy()
		a.diskFault = func(leasetest.DiskWrite) leasetest.DiskFault { return leasetest.Unsynced }
		w.fault = always("PutBlock", leasetest.Late)
		w.costs(func() {
			if err := a.Yield(w.Context(), s.addrs); err == nil {
				w.Fatal("yielded without a journal")
			}
			if err := a.Tidy(w.Context()); err == nil {
				w.Fatal("tidied without a journal")
			}
		})
	})
}

// Two calls that yield the same address do it once: by the time the slower
// one comes to it, the address may have been claimed again and be in use.
func TestYieldsOfTwoCallsDoNotTakeAReclaimedAddress(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p, q := pool("p", 0, "10.0.0.1-10.0.0.1"), pool("q", 0, "10.0.1.1-10.0.1.1")
		slow, fast := a.add(w.pod("slow", a), p), a.add(w.pod("fast", a), q)
		a.del(slow)
		a.del(fast)
		w.pass(coolDown)
		a.tidy()
		// The first block does not answer the first call.
		stuck := make(chan struct{})
		first := true
		w.fault = func(c leasetest.Call) leasetest.Fault {
			if c.Method == "PutBlock" && c.Object == "10.0.0.0-28" && first {
				first = false
				<-stuck
			}
			return leasetest.Fault{}
		}
		var calls sync.WaitGroup
		calls.Go(func() {
			if err := a.Yield(w.Context(), []netip.Addr{slow.addrs[0], fast.addrs[0]}); err != nil {
				w.Error(err)
			}
		})
		w.settle()
		calls.Go(func() {
			if err := a.Tidy(w.Context()); err != nil {
				w.Error(err)
			}
		})
		w.settle()
		var again sandbox
		var err error
		if again, err = a.tryAdd(w.Context(), w.pod("again", a), q); err != nil && !isExhausted(err) {
			w.Fatal(err)
		}
		close(stuck)
		calls.Wait()
		for _, addr := range again.addrs {
			if b := w.block(addr); !b.LeasedTo(a.id.UID).Has(lease.Offset(addr)) {
				w.Fatalf("%s is in use and yielded\n%s", addr, w)
			}
		}
	})
}

// A call that was slow at one block comes to the next when what it saw
// yielding there has been yielded, claimed again, and given to a pod.
func TestSlowYieldDoesNotTakeAReclaimedAddress(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p, q := pool("p", 0, "10.0.0.1-10.0.0.1"), pool("q", 0, "10.0.1.1-10.0.1.1")
		slow, fast := a.add(w.pod("slow", a), p), a.add(w.pod("fast", a), q)
		a.del(slow)
		a.del(fast)
		w.pass(coolDown)
		a.tidy()
		stuck := map[string]chan struct{}{"10.0.0.0-28": make(chan struct{}), "10.0.1.0-28": make(chan struct{})}
		w.fault = func(c leasetest.Call) leasetest.Fault {
			if c.Method == "PutBlock" {
				<-stuck[c.Object]
			}
			return leasetest.Fault{}
		}
		var calls sync.WaitGroup
		for _, s := range []sandbox{fast, slow} {
			calls.Go(func() {
				if err := a.Yield(w.Context(), s.addrs); err != nil {
					w.Error(err)
				}
			})
			w.settle()
		}
		close(stuck["10.0.1.0-28"])
		w.settle()
		again := a.add(w.pod("again", a), q)
		close(stuck["10.0.0.0-28"])
		calls.Wait()
		if b := w.block(again.addrs[0]); !b.LeasedTo(a.id.UID).Has(lease.Offset(again.addrs[0])) {
			w.Fatalf("%s is in use and yielded\n%s", again.addrs[0], w)
		}
	})
}

func isExhausted(err error) bool {
	var exhausted *lease.ExhaustedError
	return errors.As(err, &exhausted)
}

// A yield whose answer was lost is made again together with a claim of the
// same address: the block is to be as it was, and yet a write is owed, or the
// lost yield lands on an address in use.
func TestBatchThatUndoesItselfStillEndsALostYield(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p, full := pool("p", 1, "10.0.0.1-10.0.0.1"), pool("full", 1, "10.0.0.9-10.0.0.9")
		b.add(w.pod("b", b), full)
		s := a.add(w.pod("a", a), p)
		a.del(s)
		w.pass(coolDown)
		a.tidy()
		puts := 0
		w.fault = func(c leasetest.Call) leasetest.Fault {
			if c.Method == "PutBlock" {
				if puts++; puts == 1 {
					return leasetest.Fault{Kind: leasetest.Late}
				}
			}
			return leasetest.Fault{Kind: leasetest.Lost}
		}
		if err := a.Yield(w.Context(), s.addrs); err == nil {
			w.Fatal("the yield has ended, though no answer came")
		}
		// A search in vain holds the block's turn until both others wait.
		stuck := make(chan struct{})
		held := false
		w.fault = func(c leasetest.Call) leasetest.Fault {
			if c.Method == "Block" && !held {
				held = true
				<-stuck
			}
			return leasetest.Fault{}
		}
		var calls sync.WaitGroup
		claim := func(p lease.Pool) {
			if err := a.ClaimAhead(w.Context(), p, 1); err != nil && !errors.Is(err, lease.ErrSearching) {
				w.Error(err)
			}
		}
		calls.Go(func() { claim(full) })
		w.settle()
		calls.Go(func() { a.tidy() })
		w.settle()
		calls.Go(func() { claim(p) })
		w.settle()
		close(stuck)
		calls.Wait()
		w.cluster.Land()
		block := w.block(s.addrs[0])
		if has := len(a.Free()) == 1; has != block.LeasedTo(a.id.UID).Has(lease.Offset(s.addrs[0])) {
			w.Errorf("the node takes %s for free: %t\n%s", s.addrs[0], has, w)
		}
	})
}
