package lease

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// view is what a node knows of one block.
type view struct {
	block Block
	// trusted is false after an update of the block failed: the next one
	// starts with a read.
	trusted bool
	// leased is set when this node has ever leased in the block. Such a view
	// is kept when the lease has ended, because a watch that lags behind may
	// still report the lease, and only a known later version tells it is old.
	leased bool
}

// newer reports whether version x is later than y. Versions of one object
// are decimal numbers that grow (KEP-5504).
func newer(x, y string) bool {
	if len(x) != len(y) {
		return len(x) > len(y)
	}
	return strings.Compare(x, y) > 0
}

// see takes note of a block's state unless a later one is known already: a
// view older than one's own last write is not looked at.
func (l *Lessee) see(b Block) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, ok := l.views[b.prefix]
	if ok && !newer(b.Version, v.block.Version) && (v.trusted || b.Version != v.block.Version) {
		return
	}
	l.views[b.prefix] = view{block: b, trusted: true, leased: v.leased || b.LeasedTo(l.node.UID) != 0}
	if ok && b.LeasedTo(l.node.UID) != 0 && b.Claimable()&^v.block.Claimable() != 0 {
		l.tellFreed()
	}
}

// unsee forgets a block that a read did not find, unless it was written since
// the read began.
func (l *Lessee) unsee(prefix netip.Prefix, before string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.views[prefix].block.Version == before {
		l.unview(prefix)
	}
}

// unview drops what is known of a block, but for its version if this node has
// leased in it: an older state is still not looked at. The caller holds l.mu.
func (l *Lessee) unview(prefix netip.Prefix) {
	v := l.views[prefix]
	if !v.leased {
		delete(l.views, prefix)
		return
	}
	l.views[prefix] = view{block: Block{prefix: prefix, Version: v.block.Version}, trusted: true, leased: true}
}

func (l *Lessee) distrust(prefix netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v, ok := l.views[prefix]; ok {
		v.trusted = false
		l.views[prefix] = v
	}
}

// Observe takes note of a block as a watch reported it. It neither reads nor
// writes; what follows from it is done by [Lessee.Tidy].
func (l *Lessee) Observe(b Block) error {
	if err := b.Validate(); err != nil {
		return err
	}
	if l.sinceStart(b) {
		l.see(b)
	}
	return nil
}

// sinceStart reports whether a block's state is later than the read of this
// node's leases. A watch that lags behind may begin before it, and report a
// lease that had ended by then in a block which that read did not find.
func (l *Lessee) sinceStart(b Block) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return newer(b.Version, l.startedAt)
}

// Missing takes note that a watch reports a block as gone, or as one in which
// this node leases nothing any more. A watch may lag behind, so this is no
// evidence: the block is read before anything follows from it.
func (l *Lessee) Missing(ctx context.Context, prefix netip.Prefix) error {
	_, err := l.read(ctx, prefix)
	return err
}

// Leasing returns the blocks in which this node leases by what it knows, in
// order. One that a watch which is in order does not have is one to call
// [Lessee.Missing] for: its end may lie before the watch began anew.
func (l *Lessee) Leasing() []netip.Prefix {
	l.mu.Lock()
	defer l.mu.Unlock()
	var in []netip.Prefix
	for prefix, v := range l.views {
		if v.block.LeasedTo(l.node.UID) != 0 {
			in = append(in, prefix)
		}
	}
	slices.SortFunc(in, netip.Prefix.Compare)
	return in
}

// Leases are all blocks in which a node leases, by one quorum read.
type Leases struct {
	Blocks []Block
	// Version is the resourceVersion of the whole list: no state of a block
	// that is as old or older says more than the list.
	Version string
}

// Start makes the lessee ready for new assignments. leases are this node's, by
// a read that was begun after the journal was opened. Where the journal was
// lost, every leased address counts as taken: quarantine is then how long an
// address that nothing else claims stays cooling, and inUse are the addresses
// known to be in use.
func (l *Lessee) Start(leases Leases, lost bool, inUse []Entry, quarantine time.Duration) error {
	for _, b := range leases.Blocks {
		if err := l.Observe(b); err != nil {
			return err
		}
	}
	if lost {
		if err := l.rebuild(inUse, quarantine); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.started, l.startedAt = true, leases.Version
	return nil
}

// rebuild writes a journal anew from what others remember.
func (l *Lessee) rebuild(inUse []Entry, quarantine time.Duration) error {
	l.mu.Lock()
	for _, e := range inUse {
		if l.leased(e.Addr) {
			l.set(e)
		}
	}
	for addr := range l.freeAddrs() {
		// Since lies ahead by what the quarantine is longer than a cool-down.
		l.set(Entry{Addr: addr, State: Cooling, Since: l.now().Add(quarantine - l.coolDown)})
	}
	l.mu.Unlock()
	return l.sync()
}

// leased reports whether the node leases addr by what it knows. The caller
// holds l.mu.
func (l *Lessee) leased(addr netip.Addr) bool {
	v, ok := l.views[BlockOf(addr)]
	return ok && v.block.LeasedTo(l.node.UID).Has(Offset(addr))
}

// pinned returns the pin of addr by what the node knows. The caller holds
// l.mu.
func (l *Lessee) pinned(addr netip.Addr) (Pin, bool) {
	v, ok := l.views[BlockOf(addr)]
	if !ok {
		return Pin{}, false
	}
	return v.block.PinAt(addr)
}

// freeAddrs yields the addresses that may be handed out: leased, not pinned,
// without a journal entry, and not in the course of a placement. The caller
// holds l.mu.
func (l *Lessee) freeAddrs() func(yield func(netip.Addr) bool) {
	return func(yield func(netip.Addr) bool) {
		for _, v := range l.views {
			free := v.block.LeasedTo(l.node.UID) &^ v.block.Pinned()
			for o := range free.Offsets() {
				addr := v.block.Addr(o)
				if _, taken := l.entries[addr]; taken || l.busy[addr] {
					continue
				}
				if !yield(addr) {
					return
				}
			}
		}
	}
}
