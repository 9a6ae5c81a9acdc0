package agent

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go4.org/netipx"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

func pool(t *testing.T, plenty int, ranges string) lease.Pool {
	t.Helper()
	r, err := netipx.ParseIPRange(ranges)
	if err != nil {
		t.Fatal(err)
	}
	var b netipx.IPSetBuilder
	b.AddRange(r)
	set, err := b.IPSet()
	if err != nil {
		t.Fatal(err)
	}
	return lease.Pool{Name: ranges, Ranges: set, Plenty: plenty}
}

// detailed is a pool of which nothing is taken ahead, with what an endpoint says
// of its addresses.
func detailed(t *testing.T, ranges string) lease.Pool {
	t.Helper()
	p := pool(t, 0, ranges)
	p.Detail = func(addr netip.Addr) json.RawMessage {
		raw, err := cluster.Detail{Pool: "p", Prefix: netip.PrefixFrom(addr, 16)}.Encode()
		if err != nil {
			t.Error(err)
		}
		return raw
	}
	return p
}

func addrs(text ...string) (addrs []netip.Addr) {
	for _, s := range text {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	return addrs
}

func TestSurplusIsWhatNobodyHereHasUseFor(t *testing.T) {
	at := func(restless ...netip.Addr) func(netip.Addr) bool {
		return func(a netip.Addr) bool { return slices.Contains(restless, a) }
	}
	free := addrs("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.9.0.1")
	rich, scarce := pool(t, 1, "10.0.0.0-10.0.0.9"), pool(t, 0, "10.0.0.0-10.0.0.9")
	used := pool(t, 0, "10.0.0.2-10.0.0.3")
	other := scarce
	other.Name = "other"
	for _, c := range []struct {
		name     string
		recent   []lease.Pool
		waiting  map[string]int
		restless []netip.Addr
		want     []netip.Addr
	}{
		{"a rich pool keeps two claims", []lease.Pool{rich}, nil, nil, addrs("10.0.0.3", "10.9.0.1")},
		{"a scarce pool keeps nothing", []lease.Pool{scarce}, nil, nil, free},
		{"no pool in use keeps nothing", nil, nil, nil, free},
		{"what came free just now stays", nil, nil, addrs("10.0.0.2"), addrs("10.0.0.1", "10.0.0.3", "10.9.0.1")},
		{"not of a scarce pool, though", []lease.Pool{used}, nil, addrs("10.0.0.1", "10.0.0.2"), addrs("10.0.0.2", "10.0.0.3", "10.9.0.1")},
		{"a scarce pool keeps what pods wait for", []lease.Pool{scarce}, map[string]int{scarce.Name: 2}, nil, addrs("10.0.0.3", "10.9.0.1")},
		{"a rich pool keeps what pods wait for, beyond its two claims", []lease.Pool{rich}, map[string]int{rich.Name: 3}, nil, addrs("10.9.0.1")},
		{"a rich pool keeps two claims beside what a pod waits for", []lease.Pool{rich}, map[string]int{rich.Name: 1}, nil, addrs("10.9.0.1")},
		{"what pods wait for is kept where a scarce pool overlaps theirs", []lease.Pool{rich, other}, map[string]int{rich.Name: 1}, nil, addrs("10.0.0.2", "10.0.0.3", "10.9.0.1")},
		{"a scarce pool keeps nothing, where a rich one overlaps it", []lease.Pool{rich, scarce}, nil, nil, free},
		{"an address counts for one pool only", []lease.Pool{rich, rich}, nil, nil, addrs("10.9.0.1")},
	} {
		t.Run(c.name, func(t *testing.T) {
			waiting := func(pool string) int { return c.waiting[pool] }
			if got := surplus(free, c.recent, waiting, at(c.restless...)); !slices.Equal(got, c.want) {
				t.Errorf("surplus is %v, want %v", got, c.want)
			}
		})
	}
}

func TestReserveIsHalfAClaimAndOneForEachPodThatIsExpected(t *testing.T) {
	const name = "10.0.0.0-10.0.0.9"
	stored := newSimCache("spiderippools", func(*v2beta1.SpiderIPPool) bool { return true })
	stored.store.set(name, &v2beta1.SpiderIPPool{ObjectMeta: metav1.ObjectMeta{Name: name}})
	u := &upkeep{agent: &Agent{pools: &pools{
		informer: stored.informer(), now: time.Now, none: map[string]time.Time{}, expected: map[string]expectation{},
	}}}
	free := addrs("10.0.0.1", "10.9.0.1", "10.9.0.2")
	lacking := func(when string, wants map[int]int) {
		t.Helper()
		for plenty, want := range wants {
			if got := u.lacks(pool(t, plenty, name), free); got != want {
				t.Errorf("%s: with claims of %d and one address free, %d are lacking, want %d", when, plenty, got, want)
			}
		}
	}
	lacking("no pod is expected", map[int]int{0: 0, 1: 0, 3: 0, 4: 1, 16: 7})
	for _, uid := range []string{"a", "b", "c"} {
		u.agent.pools.expect(uid, [][]lease.Pool{{pool(t, 1, name)}})
	}
	lacking("three pods are", map[int]int{0: 2, 1: 2, 16: 10})
	u.agent.pools.usedOut([]string{name})
	lacking("the pool is used out", map[int]int{0: 0, 16: 0})
}

// Else each restart would yield what its node has leased ahead, and the next
// pods would wait for a claim.
func TestPoolsThatPodsHaveAddressesOfAreInUseAfterARestart(t *testing.T) {
	p := &pools{used: map[string]time.Time{}, now: func() time.Time { return time.Unix(1000, 0) }}
	p.resume([]lease.Entry{
		{State: lease.Assigned, Detail: json.RawMessage(`{"pool":"rich","prefix":"10.6.168.101/16"}`)},
		{State: lease.Retained, Detail: json.RawMessage(`{"pool":"of-an-identity","prefix":"10.7.0.1/16"}`)},
		{State: lease.Cooling},
	})
	want := map[string]time.Time{"rich": time.Unix(1000, 0), "of-an-identity": time.Unix(1000, 0)}
	if diff := cmp.Diff(want, p.used); diff != "" {
		t.Errorf("in use (-want +got):\n%s", diff)
	}
}
