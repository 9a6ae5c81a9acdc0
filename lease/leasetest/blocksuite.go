package leasetest

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-ipam/holdfast/lease"
)

func blockRoundTrip(t *testing.T, c ClusterSubject) {
	for _, prefix := range []string{"192.0.2.16/28", "0.0.0.0/28", "255.255.255.240/28", "2001:db8::ff0/124", "::/124"} {
		want := block(t, prefix)
		put := must[lease.Block](t)(c.PutBlock(t.Context(), want))
		if put.Version == "" {
			t.Errorf("%s: stored without a version", prefix)
		}
		want.Version = put.Version
		same(t, want, put)
		same(t, want, must[lease.Block](t)(c.Block(t.Context(), want.Name())))

		// Less of everything, so that nothing of the first state shines through.
		want.Fence(worker1().UID, nil)
		if err := want.Unpin(want.Pins[1].Addr, want.Pins[1].Identity); err != nil {
			t.Fatal(err)
		}
		if err := want.MarkReleasing(want.Pins[0].Addr, want.Pins[0].Identity); err != nil {
			t.Fatal(err)
		}
		put = must[lease.Block](t)(c.PutBlock(t.Context(), want))
		if put.Version == want.Version {
			t.Errorf("%s: the version stayed %s", prefix, put.Version)
		}
		want.Version = put.Version
		same(t, want, must[lease.Block](t)(c.Block(t.Context(), want.Name())))

		want.Fence(worker2().UID, nil)
		want.Pins = nil
		want.Version = must[lease.Block](t)(c.PutBlock(t.Context(), want)).Version
		same(t, want, must[lease.Block](t)(c.Block(t.Context(), want.Name())))
	}
}

func blockCreatedOnce(t *testing.T, c ClusterSubject) {
	first := must[lease.Block](t)(c.PutBlock(t.Context(), block(t, "192.0.2.0/28")))
	second, err := lease.NewBlock(first.Prefix())
	if err != nil {
		t.Fatal(err)
	}
	second.Claim(worker2(), 1)
	_, err = c.PutBlock(t.Context(), second)
	wantErr(t, err, lease.ErrConflict)
	same(t, first, must[lease.Block](t)(c.Block(t.Context(), first.Name())))
}

func blockOldVersion(t *testing.T, c ClusterSubject) {
	old := must[lease.Block](t)(c.PutBlock(t.Context(), block(t, "192.0.2.0/28")))
	next := old.Clone()
	next.Claim(worker1(), 0b10)
	next = must[lease.Block](t)(c.PutBlock(t.Context(), next))

	late := old.Clone()
	late.Claim(worker2(), 0b10)
	_, err := c.PutBlock(t.Context(), late)
	wantErr(t, err, lease.ErrConflict)
	same(t, next, must[lease.Block](t)(c.Block(t.Context(), next.Name())))
}

func blockUpdateRemoved(t *testing.T, c ClusterSubject) {
	b := must[lease.Block](t)(c.PutBlock(t.Context(), block(t, "192.0.2.0/28")))
	if err := c.DeleteBlock(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	b.Claim(worker1(), 0b10)
	_, err := c.PutBlock(t.Context(), b)
	wantErr(t, err, lease.ErrConflict)
	_, err = c.Block(t.Context(), b.Name())
	wantErr(t, err, lease.ErrNotFound)
	wantErr(t, c.DeleteBlock(t.Context(), b), lease.ErrConflict)
}

func blockCreatedAgain(t *testing.T, c ClusterSubject) {
	first := must[lease.Block](t)(c.PutBlock(t.Context(), block(t, "192.0.2.0/28")))
	if err := c.DeleteBlock(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	second := must[lease.Block](t)(c.PutBlock(t.Context(), block(t, "192.0.2.0/28")))
	_, err := c.PutBlock(t.Context(), first)
	wantErr(t, err, lease.ErrConflict)
	wantErr(t, c.DeleteBlock(t.Context(), first), lease.ErrConflict)
	same(t, second, must[lease.Block](t)(c.Block(t.Context(), second.Name())))
}

func blockRemovalGuarded(t *testing.T, c ClusterSubject) {
	old := must[lease.Block](t)(c.PutBlock(t.Context(), block(t, "192.0.2.0/28")))
	next := old.Clone()
	next.Claim(worker1(), 0b10)
	next = must[lease.Block](t)(c.PutBlock(t.Context(), next))
	wantErr(t, c.DeleteBlock(t.Context(), old), lease.ErrConflict)
	same(t, next, must[lease.Block](t)(c.Block(t.Context(), next.Name())))
	if err := c.DeleteBlock(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	_, err := c.Block(t.Context(), next.Name())
	wantErr(t, err, lease.ErrNotFound)
}

func removalWithoutVersion(t *testing.T, c ClusterSubject) {
	b := must[lease.Block](t)(c.PutBlock(t.Context(), block(t, "192.0.2.0/28")))
	unjudged := b.Clone()
	unjudged.Version = ""
	wantErr(t, c.DeleteBlock(t.Context(), unjudged), lease.ErrRefused)
	same(t, b, must[lease.Block](t)(c.Block(t.Context(), b.Name())))

	e := must[lease.Endpoint](t)(c.PutEndpoint(t.Context(), endpoint(c, "web-0")))
	e.Version = ""
	wantErr(t, c.DeleteEndpoint(t.Context(), e), lease.ErrRefused)
	must[lease.Endpoint](t)(c.Endpoint(t.Context(), e.Namespace, e.Pod))
}

// roomTold waits for what is told, which may be late.
func roomTold(t *testing.T, c ClusterSubject) {
	full := block(t, "192.0.2.0/28")
	full.Claim(worker1(), 0xffff)
	full = must[lease.Block](t)(c.PutBlock(t.Context(), full))
	roomy := must[lease.Block](t)(c.PutBlock(t.Context(), block(t, "192.0.2.16/28")))
	six := must[lease.Block](t)(c.PutBlock(t.Context(), block(t, "2001:db8::ff0/124")))
	elsewhere := must[lease.Block](t)(c.PutBlock(t.Context(), block(t, "198.51.100.0/28")))
	regions := []netip.Prefix{lease.RegionOf(full.Prefix()), lease.RegionOf(six.Prefix())}
	if slices.Contains(regions, lease.RegionOf(elsewhere.Prefix())) {
		t.Fatal("one region has both")
	}
	wantRoomy(t, c, regions, roomy, six)

	full.Yield(worker1().UID, 0b1000000)
	full = must[lease.Block](t)(c.PutBlock(t.Context(), full))
	roomy.Claim(worker1(), 0xffff)
	must[lease.Block](t)(c.PutBlock(t.Context(), roomy))
	wantRoomy(t, c, regions, full, six)
	wantRoomy(t, c, []netip.Prefix{lease.RegionOf(elsewhere.Prefix())}, elsewhere)
}

// wantRoomy fails unless just these blocks are told to have room, in the end.
func wantRoomy(t *testing.T, c ClusterSubject, regions []netip.Prefix, want ...lease.Block) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		got := must[[]lease.Block](t)(c.Roomy(t.Context(), regions))
		slices.SortFunc(got, func(x, y lease.Block) int { return x.Prefix().Compare(y.Prefix()) })
		diff := cmp.Diff(want, got, alike())
		if diff == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("blocks with room (-want +got):\n%s", diff)
		}
	}
}

// putWithoutChange matters because a lost update is settled by another update
// of the same object, which often has nothing new to say.
func putWithoutChange(t *testing.T, c ClusterSubject) {
	b := must[lease.Block](t)(c.PutBlock(t.Context(), block(t, "192.0.2.0/28")))
	again := must[lease.Block](t)(c.PutBlock(t.Context(), b))
	if again.Version == b.Version {
		t.Fatalf("the version stayed %s: a write that was judged on it can still land", b.Version)
	}
	lost := b.Clone()
	lost.Yield(worker1().UID, 0b1)
	_, err := c.PutBlock(t.Context(), lost)
	wantErr(t, err, lease.ErrConflict)

	e := must[lease.Endpoint](t)(c.PutEndpoint(t.Context(), endpoint(c, "web-0")))
	if settled := must[lease.Endpoint](t)(c.PutEndpoint(t.Context(), e)); settled.Version == e.Version {
		t.Errorf("the endpoint's version stayed %s", e.Version)
	}
}

func impossibleBlock(t *testing.T, c ClusterSubject) {
	b := block(t, "192.0.2.0/28")
	b.Leases[0].Addrs |= b.Leases[1].Addrs
	_, err := c.PutBlock(t.Context(), b)
	wantErr(t, err, lease.ErrRefused)
	_, err = c.Block(t.Context(), b.Name())
	wantErr(t, err, lease.ErrNotFound)
	_, err = c.PutBlock(t.Context(), lease.Block{})
	wantErr(t, err, lease.ErrRefused)
}

func node(i int) lease.Node {
	return lease.Node{
		Name: fmt.Sprintf("node-%d", i),
		UID:  fmt.Sprintf("7a1d1c52-0000-4000-8000-%012d", i),
	}
}

// atOnce runs f for 0 to n-1 in as many goroutines and waits for all.
func atOnce(n int, f func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}

func oneCreatorWins(t *testing.T, c ClusterSubject) {
	errs := make([]error, 8)
	atOnce(len(errs), func(i int) {
		b, err := lease.NewBlock(netip.MustParsePrefix("192.0.2.0/28"))
		if err == nil {
			b.Claim(node(i), 0xffff)
			_, err = c.PutBlock(t.Context(), b)
		}
		errs[i] = err
	})
	b := must[lease.Block](t)(c.Block(t.Context(), "192.0.2.0-28"))
	for i, err := range errs {
		if won := b.LeasedTo(node(i).UID) != 0; won != (err == nil) {
			t.Errorf("creator %d: stored %t, error %v", i, won, err)
		}
		if err != nil {
			wantErr(t, err, lease.ErrConflict)
		}
	}
}

func oneUpdaterWins(t *testing.T, c ClusterSubject) {
	b := must[lease.Block](t)(c.PutBlock(t.Context(), block(t, "192.0.2.0/28")))
	for range 5 {
		errs := make([]error, 8)
		atOnce(len(errs), func(i int) {
			mine := b.Clone()
			mine.Leases = []lease.Lease{{Node: node(i), Addrs: 1}}
			_, errs[i] = c.PutBlock(t.Context(), mine)
		})
		b = must[lease.Block](t)(c.Block(t.Context(), b.Name()))
		for i, err := range errs {
			if won := b.LeasedTo(node(i).UID) != 0; won != (err == nil) {
				t.Errorf("updater %d: stored %t, error %v", i, won, err)
			}
			if err != nil {
				wantErr(t, err, lease.ErrConflict)
			}
		}
	}
}

func claimsNeverMeet(t *testing.T, c ClusterSubject) {
	prefix := netip.MustParsePrefix("2001:db8::/124")
	claimed := make([]lease.Set, lease.Size)
	atOnce(lease.Size, func(i int) {
		for claimed[i] == 0 && t.Context().Err() == nil {
			b, err := c.Block(t.Context(), lease.Name(prefix))
			if errors.Is(err, lease.ErrNotFound) {
				b, err = lease.NewBlock(prefix)
			}
			if err != nil {
				t.Error(err)
				return
			}
			got := b.Claim(node(i), b.Claimable().First(1))
			_, err = c.PutBlock(t.Context(), b)
			switch {
			case err == nil:
				claimed[i] = got
			case !errors.Is(err, lease.ErrConflict):
				t.Error(err)
				return
			}
		}
	})
	b := must[lease.Block](t)(c.Block(t.Context(), lease.Name(prefix)))
	var all lease.Set
	for i, got := range claimed {
		if got.Len() != 1 || all&got != 0 || b.LeasedTo(node(i).UID) != got {
			t.Errorf("node %d claimed %s and leases %s; others claimed %s", i, got, b.LeasedTo(node(i).UID), all)
		}
		all |= got
	}
}
