package lease

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// placeAttempts bounds how often a placement begins anew because somebody
// else wrote the endpoint in between.
const placeAttempts = 4

// ErrPodMoved says that the pod an address is asked for does not live on
// this node any more, or not under this UID.
var ErrPodMoved = errors.New("the pod is not this node's (any more)")

// Prepare does ahead of ADD what a StatefulSet pod that was just bound to
// this node needs from the cluster: the confirming read of an address that
// is retained here, or the take-over of one that is pinned elsewhere. A pod
// that has no address yet is left to [Lessee.Acquire]. The request names no
// container.
func (l *Lessee) Prepare(ctx context.Context, r Request) error {
	done, err := l.takeTurn(ctx, r.identity())
	if err != nil {
		return err
	}
	defer done()
	got, missing := l.known(&r)
	defer l.idle(got)
	if len(missing) == 0 {
		return nil
	}
	if err := l.Ready(); err != nil {
		return err
	}
	found, _, err := l.find(ctx, &r, missing)
	defer l.idle(found)
	if err != nil || len(found) < len(missing) {
		return err
	}
	_, err = l.assign(&r, slices.Concat(got, found))
	return err
}

// Resume returns the addresses that an identity has, of whatever pools and
// families, as [Lessee.Acquire] would, but gives it no new ones: none is no
// error. It is for a StatefulSet pod whose pools cannot be told any more. The
// request needs no pools.
func (l *Lessee) Resume(ctx context.Context, r Request) ([]Entry, error) {
	done, err := l.takeTurn(ctx, r.identity())
	if err != nil {
		return nil, err
	}
	defer done()
	if err := l.Ready(); err != nil {
		return nil, err
	}
	r.OnlyFrom = false
	found, _, err := l.find(ctx, &r, bothFamilies())
	defer l.idle(found)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return l.assign(&r, slices.Clone(found))
}

// bothFamilies returns pools of all addresses there are: to look for what an
// identity has, not to pick from.
func bothFamilies() [][]Pool {
	var families [][]Pool
	for _, everything := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		var b netipx.IPSetBuilder
		b.AddPrefix(netip.PrefixFrom(everything, 0))
		ranges, err := b.IPSet()
		if err == nil { // a prefix is never wrong
			families = append(families, []Pool{{Ranges: ranges}})
		}
	}
	return families
}

// Forget drops what Prepare read for a pod that is no more.
func (l *Lessee) Forget(podUID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pointers, podUID)
}

// place returns the identity's addresses: those it has, wherever they are
// leased, and new ones for families in which it has none.
func (l *Lessee) place(ctx context.Context, r *Request, got []Entry, missing [][]Pool) ([]Entry, error) {
	var err error
	for range placeAttempts {
		var found []Entry
		var left [][]Pool
		found, left, err = l.find(ctx, r, missing)
		if err == nil && len(got)+len(found) == 0 && !r.OnlyFrom {
			// Asked for other families than it has, it keeps what it has.
			if found, _, err = l.find(ctx, r, bothFamilies()); len(found) > 0 {
				left = nil
			}
		}
		if err == nil && len(left) > 0 {
			var fresh []Entry
			fresh, err = l.placeNew(ctx, r, left)
			found = append(found, fresh...)
		}
		if err == nil {
			defer l.idle(found)
			return l.assign(r, slices.Concat(got, found))
		}
		l.idle(found)
		l.Forget(r.Owner.PodUID)
		if !errors.Is(err, ErrConflict) {
			return nil, err
		}
	}
	return nil, err
}

// find returns the addresses the identity has already, marked busy, and the
// families it has none for. An address that is retained on this node costs
// one read of its block; otherwise the endpoint tells.
func (l *Lessee) find(ctx context.Context, r *Request, missing [][]Pool) (found []Entry, left [][]Pool, err error) {
	for _, pools := range missing {
		e, ok, err := l.findHere(ctx, r, pools)
		if err == nil && !ok {
			e, ok, err = l.findByEndpoint(ctx, r, pools)
		}
		if err != nil {
			return found, nil, err
		}
		if ok && !l.wanted(r, pools, e.Addr) {
			l.idle([]Entry{e})
			ok = false
		}
		if ok {
			found = append(found, e)
		} else {
			left = append(left, pools)
		}
	}
	return found, left, nil
}

// wanted reports whether the identity may keep addr. With OnlyFrom an address
// that lies in none of the pools is left behind: its pin, which the endpoint
// will not name any more, is garbage for the GC.
func (l *Lessee) wanted(r *Request, pools []Pool, addr netip.Addr) bool {
	return !r.OnlyFrom || inSome(pools, addr)
}

// findHere looks for an address that the journal has for an earlier pod of
// the identity. One confirming read decides whether it is still the
// identity's. Where that earlier pod has not given it back, another one tells
// which of the two pods is the later one.
func (l *Lessee) findHere(ctx context.Context, r *Request, pools []Pool) (Entry, bool, error) {
	e, ok := l.retained(r.identity(), pools)
	if !ok {
		return Entry{}, false, nil
	}
	var err error
	if e.State == Assigned {
		err = l.livesHere(ctx, r)
	}
	if err == nil {
		ok, err = l.confirm(ctx, e.Addr, r.identity())
	}
	if err != nil || !ok {
		l.idle([]Entry{e})
		return Entry{}, false, err
	}
	return e, true, nil
}

// retained returns an identity's address by the journal, marked busy.
func (l *Lessee) retained(id Identity, pools []Pool) (Entry, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var newest Entry
	for _, e := range l.entries {
		// One without detail is told by the endpoint, or not at all.
		if e.Sticky && e.Identity() == id && familyIs(pools, e.Addr) && !l.busy[e.Addr] && e.Detail != nil &&
			(e.State == Retained || e.State == Assigned) && isLater(&e, &newest) {
			newest = e
		}
	}
	if !newest.Addr.IsValid() {
		return Entry{}, false
	}
	l.busy[newest.Addr] = true
	return newest, true
}

// isLater orders entries by when they came to be what they are, the zero Entry
// before all others.
func isLater(x, y *Entry) bool {
	return cmp.Or(x.Since.Compare(y.Since), -x.Addr.Compare(y.Addr)) > 0 || !y.Addr.IsValid()
}

// confirm is the read of fact 3: it reports whether addr is leased to this
// node and pinned to the identity. A mark of releasing is taken off, by a
// guarded update, before it says yes.
func (l *Lessee) confirm(ctx context.Context, addr netip.Addr, id Identity) (bool, error) {
	b, err := l.read(ctx, BlockOf(addr))
	if err != nil {
		return false, err
	}
	pin, ok := b.PinAt(addr)
	if !ok || pin.Identity != id || !b.LeasedTo(l.node.UID).Has(Offset(addr)) {
		return false, nil
	}
	if !pin.Releasing {
		return true, nil
	}
	err = l.amend(ctx, b.prefix, func(b *Block) error {
		if !b.LeasedTo(l.node.UID).Has(Offset(addr)) {
			return ErrNotLeased
		}
		return b.Unmark(addr, id)
	})
	if errors.Is(err, ErrNotPinned) || errors.Is(err, ErrNotLeased) {
		return false, nil
	}
	return err == nil, err
}

// findByEndpoint follows the identity's pointer, which counts only together
// with its pin.
func (l *Lessee) findByEndpoint(ctx context.Context, r *Request, pools []Pool) (Entry, bool, error) {
	ep, err := l.endpoint(ctx, r)
	if err != nil {
		return Entry{}, false, err
	}
	for _, a := range ep.Of(r.Owner.Interface) {
		if !familyIs(pools, a.Addr) {
			continue
		}
		ok, err := l.follow(ctx, r, &a)
		if err != nil {
			return Entry{}, false, err
		}
		if ok {
			return r.entry(a.Addr, "", l.now(), a.Detail), true, nil
		}
	}
	return Entry{}, false, nil
}

// endpoint returns the pod's endpoint as Prepare has read it, or reads it.
func (l *Lessee) endpoint(ctx context.Context, r *Request) (Endpoint, error) {
	l.mu.Lock()
	ep, ok := l.pointers[r.Owner.PodUID]
	l.mu.Unlock()
	if ok {
		return ep, nil
	}
	ep, err := l.cluster.Endpoint(ctx, r.Namespace, r.Pod)
	if errors.Is(err, ErrNotFound) {
		ep, err = Endpoint{Namespace: r.Namespace, Pod: r.Pod}, nil
	}
	if err != nil {
		return Endpoint{}, fmt.Errorf("read the endpoint of %s/%s: %w", r.Namespace, r.Pod, err)
	}
	l.mu.Lock()
	l.pointers[r.Owner.PodUID] = ep
	l.mu.Unlock()
	return ep, nil
}

// follow makes the pinned address a this node's and marks it busy, and
// reports whether it is the identity's at all. Pods that come to this node
// together often come from one block: they take over one after the other, for
// each update would defeat the others, and judge on what the one before has
// stored.
func (l *Lessee) follow(ctx context.Context, r *Request, a *EndpointAddress) (bool, error) {
	id, addr := r.identity(), a.Addr
	done, err := l.takeOvers.take(ctx, BlockOf(addr))
	if err != nil {
		return false, fmt.Errorf("other pods' addresses in block %s are still being taken over: %w", Name(BlockOf(addr)), err)
	}
	defer done()
	var lost error
	for range placeAttempts {
		b, ok := l.watched(BlockOf(addr))
		if !ok || lost != nil || !l.isElsewhere(&b, addr, id) {
			// Only a read can say that it is not the identity's, or is here.
			if b, err = l.read(ctx, BlockOf(addr)); err != nil {
				return false, err
			}
		}
		if pin, ok := b.PinAt(addr); !ok || pin.Identity != id {
			return false, nil
		}
		if b.LeasedTo(l.node.UID).Has(Offset(addr)) {
			if !l.reserve(addr, id) {
				return false, nil
			}
			if ok, err := l.confirm(ctx, addr, id); !ok || err != nil {
				l.idle([]Entry{{Addr: addr}})
				return false, err
			}
			return true, nil
		}
		err = l.takeOver(ctx, r, b, a)
		if err == nil {
			return l.reserve(addr, id), nil
		}
		if errors.Is(err, ErrRefused) || errors.Is(err, ErrPodMoved) {
			return false, err
		}
		// A conflict, or an answer that was lost: read again, judge again.
		// Whichever update comes next settles the lost one.
		lost = err
	}
	return false, lost
}

// isElsewhere reports whether b shows addr pinned to the identity and not leased
// to this node.
func (l *Lessee) isElsewhere(b *Block, addr netip.Addr, id Identity) bool {
	pin, ok := b.PinAt(addr)
	return ok && pin.Identity == id && !b.LeasedTo(l.node.UID).Has(Offset(addr))
}

// takeOver moves the one address to this node, on the very version b. The
// pod is looked up after b was stored: had another node taken the address for
// a later pod before that, this look-up would show it, and had it done so
// after, the update fails.
func (l *Lessee) takeOver(ctx context.Context, r *Request, b Block, a *EndpointAddress) error {
	addr := a.Addr
	if err := l.livesHere(ctx, r); err != nil {
		return fmt.Errorf("take %s over: %w", addr, err)
	}
	next := b.Clone()
	if err := next.TakeOver(l.node, addr, r.identity()); err != nil {
		return err
	}
	if err := l.retainAhead(r, a); err != nil {
		return err
	}
	stored, err := l.cluster.PutBlock(ctx, next)
	if err != nil {
		l.distrust(b.prefix)
		return fmt.Errorf("take %s over: %w", addr, err)
	}
	l.see(stored)
	return nil
}

// retainAhead journals for whom an address is that is about to be taken over,
// so that it cools down as the identity's if the pod comes to nothing and the
// pin goes: an address that was never journaled here would be free at once.
// The entry names no pod UID, because the lease has to be confirmed first.
// Whatever the journal has for an address that is not leased here is left over
// from an earlier lease.
func (l *Lessee) retainAhead(r *Request, a *EndpointAddress) error {
	l.mu.Lock()
	if !l.busy[a.Addr] {
		l.set(Entry{
			Addr: a.Addr, State: Retained, Since: l.now(), Owner: Owner{Interface: r.Owner.Interface},
			Namespace: r.Namespace, Pod: r.Pod, Kind: r.Kind, Sticky: true, Detail: a.Detail,
		})
	}
	l.mu.Unlock()
	return l.sync()
}

// livesHere asks the cluster whether the pod of a request bears its name now
// and is bound to this node ([ErrPodMoved]).
func (l *Lessee) livesHere(ctx context.Context, r *Request) error {
	name := cmp.Or(r.Bearer, r.Pod)
	at, err := l.cluster.PodAt(ctx, r.Namespace, name)
	if errors.Is(err, ErrNotFound) ||
		err == nil && (at.UID != r.Owner.PodUID || at.Node != l.node.Name || at.Finished) {
		return fmt.Errorf("%s/%s with UID %s: %w", r.Namespace, name, r.Owner.PodUID, ErrPodMoved)
	}
	if err != nil {
		return fmt.Errorf("look %s/%s up: %w", r.Namespace, name, err)
	}
	return nil
}

// reserve marks an address that is leased to this node and pinned to the
// identity busy, unless the journal has it for somebody else's sandbox. Any
// other entry of somebody else is left over from an earlier lease.
func (l *Lessee) reserve(addr netip.Addr, id Identity) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.entries[addr]
	if l.busy[addr] || ok && e.State == Assigned && (!e.Sticky || e.Identity() != id) {
		return false
	}
	l.busy[addr] = true
	return true
}

// placeNew gives an identity addresses it never had: journal, pin, endpoint.
// If the endpoint turns out to be somebody else's work, the conflict is
// returned and the pins made here, which nothing names, are garbage.
func (l *Lessee) placeNew(ctx context.Context, r *Request, families [][]Pool) ([]Entry, error) {
	picked, err := l.pickPlacing(ctx, r, families)
	if err != nil {
		return nil, err
	}
	for _, e := range picked {
		if e.State != Placing {
			continue
		}
		// The pin of an earlier attempt may have been collected before this
		// pod was there, and the view lag behind.
		if _, err := l.read(ctx, BlockOf(e.Addr)); err != nil {
			return picked, err
		}
	}
	if err := l.journalPlacing(r, picked); err != nil {
		return picked, err
	}
	for _, e := range picked {
		err := l.amend(ctx, BlockOf(e.Addr), func(b *Block) error {
			return b.Pin(l.node.UID, e.Addr, r.identity())
		})
		if err != nil {
			return picked, fmt.Errorf("pin %s for %s: %w", e.Addr, r.identity(), err)
		}
	}
	return picked, l.point(ctx, r, picked)
}

// pickPlacing picks an address for each family: the one that an earlier,
// failed attempt of this pod journaled, or a free one.
func (l *Lessee) pickPlacing(ctx context.Context, r *Request, families [][]Pool) (picked []Entry, err error) {
	var fresh [][]Pool
	l.mu.Lock()
	for _, pools := range families {
		if e, ok := l.placing(r.identity(), pools); ok {
			l.busy[e.Addr] = true
			picked = append(picked, e)
		} else {
			fresh = append(fresh, pools)
		}
	}
	l.mu.Unlock()
	more, err := l.pick(ctx, r, fresh)
	if err != nil {
		l.idle(picked)
		return nil, err
	}
	return append(picked, more...), nil
}

// placing returns the identity's unfinished placement, of this pod or of an
// earlier one: nobody was ever answered with it. The caller holds l.mu.
func (l *Lessee) placing(id Identity, pools []Pool) (Entry, bool) {
	for _, e := range l.entries {
		if e.State == Placing && e.Identity() == id && familyIs(pools, e.Addr) && l.leased(e.Addr) && !l.busy[e.Addr] {
			return e, true
		}
	}
	return Entry{}, false
}

func (l *Lessee) journalPlacing(r *Request, picked []Entry) error {
	l.mu.Lock()
	for i, e := range picked {
		picked[i] = r.entry(e.Addr, Placing, l.now(), e.Detail)
		l.set(picked[i])
	}
	l.mu.Unlock()
	return l.sync()
}

// point makes the endpoint name the new addresses of the interface. Where the
// endpoint speaks of another pod, this one is looked up after it was read: it
// may be gone, and a later pod of the name have an address by now.
func (l *Lessee) point(ctx context.Context, r *Request, picked []Entry) error {
	ep, err := l.endpoint(ctx, r)
	if err != nil {
		return err
	}
	if ep.Version != "" && ep.PodUID != r.Owner.PodUID {
		if err := l.livesHere(ctx, r); err != nil {
			return fmt.Errorf("write the endpoint of %s/%s: %w", r.Namespace, r.Pod, err)
		}
	}
	families := map[bool]bool{}
	for _, e := range picked {
		families[e.Addr.Is4()] = true
	}
	next := ep
	next.Addresses = nil
	for _, a := range ep.Addresses {
		if a.Interface != r.Owner.Interface || !families[a.Addr.Is4()] {
			next.Addresses = append(next.Addresses, a)
		}
	}
	for _, e := range picked {
		next.Addresses = append(next.Addresses, EndpointAddress{
			Interface: r.Owner.Interface, Addr: e.Addr, Detail: e.Detail,
		})
	}
	next.PodUID, next.Node, next.Sticky = r.Owner.PodUID, l.node.Name, true
	next.OwnerKind, next.OwnerName = r.OwnerKind, r.OwnerName
	// A lost answer is settled by the next attempt: its read shows the
	// endpoint that names the addresses, or its guarded write kills it.
	stored, err := l.cluster.PutEndpoint(ctx, next)
	if err != nil {
		return fmt.Errorf("write the endpoint of %s/%s: %w", r.Namespace, r.Pod, err)
	}
	l.mu.Lock()
	l.pointers[r.Owner.PodUID] = stored
	l.mu.Unlock()
	return nil
}
