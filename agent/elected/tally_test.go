package elected

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go4.org/netipx"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/crds"
	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

func endpointOf(name, uid string, age time.Duration, ips ...v2beta1.EndpointInterface) *v2beta1.SpiderEndpoint {
	e := &v2beta1.SpiderEndpoint{}
	e.Namespace, e.Name = "default", name
	e.CreationTimestamp = metav1.NewTime(time.Unix(1000, 0).Add(-age))
	e.Status.Current = v2beta1.EndpointPod{UID: uid, IPs: ips}
	return e
}

func TestTallyCountsEveryAddressOnce(t *testing.T) {
	tally := newTally("blue")
	for _, e := range []*v2beta1.SpiderEndpoint{
		endpointOf("web-0", "u0", time.Minute, v2beta1.EndpointInterface{
			Interface: "eth0", IPv4: "10.6.168.101/16", IPv4Pool: "blue", IPv6: "fd00:6::1/112", IPv6Pool: "six",
		}),
		endpointOf("young", "u1", time.Second, v2beta1.EndpointInterface{Interface: "eth0", IPv4: "10.6.168.102/16", IPv4Pool: "blue"}),
		endpointOf("old", "u2", time.Hour, v2beta1.EndpointInterface{Interface: "eth0", IPv4: "10.6.168.102/16", IPv4Pool: "blue"}),
		endpointOf("green", "u3", 0, v2beta1.EndpointInterface{Interface: "eth0", IPv4: "10.6.168.103/16", IPv4Pool: "green"}),
		endpointOf("broken", "u4", 0, v2beta1.EndpointInterface{Interface: "eth0", IPv4: "?", IPv4Pool: "blue"}),
	} {
		tally.endpoint(e)
	}
	tally.pin(v1alpha1.Pin{Address: "10.6.168.101", Pod: "default/other"})
	tally.pin(v1alpha1.Pin{Address: "10.6.168.104", Pod: "default/web-1"})
	text, err := v2beta1.EncodeAllocations(tally.has)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"10.6.168.101":{"pod":"default/web-0","podUid":"u0"},` +
		`"10.6.168.102":{"pod":"default/young","podUid":"u1"},` +
		`"10.6.168.104":{"pod":"default/web-1","podUid":""}}`
	if diff := cmp.Diff(want, *text); diff != "" {
		t.Errorf("allocatedIPs (-want +got):\n%s", diff)
	}
}

// TestPoolIsScarceWhenNoAddressIsLeft holds scarce against looking at every
// address of random pools and blocks.
func TestPoolIsScarceWhenNoAddressIsLeft(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	base := netip.MustParseAddr("10.6.0.0").As4()
	at := func(i int) netip.Addr {
		b := base
		b[2], b[3] = byte(i>>8), byte(i)
		return netip.AddrFrom4(b)
	}
	seen := map[bool]int{}
	for range 3000 {
		var items []string
		member := map[int]bool{}
		for range 1 + random.IntN(3) {
			from := random.IntN(60)
			to := from + random.IntN(20)
			items = append(items, fmt.Sprintf("%s-%s", at(from), at(to)))
			for i := from; i <= to; i++ {
				member[i] = true
			}
		}
		addrs, err := v2beta1.ParseRanges(items)
		if err != nil {
			t.Fatal(err)
		}
		blocks := map[netip.Prefix]lease.Set{}
		left := false
		for i := range 80 {
			if member[i] && random.IntN(100) < 2 {
				left = true
				continue
			}
			if !member[i] && random.IntN(2) == 0 {
				continue
			}
			blocks[lease.BlockOf(at(i))] |= 1 << lease.Offset(at(i))
		}
		got := scarce(addrs, len(blocks), func(p netip.Prefix) lease.Set { return blocks[p] })
		if got == left {
			t.Fatalf("%v with %v: scarce %v, want %v", items, blocks, got, !left)
		}
		seen[got]++
	}
	if seen[true] < 100 || seen[false] < 100 {
		t.Errorf("one-sided histories: %v", seen)
	}
}

func TestHugeOrEmptyPoolIsNotScarce(t *testing.T) {
	huge, err := v2beta1.ParseRanges([]string{"fd00::-fd00::ffff:ffff:ffff:ffff"})
	if err != nil {
		t.Fatal(err)
	}
	taken := func(netip.Prefix) lease.Set { return 1<<lease.Size - 1 }
	if scarce(huge, 1000, taken) {
		t.Error("a pool of 2^64 addresses is scarce after 1000 blocks")
	}
	none, err := v2beta1.ParseRanges(nil)
	if err != nil {
		t.Fatal(err)
	}
	if scarce(none, 1000, taken) {
		t.Error("a pool without addresses asks agents to yield")
	}
}

func TestPrefixesCoverAPoolOnceInOrder(t *testing.T) {
	addrs, err := v2beta1.ParseRanges([]string{"10.6.168.101-10.6.168.110", "10.6.168.112-10.6.168.130", "10.6.168.140", "255.255.255.250-255.255.255.255"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for p := range prefixesOf(addrs) {
		got = append(got, p.String())
	}
	want := []string{"10.6.168.96/28", "10.6.168.112/28", "10.6.168.128/28", "255.255.255.240/28"}
	if !slices.Equal(got, want) {
		t.Errorf("prefixes %v, want %v", got, want)
	}
}

func TestTakenIsLeasedOrPinned(t *testing.T) {
	prefix := netip.MustParsePrefix("10.6.168.96/28")
	b := &v1alpha1.IPBlock{Spec: v1alpha1.IPBlockSpec{
		Leases: []v1alpha1.Lease{
			{NodeUID: "a", Addresses: []string{"10.6.168.101-10.6.168.103"}},
			{NodeUID: "b", Addresses: []string{"10.6.168.105"}},
		},
		Pins: []v1alpha1.Pin{{Address: "10.6.168.101"}, {Address: "10.6.168.111"}},
	}}
	if got := takenOf(prefix, b).String(); got != "5-7,9,15" {
		t.Errorf("taken %s, want 5-7,9,15", got)
	}
}

func TestPoolThatMakesNoSenseSaysSoUntilItDoes(t *testing.T) {
	s := &poolStatus{reserved: newCache(new(crds.Clients).ReservedIPs(), &v2beta1.SpiderReservedIP{}, nil)}
	pool := &v2beta1.SpiderIPPool{}
	none := new(netipx.IPSet)
	s.judge(pool, none, nil)
	if len(pool.Status.Conditions) != 0 {
		t.Errorf("conditions of a pool that is as it should be: %v", pool.Status.Conditions)
	}
	s.judge(pool, nil, errors.New("spec.ips[0]: correct it"))
	c := meta.FindStatusCondition(pool.Status.Conditions, v2beta1.ConditionUsable)
	if c == nil || c.Status != metav1.ConditionFalse || c.Message != "spec.ips[0]: correct it" {
		t.Errorf("conditions %v, want the advice", pool.Status.Conditions)
	}
	s.judge(pool, none, nil)
	if !meta.IsStatusConditionTrue(pool.Status.Conditions, v2beta1.ConditionUsable) {
		t.Errorf("conditions %v, want it usable again", pool.Status.Conditions)
	}
}

func TestStatusWithALongListIsWrittenRarelyButForItsConditions(t *testing.T) {
	status := func(bytes int, scarce metav1.ConditionStatus) *v2beta1.IPPoolStatus {
		list := strings.Repeat("x", bytes)
		return &v2beta1.IPPoolStatus{AllocatedIPs: &list, Conditions: []metav1.Condition{{Type: v2beta1.ConditionScarce, Status: scarce}}}
	}
	const (
		no, yes = metav1.ConditionFalse, metav1.ConditionTrue
		long    = allocatedLimit / 2
	)
	for name, test := range map[string]struct {
		was, is *v2beta1.IPPoolStatus
		agents  int
		want    time.Duration
	}{
		"first":              {&v2beta1.IPPoolStatus{}, status(long, no), 1000, 0},
		"short":              {status(0, no), status(0, no), 1000, 0},
		"one agent":          {status(0, no), status(long, no), 1, time.Second / 8},
		"long":               {status(0, no), status(long, no), 80, 10 * time.Second},
		"was long":           {status(long, no), status(0, no), 80, 10 * time.Second},
		"longest":            {status(allocatedLimit, no), status(allocatedLimit-1, no), 5000, toldAtMost},
		"long, and scarce":   {status(long, no), status(long, yes), 80, 0},
		"long, and no more":  {status(long, yes), status(long, no), 80, 0},
		"too long to be one": {status(allocatedLimit, no), &v2beta1.IPPoolStatus{Conditions: status(0, no).Conditions}, 5000, toldAtMost},
	} {
		if got := restOf(test.was, test.is, test.agents); got != test.want {
			t.Errorf("%s: written again after %s, want %s", name, got, test.want)
		}
	}
}
