package agent

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/holdfast-ipam/holdfast/lease"
)

const (
	// upkeepBusy and upkeepIdle are the pauses between two rounds while
	// something is due soon and while nothing is. A round that somebody may wait
	// for, because a pool is used out, comes when it is due, after upkeepScarce
	// at least.
	upkeepBusy   = time.Second
	upkeepScarce = 100 * time.Millisecond
	upkeepIdle   = time.Minute
	// idleBefore is how long an address is free before its lease is yielded, for
	// the next pod, unless its pool is scarce.
	idleBefore = 2 * time.Second
	// aheadProbes is how many blocks a claim ahead of need looks at.
	aheadProbes = 4
	// keepShare: leases are kept up to this many times what a claim takes, and
	// one for each pod that waits. It is more than a reserve ([pools.reserve]), or
	// what was claimed for that would be yielded and claimed again.
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
		timer.Reset(u.pause())
	}
}

// round does what is due. Where one thing fails, the others are done all the
// same.
func (u *upkeep) round(ctx context.Context) error {
	l := u.agent.lessee
	err := l.Tidy(ctx)
	recent := u.agent.pools.recent()
	for _, p := range recent { // first what a pod may come to wait for
		err = errors.Join(err, u.stock(ctx, p))
	}
	free := l.Free()
	u.age(free)
	if surplus := surplus(free, recent, u.agent.pools.waitingFor, u.restless); len(surplus) > 0 {
		err = errors.Join(err, l.Yield(ctx, surplus))
	}
	return err
}

// stock claims addresses of a pool until its reserve is at hand, or no claim gets
// any more.
func (u *upkeep) stock(ctx context.Context, p lease.Pool) error {
	lacks := u.lacks(p, u.agent.lessee.Free())
	for lacks > 0 {
		more := p
		more.Plenty = max(p.Plenty, lacks)
		err := u.agent.lessee.ClaimAhead(ctx, more, aheadProbes)
		if errors.Is(err, lease.ErrSearching) {
			return nil
		}
		if err != nil {
			return err
		}
		before := lacks
		if lacks = u.lacks(p, u.agent.lessee.Free()); lacks >= before {
			return nil
		}
	}
	return nil
}

// supply asks for a round if a pool runs low on this node.
func (u *upkeep) supply(families [][]lease.Pool) {
	free := u.agent.lessee.Free()
	low := func(p lease.Pool) bool { return u.lacks(p, free) > 0 }
	if slices.ContainsFunc(slices.Concat(families...), low) {
		u.kick()
	}
}

// lacks returns how many addresses of a pool's reserve are not at hand.
func (u *upkeep) lacks(p lease.Pool, free []netip.Addr) int {
	lacks := u.agent.pools.reserve(p)
	for _, addr := range free {
		if lacks > 0 && p.Ranges.Contains(addr) {
			lacks--
		}
	}
	return lacks
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
// those of no pool in use here, what a pool has beyond keepShare claims and what
// pods wait for, and all of a scarce pool, also where a rich one overlaps it. As
// many as pods wait for here are no surplus: what was claimed for a pod is not
// yielded under its hands. What came free just now is none either, unless its pool
// is scarce.
func surplus(free []netip.Addr, recent []lease.Pool, waiting func(pool string) int, restless func(netip.Addr) bool) []netip.Addr {
	kept, waits := make([]int, len(recent)), make([]int, len(recent))
	for i, p := range recent {
		waits[i] = waiting(p.Name)
	}
	var surplus []netip.Addr
	for _, addr := range free {
		keep, scarce := use(addr, recent, kept, waits)
		if !keep && (scarce || !restless(addr)) {
			surplus = append(surplus, addr)
		}
	}
	return surplus
}

// use reports whether a free address is one to keep, and then counts it for the
// pool it is kept for, and whether it is one of a scarce pool.
func use(addr netip.Addr, recent []lease.Pool, kept, waits []int) (keep, scarce bool) {
	keeper, wanted := -1, -1
	for i, p := range recent {
		if !p.Ranges.Contains(addr) {
			continue
		}
		scarce = scarce || p.Plenty == 0
		if wanted < 0 && kept[i] < waits[i] {
			wanted = i
		}
		if keeper < 0 && kept[i] < keepShare*p.Plenty+waits[i] {
			keeper = i
		}
	}
	if scarce {
		keeper = -1
	}
	if wanted >= 0 {
		keeper = wanted
	}
	if keeper < 0 {
		return false, scarce
	}
	kept[keeper]++
	return true, scarce
}

// pause returns the time until the next round: soon while time alone makes
// work, and at the very moment while somebody may wait for what it makes free.
func (u *upkeep) pause() time.Duration {
	due, some := u.due()
	switch {
	case !some:
		return upkeepIdle
	case u.scarcity():
		return min(max(due, upkeepScarce), upkeepBusy)
	}
	return upkeepBusy
}

// due returns when time alone makes work, if it does: addresses that cool down,
// yields to finish, free addresses that have not been free for long.
func (u *upkeep) due() (in time.Duration, some bool) {
	now := u.agent.now()
	in = upkeepBusy
	for _, e := range u.agent.lessee.Entries() {
		switch e.State {
		case lease.Cooling:
			in, some = min(in, e.Since.Add(u.agent.config.CoolDown.Duration).Sub(now)), true
		case lease.Yielding, lease.Placing:
			some = true
		}
	}
	for addr := range u.freeSince {
		some = some || u.restless(addr)
	}
	return in, some
}

// scarcity reports whether a pool in use here is scarce.
func (u *upkeep) scarcity() bool {
	return slices.ContainsFunc(u.agent.pools.recent(), func(p lease.Pool) bool { return p.Plenty == 0 })
}
