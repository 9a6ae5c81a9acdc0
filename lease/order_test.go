package lease_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// inOrder asks for one address of the first of the pools that has one.
func (n *node) inOrder(p pod, pools ...lease.Pool) netip.Addr {
	n.w.Helper()
	r := p.request("c-" + p.name)
	r.Families = [][]lease.Pool{pools}
	entries, err := n.Acquire(n.w.Context(), r)
	if err != nil {
		n.w.Fatalf("%s: %v", p.name, err)
	}
	return entries[0].Addr
}

func (w *world) wantFrom(p lease.Pool, got netip.Addr) {
	w.Helper()
	if !p.Ranges.Contains(got) {
		w.Errorf("got %s, want one of pool %s\n%s", got, p.Name, w)
	}
}

func TestEarlierPoolIsClaimedFromThoughALaterOneIsHere(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		one, two := pool("one", 0, "10.0.0.1-10.0.0.1"), pool("two", 16, "10.0.1.0-10.0.1.15")
		a.add(w.pod("warms", a), two)
		w.wantFrom(one, a.inOrder(w.pod("first", a), one, two))
		w.wantFrom(two, a.inOrder(w.pod("second", a), one, two))
		w.wantFrom(two, a.inOrder(w.pod("third", a), two, one))
	})
}

// With an address here, a pod waits for no request on account of pools that a
// watch has told are used out.
func TestLeasedOutPoolIsAskedLast(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		one, two := pool("one", 0, "10.0.0.1-10.0.0.2"), pool("two", 0, "10.0.1.0-10.0.1.0")
		b.add(w.pod("takes", b), one)
		a.add(w.pod("warms", a), two)
		one.LeasedOut = true
		w.wantFrom(one, a.inOrder(w.pod("none-left", a), one, two)) // the watch lags behind
		two = pool("two", 2, "10.0.1.0-10.0.1.3")
		a.add(w.pod("warms-again", a), two) // and one more for the next
		w.costs(func() { w.wantFrom(two, a.inOrder(w.pod("waits-for-nothing", a), one, two)) })
	})
}

func TestLaterPoolServesWhileTheClusterDoesNotAnswer(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		one, two := pool("one", 0, "10.0.0.1-10.0.0.1"), pool("two", 16, "10.0.1.0-10.0.1.15")
		a.add(w.pod("warms", a), two)
		w.fault = func(leasetest.Call) leasetest.Fault { return leasetest.Fault{Kind: leasetest.Lost} }
		begun := time.Now()
		w.wantFrom(two, a.inOrder(w.pod("served", a), one, two))
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

func TestAllPoolsAreNamedWhenNoneHasAnAddress(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		one, two := pool("one", 0, "10.0.0.1-10.0.0.1"), pool("two", 0, "10.0.1.0-10.0.1.0")
		b.add(w.pod("first", b), one)
		b.add(w.pod("second", b), two)
		two.LeasedOut = true
		r := w.pod("none-left", a).request("c")
		r.Families = [][]lease.Pool{{one, two}}
		_, err := a.Acquire(w.Context(), r)
		if want := `all IP addresses used out in pools ["one" "two"]`; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
}

// Its pools change, and change back: then one address cools down for the pod
// that it was given back by, and another one is in use.
func TestPodIsAnsweredWithTheAddressItHasAndNotWithOneThatCoolsDown(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		one, two := pool("one", 16, "10.0.0.0-10.0.1.15"), pool("two", 16, "10.0.2.0-10.0.3.15")
		for i := range 16 { // a choice at random would be right in half of the cases
			p := w.pod(fmt.Sprint("pod-", i), a)
			a.del(a.add(p, one))
			has := a.inOrder(p, two)
			if got := a.inOrder(p, one, two); got != has {
				t.Fatalf("%s has %s and is answered with %s\n%s", p.name, has, got, w)
			}
		}
	})
}
