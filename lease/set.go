package lease

import (
	"iter"
	"math/bits"
	"strconv"
)

// Set is a set of addresses of one block, by their offset from its first
// address: bit n stands for offset n. Its zero value is the empty set. A Set
// says nothing about which block it is of.
type Set uint16

// all is every address of a block.
const all Set = 1<<Size - 1

// only returns the set of the one offset.
func only(offset int) Set { return 1 << offset }

// Has reports whether the offset is in s.
func (s Set) Has(offset int) bool { return s&only(offset) != 0 }

// Len returns the number of addresses in s.
func (s Set) Len() int { return bits.OnesCount16(uint16(s)) }

// Offsets yields the offsets in s in ascending order.
func (s Set) Offsets() iter.Seq[int] {
	return func(yield func(int) bool) {
		for ; s != 0; s &= s - 1 {
			if !yield(bits.TrailingZeros16(uint16(s))) {
				return
			}
		}
	}
}

// First returns the n lowest members of s, or s when it has no more than n.
func (s Set) First(n int) Set {
	var first Set
	for o := range s.Offsets() {
		if n--; n < 0 {
			break
		}
		first |= only(o)
	}
	return first
}

// String returns the offsets as ranges, "0-3,7", for test output.
func (s Set) String() string {
	var b []byte
	for s != 0 {
		from := bits.TrailingZeros16(uint16(s))
		n := bits.TrailingZeros16(^(uint16(s) >> from))
		if len(b) > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(from), 10)
		if n > 1 {
			b = append(b, '-')
			b = strconv.AppendInt(b, int64(from+n-1), 10)
		}
		s &^= Set((1<<n - 1) << from)
	}
	return string(b)
}
