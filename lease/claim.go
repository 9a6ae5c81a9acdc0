package lease

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"go4.org/netipx"
)

// ErrSearching says that no address was found to claim so far, but that some
// blocks of the pool have not been looked at.
var ErrSearching = errors.New("no free address found so far, and not every block has been looked at")

// Limits of the search for a block with something to claim.
const (
	// maxProbes is how many blocks one claim looks at. The next one goes on
	// where it ended.
	maxProbes = 64
	// fullFor is how long a block counts as full, for each block of its
	// pool; it lies between the two bounds. In a small pool an address that
	// came free is found soon, in a large one nobody reads the same full
	// blocks over and over. What other nodes give back meanwhile is found by
	// asking for room (room.go).
	fullFor    = 500 * time.Millisecond
	fullAtMost = 30 * time.Second
	// turnTimeout bounds how long an earlier pool is waited for while there is
	// an address of a later one.
	turnTimeout = 2 * time.Second
	// maxBlocks bounds the blocks of one range that are considered: the
	// first 2^32, which is an IPv6 /92.
	maxBlocks = 1 << 32
)

// pick chooses one free address for each family and marks it busy, claiming
// more where none is free. It picks for all families or for none.
func (l *Lessee) pick(ctx context.Context, r *Request, families [][]Pool) (picked []Entry, err error) {
	defer func() {
		if err != nil {
			l.idle(picked)
		}
	}()
	for _, pools := range families {
		e, err := l.pickOne(ctx, r, pools)
		if err != nil {
			return picked, err
		}
		picked = append(picked, e)
	}
	return picked, nil
}

// pickOne chooses from the first pool that has an address, be it that this node
// leases it or that it can be claimed. A pool that is told to be leased out is
// asked last: no pod waits for what a watch has told. Where a search finds
// nothing, the cluster is asked where there is room.
func (l *Lessee) pickOne(ctx context.Context, r *Request, pools []Pool) (Entry, error) {
	// What has cooled down is free, however long a Tidy is under way.
	l.cool()
	var errs error
	answers := true
	for _, try := range []struct{ leasedOut, room bool }{{}, {leasedOut: true}, {room: true}} {
		for i, p := range pools {
			addr, ok := l.pickFree(r.Owner, p)
			if !ok && answers && (try.room || p.LeasedOut == try.leasedOut) {
				// With an address of a later pool here, it does not wait for long
				// for a cluster that does not answer.
				how := claimKey{pool: p.Name, room: try.room, hurried: slices.ContainsFunc(pools[i+1:], l.hasFree)}
				var err error
				addr, ok, err = l.pickClaimed(ctx, r.Owner, p, how)
				errs = errors.Join(errs, err)
				answers = err == nil || errors.Is(err, ErrSearching)
			}
			if ok {
				return r.entry(addr, "", time.Time{}, p.Detail(addr)), nil
			}
		}
	}
	if errs != nil {
		return Entry{}, errs
	}
	exhausted := &ExhaustedError{}
	for _, p := range pools {
		exhausted.Pools = append(exhausted.Pools, p.Name)
	}
	return Entry{}, exhausted
}

// pickClaimed claims addresses of a pool until it gets one. It returns false if
// there is none.
func (l *Lessee) pickClaimed(ctx context.Context, owner Owner, p Pool, how claimKey) (addr netip.Addr, ok bool, err error) {
	for got := true; got && err == nil; {
		got, err = l.claim(ctx, p, how)
		// A claim whose answer was lost finds its own lease in the way when it
		// tries again, so what it got is looked for whatever it says.
		if addr, ok := l.pickFree(owner, p); ok {
			return addr, true, nil
		}
	}
	return netip.Addr{}, false, err
}

// hasFree reports whether this node has a free address of the pool.
func (l *Lessee) hasFree(p Pool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for addr := range l.freeAddrs() {
		if p.Ranges.Contains(addr) {
			return true
		}
	}
	return false
}

// pickFree takes the free address of the pool that has been free the longest
// and marks it busy, if there are more than wait for them before the owner.
func (l *Lessee) pickFree(owner Owner, p Pool) (best netip.Addr, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for addr := range l.freeAddrs() {
		if !p.Ranges.Contains(addr) {
			continue
		}
		if n++; !best.IsValid() || l.freeLonger(addr, best) {
			best = addr
		}
	}
	if n <= l.ahead(owner, p.Name) {
		return netip.Addr{}, false
	}
	l.busy[best] = true
	return best, true
}

// freeLonger orders free addresses by when they were given back, those never
// used first, then by address. The caller holds l.mu.
func (l *Lessee) freeLonger(x, y netip.Addr) bool {
	if c := l.freed[x].Compare(l.freed[y]); c != 0 {
		return c < 0
	}
	return x.Less(y)
}

// claimKey says who may share a claim: those who want addresses of one pool,
// are as patient as each other, and search it or go where there is room.
type claimKey struct {
	pool    string
	hurried bool
	room    bool
}

// claimCall is a claim that several pods wait for, or none yet if it is made
// ahead of need.
type claimCall struct {
	ahead   bool
	waiting int
	done    chan struct{}
	got     bool
	err     error
}

// ClaimAhead leases addresses of a pool before a pod waits for them, as many as
// its Plenty. It does nothing while pods of this node claim some themselves. A
// pod that needs one meanwhile waits for this claim, and makes its own only if
// this one gets none.
//
// It looks at no more than probes blocks that are not known to be full. When that
// is not enough it fails with [ErrSearching], and the next claim goes on where
// this one ended.
func (l *Lessee) ClaimAhead(ctx context.Context, p Pool, probes int) error {
	how := claimKey{pool: p.Name}
	call, shared := l.join(how, true)
	if shared {
		return nil
	}
	return l.carryOut(ctx, call, p, how, probes)
}

// claim leases more addresses of a pool. Callers that ask for the same pool in
// the same way while one claim is under way share it: it takes as many addresses
// as there are callers, or pods in the line for the pool. It returns false when
// there is none to take, and fails with [ErrSearching] when there may be. A
// hurried one gives up early.
func (l *Lessee) claim(ctx context.Context, p Pool, how claimKey) (bool, error) {
	if how.hurried {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, about(turnTimeout))
		defer cancel()
	}
	for {
		call, shared := l.join(how, false)
		if !shared {
			err := l.carryOut(ctx, call, p, how, maxProbes)
			return call.got, err
		}
		select {
		case <-call.done:
		case <-ctx.Done():
			return false, ctx.Err()
		}
		if call.got || !call.ahead { // one ahead of need does not look as far
			return call.got, call.err
		}
	}
}

// join returns the claim that is under way, for which the caller waits unless it
// asks ahead of need. Without one it returns a new one, which is the caller's to
// carry out.
func (l *Lessee) join(how claimKey, ahead bool) (call *claimCall, shared bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	call, shared = l.claims[how]
	if !shared {
		call = &claimCall{ahead: ahead, done: make(chan struct{})}
		l.claims[how] = call
	}
	if !ahead {
		call.waiting++
	}
	return call, shared
}

// carryOut makes a claim and tells those who wait for it how it ended.
func (l *Lessee) carryOut(ctx context.Context, call *claimCall, p Pool, how claimKey, probes int) error {
	waiting := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return max(call.waiting, l.inLine(p.Name))
	}
	var got int
	if how.room {
		got, call.err = l.claimRoom(ctx, p, waiting)
	} else {
		got, call.err = l.search(ctx, p, waiting, probes)
	}
	call.got = got > 0
	l.mu.Lock()
	delete(l.claims, how)
	if call.got {
		l.tellFreed()
	}
	l.mu.Unlock()
	close(call.done)
	return call.err
}

// search leases addresses of one pool, as many as waiting returns when the
// update is made or the pool's Plenty if that is more, all from one block. It
// returns how many it got: none when no block of the pool has any.
//
// It looks at no more than probes blocks that are not known to be full, and at
// none once a pod that waits may have an address that has come free here. When
// that is not enough it fails with [ErrSearching], and the next call goes on
// where this one ended.
func (l *Lessee) search(ctx context.Context, p Pool, waiting func() int, probes int) (int, error) {
	walk := newWalk(p.Ranges, l.node.UID+p.Name)
	for at, prefix := range walk.from(l.cursor(p.Name)) {
		if l.knownFull(prefix, p) {
			continue
		}
		if probes--; probes < 0 || waiting() > 0 && l.hasFree(p) {
			l.setCursor(p.Name, at)
			return 0, fmt.Errorf("pool %q: %w", p.Name, ErrSearching)
		}
		got, err := l.claimIn(ctx, prefix, p, waiting)
		if err != nil || got > 0 {
			l.setCursor(p.Name, at)
			return got, err
		}
		l.markFull(prefix, p, walk.total)
	}
	return 0, nil
}

// cursor returns where the last search of the pool ended, as a place in its
// walk.
func (l *Lessee) cursor(pool string) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cursors[pool]
}

func (l *Lessee) setCursor(pool string, at uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cursors[pool] = at
}

// claimIn leases addresses of one block.
func (l *Lessee) claimIn(ctx context.Context, prefix netip.Prefix, p Pool, waiting func() int) (int, error) {
	var got, had Set
	judged := false
	err := l.amend(ctx, prefix, func(b *Block) error {
		if !judged {
			judged, had = true, b.LeasedTo(l.node.UID)
		}
		// An attempt whose answer was lost may have taken effect: what it got
		// is what was wanted, and a second claim would be too much.
		if got = b.LeasedTo(l.node.UID) &^ had & b.within(p.Ranges); got != 0 {
			return nil
		}
		want := b.within(p.Ranges) & b.Claimable()
		got = b.Claim(l.node, want.First(max(waiting(), p.Plenty)))
		return nil
	})
	return got.Len(), err
}

// within returns the addresses of the block that are in ranges.
func (b *Block) within(ranges *netipx.IPSet) Set {
	var s Set
	for o := range all.Offsets() {
		if ranges.Contains(b.Addr(o)) {
			s |= only(o)
		}
	}
	return s
}

// blockOf is what one pool has of a block. Another pool may have addresses left
// in it.
type blockOf struct {
	pool   string
	prefix netip.Prefix
}

// knownFull reports whether the pool's part of the block was found full a moment
// ago, and no watch has told otherwise since.
func (l *Lessee) knownFull(prefix netip.Prefix, p Pool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := blockOf{p.Name, prefix}
	until, ok := l.full[key]
	if !ok {
		return false
	}
	if l.now().After(until) {
		delete(l.full, key)
		return false
	}
	b := l.views[prefix].block
	return b.LeasedTo(l.node.UID) == 0 || b.within(p.Ranges)&b.Claimable() == 0
}

func (l *Lessee) markFull(prefix netip.Prefix, p Pool, total uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	pause := fullAtMost
	if total < uint64(fullAtMost/fullFor) {
		pause = fullFor * time.Duration(total)
	}
	l.full[blockOf{p.Name, prefix}] = l.now().Add(pause)
}

// walk enumerates the blocks of a set of ranges, each node from a place of
// its own, so that nodes seldom meet in a block while there is room.
type walk struct {
	ranges []netipx.IPRange
	counts []uint64
	total  uint64
	start  uint64
}

func newWalk(set *netipx.IPSet, seed string) *walk {
	w := &walk{ranges: set.Ranges()}
	for _, r := range w.ranges {
		n := blockCount(r)
		w.counts = append(w.counts, n)
		w.total += n
	}
	if w.total > 0 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(seed)) // never fails (hash.Hash)
		w.start = h.Sum64() % w.total
	}
	return w
}

// from yields every block once, with its place in the walk, beginning at the
// place given. A block that two ranges share may come twice.
func (w *walk) from(begin uint64) iter.Seq2[uint64, netip.Prefix] {
	return func(yield func(uint64, netip.Prefix) bool) {
		for i := range w.total {
			at := (begin + i) % w.total
			if !yield(at, w.at((w.start+at)%w.total)) {
				return
			}
		}
	}
}

func (w *walk) at(n uint64) netip.Prefix {
	for i, r := range w.ranges {
		if n < w.counts[i] {
			return blockAfter(BlockOf(r.From()), n)
		}
		n -= w.counts[i]
	}
	panic("unreachable: n is below the total")
}

// blockCount returns how many blocks a range touches, at most maxBlocks.
func blockCount(r netipx.IPRange) uint64 {
	fromHi, fromLo := halves(BlockOf(r.From()).Addr())
	toHi, toLo := halves(BlockOf(r.To()).Addr())
	lo, borrow := bits.Sub64(toLo, fromLo, 0)
	hi, _ := bits.Sub64(toHi, fromHi, borrow)
	if hi != 0 || lo/Size >= maxBlocks {
		return maxBlocks
	}
	return lo/Size + 1
}

// blockAfter returns the n-th block after first.
func blockAfter(first netip.Prefix, n uint64) netip.Prefix {
	hi, lo := halves(first.Addr())
	lo, carry := bits.Add64(lo, n*Size, 0)
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], hi+carry)
	binary.BigEndian.PutUint64(b[8:], lo)
	addr := netip.AddrFrom16(b)
	if first.Addr().Is4() {
		addr = addr.Unmap()
	}
	return BlockOf(addr)
}

// halves returns an address as a 128-bit number, IPv4 in its mapped form.
func halves(a netip.Addr) (hi, lo uint64) {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}
