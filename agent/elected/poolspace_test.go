package elected

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// drawnSubnet draws from few networks of many lengths, so that most overlap
// some and many are equal.
func drawnSubnet(random *rand.Rand) netip.Prefix {
	if random.IntN(2) == 0 {
		var addr [4]byte
		binary.BigEndian.PutUint32(addr[:], 10<<24|random.Uint32N(1<<10)<<4)
		return netip.PrefixFrom(netip.AddrFrom4(addr), random.IntN(33)).Masked()
	}
	addr := [16]byte{0: 0xfd, 6: byte(random.IntN(3)), 15: byte(random.IntN(8))}
	return netip.PrefixFrom(netip.AddrFrom16(addr), random.IntN(129)).Masked()
}

func TestNearAreThePoolsWhoseSubnetsOverlap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	s, subnets := newSpace(), map[string]netip.Prefix{}
	for range 5000 {
		switch pool := fmt.Sprintf("pool-%d", random.IntN(60)); random.IntN(4) {
		case 0:
			s.put(pool, netip.Prefix{})
			delete(subnets, pool)
		case 1:
			subnets[pool] = drawnSubnet(random)
			s.put(pool, subnets[pool])
		default:
			asked := drawnSubnet(random)
			var want []string
			for _, pool := range slices.Sorted(maps.Keys(subnets)) {
				if subnets[pool].Overlaps(asked) {
					want = append(want, pool)
				}
			}
			if diff := cmp.Diff(want, s.near(asked)); diff != "" {
				t.Fatalf("near %s (-want +got):\n%s", asked, diff)
			}
		}
	}
}
