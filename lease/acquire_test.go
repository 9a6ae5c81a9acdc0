package lease_test

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// A pod asks again for the address that is cooling down for it, together with
// one of the other family that takes a while to come. The end of the cool-down
// meanwhile gives the first one to nobody else.
func TestAddressOfAnAddUnderWayIsNotFreed(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		v4, v6 := pool("v4", 0, "10.0.0.1-10.0.0.1"), pool("v6", 0, "fd00::1-fd00::1")
		web := w.pod("web", a)
		s := a.add(web, v4)
		a.del(s)
		w.pass(coolDown - time.Second)

		stuck := make(chan struct{})
		w.fault = func(c leasetest.Call) leasetest.Fault {
			if c.Method == "PutBlock" {
				<-stuck
			}
			return leasetest.Fault{}
		}
		var add sync.WaitGroup
		add.Go(func() {
			again, err := a.tryAdd(w.Context(), web, v4, v6)
			if err != nil || len(again.addrs) != 2 {
				w.Errorf("got %v, %v", again.addrs, err)
			}
		})
		w.settle()
		w.pass(2 * time.Second)
		a.tidy()
		other, err := a.tryAdd(w.Context(), w.pod("other", a), v4)
		if !isExhausted(err) {
			w.Errorf("another pod got %v, %v: an ADD under way has it", other.addrs, err)
		}
		close(stuck)
		add.Wait()
	})
}

func TestSameOwnerGetsSameAnswer(t *testing.T) {
	for _, sticky := range []bool{false, true} {
		history(t, func(w *world) {
			a := w.node("a")
			v4, v6 := pool("v4", 16, "10.0.0.0-10.0.0.15"), pool("v6", 16, "fd00::-fd00::f")
			web := w.pod("web-0", a)
			web.sticky = sticky
			s := a.add(web, v4, v6)
			w.costs(func() {
				w.wantAddrs(a.add(web, v4, v6).addrs, s.addrs)
				again := a.add(web, v4, v6)
				w.wantAddrs(again.addrs, s.addrs)
				a.del(again)
				w.wantAddrs(a.add(web, v4, v6).addrs, s.addrs)
			})
			a.restart()
			w.wantAddrs(a.add(web, v4, v6).addrs, s.addrs)
		})
	}
}

func TestConcurrentAddsOfOneOwnerGetOneAnswer(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.0-10.0.0.15")
		web := w.member("web-0", a)
		answers := make([]netip.Addr, 5)
		var adds sync.WaitGroup
		for i := range answers {
			adds.Go(func() {
				got, err := a.Acquire(w.Context(), web.request("c", p))
				if err != nil || len(got) != 1 {
					w.Errorf("got %v, %v", got, err)
					return
				}
				answers[i] = got[0].Addr
			})
		}
		adds.Wait()
		if len(slices.Compact(answers)) != 1 {
			w.Errorf("got %v", answers)
		}
	})
}

func TestLateDelOfOldSandboxChangesNothing(t *testing.T) {
	for _, sticky := range []bool{false, true} {
		history(t, func(w *world) {
			a := w.node("a")
			p := pool("p", 0, "10.0.0.0-10.0.0.15")
			web := w.pod("web-0", a)
			web.sticky = sticky
			old := a.add(web, p)
			now := a.add(web, p)
			if released := a.del(old); len(released) != 0 {
				w.Errorf("a late DEL gave %v back", released)
			}
			if !a.Has(lease.Sandbox{Owner: web.owner(), Container: now.id}, now.addrs[0]) {
				w.Errorf("the later sandbox lost its address\n%s", w)
			}
		})
	}
}

// An ADD of a sandbox that is no more may come when a later sandbox of the pod
// lives with the address, from a plugin that its runtime has lost.
func TestLateAddAndDelOfOldSandboxChangeNothing(t *testing.T) {
	for _, sticky := range []bool{false, true} {
		history(t, func(w *world) {
			a := w.node("a")
			p := pool("p", 0, "10.0.0.0-10.0.0.15")
			web := w.pod("web-0", a)
			web.sticky = sticky
			now := a.add(web, p)
			if _, err := a.Acquire(w.Context(), web.request("late", p)); err != nil {
				w.Fatal(err)
			}
			late := lease.Sandbox{Owner: web.owner(), Container: "late"}
			for range 2 {
				if released, err := a.Release(late); err != nil || len(released) != 0 {
					w.Errorf("the DEL of a sandbox that is no more gave %v back, %v", released, err)
				}
				a.restart()
				if !a.Has(lease.Sandbox{Owner: web.owner(), Container: now.id}, now.addrs[0]) {
					w.Errorf("the sandbox that lives lost its address\n%s", w)
				}
			}
			if released := a.del(now); len(released) != 1 {
				w.Errorf("the DEL of the last sandbox gave %v back", released)
			}
		})
	}
}

func TestGCKeepsWhatOneOfSeveralSandboxesHas(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.0-10.0.0.15")
		web := w.pod("web-0", a)
		old, now := a.add(web, p), a.add(web, p)
		for _, valid := range []string{now.id, "none"} {
			released, err := a.ReleaseInvalid("net", func(container, _ string) bool { return container == valid })
			if want := valid == "none"; err != nil || len(released) > 0 != want {
				w.Errorf("with %s valid, of %s and %s, GC gave %v back, %v", valid, old.id, now.id, released, err)
			}
		}
	})
}

func TestLateDelOfEarlierPodChangesNothing(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.0-10.0.0.15")
		old := a.add(w.member("web-0", a), p)
		next := w.member("web-0", a)
		a.prepare(next, p)
		a.del(old)
		a.wantState(old.addrs[0], lease.Assigned)
		now := a.add(next, p)
		a.del(old)
		if !a.Has(lease.Sandbox{Owner: next.owner(), Container: now.id}, old.addrs[0]) {
			w.Errorf("the later pod lost its address\n%s", w)
		}
	})
}

func TestDelOfWhatIsNotThereSucceeds(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		s := a.add(w.pod("web", a), pool("p", 0, "10.0.0.0-10.0.0.15"))
		a.del(s)
		a.del(s)
		a.del(sandbox{pod: pod{name: "never", uid: "never"}, id: "never"})
		a.del(sandbox{})
	})
}

func TestDelNeedsNoCluster(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.0-10.0.0.15")
		s, member := a.add(w.pod("web", a), p), a.add(w.member("web-0", a), p)
		w.fault = always("", leasetest.Lost)
		w.costs(func() {
			a.del(s)
			a.del(member)
		})
		a.wantState(s.addrs[0], lease.Cooling)
		a.wantState(member.addrs[0], lease.Retained)
	})
}

func TestBothFamiliesOrNeither(t *testing.T) {
	for _, sticky := range []bool{false, true} {
		history(t, func(w *world) {
			a := w.node("a")
			v4, v6 := pool("v4", 0, "10.0.0.1-10.0.0.2"), pool("v6", 0, "fd00::1-fd00::1")
			holder := a.add(w.pod("holder", a), v6)
			web := w.pod("web-0", a)
			web.sticky = sticky
			_, err := a.tryAdd(w.Context(), web, v4, v6)
			wantExhausted(w, err, "v6")
			for _, e := range a.Entries() {
				if e.Owner == web.owner() {
					w.Errorf("kept %s", e.Addr)
				}
			}
			a.del(holder)
			w.pass(coolDown)
			a.tidy()
			if s := a.add(web, v4, v6); len(s.addrs) != 2 {
				w.Errorf("got %v", s.addrs)
			}
		})
	}
}

// Nobody waits for the answer: the runtime has killed the plugin, and its DEL
// may have come before this.
func TestAddThatNobodyWaitsForAssignsNothing(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 16, "10.0.0.0-10.0.0.15")
		web := w.pod("web", a)
		now := a.add(web, p)
		ctx, cancel := context.WithCancel(w.Context())
		cancel()
		_, err := a.Acquire(ctx, web.request("killed", p))
		w.wantErr(err, context.Canceled)
		_, err = a.Recall(ctx, web.request("killed"))
		w.wantErr(err, context.Canceled)
		if !a.Has(lease.Sandbox{Owner: web.owner(), Container: now.id}, now.addrs[0]) {
			w.Errorf("a killed ADD took the address\n%s", w)
		}
	})
}

func TestRecallAnswersBeforeStartAndWithoutCluster(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.0-10.0.0.15")
		web, fresh := w.member("web-0", a), w.pod("fresh", a)
		s := a.add(web, p)
		a.del(s)
		a.disk.Crash()
		a.boot()
		w.fault = always("", leasetest.Lost)
		w.costs(func() {
			got, err := a.Recall(w.Context(), web.request("again"))
			if err != nil || len(got) != 1 || got[0].Addr != s.addrs[0] || got[0].Container != "again" {
				w.Errorf("got %v, %v", got, err)
			}
			a.wantState(s.addrs[0], lease.Assigned)
			if got, err := a.Recall(w.Context(), fresh.request("c")); err != nil || len(got) != 0 {
				w.Errorf("a new pod got %v, %v", got, err)
			}
			_, err = a.Acquire(w.Context(), fresh.request("c", p))
			w.wantErr(err, lease.ErrNotStarted)
		})
	})
}

func TestCutOffAgentAssignsNothingNew(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 16, "10.0.0.0-10.0.0.15")
		web, member := w.pod("web", a), w.member("web-0", a)
		s, m := a.add(web, p), a.add(member, p)
		a.Trust(time.Now().Add(time.Minute))
		w.pass(time.Minute + time.Second)
		w.fault = always("", leasetest.Lost)
		w.costs(func() {
			_, err := a.tryAdd(w.Context(), w.pod("new", a), p)
			w.wantErr(err, lease.ErrCutOff)
			_, err = a.tryAdd(w.Context(), w.member("web-1", a), p)
			w.wantErr(err, lease.ErrCutOff)
			w.wantErr(a.Prepare(w.Context(), w.member("web-1", a).request("", p)), lease.ErrCutOff)
			// What it has answered before it answers again.
			w.wantAddrs(a.add(web, p).addrs, s.addrs)
			a.del(m)
			w.wantAddrs(a.add(member, p).addrs, m.addrs)
		})
		w.fault = nil
		a.Trust(time.Now().Add(time.Minute))
		a.add(w.pod("new", a), p)
	})
}

func TestGCReleasesWhatTheRuntimeDoesNotName(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.0-10.0.0.15")
		kept, gone, member, other := a.add(w.pod("kept", a), p), a.add(w.pod("gone", a), p), a.add(w.member("web-0", a), p), w.pod("other", a)
		r := other.request("other", p)
		r.Network = "another-net"
		elsewhere, err := a.Acquire(w.Context(), r)
		if err != nil {
			w.Fatal(err)
		}
		ready := w.recreate(member, a, a)
		a.prepare(ready, p) // no sandbox yet
		if _, err := a.ReleaseInvalid("net", func(container, iface string) bool {
			return container == kept.id && iface == ifname
		}); err != nil {
			w.Fatal(err)
		}
		a.wantState(kept.addrs[0], lease.Assigned)
		a.wantState(gone.addrs[0], lease.Cooling)
		a.wantState(member.addrs[0], lease.Assigned)
		a.wantState(elsewhere[0].Addr, lease.Assigned)
	})
}

func TestReleasePodGivesBackAllOfIt(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		v4, v6 := pool("v4", 0, "10.0.0.0-10.0.0.15"), pool("v6", 0, "fd00::-fd00::f")
		web, other := a.add(w.pod("web", a), v4, v6), a.add(w.pod("other", a), v4)
		released, err := a.ReleasePod(web.uid)
		if err != nil || len(released) != 2 {
			w.Errorf("released %v, %v", released, err)
		}
		a.wantState(web.addrs[0], lease.Cooling)
		a.wantState(web.addrs[1], lease.Cooling)
		a.wantState(other.addrs[0], lease.Assigned)
	})
}

// What is left of a pod is given back by the pod's UID: the next pod of the
// name runs already.
func TestReleasePodLeavesTheNextPodOfTheName(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.0-10.0.0.15")
		gone := a.add(w.pod("web", a), p)
		next := a.add(w.pod("web", a), p)
		if _, err := a.ReleasePod(gone.uid); err != nil {
			w.Fatal(err)
		}
		a.wantState(gone.addrs[0], lease.Cooling)
		a.wantState(next.addrs[0], lease.Assigned)
	})
}

// A pod that is first placed is left to its ADD, and what was read is not
// read again.
func TestPrepareLeavesFirstPlacementToAdd(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 16, "10.0.0.0-10.0.0.15")
		a.add(w.pod("warm", a), p)
		web := w.member("web-0", a)
		w.costs(func() { a.prepare(web, p) }, "Endpoint")
		if n := len(a.Entries()); n != 1 {
			w.Errorf("Prepare assigned\n%s", w)
		}
		w.costs(func() { a.add(web, p) }, "PutBlock", "PutEndpoint")
	})
}

func TestForgetDropsWhatPrepareRead(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 16, "10.0.0.0-10.0.0.15")
		a.add(w.pod("warm", a), p)
		web := w.member("web-0", a)
		a.prepare(web, p)
		a.Forget(web.uid)
		w.costs(func() { a.add(web, p) }, "Endpoint", "PutBlock", "PutEndpoint")
	})
}

// A DEL of an ADD that failed earlier may come between Prepare and ADD.
func TestDelBetweenPrepareAndAddKeepsTheAddress(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 16, "10.0.0.0-10.0.0.15")
		s := a.add(w.member("web-0", a), p)
		next := w.recreate(s, a, a)
		a.prepare(next, p)
		a.del(sandbox{pod: next, id: "never-added"})
		w.costs(func() { w.wantAddrs(a.add(next, p).addrs, s.addrs) })
	})
}

// The placement of two addresses came to no end, and of one of them Tidy has
// found out so far that pin and pointer are there.
func TestRecallIsOfAllFamiliesOrOfNone(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		v4, v6 := pool("v4", 0, "10.0.0.1-10.0.0.1"), pool("v6", 0, "fd00::1-fd00::1")
		web := w.member("web-0", a)
		w.fault = once("PutEndpoint", 1, leasetest.AnswerLost)
		s, err := a.tryAdd(w.Context(), web, v4, v6)
		if err == nil {
			w.Fatal("the endpoint's answer was lost, and ADD succeeded")
		}
		a.del(s)
		w.pass(2 * time.Minute)
		w.fault = once("Endpoint", 1, leasetest.Lost)
		if err := a.Tidy(w.Context()); err == nil {
			w.Fatal("an endpoint was not read, and Tidy succeeded")
		}
		a.wantState(addr("10.0.0.1"), lease.Placing)
		a.wantState(addr("fd00::1"), lease.Retained)
		a.wantNoRecall(web)
		if now := a.add(web, v4, v6); len(now.addrs) != 2 {
			w.Errorf("got %v", now.addrs)
		}
	})
}

// A pod that does not come up asks again later than an address rests.
func TestAddressIsKeptForTheNextTryOfItsPod(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		web, other := w.pod("web", a), w.pod("other", a)
		for range 3 {
			s := a.add(web, p)
			if _, err := a.Release(lease.Sandbox{Owner: web.owner(), Container: s.id, Rest: 3 * coolDown}); err != nil {
				w.Fatal(err)
			}
			w.pass(2 * coolDown)
			a.tidy()
			if got, err := a.tryAdd(w.Context(), other, p); !isExhausted(err) {
				w.Errorf("another pod got %v, %v", got.addrs, err)
			}
		}
		w.pass(coolDown)
		a.tidy()
		a.add(other, p)
	})
}

func TestCoolingAddressIsNotGivenToAPodThatAsksForAnotherPool(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		wrong, right := pool("wrong", 0, "10.0.0.1-10.0.0.9"), pool("right", 0, "10.0.1.1-10.0.1.9")
		web := w.pod("web", a)
		a.del(a.add(web, wrong))
		if s := a.add(web, right); !right.Ranges.Contains(s.addrs[0]) {
			w.Errorf("got %v of the pool that its annotation named before", s.addrs)
		}
	})
}

// The same, where one address was an earlier pod's and only the other one was
// to be placed.
func TestRecallAfterTheOtherFamilyWasPlacedIsOfBothOrOfNone(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		v4, v6 := pool("v4", 0, "10.0.0.1-10.0.0.1"), pool("v6", 0, "fd00::1-fd00::1")
		a.del(a.add(w.member("web-0", a), v4))
		web := w.member("web-0", a)
		w.fault = once("PutEndpoint", 1, leasetest.AnswerLost)
		s, err := a.tryAdd(w.Context(), web, v4, v6)
		if err == nil {
			w.Fatal("the endpoint's answer was lost, and ADD succeeded")
		}
		a.del(s)
		w.pass(2 * time.Minute)
		a.tidy()
		a.wantState(addr("10.0.0.1"), lease.Retained)
		a.wantState(addr("fd00::1"), lease.Retained)
		a.wantNoRecall(web)
		if now := a.add(web, v4, v6); len(now.addrs) != 2 {
			w.Errorf("got %v", now.addrs)
		}
	})
}

// A pod that has one family has not been placed in the other yet.
func TestRecallWhileTheOtherFamilyIsPlacedIsOfNone(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		v4, v6 := pool("v4", 0, "10.0.0.1-10.0.0.1"), pool("v6", 0, "fd00::1-fd00::1")
		web := w.member("web-0", a)
		a.add(web, v4)
		w.fault = once("PutEndpoint", 1, leasetest.AnswerLost)
		if _, err := a.tryAdd(w.Context(), web, v4, v6); err == nil {
			w.Fatal("the endpoint's answer was lost, and ADD succeeded")
		}
		a.wantState(addr("10.0.0.1"), lease.Assigned)
		a.wantState(addr("fd00::1"), lease.Placing)
		a.wantNoRecall(web)
	})
}
