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
	for _, addr := range l.doubtful() {
		err = errors.Join(err, l.settle(ctx, addr))
	}
	return errors.Join(err, l.sync(), l.finishYields(ctx))
}

func (l *Lessee) isStarted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.started
}

// coolingSince returns since when an address cools down that is to rest that
// long, or a cool-down if that is longer: it lies ahead by the difference.
func (l *Lessee) coolingSince(rest time.Duration) time.Time {
	return l.now().Add(max(0, rest-l.coolDown))
}

// cool frees what has cooled down and drops what is another node's: by the
// node's view, which is at least as new as its own last write.
func (l *Lessee) cool() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	some := false
	for addr, e := range l.entries {
		switch {
		case l.busy[addr]:
		case e.State == Cooling && !now.Before(e.Since.Add(l.coolDown)):
			l.drop(addr)
			l.freed[addr], some = now, true
		case e.State == Cooling && !l.leased(addr):
			l.drop(addr)
		}
	}
	if some {
		l.tellFreed()
	}
	for prefix, v := range l.views {
		_, queued := l.queues[prefix]
		if !queued && v.block.LeasedTo(l.node.UID) == 0 {
			l.unview(prefix)
		}
	}
}

// doubtful returns the addresses, in order, that the cluster may say
// something else about than the journal.
func (l *Lessee) doubtful() []netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	var doubtful []netip.Addr
	for addr, e := range l.entries {
		if l.inDoubt(&e) {
			doubtful = append(doubtful, addr)
		}
	}
	for _, v := range l.views {
		for _, p := range v.block.Pins {
			if _, ok := l.entries[p.Addr]; !ok && l.leased(p.Addr) {
				doubtful = append(doubtful, p.Addr)
			}
		}
	}
	slices.SortFunc(doubtful, netip.Addr.Compare)
	return doubtful
}

// doubt returns what is in doubt about an address. A pinned address without
// an entry is as good as retained: the journal was lost, or the node took it
// over and then did not assign it.
func (l *Lessee) doubt(addr netip.Addr) (Entry, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.entries[addr]; ok {
		return e, l.inDoubt(&e)
	}
	pin, ok := l.pinned(addr)
	id := pin.Identity
	return Entry{
		Addr: addr, State: Retained, Since: l.now(), Owner: Owner{Interface: id.Interface},
		Namespace: id.Namespace, Pod: id.Pod, Kind: id.Kind, Sticky: true,
	}, ok && l.leased(addr)
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
func (l *Lessee) settle(ctx context.Context, addr netip.Addr) error {
	e, ok := l.doubt(addr)
	if !ok {
		return nil
	}
	done, err := l.takeTurn(ctx, e.Identity())
	if err != nil {
		return err
	}
	defer done()
	judged := e.Identity()
	if e, ok = l.doubt(addr); !ok || e.Identity() != judged {
		return nil
	}
	b, err := l.read(ctx, BlockOf(addr))
	if err != nil {
		return err
	}
	if !b.LeasedTo(l.node.UID).Has(Offset(addr)) {
		l.change(&e, func() { l.drop(addr) })
		return nil
	}
	if pin, ok := b.PinAt(addr); ok && pin.Identity == judged {
		named, err := l.named(ctx, &e)
		if err != nil {
			return err
		}
		if named {
			if e.State == Placing {
				e.Owner.PodUID = "" // of the pod's other family nothing may be known
			}
			e.State = Retained
			l.change(&e, func() { l.set(e) })
			return nil
		}
		if err := l.withdraw(ctx, &e); err != nil {
			return err
		}
	}
	l.change(&e, func() { l.set(Entry{Addr: addr, State: Cooling, Since: l.now()}) })
	return nil
}

// change runs f, with l.mu held, unless the address has become another
// identity's: a pin that was withdrawn frees the way for anyone.
func (l *Lessee) change(e *Entry, f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, ok := l.entries[e.Addr]
	if l.busy[e.Addr] || ok && now.Identity() != e.Identity() {
		return
	}
	f()
}

// named reports whether the identity's endpoint names the address. An entry
// that was made from a pin alone gets its detail from there.
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
			if e.Detail == nil {
				e.Detail = a.Detail
			}
			return true, nil
		}
	}
	return false, nil
}

// withdraw removes a pin in this node's lease that no endpoint names, in two
// updates: between them the mark shows, so whoever wants the pin back has to
// write, and with that ends the second one if its answer was lost. No second
// look at pod and StatefulSet is needed: whoever follows an endpoint that
// names the address after all takes the lease from this node first, or waits
// for the identity's turn here.
func (l *Lessee) withdraw(ctx context.Context, e *Entry) error {
	for _, step := range []func(*Block, netip.Addr, Identity) error{(*Block).MarkReleasing, (*Block).Unpin} {
		err := l.amend(ctx, BlockOf(e.Addr), func(b *Block) error {
			if !b.LeasedTo(l.node.UID).Has(Offset(e.Addr)) {
				return ErrNotLeased
			}
			if pin, ok := b.PinAt(e.Addr); !ok || pin.Identity != e.Identity() {
				return nil // somebody else was faster
			}
			return step(b, e.Addr, e.Identity())
		})
		if err != nil {
			return fmt.Errorf("withdraw the pin of %s: %w", e.Addr, err)
		}
	}
	return nil
}
