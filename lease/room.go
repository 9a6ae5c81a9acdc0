package lease

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"time"

	"go4.org/netipx"
)

// A node watches the blocks in which it leases. Where a pool is used out, what
// comes free is in the blocks of others, and a search by reading one after the
// other finds it late. So the cluster is asked where there is room.

const (
	// regionBlocks is how many blocks a region has: few enough that what is
	// told of one is short, and enough that few regions make a pool.
	regionBlocks = 256
	// maxRegions bounds the regions of a pool that are asked about: the first
	// of them, which is an IPv4 /14. Beyond them a search finds what is free.
	maxRegions = 64
	// roomPause is the shortest time between two questions of a node about one
	// pool.
	roomPause = 500 * time.Millisecond
)

// RegionOf returns the region in which a block lies, by which a [Cluster] tells
// where there is room: an IPv4 /20 or an IPv6 /116.
func RegionOf(block netip.Prefix) netip.Prefix {
	region, err := block.Addr().Prefix(block.Addr().BitLen() - 12)
	if err != nil {
		return netip.Prefix{} // only for the zero Prefix
	}
	return region
}

// regionsOf returns the first regions, in order, that share addresses with a
// set.
func regionsOf(set *netipx.IPSet) []netip.Prefix {
	var regions []netip.Prefix
	for _, r := range set.Ranges() {
		for at := BlockOf(r.From()); ; at = blockAfter(RegionOf(at), regionBlocks) {
			region := RegionOf(at)
			if !slices.Contains(regions, region) {
				regions = append(regions, region)
			}
			if len(regions) == maxRegions {
				return regions
			}
			if region.Contains(r.To()) {
				break
			}
		}
	}
	return regions
}

// claimRoom leases addresses of a pool in which a search has found none, as
// many as wait for them, where the cluster says that there are some. It asks no
// more often than roomPause allows, and returns how many it got.
func (l *Lessee) claimRoom(ctx context.Context, p Pool, waiting func() int) (int, error) {
	if !l.mayAsk(p.Name) {
		return 0, nil
	}
	blocks, err := l.cluster.Roomy(ctx, regionsOf(p.Ranges))
	if err != nil {
		// The answer to this question is not what a pod waits for.
		return 0, fmt.Errorf("pool %q: %w: where there is room was not told: %w", p.Name, ErrSearching, err)
	}
	total := 0
	for _, b := range l.inOwnOrder(blocks) {
		if b.within(p.Ranges)&b.Claimable() == 0 {
			continue
		}
		l.unmarkFull(b.prefix, p.Name)
		missing := func() int { return waiting() - total }
		got, err := l.claimIn(ctx, b.prefix, p, missing)
		total += got
		if err != nil || missing() <= 0 {
			return total, err
		}
	}
	return total, nil
}

// mayAsk reports whether the cluster may be asked about a pool again, and notes
// that it is.
func (l *Lessee) mayAsk(pool string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if ago := now.Sub(l.asked[pool]); 0 <= ago && ago < roomPause {
		return false
	}
	l.asked[pool] = now
	return true
}

// inOwnOrder sorts blocks in an order of this node's own, so that nodes that
// ask at one moment go to different blocks first.
func (l *Lessee) inOwnOrder(blocks []Block) []Block {
	key := func(b Block) uint64 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(l.node.UID + b.Name())) // never fails (hash.Hash)
		return h.Sum64()
	}
	return slices.SortedFunc(slices.Values(blocks), func(x, y Block) int { return cmp.Compare(key(x), key(y)) })
}

func (l *Lessee) unmarkFull(prefix netip.Prefix, pool string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.full, blockOf{pool, prefix})
}
