package lease

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// members are the offsets of a set, one bit at a time.
func members(s Set) []int {
	var in []int
	for o := range Size {
		if s>>o&1 == 1 {
			in = append(in, o)
		}
	}
	return in
}

func TestSetAgreesWithItsBits(t *testing.T) {
	for i := range 1 << Size {
		s := Set(i)
		want := members(s)
		if got := slices.Collect(s.Offsets()); !slices.Equal(got, want) {
			t.Fatalf("offsets of %016b are %v", i, got)
		}
		if s.Len() != len(want) {
			t.Fatalf("length of %v is %d", want, s.Len())
		}
		for o := range Size {
			if s.Has(o) != slices.Contains(want, o) {
				t.Fatalf("%v has %d: %t", want, o, s.Has(o))
			}
		}
		for _, n := range []int{0, 1, 3, Size, Size + 1} {
			if got := members(s.First(n)); !slices.Equal(got, want[:min(n, len(want))]) {
				t.Fatalf("first %d of %v are %v", n, want, got)
			}
		}
	}
}

func TestOffsetsEndWhenNobodyListens(t *testing.T) {
	n := 0
	for range all.Offsets() {
		if n++; n == 3 {
			break
		}
	}
	if n != 3 {
		t.Fatalf("%d offsets came", n)
	}
}

func TestSetPrintsRanges(t *testing.T) {
	for s, want := range map[Set]string{
		0: "", 1: "0", 1 << 15: "15", all: "0-15",
		0b11: "0-1", 0b1011: "0-1,3", 0b1000_0000_0111_0101: "0,2,4-6,15",
	} {
		if got := s.String(); got != want {
			t.Errorf("%016b prints as %q, want %q", uint16(s), got, want)
		}
	}
}

func TestSetPrintsWhatItHas(t *testing.T) {
	for i := range 1 << Size {
		var back Set
		for text := range strings.SplitSeq(Set(i).String(), ",") {
			var from, to int
			switch n, _ := fmt.Sscanf(text, "%d-%d", &from, &to); n {
			case 0:
				continue
			case 1:
				to = from
			}
			for o := from; o <= to; o++ {
				back |= only(o)
			}
		}
		if back != Set(i) {
			t.Fatalf("%016b prints as %q", i, Set(i))
		}
	}
}
