package elected

import (
	"iter"
	"net/netip"

	"go4.org/netipx"

	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// tally counts who has which address of one pool. The zero tally is not
// valid: the maps must be made.
type tally struct {
	pool string
	has  map[netip.Addr]v2beta1.Allocation
	// since tells for how long the endpoint that an entry stems from has
	// existed. Two can name one address for a while, when a pod has finished
	// and its address went to another: the younger endpoint is right.
	since map[netip.Addr]*v2beta1.SpiderEndpoint
}

func newTally(pool string) *tally {
	return &tally{
		pool:  pool,
		has:   make(map[netip.Addr]v2beta1.Allocation),
		since: make(map[netip.Addr]*v2beta1.SpiderEndpoint),
	}
}

// endpoint counts the addresses that the endpoint has from the pool.
func (t *tally) endpoint(e *v2beta1.SpiderEndpoint) {
	for _, i := range e.Status.Current.IPs {
		if i.IPv4Pool == t.pool {
			t.add(bare(i.IPv4), e)
		}
		if i.IPv6Pool == t.pool {
			t.add(bare(i.IPv6), e)
		}
	}
}

func (t *tally) add(addr netip.Addr, e *v2beta1.SpiderEndpoint) {
	if !addr.IsValid() {
		return
	}
	if other := t.since[addr]; other != nil && !younger(e, other) {
		return
	}
	t.since[addr] = e
	t.has[addr] = v2beta1.Allocation{Pod: e.Namespace + "/" + e.Name, PodUID: e.Status.Current.UID}
}

func younger(e, than *v2beta1.SpiderEndpoint) bool {
	if !e.CreationTimestamp.Equal(&than.CreationTimestamp) {
		return than.CreationTimestamp.Before(&e.CreationTimestamp)
	}
	return e.Namespace+"/"+e.Name > than.Namespace+"/"+than.Name
}

// pin counts a pin that no endpoint accounts for: of a pod that is being
// placed, or garbage that the address is yet to be freed from.
func (t *tally) pin(p v1alpha1.Pin) {
	addr, err := netip.ParseAddr(p.Address)
	if err != nil {
		return
	}
	if _, ok := t.has[addr]; !ok {
		t.has[addr] = v2beta1.Allocation{Pod: p.Pod}
	}
}

// prefixesOf yields the blocks that the addresses lie in, in ascending order
// and each once. An IPv6 pool can have more of them than there is time for:
// count first, or stop early.
func prefixesOf(set *netipx.IPSet) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		var last netip.Prefix
		for _, r := range set.Ranges() {
			for addr := r.From(); addr.IsValid() && !r.To().Less(addr); {
				p := lease.BlockOf(addr)
				if p != last && !yield(p) {
					return
				}
				last = p
				addr = netipx.PrefixLastIP(p).Next()
			}
		}
	}
}

// few reports whether the addresses lie in at most n blocks, so that looking
// at each of these is no more work than looking at n.
func few(set *netipx.IPSet, n int) bool {
	return v2beta1.Count(set) <= int64(n)*lease.Size
}

// scarce reports whether every one of the addresses is taken, that is, leased
// or pinned. blocks is how many blocks there are, and taken what is taken of
// the one at a prefix.
func scarce(addrs *netipx.IPSet, blocks int, taken func(netip.Prefix) lease.Set) bool {
	if !few(addrs, blocks) || len(addrs.Ranges()) == 0 {
		return false
	}
	for p := range prefixesOf(addrs) {
		has := taken(p)
		for addr := p.Addr(); p.Contains(addr); addr = addr.Next() {
			if addrs.Contains(addr) && !has.Has(lease.Offset(addr)) {
				return false
			}
		}
	}
	return true
}

// takenOf returns what is leased or pinned of the block b at the prefix. What
// cannot be read is not counted: it would only make agents yield.
func takenOf(prefix netip.Prefix, b *v1alpha1.IPBlock) lease.Set {
	var taken lease.Set
	for _, p := range b.Spec.Pins {
		if addr, err := netip.ParseAddr(p.Address); err == nil && prefix.Contains(addr) {
			taken |= 1 << lease.Offset(addr)
		}
	}
	for _, l := range b.Spec.Leases {
		leased, err := v2beta1.ParseRanges(l.Addresses)
		if err != nil {
			continue
		}
		for addr := prefix.Addr(); prefix.Contains(addr); addr = addr.Next() {
			if leased.Contains(addr) {
				taken |= 1 << lease.Offset(addr)
			}
		}
	}
	return taken
}
