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

// wantOnDisk fails unless the disk says that the sandbox has its addresses.
func (n *node) wantOnDisk(s sandbox) {
	n.w.Helper()
	for _, addr := range s.addrs {
		if !slices.ContainsFunc(n.disk.Entries(), func(e lease.Entry) bool {
			return e.Addr == addr && e.State == lease.Assigned && e.Owner == s.owner() && e.Container == s.id
		}) {
			n.w.Errorf("%s was answered with %s, which is not on disk\n%s", s.id, addr, n.w)
		}
	}
}

// TestJournalIsDurableBeforeAnswer plays one history again and again, each
// time with another write of the disk failing or crashing. Whatever was
// answered is on disk, and is answered again afterwards.
func TestJournalIsDurableBeforeAnswer(t *testing.T) {
	for _, fault := range []leasetest.DiskFault{
		leasetest.Unsynced, leasetest.SyncedFailed, leasetest.CrashUnsynced, leasetest.CrashSynced,
	} {
		for failing := 1; ; failing++ {
			writes := 0
			history(t, func(w *world) {
				a := w.node("a")
				a.diskFault = func(leasetest.DiskWrite) leasetest.DiskFault {
					if writes++; writes == failing {
						return fault
					}
					return leasetest.Synced
				}
				durable(w, a)
			})
			if t.Failed() {
				t.Fatalf("fault %d at write %d", fault, failing)
			}
			if writes < failing {
				break // no write was left to fail
			}
		}
	}
}

// durable plays two pods through ADD, DEL and ADD.
func durable(w *world, a *node) {
	v4, v6 := pool("v4", 16, "10.0.0.0-10.0.0.15"), pool("v6", 16, "fd00::-fd00::f")
	// again does what failed once more, after a restart if that is why.
	again := func(err error) bool {
		if errors.Is(err, leasetest.ErrCrashed) {
			a.disk.Crash()
			a.boot()
			a.start()
		}
		return err != nil
	}
	add := func(p pod) (s sandbox) {
		for {
			var err error
			if s, err = a.tryAdd(w.Context(), p, v4, v6); !again(err) {
				a.wantOnDisk(s)
				return s
			}
		}
	}
	del := func(s sandbox) {
		for {
			if _, err := a.Release(lease.Sandbox{Owner: s.owner(), Container: s.id}); !again(err) {
				return
			}
		}
	}
	web, one := w.member("web-0", a), w.pod("one", a)
	first, other := add(web), add(one)
	del(first)
	second := add(web)
	w.wantAddrs(second.addrs, first.addrs)
	a.restart()
	a.wantOnDisk(second)
	a.wantOnDisk(other)
	w.wantAddrs(a.add(web, v4, v6).addrs, first.addrs)
	w.wantAddrs(a.add(one, v4, v6).addrs, other.addrs)
}

func TestRestartKeepsRetained(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.4")
		s := a.add(w.member("web-0", a), p)
		next := w.recreate(s, a, a)
		a.restart()
		w.wantAddrs(a.add(next, p).addrs, s.addrs)
	})
}

// Nobody else gets it either, whoever asks first after the restart.
func TestRestartKeepsRetainedFromOthers(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		s := a.add(w.member("web-0", a), p)
		a.del(s)
		a.restart()
		_, err := a.tryAdd(w.Context(), w.pod("other", a), p)
		wantExhausted(w, err, "p")
		w.wantAddrs(a.add(w.member("web-0", a), p).addrs, s.addrs)
	})
}

func TestCoolingSurvivesRestart(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.1")
		s := a.add(w.pod("web", a), p)
		a.del(s)
		w.pass(coolDown / 2)
		a.restart()
		a.tidy()
		_, err := a.tryAdd(w.Context(), w.pod("early", a), p)
		wantExhausted(w, err, "p")
		w.pass(coolDown / 2)
		a.tidy()
		w.wantAddrs(a.add(w.pod("next", a), p).addrs, s.addrs)
	})
}

// With an intact journal, a leased address that it does not have was never
// used.
func TestRestartKeepsFreeAddressesFree(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 16, "10.0.0.0-10.0.0.15")
		a.add(w.pod("web", a), p)
		a.restart()
		if n := len(a.Free()); n != 15 {
			w.Errorf("%d addresses are free", n)
		}
		w.costs(func() { a.add(w.pod("next", a), p) })
	})
}

func TestLostJournalQuarantines(t *testing.T) {
	const quarantine = 10 * time.Minute
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 4, "10.0.0.1-10.0.0.4")
		known, unknown, member := a.add(w.pod("known", a), p), a.add(w.pod("unknown", a), p), a.add(w.member("web-0", a), p)
		inUse, _ := a.entry(known.addrs[0])
		a.disk.Replace()
		a.boot()
		if err := a.Start(a.leases(), true, []lease.Entry{inUse}, quarantine); err != nil {
			w.Fatal(err)
		}
		a.Trust(time.Now().Add(24 * time.Hour))
		a.wantState(known.addrs[0], lease.Assigned)
		a.wantState(unknown.addrs[0], lease.Cooling)
		a.wantOnDisk(sandbox{pod: known.pod, id: known.id, addrs: known.addrs})
		w.wantAddrs(a.add(known.pod, p).addrs, known.addrs)

		w.pass(quarantine - time.Second)
		a.restart() // the quarantine is in the new journal
		a.tidy()
		_, err := a.tryAdd(w.Context(), w.pod("early", a), p)
		wantExhausted(w, err, "p")
		w.pass(time.Second)
		a.tidy()
		a.add(w.pod("next", a), p)
		a.add(w.pod("last", a), p)
		_, err = a.tryAdd(w.Context(), w.pod("one-too-many", a), p)
		wantExhausted(w, err, "p")
		// The pinned address waited for its identity.
		w.wantAddrs(a.add(w.member("web-0", a), p).addrs, member.addrs)
	})
}

// An address in use of which this node lost the lease is not written down.
func TestLostJournalBelievesLeasesOnly(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		s := a.add(w.pod("web", a), pool("p", 0, "10.0.0.1-10.0.0.1"))
		a.disk.Replace()
		a.boot()
		stray := lease.Entry{Addr: addr("10.9.9.9"), State: lease.Assigned, Owner: lease.Owner{PodUID: "x", Interface: ifname}}
		if err := a.Start(a.leases(), true, []lease.Entry{stray}, time.Minute); err != nil {
			w.Fatal(err)
		}
		if entries := a.Entries(); len(entries) != 1 || entries[0].Addr != s.addrs[0] {
			w.Errorf("the journal has %v", entries)
		}
	})
}

// stuck holds the first write of a node's disk until it is closed.
func (n *node) stuck() (free chan struct{}, writes *[]leasetest.DiskWrite) {
	free, writes = make(chan struct{}), &[]leasetest.DiskWrite{}
	var mu sync.Mutex
	n.diskFault = func(d leasetest.DiskWrite) leasetest.DiskFault {
		mu.Lock()
		*writes = append(*writes, d)
		first := len(*writes) == 1
		mu.Unlock()
		if first {
			<-free
		}
		return leasetest.Synced
	}
	return free, writes
}

func TestWaitersShareOneWriteOfTheJournal(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 16, "10.0.0.0-10.0.0.15")
		a.add(w.pod("warm", a), p)
		free, writes := a.stuck()
		var adds sync.WaitGroup
		for i := range 10 {
			web := w.pod(fmt.Sprintf("web-%d", i), a)
			adds.Go(func() {
				got, err := a.Acquire(w.Context(), web.request(web.name, p))
				if err != nil {
					w.Error(err)
					return
				}
				a.wantOnDisk(sandbox{pod: web, id: web.name, addrs: []netip.Addr{got[0].Addr}})
			})
		}
		w.settle()
		if n := len(*writes); n != 1 {
			w.Errorf("%d writes at once", n)
		}
		close(free)
		adds.Wait()
		if n := len(*writes); n != 2 {
			w.Errorf("ten ADDs cost %d writes, want the first and one for all that waited", n)
		}
	})
}

// While the write of an ADD is under way, its DEL changes the entry again:
// the disk ends with the later state.
func TestWritesOfTheJournalFollowOneAnother(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 1, "10.0.0.1-10.0.0.1")
		web := w.pod("web", a)
		s := a.add(web, p)
		free, writes := a.stuck()
		var calls sync.WaitGroup
		calls.Go(func() {
			if _, err := a.Acquire(w.Context(), web.request("later", p)); err != nil {
				w.Error(err)
			}
		})
		w.settle()
		calls.Go(func() {
			if _, err := a.Release(lease.Sandbox{Owner: web.owner(), Container: s.id}); err != nil {
				w.Error(err)
			}
		})
		w.settle()
		if n := len(*writes); n != 1 {
			w.Errorf("%d writes at once", n)
		}
		close(free)
		calls.Wait()
		a.del(sandbox{pod: web, id: "later"})
		if e := a.disk.Entries(); len(e) != 1 || e[0].State != lease.Cooling {
			w.Errorf("the disk has %v", e)
		}
	})
}

// What a failed write left out is written with the next, whoever asks for it.
func TestFailedWriteIsMadeUpFor(t *testing.T) {
	for _, fault := range []leasetest.DiskFault{leasetest.Unsynced, leasetest.SyncedFailed} {
		history(t, func(w *world) {
			a := w.node("a")
			p := pool("p", 16, "10.0.0.0-10.0.0.15")
			s := a.add(w.pod("web", a), p)
			a.diskFault = func(leasetest.DiskWrite) leasetest.DiskFault {
				a.diskFault = nil
				return fault
			}
			if _, err := a.Release(lease.Sandbox{Owner: s.owner(), Container: s.id}); err == nil {
				w.Error("released without a disk")
			}
			a.add(w.pod("other", a), p)
			a.restart()
			a.wantState(s.addrs[0], lease.Cooling)
		})
	}
}

// The disk fails in the middle of a placement: nothing is pinned for an
// address of which a crash would leave no trace.
func TestNoPinBeforeTheJournalHasIt(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 16, "10.0.0.0-10.0.0.15")
		a.add(w.pod("warm", a), p)
		a.diskFault = func(leasetest.DiskWrite) leasetest.DiskFault { return leasetest.Unsynced }
		w.costs(func() {
			if _, err := a.tryAdd(w.Context(), w.member("web-0", a), p); err == nil {
				w.Error("placed without a journal")
			}
		}, "Endpoint")
	})
}

// The process crashes at each call of the cluster of a first placement; the
// next one finishes it, and no address is left behind.
func TestPlacementSurvivesACrashAtEveryCall(t *testing.T) {
	for _, kind := range []leasetest.Kind{leasetest.Lost, leasetest.AnswerLost, leasetest.Late} {
		for crash := 1; ; crash++ {
			calls := 0
			history(t, func(w *world) {
				a := w.node("a")
				p := pool("p", 0, "10.0.0.1-10.0.0.2")
				web := w.member("web-0", a)
				w.fault = func(leasetest.Call) leasetest.Fault {
					if calls++; calls < crash {
						return leasetest.Fault{}
					}
					a.disk.Crash()
					return leasetest.Fault{Kind: kind}
				}
				s, err := a.tryAdd(w.Context(), web, p)
				w.fault = nil
				if calls >= crash {
					if err == nil {
						w.Errorf("answered %v by a process that is no more", s.addrs)
					}
					a.restart()
					s = a.add(web, p)
				}
				w.cluster.Land()
				a.watch(0)
				for range 3 {
					a.tidy()
					w.pass(2 * time.Minute)
				}
				block := w.block(s.addrs[0])
				if len(block.Pins) != 1 || block.Pins[0].Addr != s.addrs[0] || len(a.Free()) != block.Leased().Len()-1 {
					w.Errorf("fault %d at call %d\n%s", kind, crash, w)
				}
			})
			if calls < crash || t.Failed() {
				break
			}
		}
	}
}
