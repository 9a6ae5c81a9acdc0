package lease

import (
	"net/netip"
	"slices"
	"testing"

	"go4.org/netipx"
)

func setOf(t testing.TB, ranges ...string) *netipx.IPSet {
	t.Helper()
	var b netipx.IPSetBuilder
	for _, r := range ranges {
		if p, err := netip.ParsePrefix(r); err == nil {
			b.AddPrefix(p)
			continue
		}
		b.AddRange(netipx.MustParseIPRange(r))
	}
	set, err := b.IPSet()
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestWalkVisitsEachBlockOfASmallSet(t *testing.T) {
	for name, test := range map[string]struct{ ranges, want []string }{
		"none":         {nil, nil},
		"one address":  {[]string{"10.0.0.5-10.0.0.5"}, []string{"10.0.0.0/28"}},
		"one block":    {[]string{"10.0.0.0/28"}, []string{"10.0.0.0/28"}},
		"across":       {[]string{"10.0.0.15-10.0.0.16"}, []string{"10.0.0.0/28", "10.0.0.16/28"}},
		"apart":        {[]string{"10.0.0.1-10.0.0.2", "10.9.0.1-10.9.0.2"}, []string{"10.0.0.0/28", "10.9.0.0/28"}},
		"last of IPv4": {[]string{"255.255.255.250-255.255.255.255"}, []string{"255.255.255.240/28"}},
		"carry":        {[]string{"10.0.255.255-10.1.0.0"}, []string{"10.0.255.240/28", "10.1.0.0/28"}},
		"six":          {[]string{"fd00::f-fd00::10"}, []string{"fd00::/124", "fd00::10/124"}},
		"six, carry across the low half": {
			[]string{"fd00::ffff:ffff:ffff:ffff-fd00:0:0:1::"},
			[]string{"fd00::ffff:ffff:ffff:fff0/124", "fd00:0:0:1::/124"},
		},
		"last of IPv6": {
			[]string{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
			[]string{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0/124"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, b := range newWalk(setOf(t, test.ranges...), "seed").from(0) {
				got = append(got, b.String())
			}
			slices.Sort(got)
			slices.Sort(test.want)
			if !slices.Equal(got, test.want) {
				t.Errorf("visited %v, want %v", got, test.want)
			}
		})
	}
}

// Two ranges of one block are visited once each: what shares a block is the
// price of not remembering, and a claim finds it full the second time.
func TestWalkMayVisitASharedBlockTwice(t *testing.T) {
	seen := map[netip.Prefix]int{}
	for _, b := range newWalk(setOf(t, "10.0.0.1-10.0.0.2", "10.0.0.9-10.0.0.20"), "seed").from(0) {
		seen[b]++
	}
	if len(seen) != 2 || seen[netip.MustParsePrefix("10.0.0.0/28")] != 2 || seen[netip.MustParsePrefix("10.0.0.16/28")] != 1 {
		t.Errorf("visited %v", seen)
	}
}

func TestBlockCount(t *testing.T) {
	for r, want := range map[string]uint64{
		"10.0.0.0-10.0.0.0":                          1,
		"10.0.0.0-10.0.0.15":                         1,
		"10.0.0.0-10.0.0.16":                         2,
		"10.0.0.15-10.0.0.16":                        2,
		"10.0.0.0-10.255.255.255":                    1 << 20,
		"0.0.0.0-255.255.255.255":                    1 << 28,
		"fd00::-fd00::ffff":                          1 << 12,
		"fd00::-fd00::fffe:ffff":                     0xffff000,
		"fd00::-fd00::f:ffff:ffff":                   1 << 32,
		"fd00::-fd00::10:0:0":                        maxBlocks,
		"fd00::-fd00:0:0:ffff::":                     maxBlocks,
		"::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": maxBlocks,
		"fd00::ffff:ffff:ffff:ffff-fd00:0:0:1::":     2,
	} {
		if got := blockCount(netipx.MustParseIPRange(r)); got != want {
			t.Errorf("%s touches %d blocks, want %d", r, got, want)
		}
	}
}

func TestWalkGoesOnAnywhereAndStillVisitsAll(t *testing.T) {
	w := newWalk(setOf(t, "10.0.0.0-10.0.0.127"), "seed")
	for begin := range w.total {
		var got []netip.Prefix
		for at, b := range w.from(begin) {
			if len(got) == 0 && at != begin {
				t.Errorf("from %d, it began at %d", begin, at)
			}
			got = append(got, b)
		}
		slices.SortFunc(got, netip.Prefix.Compare)
		if len(slices.Compact(got)) != 8 {
			t.Errorf("from %d, it visited %v", begin, got)
		}
	}
}

func TestLargeSetsAreWalkedFromAPlaceOfTheNode(t *testing.T) {
	for _, ranges := range []string{"10.0.0.0/8", "fd00::/48", "0.0.0.0/0", "::/0"} {
		set := setOf(t, ranges)
		starts := map[netip.Prefix]bool{}
		for _, node := range []string{"a", "b", "c", "d"} {
			w := newWalk(set, node)
			n := 0
			for _, b := range w.from(0) {
				if !set.Contains(b.Addr()) {
					t.Fatalf("%s is not in %s", b, ranges)
				}
				if n == 0 {
					starts[b] = true
				}
				if n++; n == 100 {
					break
				}
			}
		}
		if len(starts) < 3 {
			t.Errorf("four nodes begin %s at %v", ranges, starts)
		}
	}
}

// FuzzWalk compares the walk with stepping through the addresses.
func FuzzWalk(f *testing.F) {
	f.Add([]byte{10, 0, 0, 3}, uint16(40), []byte{10, 0, 1, 250}, uint16(20), "x")
	f.Add([]byte{255, 255, 255, 200}, uint16(100), []byte{0, 0, 0, 0}, uint16(1), "")
	f.Add([]byte{0xfd, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf0}, uint16(300),
		[]byte{0xfd, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, uint16(50), "node")
	f.Fuzz(func(t *testing.T, x []byte, xn uint16, y []byte, yn uint16, seed string) {
		var b netipx.IPSetBuilder
		want := map[netip.Prefix]bool{}
		for _, r := range []struct {
			from []byte
			n    uint16
		}{{x, xn % 600}, {y, yn % 600}} {
			addr, ok := netip.AddrFromSlice(r.from)
			if !ok {
				return
			}
			addr = addr.Unmap()
			for range r.n {
				b.Add(addr)
				want[BlockOf(addr)] = true
				if addr = addr.Next(); !addr.IsValid() {
					break
				}
			}
		}
		set, err := b.IPSet()
		if err != nil {
			t.Fatal(err)
		}
		got := map[netip.Prefix]bool{}
		for _, block := range newWalk(set, seed).from(0) {
			got[block] = true
		}
		if len(got) != len(want) {
			t.Fatalf("visited %d blocks, want %d", len(got), len(want))
		}
		for block := range want {
			if !got[block] {
				t.Fatalf("%s was not visited", block)
			}
		}
	})
}
