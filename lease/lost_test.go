package lease_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-ipam/holdfast/lease"
)

// An address is taken over by a node and from it again while its watch begins
// anew: the watch never says a word of the block.
func TestLeaseThatNoWatchEverShowedIsFoundToHaveEnded(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		first := a.add(w.member("web-0", a), p)
		a.del(first)
		second := b.add(w.member("web-0", b), p)
		b.del(second)
		third := a.add(w.member("web-0", a), p)
		w.wantAddrs(third.addrs, first.addrs)

		in := lease.BlockOf(first.addrs[0])
		if !slices.Contains(b.Leasing(), in) {
			w.Fatalf("b knows by itself what no watch has told it\n%s", w)
		}
		if err := b.Missing(w.Context(), in); err != nil {
			w.Fatal(err)
		}
		if slices.Contains(b.Leasing(), in) {
			w.Errorf("b thinks that it leases %v\n%s", first.addrs, w)
		}
		b.tidy()
		if e, ok := b.entry(first.addrs[0]); ok {
			w.Errorf("the journal of b still says %v", e)
		}
	})
}

// Whether the DEL is for the sandbox that lives, nothing tells.
func TestDelAfterALostJournalGivesNothingBackBeforeThePodIsGone(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.0-10.0.0.15")
		web := w.pod("web-0", a)
		old, now := a.add(web, p), a.add(web, p)
		a.disk.Replace()
		a.boot()
		inUse := []lease.Entry{{Addr: now.addrs[0], State: lease.Assigned, Owner: web.owner(), Container: lease.UnknownSandbox, Detail: json.RawMessage("{}"), Namespace: namespace, Pod: web.name}}
		if err := a.Start(a.leases(), true, inUse, time.Minute); err != nil {
			w.Fatal(err)
		}
		for range 2 {
			if released := a.del(old); len(released) != 0 {
				w.Errorf("the DEL of an old sandbox gave %v back", released)
			}
			if _, err := a.Acquire(w.Context(), web.request(old.id, p)); err != nil {
				w.Error(err)
			}
		}
		if released, err := a.ReleasePod(web.uid); err != nil || len(released) != 1 {
			w.Errorf("the end of the pod gave %v back, %v", released, err)
		}
	})
}

// Whose pool is gone: no prefix and no gateway could be answered with it.
func TestAddAfterALostJournalGetsAnotherAddressForOneOfNoPool(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.0-10.0.0.15")
		web := w.pod("web-0", a)
		had := a.add(web, p)
		a.disk.Replace()
		a.boot()
		inUse := []lease.Entry{{Addr: had.addrs[0], State: lease.Assigned, Owner: web.owner(), Container: lease.UnknownSandbox, Namespace: namespace, Pod: web.name}}
		if err := a.Start(a.leases(), true, inUse, time.Minute); err != nil {
			w.Fatal(err)
		}
		a.Trust(time.Now().Add(time.Hour))
		if now := a.add(web, p); slices.Equal(now.addrs, had.addrs) {
			w.Errorf("got %v again", now.addrs)
		}
		a.wantState(had.addrs[0], lease.Assigned)
	})
}

func TestAddAfterALostJournalGetsTheFamilyThatNothingTellsOf(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		v4, v6 := pool("v4", 0, "10.0.0.0-10.0.0.15"), pool("v6", 0, "fd00::-fd00::f")
		web := w.pod("web-0", a)
		had := a.add(web, v4, v6)
		a.disk.Replace()
		a.boot()
		inUse := []lease.Entry{{Addr: had.addrs[1], State: lease.Assigned, Owner: web.owner(), Container: lease.UnknownSandbox, Detail: json.RawMessage("{}"), Namespace: namespace, Pod: web.name}}
		if err := a.Start(a.leases(), true, inUse, time.Minute); err != nil {
			w.Fatal(err)
		}
		a.Trust(time.Now().Add(time.Hour))
		if got, err := a.Recall(w.Context(), web.request("next")); err != nil || len(got) != 0 {
			w.Errorf("what is known of was taken for all there is: %v, %v", got, err)
		}
		now := a.add(web, v4, v6)
		if len(now.addrs) != 2 || now.addrs[1] != had.addrs[1] {
			w.Errorf("had %v, got %v", had.addrs, now.addrs)
		}
	})
}
