package agent

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/holdfast-ipam/holdfast/lease"
)

const (
	// upkeepBusy and upkeepIdle are the pauses between two rounds while
	// something is due soon and while nothing is.
	upkeepBusy = time.Second
	upkeepIdle = time.Minute
	// idleBefore is how long an address is free before its lease is yielded,
	// so that an address claimed for a pod is not yielded under its hands.
	idleBefore = 2 * time.Second
	// aheadProbes is how many blocks a claim ahead of need looks at.
	aheadProbes = 4
	// keepShare: leases are kept up to this many times what a claim takes.
	keepShare = 2
)

// upkeep is the node's work that no pod waits for: what cooled down becomes
// free, what is surplus is yielded, and pools in use are kept supplied.
type upkeep struct {
	agent *Agent
	wake  chan struct{}
	// freeSince is when an address was first seen free.
	freeSince map[netip.Addr]time.Time
}

func newUpkeep(a *Agent) *upkeep {
	return &upkeep{agent: a, wake: make(chan struct{}, 1), freeSince: map[netip.Addr]time.Time{}}
}

// kick asks for a round soon.
func (u *upkeep) kick() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// run makes rounds until ctx ends.
func (u *upkeep) run(ctx context.Context) error {
	timer := time.NewTimer(upkeepBusy)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-u.wake:
		case <-timer.C:
		}
		if err := u.round(ctx); err != nil && ctx.Err() == nil {
			u.agent.log.Warn("upkeep", "outcome", "error", "err", err)
		}
		pause := upkeepIdle
		if u.somethingDue() {
			pause = upkeepBusy
		}
		timer.Reset(pause)
	}
}

// round does what is due. Where one thing fails, the others are done all the
// same.
func (u *upkeep) round(ctx context.Context) error {
	l := u.agent.lessee
	err := l.Tidy(ctx)
	recent := u.agent.pools.recent()
	free := l.Free()
	u.age(free)
	if surplus := surplus(free, recent, u.restless); len(surplus) > 0 {
		err = errors.Join(err, l.Yield(ctx, surplus))
	}
	for _, p := range recent {
		if !runsLow(p, free) {
			continue
		}
		_, claimed := l.ClaimAhead(ctx, p, func() int { return 0 }, aheadProbes)
		if claimed != nil && !errors.Is(claimed, lease.ErrSearching) {
			err = errors.Join(err, claimed)
		}
	}
	return err
}

// age notes since when addresses are free.
func (u *upkeep) age(free []netip.Addr) {
	now := u.agent.now()
	since := make(map[netip.Addr]time.Time, len(free))
	for _, addr := range free {
		since[addr] = now
		if before, ok := u.freeSince[addr]; ok {
			since[addr] = before
		}
	}
	u.freeSince = since
}

// restless reports whether the address became free just now.
func (u *upkeep) restless(addr netip.Addr) bool {
	return u.agent.now().Sub(u.freeSince[addr]) < idleBefore
}

// surplus returns the free addresses whose leases this node has no use for:
// those of no pool in use here, what a pool has beyond keepShare claims, and
// all of a scarce pool, also where a rich one overlaps it.
func surplus(free []netip.Addr, recent []lease.Pool, restless func(netip.Addr) bool) []netip.Addr {
	kept := make([]int, len(recent))
	var surplus []netip.Addr
	for _, addr := range free {
		if !keep(addr, recent, kept) && !restless(addr) {
			surplus = append(surplus, addr)
		}
	}
	return surplus
}

// keep reports whether a free address is one to keep, and counts it for the
// pool it is kept for.
func keep(addr netip.Addr, recent []lease.Pool, kept []int) bool {
	keeper := -1
	for i, p := range recent {
		switch {
		case !p.Ranges.Contains(addr):
		case p.Plenty == 0:
			return false
		case keeper < 0 && kept[i] < keepShare*p.Plenty:
			keeper = i
		}
	}
	if keeper < 0 {
		return false
	}
	kept[keeper]++
	return true
}

// runsLow reports whether a rich pool has less than half a claim in reserve.
func runsLow(p lease.Pool, free []netip.Addr) bool {
	n := 0
	for _, addr := range free {
		if p.Ranges.Contains(addr) {
			n++
		}
	}
	return n < p.Plenty/2
}

// somethingDue reports whether time alone makes work: addresses that cool
// down, yields to finish, free addresses that have not been free for long.
func (u *upkeep) somethingDue() bool {
	for _, e := range u.agent.lessee.Entries() {
		if e.State == lease.Cooling || e.State == lease.Yielding || e.State == lease.Placing {
			return true
		}
	}
	for addr := range u.freeSince {
		if u.restless(addr) {
			return true
		}
	}
	return false
}
