package leasetest_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

func TestFakeClusterIsACluster(t *testing.T) {
	leasetest.ClusterSuite(t, func(*testing.T) leasetest.ClusterSubject {
		return leasetest.NewCluster(nil).Subject()
	})
}

func claimed(t *testing.T, version string, addrs lease.Set) lease.Block {
	t.Helper()
	b, err := lease.NewBlock(netip.MustParsePrefix("192.0.2.0/28"))
	if err != nil {
		t.Fatal(err)
	}
	b.Claim(lease.Node{Name: "worker-1", UID: "n1"}, addrs)
	b.Version = version
	return b
}

// next makes each fault of the list happen once, to the writes in turn.
func next(faults ...leasetest.Fault) func(leasetest.Call) leasetest.Fault {
	return func(call leasetest.Call) leasetest.Fault {
		if !call.Write() || len(faults) == 0 {
			return leasetest.Fault{}
		}
		f := faults[0]
		faults = faults[1:]
		return f
	}
}

func TestFaultDecidesWhatBecomesOfAWrite(t *testing.T) {
	for _, test := range []struct {
		kind    leasetest.Kind
		want    error // nil: an error that is none of the lease package's
		stored  lease.Set
		landing int
	}{
		{leasetest.Conflict, lease.ErrConflict, 1, 0},
		{leasetest.Refused, lease.ErrRefused, 1, 0},
		{leasetest.Lost, nil, 1, 0},
		{leasetest.AnswerLost, nil, 3, 0},
		{leasetest.Late, nil, 1, 1},
	} {
		c := leasetest.NewCluster(next(leasetest.Fault{}, leasetest.Fault{Kind: test.kind}))
		first, err := c.PutBlock(t.Context(), claimed(t, "", 1))
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.PutBlock(t.Context(), claimed(t, first.Version, 3))
		known := errors.Is(err, lease.ErrConflict) || errors.Is(err, lease.ErrRefused)
		if err == nil || known != (test.want != nil) || known && !errors.Is(err, test.want) {
			t.Errorf("kind %d: error %v, want %v", test.kind, err, test.want)
		}
		if got := c.Blocks()[0].LeasedTo("n1"); got != test.stored {
			t.Errorf("kind %d: stored %s, want %s", test.kind, got, test.stored)
		}
		if moved := c.Blocks()[0].Version != first.Version; moved != (test.kind == leasetest.Conflict || test.stored != 1) {
			t.Errorf("kind %d: version moved: %t", test.kind, moved)
		}
		if got := c.Land(); got != test.landing {
			t.Errorf("kind %d: %d writes landed late, want %d", test.kind, got, test.landing)
		}
	}
}

func TestLateWriteLandsWhileItsVersionStands(t *testing.T) {
	c := leasetest.NewCluster(next(leasetest.Fault{}, leasetest.Fault{Kind: leasetest.Late}))
	first, err := c.PutBlock(t.Context(), claimed(t, "", 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err = c.PutBlock(t.Context(), claimed(t, first.Version, 3)); err == nil {
		t.Fatal("the answer of a late write was not lost")
	}
	read, err := c.Block(t.Context(), first.Name())
	if err != nil || read.Version != first.Version {
		t.Fatalf("read %v, %v: a read must not settle a late write", read, err)
	}
	if c.Land() != 1 || c.Blocks()[0].LeasedTo("n1") != 3 {
		t.Errorf("the late write did not land: %s", c)
	}
}

func TestLateWriteDiesWithItsVersion(t *testing.T) {
	c := leasetest.NewCluster(next(leasetest.Fault{}, leasetest.Fault{Kind: leasetest.Late}))
	first, err := c.PutBlock(t.Context(), claimed(t, "", 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err = c.PutBlock(t.Context(), claimed(t, first.Version, 3)); err == nil {
		t.Fatal("the answer of a late write was not lost")
	}
	if _, err = c.PutBlock(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if c.Land() != 0 || c.Blocks()[0].LeasedTo("n1") != 1 {
		t.Errorf("the late write landed on a version that was gone: %s", c)
	}
}

func TestLateWriteLandsAfterItsNumberOfCalls(t *testing.T) {
	c := leasetest.NewCluster(next(leasetest.Fault{Kind: leasetest.Late, After: 2}))
	if _, err := c.PutBlock(t.Context(), claimed(t, "", 1)); err == nil {
		t.Fatal("the answer of a late write was not lost")
	}
	for call, want := range []bool{false, false, true} {
		_, err := c.Block(t.Context(), "192.0.2.0-28")
		if landed := err == nil; landed != want {
			t.Errorf("read %d after the late write: landed %t, want %t", call+1, landed, want)
		}
	}
}

func TestFaultFunctionMayActBetweenReadAndWrite(t *testing.T) {
	var c *leasetest.Cluster
	acted := false
	c = leasetest.NewCluster(func(call leasetest.Call) leasetest.Fault {
		if call.Method == "PutBlock" && call.N > 2 && !acted {
			acted = true
			b, err := c.Block(t.Context(), call.Object)
			if err != nil {
				t.Error(err)
			}
			b.Claim(lease.Node{Name: "worker-2", UID: "n2"}, 2)
			if _, err := c.PutBlock(t.Context(), b); err != nil {
				t.Error(err)
			}
		}
		return leasetest.Fault{}
	})
	if _, err := c.PutBlock(t.Context(), claimed(t, "", 1)); err != nil {
		t.Fatal(err)
	}
	b, err := c.Block(t.Context(), "192.0.2.0-28")
	if err != nil {
		t.Fatal(err)
	}
	if _, err = c.PutBlock(t.Context(), b); !errors.Is(err, lease.ErrConflict) {
		t.Errorf("error %v, want the conflict with worker-2", err)
	}
}

func TestOneSeedIsOneRun(t *testing.T) {
	odds := leasetest.Odds{Conflict: 0.2, Refused: 0.1, Lost: 0.1, AnswerLost: 0.2, Late: 0.2, LateBy: 3}
	run := func(seed uint64) string {
		c := leasetest.NewCluster(leasetest.Seeded(seed, odds))
		for i := range 200 {
			b, err := c.Block(t.Context(), "192.0.2.0-28")
			if err != nil {
				b = claimed(t, "", 0)
			}
			b.Leases = nil
			b.Claim(lease.Node{Name: "worker-1", UID: "n1"}, lease.Set(i+1))
			_, _ = c.PutBlock(t.Context(), b) // whether it fails is the seed's affair
		}
		return c.String()
	}
	if a, b := run(7), run(7); a != b {
		t.Errorf("seed 7 gave\n%s\nand\n%s", a, b)
	}
	seen := map[string]bool{}
	for seed := range uint64(8) {
		seen[run(seed)] = true
	}
	if len(seen) == 1 {
		t.Error("eight seeds gave one run")
	}
}

func TestChangesTellWhatAWatchWould(t *testing.T) {
	c := leasetest.NewCluster(nil)
	first, err := c.PutBlock(t.Context(), claimed(t, "", 1))
	if err != nil {
		t.Fatal(err)
	}
	endpoint, err := c.PutEndpoint(t.Context(), lease.Endpoint{Namespace: "default", Pod: "web-0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteBlock(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	all := c.Changes(0)
	if len(all) != 3 || all[0].Block == nil || all[1].Endpoint == nil || all[1].Endpoint.Version != endpoint.Version || !all[2].Deleted {
		t.Fatalf("changes %+v", all)
	}
	if rest := c.Changes(all[1].Version); len(rest) != 1 || !slices.Equal(rest, all[2:]) {
		t.Errorf("after version %d: %+v", all[1].Version, rest)
	}
}
