package v2beta1

import (
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRangesBecomeTheFewestItemsInAscendingOrder(t *testing.T) {
	for name, test := range map[string]struct {
		items, want []string
		count       int64
	}{
		"none":                 {nil, nil, 0},
		"one address":          {[]string{"10.6.168.101"}, []string{"10.6.168.101"}, 1},
		"a range of one":       {[]string{"10.6.168.101-10.6.168.101"}, []string{"10.6.168.101"}, 1},
		"adjacent ones merge":  {[]string{"10.6.0.2", "10.6.0.1"}, []string{"10.6.0.1-10.6.0.2"}, 2},
		"overlaps merge":       {[]string{"10.6.0.5-10.6.0.9", "10.6.0.1-10.6.0.6"}, []string{"10.6.0.1-10.6.0.9"}, 9},
		"a gap stays":          {[]string{"10.6.0.1-10.6.0.2", "10.6.0.4"}, []string{"10.6.0.1-10.6.0.2", "10.6.0.4"}, 3},
		"all of IPv4":          {[]string{"0.0.0.0-255.255.255.255"}, []string{"0.0.0.0-255.255.255.255"}, 1 << 32},
		"across 64 bits":       {[]string{"fd00::ffff:ffff:ffff:ffff-fd00:0:0:1::"}, []string{"fd00::ffff:ffff:ffff:ffff-fd00:0:0:1::"}, 2},
		"IPv6 is shortened":    {[]string{"FD00:0:0::0001"}, []string{"fd00::1"}, 1},
		"an IPv6 /48":          {[]string{"fd00::-fd00:0:0:ffff:ffff:ffff:ffff:ffff"}, []string{"fd00::-fd00::ffff:ffff:ffff:ffff:ffff"}, math.MaxInt64},
		"an IPv6 /65":          {[]string{"fd00::-fd00::7fff:ffff:ffff:ffff"}, []string{"fd00::-fd00::7fff:ffff:ffff:ffff"}, math.MaxInt64},
		"one below the limit":  {[]string{"fd00::-fd00::7fff:ffff:ffff:fffd"}, []string{"fd00::-fd00::7fff:ffff:ffff:fffd"}, math.MaxInt64 - 1},
		"two that exceed it":   {[]string{"fd00::-fd00::6fff:ffff:ffff:ffff", "fd01::-fd01::6fff:ffff:ffff:ffff"}, []string{"fd00::-fd00::6fff:ffff:ffff:ffff", "fd01::-fd01::6fff:ffff:ffff:ffff"}, math.MaxInt64},
		"all of IPv6 and IPv4": {[]string{"::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "1.2.3.4"}, []string{"1.2.3.4", "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}, math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := ParseRanges(test.items)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, FormatRanges(set)); diff != "" {
				t.Errorf("items (-want +got):\n%s", diff)
			}
			if got := Count(set); got != test.count {
				t.Errorf("count is %d, want %d", got, test.count)
			}
		})
	}
}

func TestErrorNamesFieldItemAndRemedy(t *testing.T) {
	for item, remedy := range map[string]string{
		"":                          "want an address like",
		"10.6.0.1 - 10.6.0.2":       "without blanks",
		"10.6.0.0/24":               "without blanks and prefix length",
		"10.6.0.1-10.6.0.2-1.1.1.1": "want an address like",
		"10.6.0.256":                "want an address like",
		"10.6.0.01":                 "want an address like",
		"fe80::1%eth0":              "want an address like",
		"::ffff:10.6.0.1":           "want an address like",
		"10.6.0.1-fd00::1":          "both be IPv4",
		"10.6.0.2-10.6.0.1":         "write the lower address first",
		"fd00::2-fd00::1":           "write the lower address first",
	} {
		set, err := ParseRanges([]string{"10.6.0.9", item})
		if err == nil {
			t.Errorf("%q was taken", item)
			continue
		}
		if text := err.Error(); !strings.Contains(text, "spec.ips[1]: \""+item+"\"") || !strings.Contains(text, remedy) {
			t.Errorf("%q: the error %q does not name field, item and %q", item, text, remedy)
		}
		if got := FormatRanges(set); !cmp.Equal(got, []string{"10.6.0.9"}) {
			t.Errorf("%q: the good item beside it gave %v", item, got)
		}
	}
}

func TestPoolHasItsIPsWithoutTheExcluded(t *testing.T) {
	pool := &IPPoolSpec{
		Subnet:     "10.6.0.0/16",
		IPs:        []string{"10.6.0.1-10.6.0.9"},
		ExcludeIPs: []string{"10.6.0.4-10.6.0.5", "10.6.9.9"},
	}
	set, err := pool.Addresses()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"10.6.0.1-10.6.0.3", "10.6.0.6-10.6.0.9"}, FormatRanges(set)); diff != "" {
		t.Error(diff)
	}
}

func TestPoolWithAnItemThatMakesNoSenseHasNothing(t *testing.T) {
	for name, spec := range map[string]IPPoolSpec{
		"spec.subnet":        {Subnet: "10.6.0.0", IPs: []string{"10.6.0.1"}},
		"spec.ips":           {Subnet: "10.6.0.0/16", IPs: []string{"10.6.0.1", "10.7.0.1"}},
		"spec.ips[1]":        {Subnet: "10.6.0.0/16", IPs: []string{"10.6.0.1", "nonsense"}},
		"spec.excludeIPs[0]": {Subnet: "10.6.0.0/16", IPs: []string{"10.6.0.1"}, ExcludeIPs: []string{"10.6.0.2-10.6.0.1"}},
		"spec.excludeIPs":    {Subnet: "10.6.0.0/16", IPs: []string{"10.6.0.1"}, ExcludeIPs: []string{"fd00::1"}},
	} {
		set, err := spec.Addresses()
		if err == nil || !strings.HasPrefix(err.Error(), name+":") {
			t.Errorf("the error %v does not begin with %q", err, name)
		}
		if set != nil {
			t.Errorf("%s: the pool has %v all the same", name, FormatRanges(set))
		}
	}
}

func TestFamilyFollowsFromTheSubnetAlone(t *testing.T) {
	six := int64(6)
	for subnet, want := range map[string]int64{"10.6.0.0/16": 4, "fd00::/64": 6, "10.6.0.1/16": 0, "": 0, "::ffff:10.6.0.0/112": 0} {
		pool := &IPPoolSpec{Subnet: subnet, IPVersion: &six}
		if got := pool.Family(); got != want {
			t.Errorf("family of %q is %d, want %d", subnet, got, want)
		}
	}
	for item, want := range map[string]int64{"10.6.0.1": 4, "fd00::1-fd00::2": 6, "nonsense": 0} {
		if got := (&ReservedIPSpec{IPs: []string{item}}).Family(); got != want {
			t.Errorf("family of %q is %d, want %d", item, got, want)
		}
	}
}

// FuzzRangesAgreeWithCounting checks on a short stretch of addresses, where
// every single one can be looked at, that a set has what its items say, and
// on anything that what is formatted is parsed to the same again.
func FuzzRangesAgreeWithCounting(f *testing.F) {
	f.Add("10.6.0.1-10.6.0.3,10.6.0.5")
	f.Add("10.6.0.3-10.6.0.1")
	f.Add("fd00::-fd00::ff,10.6.0.0-10.6.0.255")
	f.Add("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
	f.Add("-,,10.6.0.1-")
	f.Fuzz(func(t *testing.T, text string) {
		items := strings.Split(text, ",")
		set, err := ParseRanges(items)
		if set == nil {
			t.Fatalf("no set, error %v", err)
		}
		again, err2 := ParseRanges(FormatRanges(set))
		if err2 != nil || !again.Equal(set) {
			t.Fatalf("%v was parsed to %v (%v)", FormatRanges(set), again, err2)
		}
		for _, base := range []string{"10.6.0.0", "fd00::"} {
			addr := netip.MustParseAddr(base)
			for range 256 {
				if want := saysItem(items, addr); set.Contains(addr) != want {
					t.Fatalf("%s is in the set: %t, want %t", addr, !want, want)
				}
				addr = addr.Next()
			}
		}
	})
}

// saysItem is the slow and obvious reading of items.
func saysItem(items []string, addr netip.Addr) bool {
	for _, item := range items {
		ends := strings.Split(item, "-")
		from, err := netip.ParseAddr(ends[0])
		to, errTo := netip.ParseAddr(ends[len(ends)-1])
		if err != nil || errTo != nil || len(ends) > 2 || from.Zone() != "" || to.Zone() != "" {
			continue
		}
		if from.BitLen() == addr.BitLen() && to.BitLen() == addr.BitLen() && from.Compare(addr) <= 0 && addr.Compare(to) <= 0 &&
			!from.Is4In6() && !to.Is4In6() {
			return true
		}
	}
	return false
}

func TestAllocationsAreOneTextInTheOrderOfAddressesAsText(t *testing.T) {
	want := map[netip.Addr]Allocation{
		netip.MustParseAddr("10.6.168.9"):   {Pod: "default/b", PodUID: "u2"},
		netip.MustParseAddr("10.6.168.101"): {Pod: "default/a", PodUID: "u1"},
	}
	text, err := EncodeAllocations(want)
	if err != nil {
		t.Fatal(err)
	}
	if *text != `{"10.6.168.101":{"pod":"default/a","podUid":"u1"},"10.6.168.9":{"pod":"default/b","podUid":"u2"}}` {
		t.Errorf("the text is %s", *text)
	}
	got, err := DecodeAllocations(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(x, y netip.Addr) bool { return x == y })); diff != "" {
		t.Error(diff)
	}
}

func TestNoAllocationsAreNoText(t *testing.T) {
	if text, err := EncodeAllocations(nil); text != nil || err != nil {
		t.Errorf("got %v, %v", text, err)
	}
	if got, err := DecodeAllocations(nil); got != nil || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	broken := "{"
	if _, err := DecodeAllocations(&broken); err == nil {
		t.Error("a text that is no JSON was taken")
	}
}
