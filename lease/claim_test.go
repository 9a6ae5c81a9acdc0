package lease_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

func TestWarmAddTouchesNoCluster(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 16, "10.0.0.0-10.0.0.15")
		a.add(w.pod("first", a), p)
		var s sandbox
		w.costs(func() { s = a.add(w.pod("second", a), p) })
		w.costs(func() { a.del(s) })
	})
}

func TestColdAddCostsOneReadOneWrite(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		w.costs(func() { a.add(w.pod("first", a), pool("p", 16, "10.0.0.0-10.0.0.15")) }, "Block", "PutBlock")
	})
}

// Ten pods wait while one claim reads the block; it takes for all of them.
func TestConcurrentAddsShareOneClaim(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.0-10.0.0.15")
		read := holdReads(w)
		w.costs(func() {
			var adds sync.WaitGroup
			for i := range 10 {
				web := w.pod(fmt.Sprintf("web-%d", i), a)
				adds.Go(func() {
					if _, err := a.Acquire(w.Context(), web.request("c-"+web.name, p)); err != nil {
						w.Error(err)
					}
				})
			}
			w.settle()
			close(read)
			adds.Wait()
		}, "Block", "PutBlock")
		block := w.block(addr("10.0.0.0"))
		if n := block.Leased().Len(); n != 10 {
			w.Errorf("%d addresses are leased, want those of ten pods", n)
		}
	})
}

func TestClaimTakesPlentyAhead(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		a.add(w.pod("rich", a), pool("rich", 16, "10.0.0.0-10.0.0.255"))
		a.add(w.pod("scarce", a), pool("scarce", 0, "10.0.1.0-10.0.1.15"))
		if n := len(a.Free()); n != 15 {
			w.Errorf("%d addresses are free, want the rest of one block", n)
		}
	})
}

func TestClaimLoserTakesNextBlock(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.15-10.0.0.16") // one address in each of two blocks
		var winner sandbox
		w.fault = func(c leasetest.Call) leasetest.Fault {
			if c.Method == "PutBlock" {
				w.fault = nil
				from := netip.MustParseAddr(c.Object[:len(c.Object)-len("-28")])
				winner = b.add(w.pod("winner", b), pool("same", 0, within(from, p)))
			}
			return leasetest.Fault{}
		}
		loser := a.add(w.pod("loser", a), p)
		if loser.addrs[0] == winner.addrs[0] || lease.BlockOf(loser.addrs[0]) == lease.BlockOf(winner.addrs[0]) {
			w.Errorf("both took %v", loser.addrs)
		}
	})
}

// within returns the range of the one address of p in the block that begins
// at from.
func within(from netip.Addr, p lease.Pool) string {
	for _, s := range []string{"10.0.0.15", "10.0.0.16"} {
		if lease.BlockOf(addr(s)).Addr() == from && p.Ranges.Contains(addr(s)) {
			return s + "-" + s
		}
	}
	panic("no address of the pool is in the block of " + from.String())
}

func TestOverlappingPoolsMeetInOneBlock(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p, q := pool("p", 0, "10.0.0.1-10.0.0.2"), pool("q", 0, "10.0.0.2-10.0.0.3")
		taken := map[netip.Addr]string{}
		var mu sync.Mutex
		var adds sync.WaitGroup
		for i := range 4 { // three addresses for four pods
			n, from := a, p
			if i%2 == 1 {
				n, from = b, q
			}
			web := w.pod(fmt.Sprintf("web-%d", i), n)
			adds.Go(func() {
				got, err := n.Acquire(w.Context(), web.request(web.name, from))
				if isExhausted(err) {
					return
				}
				if err != nil {
					w.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				for _, e := range got {
					if other, ok := taken[e.Addr]; ok {
						w.Errorf("%s has gone to %s and to %s", e.Addr, other, web.name)
					}
					taken[e.Addr] = web.name
				}
			})
		}
		adds.Wait()
		if len(taken) != 3 || len(w.cluster.Blocks()) != 1 {
			w.Errorf("got %v\n%s", taken, w)
		}
	})
}

// Ten addresses and three nodes: each of the nodes can have the last one.
func TestScarcePoolIsUsableToItsLastAddressFromAnyNode(t *testing.T) {
	history(t, func(w *world) {
		nodes := []*node{w.node("a"), w.node("b"), w.node("c")}
		p := pool("p", 0, "10.6.168.101-10.6.168.110")
		for i := range 10 {
			n := nodes[min(i, 2)]
			n.add(w.pod(fmt.Sprintf("web-%d", i), n), p)
		}
		for _, n := range nodes {
			_, err := n.tryAdd(w.Context(), w.pod("eleventh", n), p)
			wantExhausted(w, err, "p")
		}
	})
}

func TestFullBlocksAreNotReadOverAndOver(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		s := b.add(w.pod("holder", b), p)
		_, err := a.tryAdd(w.Context(), w.pod("first", a), p)
		wantExhausted(w, err, "p")
		w.costs(func() {
			_, err := a.tryAdd(w.Context(), w.pod("second", a), p)
			wantExhausted(w, err, "p")
		})
		if err := b.give(s); err != nil {
			w.Fatal(err)
		}
		w.pass(fullFor)
		a.add(w.pod("third", a), p)
	})
}

func TestAddressFreedLongestAgoIsUsedFirst(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 3, "10.0.0.1-10.0.0.3")
		one, two, three := a.add(w.pod("one", a), p), a.add(w.pod("two", a), p), a.add(w.pod("three", a), p)
		var order []netip.Addr
		for _, s := range []sandbox{two, three, one} {
			a.del(s)
			w.pass(coolDown)
			a.tidy()
			order = append(order, s.addrs[0])
		}
		for i, want := range order {
			w.wantAddrs(a.add(w.pod(fmt.Sprintf("next-%d", i), a), p).addrs, []netip.Addr{want})
		}
	})
}

func TestCoolingAddressIsNotUsed(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		s := a.add(w.pod("web", a), p)
		a.del(s)
		w.pass(coolDown - time.Millisecond)
		a.tidy()
		_, err := a.tryAdd(w.Context(), w.pod("early", a), p)
		wantExhausted(w, err, "p")
		w.pass(time.Millisecond)
		a.tidy()
		w.wantAddrs(a.add(w.pod("next", a), p).addrs, s.addrs)
	})
}

func TestSecondPoolIsUsedWhenTheFirstIsUsedOut(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p, q := pool("p", 0, "10.0.0.1-10.0.0.1"), pool("q", 0, "10.0.1.1-10.0.1.1")
		for i, want := range []string{"10.0.0.1", "10.0.1.1"} {
			r := w.pod(fmt.Sprintf("web-%d", i), a).request(fmt.Sprintf("c%d", i), p)
			r.Families[0] = append(r.Families[0], q)
			got, err := a.Acquire(w.Context(), r)
			if err != nil || len(got) != 1 || got[0].Addr != addr(want) {
				w.Fatalf("got %v, %v, want %s", got, err, want)
			}
		}
	})
}

// Fifty first placements in a few blocks do not defeat each other.
func TestChangesOfOneBlockShareUpdates(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 16, "10.0.0.0-10.0.0.15")
		a.add(w.pod("warm", a), p)
		before := len(w.cluster.Calls())
		held := make(chan struct{})
		w.fault = func(c leasetest.Call) leasetest.Fault {
			if c.Method == "PutBlock" {
				<-held
			}
			return leasetest.Fault{}
		}
		var adds sync.WaitGroup
		for i := range 15 {
			web := w.member(fmt.Sprintf("web-%d", i), a)
			adds.Go(func() {
				if _, err := a.Acquire(w.Context(), web.request(web.name, p)); err != nil {
					w.Error(err)
				}
			})
		}
		w.settle()
		close(held)
		adds.Wait()
		puts := 0
		for _, c := range w.cluster.Calls()[before:] {
			if c.Method == "PutBlock" {
				puts++
			}
		}
		if puts != 2 {
			w.Errorf("fifteen pins cost %d updates, want the first and one for all that waited", puts)
		}
	})
}

// The watch has not told yet that another node was faster: the update loses,
// and the next one is made of what a read shows.
func TestConflictIsJudgedAnewOnARead(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.1-10.0.0.3")
		a.add(w.pod("a-0", a), p)
		b.add(w.pod("b-0", b), p)
		w.costs(func() { a.add(w.pod("a-1", a), p) }, "PutBlock", "Block", "PutBlock")
	})
}

// An update that gets no answer at all ends, and says so.
func TestUpdateWithoutAnswerGivesUp(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		w.fault = always("", leasetest.Lost)
		begun := time.Now()
		if s, err := a.tryAdd(w.Context(), w.pod("web", a), pool("p", 0, "10.0.0.1-10.0.0.1")); err == nil || isExhausted(err) {
			w.Errorf("got %v, %v", s.addrs, err)
		}
		if took := time.Since(begun); took > 15*time.Second {
			w.Errorf("it took %s", took)
		}
	})
}

// holdReads has reads of blocks wait until the channel is closed.
func holdReads(w *world) chan struct{} {
	read := make(chan struct{})
	w.fault = func(c leasetest.Call) leasetest.Fault {
		if c.Method == "Block" {
			<-read
		}
		return leasetest.Fault{}
	}
	return read
}

// fillBlocks leases whole blocks from 10.0.0.0 on to the node.
func fillBlocks(w *world, n *node, blocks int) {
	for i := range blocks {
		n.add(w.pod(fmt.Sprintf("%s-%d", n.id.Name, i), n), pool("all", 16, fmt.Sprintf("10.0.%d.%d-10.0.%d.%d", i/16, 16*(i%16), i/16, 16*(i%16)+15)))
	}
}

func TestClaimAheadLooksAtNoMoreThanItMay(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		fillBlocks(w, b, 4)
		w.costs(func() {
			err := a.ClaimAhead(w.Context(), pool("p", 16, "10.0.0.0-10.0.0.63"), 3)
			if got := a.Free(); len(got) != 0 || !errors.Is(err, lease.ErrSearching) {
				w.Errorf("got %v, %v", got, err)
			}
		}, slices.Repeat([]string{"Block"}, 3)...)
	})
}

// The one free address of a pool of many blocks is found, however many blocks
// there are, because each search goes on where the last one ended.
func TestLastAddressOfALargePoolIsFound(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		fillBlocks(w, b, 16*16)
		last := w.block(netip.MustParseAddr("10.0.9.32"))
		w.change(last.Addr(0), func(b *lease.Block) error { b.Fence("uid-of-b", nil); return nil })
		p := pool("p", 0, "10.0.0.0-10.0.15.255")
		w.fault = always("Roomy", leasetest.Lost)
		for range 10 {
			s, err := a.tryAdd(w.Context(), w.pod("late", a), p)
			if err == nil {
				if lease.BlockOf(s.addrs[0]) != last.Prefix() {
					w.Errorf("got %v, want one of %s", s.addrs, last.Prefix())
				}
				return
			}
			if !errors.Is(err, lease.ErrSearching) {
				w.Fatalf("gave up: %v", err)
			}
			w.pass(time.Minute) // nothing is known to be full any more
		}
		w.Error("ten searches did not find it")
	})
}

// With the API server away a Tidy takes its time; what cooled down meanwhile
// is used all the same.
func TestCooledAddressNeedsNoTidy(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		s := a.add(w.pod("web", a), p)
		a.del(s)
		w.pass(coolDown)
		w.fault = always("", leasetest.Lost)
		w.costs(func() { w.wantAddrs(a.add(w.pod("next", a), p).addrs, s.addrs) })
	})
}

// Two pools share a block, of which this node leases nothing.
func TestPoolIsNotFullBecauseAnotherOneIsInTheSameBlock(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		first, second := pool("first", 0, "10.0.0.1-10.0.0.1"), pool("second", 0, "10.0.0.2-10.0.0.4")
		b.add(w.pod("one", b), first)
		two := w.pod("two", a)
		// Nobody is asked where there is room: the second pool is found by itself.
		w.costs(func() { w.wantFrom(second, a.inOrder(two, first, second)) }, "Block", "Block", "PutBlock")
	})
}

// A pod that comes while a claim is made ahead of need takes of what it gets.
func TestPodSharesAClaimMadeAhead(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 4, "10.0.0.0-10.0.0.15")
		read := holdReads(w)
		w.costs(func() {
			var calls sync.WaitGroup
			calls.Go(func() {
				if err := a.ClaimAhead(w.Context(), p, 1); err != nil {
					w.Error(err)
				}
			})
			w.settle()
			calls.Go(func() { a.add(w.pod("pod", a), p) })
			w.settle()
			if err := a.ClaimAhead(w.Context(), p, 1); err != nil { // there is one
				w.Error(err)
			}
			close(read)
			calls.Wait()
		}, "Block", "PutBlock")
		if got := len(a.Free()); got != 3 {
			w.Errorf("%d addresses are left of a claim of 4, want 3", got)
		}
	})
}

// A claim ahead of need gives up early, and a pod that has waited for it does not.
func TestPodGoesOnWhereAClaimAheadGaveUp(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		fillBlocks(w, b, 4)
		p := pool("p", 4, "10.0.0.0-10.0.0.79") // a fifth block has addresses
		read := holdReads(w)
		var calls sync.WaitGroup
		var ahead error
		calls.Go(func() { ahead = a.ClaimAhead(w.Context(), p, 1) })
		w.settle()
		calls.Go(func() { a.add(w.pod("pod", a), p) })
		w.settle()
		close(read)
		calls.Wait()
		if got := len(a.Free()); !errors.Is(ahead, lease.ErrSearching) || got != 3 {
			w.Errorf("the claim ahead ended with %v, and %d addresses are free, want 3", ahead, got)
		}
	})
}
