package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// placingGrace is how long the unfinished placement of a sandbox that is gone
// stays for the next attempt of its pod.
const placingGrace = time.Minute

// Free returns the addresses this node leases and nobody uses.
func (l *Lessee) Free() []netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	var free []netip.Addr
	for addr := range l.freeAddrs() {
		free = append(free, addr)
	}
	return free
}

// Yield gives leases of free addresses back. Addresses that are not free are
// passed over. An update whose outcome stays unknown leaves its addresses
// yielding, in the journal, until [Lessee.Tidy] has settled it.
func (l *Lessee) Yield(ctx context.Context, addrs []netip.Addr) error {
	l.mu.Lock()
	want := map[netip.Addr]bool{}
	for _, addr := range addrs {
		want[addr] = true
	}
	for addr := range l.freeAddrs() {
		if want[addr] {
			l.set(Entry{Addr: addr, State: Yielding, Since: l.now()})
		}
	}
	l.mu.Unlock()
	if err := l.sync(); err != nil {
		return err
	}
	return l.finishYields(ctx)
}

// finishYields makes every yielding address another node's to claim. One call
// runs at a time: what a second one takes for yielding could be yielded,
// claimed again and in use by the time it comes to it.
func (l *Lessee) finishYields(ctx context.Context) error {
	select {
	case l.yields <- struct{}{}:
		defer func() { <-l.yields }()
	case <-ctx.Done():
		return fmt.Errorf("an earlier yield is still under way: %w", ctx.Err())
	}
	// No lease is given up before the disk says so: after a crash that is all
	// there is to tell that an update may be under way.
	errs := []error{l.sync()}
	if errs[0] != nil {
		return errs[0]
	}
	for _, prefix := range l.yieldingIn() {
		var give Set
		err := l.amend(ctx, prefix, func(b *Block) error {
			give = l.yielding(prefix)
			b.Yield(l.node.UID, give)
			return nil
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("yield in %s: %w", Name(prefix), err))
			continue
		}
		l.yielded(prefix, give)
	}
	return errors.Join(append(errs, l.sync())...)
}

// yieldingIn returns the blocks of the addresses that are yielding, in order.
func (l *Lessee) yieldingIn() []netip.Prefix {
	l.mu.Lock()
	defer l.mu.Unlock()
	in := map[netip.Prefix]bool{}
	for addr, e := range l.entries {
		if e.State == Yielding {
			in[BlockOf(addr)] = true
		}
	}
	return slices.SortedFunc(maps.Keys(in), netip.Prefix.Compare)
}

// yielding returns the addresses of a block that are yielding now.
func (l *Lessee) yielding(prefix netip.Prefix) Set {
	l.mu.Lock()
	defer l.mu.Unlock()
	var give Set
	for addr, e := range l.entries {
		if e.State == Yielding && BlockOf(addr) == prefix {
			give |= only(Offset(addr))
		}
	}
	return give
}

// yielded drops what has been yielded from the journal.
func (l *Lessee) yielded(prefix netip.Prefix, gone Set) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for addr, e := range l.entries {
		if e.State == Yielding && BlockOf(addr) == prefix && gone.Has(Offset(addr)) {
			l.drop(addr)
			delete(l.freed, addr)
		}
	}
}

// Tidy does what time and other nodes have made due: addresses that have
// cooled down become free, yields are finished, entries whose lease is gone
// are dropped, and identities that lost their pin give their address up. It
// reads the cluster only for what looks gone, and returns what it could not
// finish; calling it again goes on.
func (l *Lessee) Tidy(ctx context.Context) error {
	if !l.isStarted() {
		return ErrNotStarted
	}
	l.cool()
	err := l.sync()
	for _, e := range l.doubtful() {
		err = errors.Join(err, l.settle(ctx, e))
	}
	return errors.Join(err, l.sync(), l.finishYields(ctx))
}

func (l *Lessee) isStarted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.started
}

// cool frees what has cooled down and drops what is another node's: by the
// node's view, which is at least as new as its own last write.
func (l *Lessee) cool() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for addr, e := range l.entries {
		switch {
		case l.busy[addr]:
		case e.State == Cooling && !now.Before(e.Since.Add(l.coolDown)):
			l.drop(addr)
			l.freed[addr] = now
		case e.State == Cooling && !l.leased(addr):
			l.drop(addr)
		}
	}
	for prefix, v := range l.views {
		_, queued := l.queues[prefix]
		if !queued && v.block.LeasedTo(l.node.UID) == 0 {
			l.unview(prefix)
		}
	}
}

// doubtful returns the entries that the cluster may say something else about
// than the journal.
func (l *Lessee) doubtful() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	var doubtful []Entry
	for _, e := range l.entries {
		if l.inDoubt(&e) {
			doubtful = append(doubtful, e)
		}
	}
	return doubtful
}

// inDoubt: a retained address without lease or pin, an address that its
// identity left for another one, a placement nobody came back for. The caller
// holds l.mu.
func (l *Lessee) inDoubt(e *Entry) bool {
	if e.State != Retained && e.State != Placing {
		return false
	}
	if l.successor(e) {
		return true
	}
	if e.State == Placing {
		return e.Container == "" && l.now().Sub(e.Since) > placingGrace
	}
	pin, ok := l.pinned(e.Addr)
	return !l.leased(e.Addr) || !ok || pin.Identity != e.Identity()
}

// successor reports whether the identity has another address of the family
// assigned. The caller holds l.mu.
func (l *Lessee) successor(e *Entry) bool {
	for _, o := range l.entries {
		if o.State == Assigned && o.Sticky && o.Addr != e.Addr &&
			o.Identity() == e.Identity() && o.Addr.Is4() == e.Addr.Is4() {
			return true
		}
	}
	return false
}

// settle finds out by quorum reads whether a doubtful address is still the
// identity's. If not, it cools down; if it is not even leased, it is dropped.
func (l *Lessee) settle(ctx context.Context, e Entry) error {
	done, err := l.takeTurn(ctx, e.Identity())
	if err != nil {
		return err
	}
	defer done()
	if !l.stillInDoubt(&e) {
		return nil
	}
	b, err := l.read(ctx, BlockOf(e.Addr))
	if err != nil {
		return err
	}
	if !b.LeasedTo(l.node.UID).Has(Offset(e.Addr)) {
		l.change(func() { l.drop(e.Addr) })
		return nil
	}
	pin, pinned := b.PinAt(e.Addr)
	if pinned && pin.Identity == e.Identity() {
		named, err := l.named(ctx, &e)
		if err != nil {
			return err
		}
		if named {
			e.State = Retained
			l.change(func() { l.set(e) })
			return nil
		}
		if err := l.withdraw(ctx, &e); err != nil {
			return err
		}
	}
	l.change(func() { l.set(Entry{Addr: e.Addr, State: Cooling, Since: l.now()}) })
	return nil
}

// stillInDoubt looks again at an entry once it is its identity's turn: nobody
// else changes it from here on.
func (l *Lessee) stillInDoubt(e *Entry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, ok := l.entries[e.Addr]
	if ok {
		*e = now
	}
	return ok && l.inDoubt(&now)
}

func (l *Lessee) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

// named reports whether the identity's endpoint names the address.
func (l *Lessee) named(ctx context.Context, e *Entry) (bool, error) {
	ep, err := l.cluster.Endpoint(ctx, e.Namespace, e.Pod)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the endpoint of %s/%s: %w", e.Namespace, e.Pod, err)
	}
	for _, a := range ep.Of(e.Owner.Interface) {
		if a.Addr == e.Addr {
			return true, nil
		}
	}
	return false, nil
}

// withdraw removes a pin that this node made and that no endpoint names. It
// needs no second look at pod and StatefulSet: only the lessee, which is this
// node, could have answered with the address, and the address is busy.
func (l *Lessee) withdraw(ctx context.Context, e *Entry) error {
	err := l.amend(ctx, BlockOf(e.Addr), func(b *Block) error {
		if !b.LeasedTo(l.node.UID).Has(Offset(e.Addr)) {
			return ErrNotLeased
		}
		if err := b.MarkReleasing(e.Addr, e.Identity()); err != nil {
			return err
		}
		return b.Unpin(e.Addr, e.Identity())
	})
	if errors.Is(err, ErrNotPinned) {
		return nil
	}
	return err
}
