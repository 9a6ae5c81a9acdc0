package lease_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// fullFor is a little more than a small pool's block counts as full.
const fullFor = time.Second

func wantExhausted(w *world, err error, pools ...string) {
	w.Helper()
	var exhausted *lease.ExhaustedError
	if !errors.As(err, &exhausted) || !slices.Equal(exhausted.Pools, pools) {
		w.Fatalf("got error %v, want that pools %q are used out", err, pools)
	}
}

func TestExhaustedNamesPools(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p, q := pool("p", 0, "10.0.0.1-10.0.0.1"), pool("q", 0, "10.0.1.1-10.0.1.1")
		r := w.pod("x", a).request("c", p)
		r.Families[0] = append(r.Families[0], q)
		a.add(w.pod("p-0", a), p)
		a.add(w.pod("q-0", a), q)
		_, err := a.Acquire(w.Context(), r)
		wantExhausted(w, err, "p", "q")
	})
}

// The last address was claimed, and only the answer was lost.
func TestClaimWhoseAnswerWasLostIsUsed(t *testing.T) {
	for _, kind := range []leasetest.Kind{leasetest.Lost, leasetest.AnswerLost, leasetest.Late} {
		history(t, func(w *world) {
			a := w.node("a")
			w.fault = once("PutBlock", 1, kind)
			a.add(w.pod("web", a), pool("p", 0, "10.0.0.1-10.0.0.1"))
		})
	}
}

// It is not made a second time, elsewhere: that would use a pool out with
// addresses that nobody knows of.
func TestLostClaimIsMadeOnce(t *testing.T) {
	for _, kind := range []leasetest.Kind{leasetest.Lost, leasetest.AnswerLost, leasetest.Late} {
		history(t, func(w *world) {
			a := w.node("a")
			w.fault = once("PutBlock", 1, kind)
			a.add(w.pod("web", a), pool("p", 16, "10.0.0.0-10.0.0.63"))
			w.cluster.Land()
			leased := 0
			for _, b := range w.cluster.Blocks() {
				leased += b.Leased().Len()
			}
			if leased != lease.Size {
				w.Errorf("fault %d: %d addresses are leased, want one block\n%s", kind, leased, w)
			}
		})
	}
}
