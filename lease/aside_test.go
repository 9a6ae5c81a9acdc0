package lease_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

const rest = 10 * time.Minute

// setAside reports addresses of a sandbox as used by a stranger.
func (n *node) setAside(s sandbox, addrs ...netip.Addr) bool {
	n.w.Helper()
	aside, err := n.SetAside(n.w.Context(), lease.Sandbox{Owner: s.owner(), Container: s.id}, addrs, rest)
	if err != nil {
		n.w.Fatalf("SetAside of %v by %s: %v\n%s", addrs, s.id, err, n.w)
	}
	return aside
}

func TestAddressSetAsideIsUsedByNobodyBeforeItsRestIsOver(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		s := a.add(w.pod("web", a), p)
		if !a.setAside(s, s.addrs...) {
			w.Fatal("a stateless pod's address was not set aside")
		}
		w.pass(rest - time.Millisecond)
		a.tidy()
		for _, pod := range []pod{s.pod, w.pod("other", a), w.member("web-0", a)} {
			_, err := a.tryAdd(w.Context(), pod, p)
			wantExhausted(w, err, "p")
		}
		w.pass(time.Millisecond)
		a.tidy()
		w.wantAddrs(a.add(w.pod("next", a), p).addrs, s.addrs)
	})
}

func TestAddressSetAsideStaysWithItsNode(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		s := a.add(w.pod("web", a), p)
		a.setAside(s, s.addrs...)
		if err := a.Yield(w.Context(), s.addrs); err != nil {
			w.Fatal(err)
		}
		w.pass(coolDown)
		a.tidy()
		a.wantState(s.addrs[0], lease.Cooling)
		_, err := b.tryAdd(w.Context(), w.pod("elsewhere", b), p)
		wantExhausted(w, err, "p")
	})
}

func TestAddressSetAsideSurvivesRestart(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		s := a.add(w.pod("web", a), p)
		a.setAside(s, s.addrs...)
		a.restart()
		w.pass(coolDown)
		a.tidy()
		_, err := a.tryAdd(w.Context(), s.pod, p)
		wantExhausted(w, err, "p")
	})
}

func TestPodOfAnAddressSetAsideGetsAnother(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p, q := pool("p", 0, "10.0.0.1-10.0.0.2"), pool("q", 0, "fd00::1-fd00::9")
		s := a.add(w.pod("web", a), p, q)
		a.setAside(s, s.addrs[0])
		if again, err := a.Recall(w.Context(), s.request(s.id)); len(again) != 0 || err != nil {
			w.Errorf("half of the pod's addresses was answered: %v, %v", again, err)
		}
		next := a.add(s.pod, p, q)
		w.wantAddrs(next.addrs, []netip.Addr{addr("10.0.0.2"), s.addrs[1]})
	})
}

func TestBothAddressesOfAPodMayBeSetAside(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p, q := pool("p", 0, "10.0.0.1-10.0.0.2"), pool("q", 0, "fd00::1-fd00::2")
		s := a.add(w.pod("web", a), p, q)
		a.setAside(s, s.addrs...)
		w.wantAddrs(a.add(s.pod, p, q).addrs, []netip.Addr{addr("10.0.0.2"), addr("fd00::2")})
	})
}

// The answer to the first call may have been lost.
func TestAddressIsSetAsideTwiceAsOnce(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		s := a.add(w.pod("web", a), pool("p", 0, "10.0.0.1-10.0.0.2"))
		a.setAside(s, s.addrs...)
		before := a.Entries()
		w.pass(time.Second)
		if !a.setAside(s, s.addrs...) {
			w.Error("the second time it was not set aside")
		}
		if diff := cmp.Diff(before, a.Entries(), cmp.Comparer(sameAddr)); diff != "" {
			w.Errorf("the second time changed the journal (-before +after):\n%s", diff)
		}
	})
}

func sameAddr(x, y netip.Addr) bool { return x == y }

func TestStickyAddressIsNotSetAside(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.2")
		s := a.add(w.member("web-0", a), p)
		if a.setAside(s, s.addrs...) {
			w.Error("an identity's address was set aside")
		}
		a.wantState(s.addrs[0], lease.Assigned)
		w.wantAddrs(a.add(s.pod, p).addrs, s.addrs)
	})
}

// Who answers may be the pod itself, in a sandbox that its runtime has lost.
func TestAddressThatAnotherSandboxAskedForIsNotSetAside(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.2")
		first := a.add(w.pod("web", a), p)
		second := a.add(first.pod, p)
		for _, s := range []sandbox{first, second} {
			if a.setAside(s, s.addrs...) {
				w.Errorf("%s set an address of another sandbox aside", s.id)
			}
		}
		a.wantState(first.addrs[0], lease.Assigned)
		a.del(first)
		if !a.setAside(second, second.addrs...) {
			w.Error("the sandbox that is left could not set its address aside")
		}
	})
}

func TestOnlyTheSandboxThatHoldsAnAddressSetsItAside(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p, q := pool("p", 0, "10.0.0.1-10.0.0.9"), pool("q", 0, "fd00::1-fd00::9")
		s, other, gone := a.add(w.pod("web", a), p, q), a.add(w.pod("other", a), p, q), a.add(w.pod("gone", a), p)
		member := a.add(w.member("web-0", a), p)
		a.del(gone)
		before := a.Entries()
		for _, c := range []struct {
			what, container, ifname string
			addrs                   []netip.Addr
		}{
			{"no addresses", s.id, ifname, nil},
			{"no sandbox", "", ifname, s.addrs},
			{"an unknown sandbox", "nobody", ifname, s.addrs},
			{"the sandbox of a lost journal", lease.UnknownSandbox, ifname, s.addrs},
			{"another interface", s.id, "net1", s.addrs},
			{"another pod's address", s.id, ifname, other.addrs},
			{"its own and another pod's", s.id, ifname, []netip.Addr{s.addrs[0], other.addrs[1]}},
			{"its own and a StatefulSet pod's", s.id, ifname, []netip.Addr{s.addrs[0], member.addrs[0]}},
			{"its own and a free address", s.id, ifname, []netip.Addr{s.addrs[0], addr("10.0.0.8")}},
			{"a free address", s.id, ifname, []netip.Addr{addr("10.0.0.8")}},
			{"an address of no lease", s.id, ifname, []netip.Addr{addr("192.0.2.1")}},
			{"no address at all", s.id, ifname, []netip.Addr{{}}},
			{"what was given back", gone.id, ifname, gone.addrs},
		} {
			_, err := a.SetAside(w.Context(), lease.Sandbox{Owner: lease.Owner{Interface: c.ifname}, Container: c.container}, c.addrs, rest)
			if diff := cmp.Diff(before, a.Entries(), cmp.Comparer(sameAddr)); diff != "" || err == nil {
				w.Errorf("%s: %v, and the journal (-before +after):\n%s", c.what, err, diff)
			}
			w.wantErr(err, lease.ErrNotHeld)
		}
	})
}

// An ADD that is under way for the sandbox may be about to give it the
// address again.
func TestAddressIsNotSetAsideUnderAnAdd(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p, q := pool("p", 0, "10.0.0.1-10.0.0.1"), pool("q", 0, "fd00::1-fd00::1")
		s := a.add(w.pod("web", a), p)
		held := make(chan struct{})
		w.fault = func(c leasetest.Call) leasetest.Fault {
			<-held
			return leasetest.Fault{}
		}
		added := make(chan sandbox)
		go func() {
			again := sandbox{pod: s.pod, id: s.id}
			entries, err := a.Acquire(w.Context(), s.request(s.id, p, q))
			if err != nil {
				w.Error(err)
			}
			for _, e := range entries {
				again.addrs = append(again.addrs, e.Addr)
			}
			added <- again
		}()
		w.settle()
		hurried, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		if _, err := a.SetAside(hurried, lease.Sandbox{Owner: s.owner(), Container: s.id}, s.addrs, rest); err == nil {
			w.Error("the address was set aside while an ADD was about to answer with it")
		}
		close(held)
		again := <-added
		w.wantAddrs(again.addrs, []netip.Addr{s.addrs[0], addr("fd00::1")})
		a.wantState(s.addrs[0], lease.Assigned)
	})
}
