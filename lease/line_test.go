package lease_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// told reports whether the channel is closed.
func told(freed <-chan struct{}) bool {
	select {
	case <-freed:
		return true
	default:
		return false
	}
}

// queue has pods find a pool used out and wait for it, one after the other.
func (n *node) queue(p lease.Pool, names ...string) (pods []pod, leave []func()) {
	n.w.Helper()
	for _, name := range names {
		web := n.w.pod(name, n)
		_, err := n.tryAdd(n.w.Context(), web, p)
		wantExhausted(n.w, err, p.Name)
		pods, leave = append(pods, web), append(leave, n.Await(web.owner(), []string{p.Name}))
	}
	return pods, leave
}

func TestThoseWhoWaitAreServedInTheirOrder(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.2")
		holders := []sandbox{a.add(w.pod("holder-0", a), p), a.add(w.pod("holder-1", a), p)}
		waiting, leave := a.queue(p, "first", "second")
		for i, s := range holders {
			a.del(s)
			w.pass(coolDown)
			for _, later := range append(waiting[i+1:], w.pod(fmt.Sprintf("newcomer-%d", i), a)) {
				if s, err := a.tryAdd(w.Context(), later, p); err == nil {
					w.Fatalf("%s got %v before its turn", later.name, s.addrs)
				}
			}
			w.wantAddrs(a.add(waiting[i], p).addrs, s.addrs)
			leave[i]()
		}
	})
}

func TestWhoGivesUpMakesWayForTheNext(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		s := a.add(w.pod("holder", a), p)
		waiting, leave := a.queue(p, "first", "second")
		a.del(s)
		w.pass(coolDown)
		a.tidy()
		freed := a.Freed()
		leave[0]()
		if !told(freed) {
			t.Error("the next is not told")
		}
		w.wantAddrs(a.add(waiting[1], p).addrs, s.addrs)
	})
}

func TestLineForOnePoolHoldsNobodyElseUp(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p, q := pool("p", 0, "10.0.0.1-10.0.0.1"), pool("q", 0, "10.0.1.1-10.0.1.1")
		a.add(w.pod("holder", a), p)
		s := a.add(w.pod("other", a), q)
		a.del(s)
		w.pass(coolDown)
		a.queue(p, "first", "second")
		w.wantAddrs(a.add(w.pod("third", a), q).addrs, s.addrs)
	})
}

// Those who wait sleep between two looks, so they do not claim themselves.
func TestClaimTakesAnAddressForEachInTheLine(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		useUp(w, b, a)
		waiting, leave := a.queue(thousand(0), "first", "second", "third")
		w.pass(roomPause)
		free := []netip.Addr{addr("10.0.2.72"), addr("10.0.2.73"), addr("10.0.2.74")}
		vacate(w, b, free...)
		freed := a.Freed()
		w.costs(func() { w.wantAddrs(a.add(waiting[0], thousand(0)).addrs, free[:1]) }, "Roomy", "Block", "PutBlock")
		if !told(freed) {
			t.Error("the others are not told")
		}
		w.costs(func() {
			leave[0]()
			w.wantAddrs(a.add(waiting[1], thousand(0)).addrs, free[1:2])
			leave[1]()
			w.wantAddrs(a.add(waiting[2], thousand(0)).addrs, free[2:])
		})
	})
}

func TestWaitersAreToldWhatHasCooledDown(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		s := a.add(w.pod("web", a), p)
		freed := a.Freed()
		a.del(s)
		a.tidy()
		if told(freed) {
			t.Error("told before it has cooled down")
		}
		w.pass(coolDown)
		a.tidy()
		if !told(freed) {
			t.Error("not told")
		}
	})
}

func TestWaitersAreToldWhatANeighbourInTheBlockGaveBack(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.1-10.0.0.2")
		a.add(w.pod("one", a), p)
		s := b.add(w.pod("two", b), p)
		waiting, _ := a.queue(p, "three")
		freed := a.Freed()
		if err := b.give(s); err != nil {
			t.Fatal(err)
		}
		if told(freed) {
			t.Error("told by nobody")
		}
		a.watch(0)
		if !told(freed) {
			t.Error("not told")
		}
		w.wantAddrs(a.add(waiting[0], p).addrs, s.addrs)
	})
}

// Nobody waits for the answers about sixty blocks while there is an address.
func TestSearchEndsWhenAnAddressHasComeFree(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		s := a.add(w.pod("holder", a), pool("one", 0, "10.0.2.77-10.0.2.77"))
		for i := range 64 {
			first := addr("10.0.0.0").As4()
			first[2], first[3] = byte(i/16), byte(i%16*16)
			from := netip.AddrFrom4(first)
			w.change(from, func(block *lease.Block) error { block.Claim(b.id, 0xffff); return nil })
		}
		a.del(s)
		reads := 0
		w.fault = func(c leasetest.Call) leasetest.Fault {
			if c.Method == "Block" {
				if reads++; reads == 3 {
					w.pass(coolDown)
					a.tidy()
				}
			}
			return leasetest.Fault{}
		}
		w.wantAddrs(a.add(w.pod("web", a), thousand(0)).addrs, s.addrs)
		if reads != 3 {
			t.Errorf("%d blocks were read, of which the third took until the address was free", reads)
		}
	})
}
