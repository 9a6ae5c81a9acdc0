package lease_test

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// roomPause is the shortest time between two questions where there is room.
const roomPause = 500 * time.Millisecond

// thousand is a pool of 64 blocks.
func thousand(plenty int) lease.Pool { return pool("thousand", plenty, "10.0.0.0-10.0.3.255") }

// useUp leases every address of the thousand to the node, and has another one
// find that out.
func useUp(w *world, holder, finder *node) {
	w.Helper()
	fillBlocks(w, holder, 64)
	_, err := finder.tryAdd(w.Context(), w.pod("too-many", finder), thousand(0))
	wantExhausted(w, err, "thousand")
	w.pass(roomPause)
}

// vacate ends the holder's lease of addresses.
func vacate(w *world, holder *node, addrs ...netip.Addr) {
	w.Helper()
	for _, a := range addrs {
		w.change(a, func(b *lease.Block) error { b.Yield(holder.id.UID, 1<<lease.Offset(a)); return nil })
	}
}

func TestAddressThatAnotherNodeYieldedIsFoundInALargePoolThatWasUsedOut(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		useUp(w, b, a)
		vacate(w, b, addr("10.0.2.77"))
		w.costs(func() {
			w.wantAddrs(a.add(w.pod("web", a), thousand(0)).addrs, []netip.Addr{addr("10.0.2.77")})
		}, "Roomy", "Block", "PutBlock")
	})
}

func TestUsedOutPoolIsAskedForRoomAtABoundedPace(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		useUp(w, b, a)
		before := len(w.cluster.Calls())
		const seconds = 10
		for i := range seconds * 50 {
			_, err := a.tryAdd(w.Context(), w.pod(fmt.Sprintf("web-%d", i), a), thousand(0))
			wantExhausted(w, err, "thousand")
			w.pass(time.Second / 50)
		}
		if calls := len(w.cluster.Calls()) - before; calls > 4*seconds {
			w.Errorf("%d calls in %d seconds, want two questions and two reads a second", calls, seconds)
		}
	})
}

func TestOneQuestionForRoomServesAllWhoWait(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		useUp(w, b, a)
		free := []netip.Addr{addr("10.0.0.5"), addr("10.0.1.6"), addr("10.0.2.7")}
		vacate(w, b, free...)
		// The question waits until all have asked.
		asked := make(chan struct{})
		w.fault = func(c leasetest.Call) leasetest.Fault {
			if c.Method == "Roomy" {
				<-asked
			}
			return leasetest.Fault{}
		}
		var adds sync.WaitGroup
		got := make([]netip.Addr, len(free))
		for i := range free {
			web := w.pod(fmt.Sprintf("web-%d", i), a)
			adds.Go(func() {
				entries, err := a.Acquire(w.Context(), web.request("c-"+web.name, thousand(0)))
				if err != nil {
					w.Error(err)
					return
				}
				got[i] = entries[0].Addr
			})
		}
		w.settle()
		close(asked)
		adds.Wait()
		slices.SortFunc(got, netip.Addr.Compare)
		w.wantAddrs(got, free)
	})
}

// What is told of room is late: here every address of it has gone by the time
// that it is read.
func TestToldRoomIsNoEvidence(t *testing.T) {
	history(t, func(w *world) {
		a, b, c := w.node("a"), w.node("b"), w.node("c")
		useUp(w, b, a)
		free := addr("10.0.2.77")
		vacate(w, b, free)
		w.fault = func(call leasetest.Call) leasetest.Fault {
			if call.Method == "Block" {
				w.fault = nil
				w.wantAddrs(c.add(w.pod("faster", c), pool("one", 0, "10.0.2.77-10.0.2.77")).addrs, []netip.Addr{free})
			}
			return leasetest.Fault{}
		}
		_, err := a.tryAdd(w.Context(), w.pod("web", a), thousand(0))
		wantExhausted(w, err, "thousand")
	})
}

func TestUntoldRoomLeavesTheSearch(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		useUp(w, b, a)
		vacate(w, b, addr("10.0.2.77"))
		w.fault = always("Roomy", leasetest.Lost)
		_, err := a.tryAdd(w.Context(), w.pod("web", a), thousand(0))
		w.wantErr(err, lease.ErrSearching)
		w.pass(time.Minute) // nothing is known to be full any more
		w.wantAddrs(a.add(w.pod("web", a), thousand(0)).addrs, []netip.Addr{addr("10.0.2.77")})
	})
}

func TestRoomIsAskedForInEveryRegionOfAPool(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		for _, c := range []struct {
			pool lease.Pool
			free []netip.Addr
		}{
			{pool("four", 0, "10.0.15.240-10.0.16.15"), []netip.Addr{addr("10.0.15.250"), addr("10.0.16.3")}},
			{pool("six", 0, "fd00::ff0-fd00::100f"), []netip.Addr{addr("fd00::ffa"), addr("fd00::1001")}},
		} {
			for i := range 2 * lease.Size {
				b.add(w.pod(fmt.Sprintf("%s-%d", c.pool.Name, i), b), c.pool)
			}
			_, err := a.tryAdd(w.Context(), w.pod("too-many", a), c.pool)
			wantExhausted(w, err, c.pool.Name)
			for _, free := range c.free {
				w.pass(roomPause)
				vacate(w, b, free)
				w.wantAddrs(a.add(w.pod("web-"+free.String(), a), c.pool).addrs, []netip.Addr{free})
			}
		}
	})
}

func TestRegionHasTheBlocksOfItsRange(t *testing.T) {
	for block, want := range map[string]string{
		"10.6.168.96/28":      "10.6.160.0/20",
		"10.6.175.240/28":     "10.6.160.0/20",
		"10.6.176.0/28":       "10.6.176.0/20",
		"fd00::10/124":        "fd00::/116",
		"fd00::abcd:fff0/124": "fd00::abcd:f000/116",
	} {
		if got := lease.RegionOf(netip.MustParsePrefix(block)); got != netip.MustParsePrefix(want) {
			t.Errorf("%s lies in %s, want %s", block, got, want)
		}
	}
}
