package lease_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// recreate deletes the pod behind s, whose sandbox is torn down first, and
// creates its successor on the node to.
func (w *world) recreate(s sandbox, from, to *node) pod {
	w.Helper()
	from.del(s)
	return w.member(s.name, to)
}

// prepare is what the agent does when the pod was bound, and must succeed.
func (n *node) prepare(p pod, pools ...lease.Pool) {
	n.w.Helper()
	if err := n.Prepare(n.w.Context(), p.request("", pools...)); err != nil {
		n.w.Fatalf("Prepare of %s on %s: %v\n%s", p.name, n.id.Name, err, n.w)
	}
}

func TestFirstPlacementCostsOneReadTwoWrites(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 16, "10.0.0.0-10.0.0.15")
		a.add(w.pod("warm", a), p)
		w.costs(func() { a.add(w.member("web-0", a), p) }, "Endpoint", "PutBlock", "PutEndpoint")
	})
}

func TestFirstPlacementPinsAndPoints(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		web := w.member("web-0", a)
		s := a.add(web, pool("p", 0, "10.0.0.1-10.0.0.4"))
		b := w.block(s.addrs[0])
		if pin, ok := b.PinAt(s.addrs[0]); !ok || pin.Identity != web.identity() || pin.Releasing {
			w.Errorf("the pin is %v\n%s", pin, w)
		}
		e, err := w.cluster.Endpoint(w.Context(), namespace, web.name)
		if err != nil || len(e.Addresses) != 1 || e.Addresses[0].Addr != s.addrs[0] || !e.Sticky || e.PodUID != web.uid {
			w.Errorf("the endpoint is %+v, %v", e, err)
		}
	})
}

func TestRecreatedPodCostsOneReadNoWrite(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.4")
		s := a.add(w.member("web-0", a), p)
		next := w.recreate(s, a, a)
		w.costs(func() { a.prepare(next, p) }, "Block")
		w.costs(func() { w.wantAddrs(a.add(next, p).addrs, s.addrs) })
	})
}

func TestSameUIDAgainCostsNothing(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.4")
		web := w.member("web-0", a)
		s := a.add(web, p)
		a.del(s)
		a.wantState(s.addrs[0], lease.Retained)
		w.costs(func() { w.wantAddrs(a.add(web, p).addrs, s.addrs) })
	})
}

func TestMovedPodCostsThreeReadsOneWrite(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.1-10.0.0.4")
		s := a.add(w.member("web-0", a), p)
		next := w.recreate(s, a, b)
		w.costs(func() { b.prepare(next, p) }, "Endpoint", "Block", "PodAt", "PutBlock")
		w.costs(func() { w.wantAddrs(b.add(next, p).addrs, s.addrs) })
		a.watch(0)
		a.tidy()
		if entries := a.Entries(); len(entries) != 0 {
			w.Fatalf("the old node keeps %v", entries)
		}
	})
}

// Pods that move together from one block do not defeat each other's updates, and
// each goes on from what the one before has stored.
func TestPodsThatMoveTogetherReadTheirBlockOnce(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.0-10.0.0.15")
		var moved []pod
		for i := range 4 {
			moved = append(moved, w.recreate(a.add(w.member(fmt.Sprintf("web-%d", i), a), p), a, b))
		}
		read := holdReads(w)
		before := len(w.cluster.Calls())
		var preparing sync.WaitGroup
		for _, m := range moved {
			preparing.Go(func() { b.prepare(m, p) })
		}
		w.settle()
		close(read)
		preparing.Wait()
		cost := map[string]int{}
		for _, c := range w.cluster.Calls()[before:] {
			cost[c.Method]++
		}
		if want := map[string]int{"Endpoint": 4, "Block": 1, "PodAt": 4, "PutBlock": 4}; !maps.Equal(cost, want) {
			w.Errorf("cost %v, want %v", cost, want)
		}
	})
}

// What a node has seen of a block may be older than the pin, or than the lease
// that it shows.
func TestTakeOverInABlockOfOldViewIsJudgedOnARead(t *testing.T) {
	p, others := pool("p", 0, "10.0.0.1-10.0.0.4"), pool("q", 0, "10.0.0.8-10.0.0.15")
	for name, test := range map[string]struct {
		seen func(b *node) // b's last watch of the block is before or after it
		want []string
	}{
		"BeforeThePin":  {func(*node) {}, []string{"Endpoint", "Block", "PodAt", "PutBlock"}},
		"BeforeAnother": {func(b *node) { b.watch(0) }, []string{"Endpoint", "PodAt", "PutBlock", "Block", "PodAt", "PutBlock"}},
	} {
		t.Run(name, func(t *testing.T) {
			history(t, func(w *world) {
				a, b := w.node("a"), w.node("b")
				b.add(w.pod("here", b), others)
				first := a.add(w.member("web-0", a), p)
				test.seen(b)
				a.add(w.member("web-1", a), p)
				next := w.recreate(first, a, b)
				w.costs(func() { w.wantAddrs(b.add(next, p).addrs, first.addrs) }, test.want...)
			})
		})
	}
}

func TestPodThatMovesBackKeepsItsAddress(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.1-10.0.0.4")
		s := a.add(w.member("web-0", a), p)
		moved := b.add(w.recreate(s, a, b), p)
		back := a.add(w.recreate(moved, b, a), p) // a never tidied
		w.wantAddrs(back.addrs, s.addrs)
		b.tidy()
		a.tidy()
		a.wantState(s.addrs[0], lease.Assigned)
	})
}

func TestTakeOverNeedsLivePod(t *testing.T) {
	for name, spoil := range map[string]func(*world, *node, *node){
		"Deleted":   func(w *world, _, b *node) { w.cluster.DeletePod(namespace, "web-0") },
		"Finished":  func(w *world, _, b *node) { w.cluster.UpdatePod(namespace, "web-0", b.id.Name, true) },
		"Elsewhere": func(w *world, a, _ *node) { w.cluster.UpdatePod(namespace, "web-0", a.id.Name, false) },
		"Unbound":   func(w *world, _, _ *node) { w.cluster.UpdatePod(namespace, "web-0", "", false) },
	} {
		t.Run(name, func(t *testing.T) {
			history(t, func(w *world) {
				a, b := w.node("a"), w.node("b")
				p := pool("p", 0, "10.0.0.1-10.0.0.4")
				s := a.add(w.member("web-0", a), p)
				next := w.recreate(s, a, b)
				spoil(w, a, b)
				_, err := b.tryAdd(w.Context(), next, p)
				w.wantErr(err, lease.ErrPodMoved)
				block := w.block(s.addrs[0])
				if at, _ := block.LesseeOf(s.addrs[0]); at != a.id {
					w.Errorf("the lease went to %v", at)
				}
			})
		})
	}
}

// An ADD for an earlier pod of the name that comes late must not take the
// address from the later pod, on another node or on its own.
func TestStealFromLaterPodIsRefused(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.1-10.0.0.4")
		s := a.add(w.member("web-0", a), p)
		early := w.recreate(s, a, b) // bound to b, and its ADD is late
		later := w.member("web-0", a)
		now := a.add(later, p)
		w.wantAddrs(now.addrs, s.addrs)
		_, err := b.tryAdd(w.Context(), early, p)
		w.wantErr(err, lease.ErrPodMoved)

		latest := w.recreate(now, a, a)
		last := a.add(latest, p)
		_, err = a.tryAdd(w.Context(), later, p)
		w.wantErr(err, lease.ErrPodMoved)
		if !a.Has(lease.Sandbox{Owner: latest.owner(), Container: last.id}, last.addrs[0]) {
			w.Errorf("the later pod lost %v\n%s", last.addrs, w)
		}
	})
}

// The pod is looked up between the read of the block and its update: had a
// later pod been there in between, the version tells.
func TestTakeOverLosesToLaterPodInBetween(t *testing.T) {
	history(t, func(w *world) {
		a, b, c := w.node("a"), w.node("b"), w.node("c")
		p := pool("p", 0, "10.0.0.1-10.0.0.4")
		s := a.add(w.member("web-0", a), p)
		early := w.recreate(s, a, b)
		w.fault = func(call leasetest.Call) leasetest.Fault {
			if call.Method == "PutBlock" {
				w.fault = nil
				later := c.add(w.member("web-0", c), p)
				w.wantAddrs(later.addrs, s.addrs)
			}
			return leasetest.Fault{}
		}
		_, err := b.tryAdd(w.Context(), early, p)
		w.wantErr(err, lease.ErrPodMoved)
		block := w.block(s.addrs[0])
		if at, _ := block.LesseeOf(s.addrs[0]); at != c.id {
			w.Errorf("the lease went to %v", at)
		}
	})
}

func TestMarkIsTakenOffBeforeAnswer(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.4")
		s := a.add(w.member("web-0", a), p)
		next := w.recreate(s, a, a)
		w.change(s.addrs[0], func(b *lease.Block) error { return b.MarkReleasing(s.addrs[0], next.identity()) })
		marked := w.block(s.addrs[0])
		w.costs(func() { a.prepare(next, p) }, "Block", "PutBlock")
		w.wantAddrs(a.add(next, p).addrs, s.addrs)
		// The collector's second update comes too late.
		if err := marked.Unpin(s.addrs[0], next.identity()); err != nil {
			w.Fatal(err)
		}
		_, err := w.cluster.PutBlock(w.Context(), marked)
		w.wantErr(err, lease.ErrConflict)
	})
}

func TestAddWaitsForTheMarkToBeTakenOff(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.4")
		s := a.add(w.member("web-0", a), p)
		next := w.recreate(s, a, a)
		w.change(s.addrs[0], func(b *lease.Block) error { return b.MarkReleasing(s.addrs[0], next.identity()) })
		w.fault = always("PutBlock", leasetest.Refused)
		_, err := a.tryAdd(w.Context(), next, p)
		w.wantErr(err, lease.ErrRefused)
		a.wantState(s.addrs[0], lease.Retained)
		w.fault = nil
		w.wantAddrs(a.add(next, p).addrs, s.addrs)
	})
}

// While the mark was being taken off, a later pod took the address over.
func TestConfirmationNeedsTheLeaseToTheEnd(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.1-10.0.0.4")
		s := a.add(w.member("web-0", a), p)
		early := w.recreate(s, a, a)
		w.change(s.addrs[0], func(b *lease.Block) error { return b.MarkReleasing(s.addrs[0], early.identity()) })
		w.fault = func(call leasetest.Call) leasetest.Fault {
			if call.Method == "PutBlock" {
				w.fault = nil
				w.wantAddrs(b.add(w.member("web-0", b), p).addrs, s.addrs)
			}
			return leasetest.Fault{}
		}
		if late, err := a.tryAdd(w.Context(), early, p); err == nil {
			w.Errorf("an earlier pod got %v, which b leases\n%s", late.addrs, w)
		}
	})
}

func TestPinnedAddressGoesToNobodyElse(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		s := a.add(w.member("web-0", a), p)
		a.del(s)
		w.cluster.DeletePod(namespace, "web-0")
		w.pass(time.Hour)
		a.tidy()
		_, err := a.tryAdd(w.Context(), w.pod("other", a), p)
		wantExhausted(w, err, "p")
		_, err = b.tryAdd(w.Context(), w.pod("other", b), p)
		wantExhausted(w, err, "p")
		a.wantState(s.addrs[0], lease.Retained)
	})
}

func TestAddressOfRemovedPinBecomesFree(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		s := a.add(w.member("web-0", a), p)
		a.del(s)
		w.unpin(s)
		a.watch(0)
		a.tidy()
		a.wantState(s.addrs[0], lease.Cooling)
		w.pass(coolDown)
		a.tidy()
		w.wantAddrs(a.add(w.pod("other", a), p).addrs, s.addrs)
	})
}

// unpin is what the collector does with a pin nobody wants.
func (w *world) unpin(s sandbox) {
	w.Helper()
	w.change(s.addrs[0], func(b *lease.Block) error { return b.MarkReleasing(s.addrs[0], s.identity()) })
	w.change(s.addrs[0], func(b *lease.Block) error { return b.Unpin(s.addrs[0], s.identity()) })
}

// A pin without its pointer and a pointer without its pin are no licence.
func TestPointerCountsOnlyWithItsPin(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.1-10.0.0.4")
		s := a.add(w.member("web-0", a), p)
		next := w.recreate(s, a, b)
		w.unpin(s)
		moved := b.add(next, p)
		if moved.addrs[0] == s.addrs[0] {
			w.Errorf("b's pod got %v, which a leases", moved.addrs)
		}
		e, err := w.cluster.Endpoint(w.Context(), namespace, s.name)
		if err != nil || len(e.Addresses) != 1 || e.Addresses[0].Addr != moved.addrs[0] {
			w.Errorf("the endpoint is %+v, %v", e, err)
		}
	})
}

func TestLostPinIsSettled(t *testing.T) {
	for _, kind := range []leasetest.Kind{leasetest.Lost, leasetest.AnswerLost, leasetest.Late} {
		history(t, func(w *world) {
			a := w.node("a")
			p := pool("p", 16, "10.0.0.0-10.0.0.15")
			a.add(w.pod("warm", a), p)
			w.fault = once("PutBlock", 1, kind)
			s := a.add(w.member("web-0", a), p)
			w.fault = nil
			w.cluster.Land()
			block := w.block(s.addrs[0])
			if pin, ok := block.PinAt(s.addrs[0]); !ok || pin.Identity != s.identity() || len(block.Pins) != 1 {
				w.Errorf("fault %d: pins are %v", kind, block.Pins)
			}
		})
	}
}

// The pin may be there or land any moment, so nobody else gets the address,
// and the pod that asks again gets the same.
func TestUnsettledPlacementStaysItsPods(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 2, "10.0.0.0-10.0.0.1")
		warm := a.add(w.pod("warm", a), p)
		web := w.member("web-0", a)
		w.fault = always("PutBlock", leasetest.Late)
		if _, err := a.tryAdd(w.Context(), web, p); err == nil {
			w.Fatal("answered before the pin was certain")
		}
		w.fault = nil
		if free := a.Free(); len(free) != 0 {
			w.Fatalf("%v are free while a pin may land", free)
		}
		s := a.add(web, p)
		if n := w.cluster.Land(); n != 0 || s.addrs[0] == warm.addrs[0] {
			w.Errorf("%d late writes took effect\n%s", n, w)
		}
	})
}

// The next incarnation takes up what an earlier one was never answered with.
func TestRecreatedPodUsesUnfinishedPlacement(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		w.fault = always("PutEndpoint", leasetest.Refused)
		if _, err := a.tryAdd(w.Context(), w.member("web-0", a), p); err == nil {
			w.Fatal("answered without an endpoint")
		}
		w.fault = nil
		s := a.add(w.member("web-0", a), p)
		w.wantAddrs(s.addrs, []netip.Addr{addr("10.0.0.1")})
	})
}

// An unfinished placement that nobody comes back for gives its address back,
// pin and all.
func TestUnfinishedPlacementComesBack(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		web := w.member("web-0", a)
		w.fault = always("PutEndpoint", leasetest.Refused)
		if _, err := a.tryAdd(w.Context(), web, p); err == nil {
			w.Fatal("answered without an endpoint")
		}
		w.fault = nil
		if _, err := a.ReleasePod(web.uid); err != nil {
			w.Fatal(err)
		}
		w.pass(2 * time.Minute)
		a.tidy()
		w.pass(coolDown)
		a.tidy()
		a.add(w.pod("other", a), p)
		if pins := w.block(addr("10.0.0.1")).Pins; len(pins) != 0 {
			w.Errorf("pins are left: %v", pins)
		}
	})
}

// Withdrawing an unfinished placement got no answer, then its pod came back
// and got the address: whatever lands late leaves the pin there.
func TestLostWithdrawalLeavesThePinOfAPodThatCameBack(t *testing.T) {
	for _, n := range []int{1, 2} { // the first or the second of its updates
		history(t, func(w *world) {
			a := w.node("a")
			p := pool("p", 0, "10.0.0.1-10.0.0.1")
			web := w.member("web-0", a)
			w.fault = always("PutEndpoint", leasetest.Refused)
			if _, err := a.tryAdd(w.Context(), web, p); err == nil {
				w.Fatal("answered without an endpoint")
			}
			w.fault = nil
			if _, err := a.ReleasePod(web.uid); err != nil {
				w.Fatal(err)
			}
			w.pass(2 * time.Minute)
			w.fault = func(c leasetest.Call) leasetest.Fault {
				if c.Method == "PutBlock" {
					if n--; n <= 0 {
						return leasetest.Fault{Kind: leasetest.Late}
					}
				}
				return leasetest.Fault{}
			}
			if err := a.Tidy(w.Context()); err == nil {
				w.Fatal("withdrawn without an answer")
			}
			w.fault = nil
			s := a.add(web, p)
			w.cluster.Land()
			block := w.block(s.addrs[0])
			if pin, ok := block.PinAt(s.addrs[0]); !ok || pin.Identity != web.identity() {
				w.Errorf("%v is in use and lost its pin\n%s", s.addrs, w)
			}
		})
	}
}

// Somebody else placed the identity in between: the endpoint tells, and the
// address that was taken here for nothing comes back.
func TestPlacementFollowsAnEarlierOne(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.1-10.0.0.2")
		var first sandbox
		web := w.member("web-0", b)
		w.fault = func(c leasetest.Call) leasetest.Fault {
			if c.Method == "PutEndpoint" {
				w.fault = nil
				w.cluster.UpdatePod(namespace, "web-0", a.id.Name, false)
				first = a.add(web, p)
				w.cluster.UpdatePod(namespace, "web-0", b.id.Name, false)
			}
			return leasetest.Fault{}
		}
		s := b.add(web, p)
		w.wantAddrs(s.addrs, first.addrs)
		b.tidy()
		w.pass(coolDown)
		b.tidy()
		a.tidy()
		if free := b.Free(); len(free) != 1 {
			w.Errorf("b has %v free, want the address it pinned for nothing\n%s", free, w)
		}
	})
}

func TestOnlyFromLeavesAddressOfOtherPool(t *testing.T) {
	for _, elsewhere := range []bool{false, true} {
		history(t, func(w *world) {
			a, b := w.node("a"), w.node("b")
			p, q := pool("p", 0, "10.0.0.1-10.0.0.1"), pool("q", 0, "10.0.1.1-10.0.1.1")
			s := a.add(w.member("web-0", a), p)
			to := a
			if elsewhere {
				to = b
			}
			next := w.recreate(s, a, to)
			r := next.request("c", q)
			r.OnlyFrom = true
			got, err := to.Acquire(w.Context(), r)
			if err != nil || len(got) != 1 || got[0].Addr != addr("10.0.1.1") {
				w.Fatalf("got %v, %v", got, err)
			}
			for range 2 {
				a.watch(0)
				a.tidy()
				b.tidy()
				w.pass(coolDown)
			}
			a.tidy()
			b.tidy()
			block := w.block(s.addrs[0])
			if len(block.Pins) != 0 {
				w.Errorf("elsewhere %t: the address left behind stays pinned\n%s", elsewhere, w)
			}
			w.wantAddrs(slices.Concat(a.Free(), b.Free()), s.addrs)
		})
	}
}

func TestWithoutOnlyFromAddressOfOtherPoolStays(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p, q := pool("p", 0, "10.0.0.1-10.0.0.1"), pool("q", 0, "10.0.1.1-10.0.1.1")
		s := a.add(w.member("web-0", a), p)
		w.wantAddrs(a.add(w.recreate(s, a, a), q).addrs, s.addrs)
	})
}

// A lease that the journal does not know of and that is pinned was taken over
// or survived the journal: it is its identity's.
func TestPinnedAddressMissingFromTheJournalIsRetained(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		s := a.add(w.member("web-0", a), p)
		a.disk.Replace()
		a.boot()
		a.start()
		a.tidy()
		a.wantState(s.addrs[0], lease.Retained)
		next := w.member("web-0", a)
		w.costs(func() { a.prepare(next, p) }, "Block")
		e, ok := a.entry(s.addrs[0])
		if !ok || string(e.Detail) != `{"from":"p"}` {
			w.Errorf("the entry is %+v", e)
		}
	})
}

func TestLostTakeOverIsSettled(t *testing.T) {
	for _, kind := range []leasetest.Kind{leasetest.Conflict, leasetest.Lost, leasetest.AnswerLost, leasetest.Late} {
		history(t, func(w *world) {
			a, b := w.node("a"), w.node("b")
			p := pool("p", 0, "10.0.0.1-10.0.0.4")
			s := a.add(w.member("web-0", a), p)
			next := w.recreate(s, a, b)
			w.fault = once("PutBlock", 1, kind)
			w.wantAddrs(b.add(next, p).addrs, s.addrs)
			w.fault = nil
			w.cluster.Land()
			block := w.block(s.addrs[0])
			if at, _ := block.LesseeOf(s.addrs[0]); at != b.id {
				w.Errorf("fault %d: the lease is %v's", kind, at)
			}
		})
	}
}

// An agent looks for pods that are gone more often than the grace of an
// unfinished placement: that must not put it off for ever.
func TestReleasingAPodAgainPutsNothingOff(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		web := w.member("web-0", a)
		w.fault = always("PutEndpoint", leasetest.Refused)
		if _, err := a.tryAdd(w.Context(), web, p); err == nil {
			w.Fatal("answered without an endpoint")
		}
		w.fault = nil
		for range 10 {
			if _, err := a.ReleasePod(web.uid); err != nil {
				w.Fatal(err)
			}
			w.pass(10 * time.Second)
			a.tidy()
		}
		a.add(w.pod("other", a), p)
	})
}

// What an earlier pod of the name had pinned and not been answered with was
// collected while there was no pod, and the watch has not told yet.
func TestUnfinishedPlacementIsPinnedAgain(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		early := w.member("web-0", a)
		w.fault = always("PutEndpoint", leasetest.Refused)
		if _, err := a.tryAdd(w.Context(), early, p); err == nil {
			w.Fatal("answered without an endpoint")
		}
		w.fault = nil
		w.unpin(sandbox{pod: early, addrs: []netip.Addr{addr("10.0.0.1")}})
		s := a.add(w.member("web-0", a), p)
		block := w.block(s.addrs[0])
		if pin, ok := block.PinAt(s.addrs[0]); !ok || pin.Identity != early.identity() {
			w.Errorf("%v is in use without a pin\n%s", s.addrs, w)
		}
	})
}

func TestFailedTakeOverTellsWhy(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.1-10.0.0.4")
		s := a.add(w.member("web-0", a), p)
		next := w.recreate(s, a, b)
		w.fault = always("PutBlock", leasetest.Lost)
		_, err := b.tryAdd(w.Context(), next, p)
		if err == nil || errors.Is(err, lease.ErrConflict) || !strings.Contains(err.Error(), "connection lost") {
			w.Errorf("got error %v, want what the cluster said", err)
		}
	})
}

// Two interfaces of one pod are two identities with one endpoint.
func TestInterfacesOfOnePodShareItsEndpoint(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p, q := pool("p", 0, "10.0.0.1-10.0.0.4"), pool("q", 0, "10.0.1.1-10.0.1.4")
		both := func(n *node, web pod) (addrs []netip.Addr) {
			addrs = make([]netip.Addr, 2)
			var adds sync.WaitGroup
			for i, name := range []string{"eth0", "net1"} {
				r := web.request("c-"+web.uid, []lease.Pool{p, q}[i])
				r.Owner.Interface = name
				adds.Go(func() {
					got, err := n.Acquire(w.Context(), r)
					if err != nil || len(got) != 1 {
						w.Errorf("%s got %v, %v", name, got, err)
						return
					}
					addrs[i] = got[0].Addr
				})
			}
			adds.Wait()
			return addrs
		}
		first := both(a, w.member("web-0", a))
		w.wantAddrs(both(b, w.member("web-0", b)), first)
		e, err := w.cluster.Endpoint(w.Context(), namespace, "web-0")
		if err != nil || len(e.Addresses) != 2 {
			w.Errorf("the endpoint is %+v, %v", e, err)
		}
	})
}

// What was taken over for a pod that then came to nothing rests like what the
// pod has given back: its predecessor on another node had it just now.
func TestAddressTakenOverInVainRestsBeforeAnotherPodGetsIt(t *testing.T) {
	for _, crash := range []bool{false, true} {
		history(t, func(w *world) {
			a, b := w.node("a"), w.node("b")
			p, q := pool("p", 0, "10.0.0.1-10.0.0.1"), pool("q", 0, "10.0.1.1-10.0.1.1")
			s := a.add(w.member("web-0", a), p)
			next := w.recreate(s, a, b)
			// There is nothing left in q for b's pod, so that it gets nothing.
			a.add(w.pod("other", a), q)
			if _, err := b.tryAdd(w.Context(), next, p, q); err == nil {
				w.Fatal("answered without an address of q")
			}
			w.unpin(s)
			if crash {
				b.restart()
			}
			b.watch(0)
			other := w.pod("third", b)
			_, err := b.tryAdd(w.Context(), other, p)
			wantExhausted(w, err, "p")
			b.tidy()
			w.pass(coolDown)
			w.wantAddrs(b.add(other, p).addrs, s.addrs)
		})
	}
}

// The placement of a pod that is deleted by force goes on for a while. It must
// not point the identity to what it has placed when a later pod of the name
// has an address by then.
func TestPlacementOfAPodThatIsGoneLeavesTheNextPodsAddressAlone(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.1-10.0.0.4")
		first := w.member("web-0", a)
		var second sandbox
		w.fault = func(c leasetest.Call) leasetest.Fault {
			if c.Method == "PutBlock" {
				w.fault = nil
				second = b.add(w.member("web-0", b), p)
				a.Forget(first.uid)
			}
			return leasetest.Fault{}
		}
		_, err := a.tryAdd(w.Context(), first, p)
		w.wantErr(err, lease.ErrPodMoved)
		w.wantAddrs(a.add(w.recreate(second, b, a), p).addrs, second.addrs)
	})
}
