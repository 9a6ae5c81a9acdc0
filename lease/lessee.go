package lease

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go4.org/netipx"
)

// Lessee is one node's side of the protocol: it claims and yields leases and
// hands the leased addresses to the pods of its node. All methods may be
// called from many goroutines. No lock is held while the cluster or the disk
// is waited for.
type Lessee struct {
	node     Node
	cluster  Cluster
	disk     Disk
	now      func() time.Time
	coolDown time.Duration

	mu sync.Mutex
	// started is set when the blocks of this node are known; before that
	// only what the journal knows is answered. startedAt is the version as
	// of which they were read.
	started   bool
	startedAt string
	// trustedUntil ends the time in which new assignments are begun without
	// having heard from the cluster, see [Lessee.Trust].
	trustedUntil time.Time
	views        map[netip.Prefix]view
	entries      map[netip.Addr]Entry
	// dirty are addresses whose entry on disk may differ.
	dirty                   map[netip.Addr]bool
	nextFlush, runningFlush *flush
	// busy are addresses in the course of a placement.
	busy map[netip.Addr]bool
	// freed is when an address became free, for picking the one that has
	// been free the longest.
	freed map[netip.Addr]time.Time
	// full is until when what a pool has of a block is known to have nothing
	// to claim, cursors where the search of a pool, by name, goes on.
	full    map[blockOf]time.Time
	cursors map[string]uint64
	// asked is when the cluster was asked where a pool, by name, has room.
	asked map[string]time.Time
	// line are those who wait for an address, the first first, and freedNow is
	// closed when one may have come free.
	line     []*waiter
	freedNow chan struct{}
	// read ahead by Prepare: the endpoint of a pod, by UID.
	pointers map[string]Endpoint

	queues map[netip.Prefix][]*amendment
	// turns are for an interface of a pod name, takeOvers for a block.
	turns     turns[Identity]
	takeOvers turns[netip.Prefix]
	// yields holds one token while a call of finishYields runs.
	yields chan struct{}
	claims map[claimKey]*claimCall
}

// Config is what a Lessee is made of.
type Config struct {
	Node    Node
	Cluster Cluster
	Disk    Disk
	// Now is the node's wall clock.
	Now func() time.Time
	// CoolDown is how long an address rests between two pods.
	CoolDown time.Duration
}

// New returns a Lessee with what its journal knows. It answers for pods that
// the journal knows at once, and for new ones after [Lessee.Start].
func New(c Config) (*Lessee, error) {
	entries, err := c.Disk.Load()
	if err != nil {
		return nil, fmt.Errorf("load the journal: %w", err)
	}
	l := &Lessee{
		node: c.Node, cluster: c.Cluster, disk: c.Disk, now: c.Now, coolDown: c.CoolDown,
		views:    map[netip.Prefix]view{},
		entries:  map[netip.Addr]Entry{},
		dirty:    map[netip.Addr]bool{},
		busy:     map[netip.Addr]bool{},
		freed:    map[netip.Addr]time.Time{},
		full:     map[blockOf]time.Time{},
		cursors:  map[string]uint64{},
		asked:    map[string]time.Time{},
		freedNow: make(chan struct{}),
		pointers: map[string]Endpoint{},
		queues:   map[netip.Prefix][]*amendment{},
		yields:   make(chan struct{}, 1),
		claims:   map[claimKey]*claimCall{},
	}
	for _, e := range entries {
		l.entries[e.Addr] = e
	}
	return l, nil
}

// Pool is what the protocol needs of a pool: which addresses, and how many
// to take at a time.
type Pool struct {
	Name string
	// Ranges are the addresses to hand out, all of one family.
	Ranges *netipx.IPSet
	// Plenty is how many addresses a claim may take beyond what waits: a
	// whole block when the pool is rich, none when it is scarce.
	Plenty int
	// LeasedOut is set if every address is said to be leased by some node: it
	// is not claimed from while a later pool has an address.
	LeasedOut bool
	// Detail returns what is to be stored with an address of this pool.
	Detail func(netip.Addr) json.RawMessage
}

// Request asks for the addresses of one interface of one pod: one of each
// element of Families, from the first pool of it that has one.
type Request struct {
	Owner     Owner
	Container string
	Namespace string
	Pod       string
	Network   string
	// Sticky is set for a StatefulSet's pod. OwnerKind and OwnerName go into
	// the endpoint.
	Sticky bool
	// Kind is that of the identity ([Identity]). Where it is set, Pod is the
	// identity's name and Bearer the pod's own.
	Kind      string
	Bearer    string
	OwnerKind string
	OwnerName string
	Families  [][]Pool
	// OnlyFrom makes a sticky identity give up an address that lies in none
	// of the pools. Without it an identity keeps its address whatever pools
	// are asked for.
	OnlyFrom bool
}

func (r *Request) identity() Identity {
	return Identity{Namespace: r.Namespace, Pod: r.Pod, Interface: r.Owner.Interface, Kind: r.Kind}
}

// entry returns the journal entry of an address assigned by this request.
func (r *Request) entry(addr netip.Addr, state State, since time.Time, detail json.RawMessage) Entry {
	return Entry{
		Addr: addr, State: state, Since: since,
		Owner: r.Owner, Container: r.Container, Namespace: r.Namespace, Pod: r.Pod,
		Kind: r.Kind, Bearer: r.Bearer, Network: r.Network, Sticky: r.Sticky, Detail: detail,
	}
}

// ExhaustedError says that no address is left in any of the pools.
type ExhaustedError struct {
	Pools []string
}

// Error names the pools.
func (e *ExhaustedError) Error() string {
	return fmt.Sprintf("all IP addresses used out in pools %q", e.Pools)
}

// The reasons for which a new assignment has to wait.
var (
	// ErrNotStarted: the node's leases are not known yet.
	ErrNotStarted = errors.New("the agent has not read this node's leases yet")
	// ErrCutOff: the cluster was not heard of for so long that this node's
	// leases may have been given away.
	ErrCutOff = errors.New("the API server has been out of reach for too long to assign new addresses")
)

// Trust allows new assignments until the given time. The caller has read its
// own Node from the cluster and found it in order; until is half a hold-down
// after that read was begun.
func (l *Lessee) Trust(until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trustedUntil = until
}

// TrustedUntil returns what Trust was last told.
func (l *Lessee) TrustedUntil() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trustedUntil
}

// Ready returns why a new assignment would fail now ([ErrNotStarted],
// [ErrCutOff]), or nil.
func (l *Lessee) Ready() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !l.started, l.trustedUntil.IsZero():
		return ErrNotStarted
	case l.now().After(l.trustedUntil):
		return ErrCutOff
	}
	return nil
}

// Acquire returns one address for each family of the request. What it
// returns is on disk. The same owner gets the same addresses again, whatever
// happened in between; either every family gets an address or nothing is
// kept.
//
// Errors: [*ExhaustedError]; [ErrSearching]; [ErrNotStarted]; [ErrCutOff]; those of
// [Cluster] and [Disk]. Each of them may be retried.
func (l *Lessee) Acquire(ctx context.Context, r Request) ([]Entry, error) {
	done, err := l.takeTurn(ctx, r.identity())
	if err != nil {
		return nil, err
	}
	defer done()

	got, missing := l.known(&r)
	defer l.idle(got)
	if len(missing) > 0 {
		if err := l.Ready(); err != nil {
			return nil, err
		}
	}
	switch {
	case len(missing) == 0:
		return l.assign(&r, got)
	case r.Sticky:
		return l.place(ctx, &r, got, missing)
	}
	picked, err := l.pick(ctx, &r, missing)
	if err != nil {
		return nil, err
	}
	defer l.idle(picked)
	return l.assign(&r, slices.Concat(got, picked))
}

// Recall returns the addresses that the journal has for the owner of a
// request, and makes them its sandbox's, durably. It never asks the cluster,
// so it answers while the API server is away and before [Lessee.Start]. It
// returns none for an owner that [Lessee.Acquire] has to be asked for, such as
// one with an [UnknownSandbox], of whose addresses some may not be known, or one
// that has been placed in one family and not yet in the other. The request
// needs no pools.
func (l *Lessee) Recall(ctx context.Context, r Request) ([]Entry, error) {
	if r.Owner.PodUID == "" {
		return nil, nil
	}
	l.bear(&r)
	done, err := l.takeTurn(ctx, r.identity())
	if err != nil {
		return nil, err
	}
	defer done()
	got := l.recalled(&r)
	defer l.idle(got)
	if len(got) == 0 {
		return nil, nil
	}
	r.Sticky = got[0].Sticky
	return l.assign(&r, got)
}

// bear gives a request that names a pod the identity that the journal has for
// the pod, which need not be of the pod's name.
func (l *Lessee) bear(r *Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if e.Owner == r.Owner && e.Kind != "" {
			r.Pod, r.Kind, r.Bearer = e.Pod, e.Kind, e.Bearer
			return
		}
	}
}

// recalled returns, marked busy, the addresses that the journal has for the
// owner of a request, if it has all of them for certain.
func (l *Lessee) recalled(r *Request) (got []Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if e.Owner != r.Owner || l.started && !l.leased(e.Addr) {
			continue
		}
		if e.State != Assigned && e.State != Retained || e.Container == UnknownSandbox {
			return nil
		}
		got = append(got, e)
	}
	for _, e := range got {
		l.busy[e.Addr] = true
	}
	return got
}

// takeTurn waits until nothing else is under way for an interface of a pod
// name, whichever pod bears it. The one whose turn it is calls done.
func (l *Lessee) takeTurn(ctx context.Context, id Identity) (done func(), err error) {
	// A runtime that has given up may have sent its DEL already.
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("nobody waits for the addresses of %s any more: %w", id, err)
	}
	if done, err = l.turns.take(ctx, id); err != nil {
		return nil, fmt.Errorf("an earlier request for %s is still under way: %w", id, err)
	}
	return done, nil
}

// known returns what the journal has for the owner, marked busy lest a late
// DEL and the end of a cool-down give it to somebody else meanwhile, and the
// families it has nothing for. For this pod UID the journal is enough: a
// pinned address was confirmed before it came in, and one that is cooling was
// this owner's.
func (l *Lessee) known(r *Request) (got []Entry, missing [][]Pool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, pools := range r.Families {
		e, ok := l.ownedIn(r, pools)
		if ok {
			l.busy[e.Addr] = true
			got = append(got, e)
		} else {
			missing = append(missing, pools)
		}
	}
	return got, missing
}

// ownedIn returns the owner's address of the family of pools: the one that it
// has, before one that cools down since an earlier sandbox gave it back, of
// which there may be several when pools have changed. The caller holds l.mu.
func (l *Lessee) ownedIn(r *Request, pools []Pool) (best Entry, ok bool) {
	for _, e := range l.entries {
		if !l.ownedBy(&e, r, pools) {
			continue
		}
		better := rank(&e) < rank(&best) || e.State == best.State && isLater(&e, &best)
		if better || !ok {
			best, ok = e, true
		}
	}
	return best, ok
}

// ownedBy reports whether an entry serves the owner of a request for the family
// of pools.
func (l *Lessee) ownedBy(e *Entry, r *Request, pools []Pool) bool {
	switch {
	case e.Owner != r.Owner || !familyIs(pools, e.Addr):
		return false
	case l.started && !l.leased(e.Addr):
		return false // it was taken from this node: see [Lessee.Tidy]
	case e.Detail == nil && e.Container == UnknownSandbox:
		return false // nobody could tell a new sandbox what to do with it
	case e.State == Cooling:
		return e.Sticky == r.Sticky && inSome(pools, e.Addr)
	}
	return e.State == Assigned || e.State == Retained
}

// rank orders an owner's addresses by how much they are its.
func rank(e *Entry) int {
	return slices.Index([]State{Assigned, Retained, Cooling}, e.State)
}

func inSome(pools []Pool, addr netip.Addr) bool {
	return slices.ContainsFunc(pools, func(p Pool) bool { return p.Ranges.Contains(addr) })
}

func familyIs(pools []Pool, addr netip.Addr) bool {
	for _, p := range pools {
		for _, r := range p.Ranges.Ranges() {
			return r.From().Is4() == addr.Is4()
		}
	}
	return false
}

// assign makes entries the owner's, durably.
func (l *Lessee) assign(r *Request, entries []Entry) ([]Entry, error) {
	l.mu.Lock()
	for i, e := range entries {
		a := r.entry(e.Addr, Assigned, l.now(), e.Detail)
		if e.Owner == r.Owner && e.State == Assigned {
			a.Since, a.Sticky = e.Since, e.Sticky
			a.Others = e.without(a.Container)
			if a.Container == "" {
				a.Container, a.Others, a.Network = e.Container, e.Others, e.Network
			}
		}
		entries[i] = a
		if old, ok := l.entries[a.Addr]; !ok || !sameEntry(&old, &a) {
			l.set(a)
		}
	}
	l.mu.Unlock()
	slices.SortFunc(entries, func(x, y Entry) int { return x.Addr.Compare(y.Addr) })
	return entries, l.sync()
}

func sameEntry(x, y *Entry) bool {
	return x.State == y.State && x.Owner == y.Owner && x.Container == y.Container &&
		slices.Equal(x.Others, y.Others) && x.Sticky == y.Sticky
}

// idle ends the placement of addresses.
func (l *Lessee) idle(entries []Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range entries {
		delete(l.busy, e.Addr)
	}
}

// Sandbox says whose addresses to give back.
type Sandbox struct {
	Owner     Owner
	Container string
	// Rest is how long what it gives back is kept for the next sandbox of its
	// pod, where that is longer than the cool-down. Sticky addresses are kept
	// anyhow.
	Rest time.Duration
}

// Release gives the addresses of a sandbox back, durably: a sticky one is
// retained, others cool down. It never waits for the cluster, and succeeds
// for what is not there: an address that has since gone to another sandbox,
// also of the same pod, stays. Where several sandboxes of a pod have asked for
// an address, it stays until each of them has given it back: which of them
// lives is not known here, because an ADD may come late. For the same reason
// an address that an [UnknownSandbox] has, or no sandbox yet, stays until its
// pod is gone ([Lessee.ReleasePod]).
func (l *Lessee) Release(s Sandbox) ([]Entry, error) {
	return l.releaseIf(s.Rest, func(e *Entry, container string) bool {
		return e.Owner.Interface == s.Owner.Interface && container != "" && container != UnknownSandbox && container == s.Container
	})
}

// ReleaseInvalid gives back what sandboxes of the network hold that valid
// does not name (CNI spec, GC).
func (l *Lessee) ReleaseInvalid(network string, valid func(container, ifname string) bool) ([]Entry, error) {
	return l.releaseIf(0, func(e *Entry, container string) bool {
		return e.Network == network && container != "" && container != UnknownSandbox && !valid(container, e.Owner.Interface)
	})
}

// ReleasePod gives back what the journal still has for a pod that is no
// more. The caller is certain of that: by a quorum read the name belongs to
// no pod or to one with another UID.
func (l *Lessee) ReleasePod(uid string) ([]Entry, error) {
	return l.releaseIf(0, func(e *Entry, _ string) bool { return e.Owner.PodUID == uid })
}

// releaseIf gives back what no sandbox has any more once those that match are
// gone. It returns the entries as they were.
func (l *Lessee) releaseIf(rest time.Duration, match func(e *Entry, container string) bool) ([]Entry, error) {
	l.mu.Lock()
	var released []Entry
	for _, e := range l.entries {
		given := e.State == Placing && e.Container == "" // back already
		if (e.State != Assigned && e.State != Placing) || given {
			continue
		}
		sandboxes := append([]string{e.Container}, e.Others...)
		left := slices.DeleteFunc(slices.Clone(sandboxes), func(c string) bool { return match(&e, c) })
		if len(left) == len(sandboxes) {
			continue
		}
		if len(left) > 0 {
			e.Container, e.Others = left[0], left[1:]
			l.set(e)
			continue
		}
		if l.busy[e.Addr] {
			continue // a later sandbox of the pod is about to get it
		}
		released = append(released, e)
		since := l.now()
		switch {
		case e.State == Placing:
			// Whether the pin is there is not known: Tidy finds out.
		case e.Sticky:
			e.State = Retained
		default:
			e.State = Cooling
			since = l.coolingSince(rest)
		}
		e.Since, e.Container, e.Others = since, "", nil
		l.set(e)
	}
	l.mu.Unlock()
	return released, l.sync()
}

// Entries returns the journal, by address.
func (l *Lessee) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(maps.Values(l.entries), func(x, y Entry) int {
		return cmp.Or(x.Addr.Compare(y.Addr))
	})
}

// Has reports whether the sandbox holds the address, by the journal.
func (l *Lessee) Has(s Sandbox, addr netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.entries[addr]
	return ok && e.State == Assigned && e.Owner.Interface == s.Owner.Interface &&
		(e.Container == s.Container || slices.Contains(e.Others, s.Container))
}
