package lease

import "slices"

// waiter is an owner that waits for an address of any of some pools.
type waiter struct {
	owner Owner
	pools []string
}

// Await puts an owner that [Lessee.Acquire] had no address for at the end of the
// line of those who wait for one of the pools. Until leave is called, later ones
// get no free address of these pools that it could have, and a claim takes one
// for it too. Leave it before long: its owner has an address or has given up.
func (l *Lessee) Await(owner Owner, pools []string) (leave func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := &waiter{owner: owner, pools: pools}
	l.line = append(l.line, w)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.line = slices.DeleteFunc(l.line, func(o *waiter) bool { return o == w })
		for range l.freeAddrs() {
			l.tellFreed() // it may have been kept for this one
			break
		}
	}
}

// ahead returns how many wait for an address of the pool and came before the
// owner. The caller holds l.mu.
func (l *Lessee) ahead(owner Owner, pool string) int {
	n := 0
	for _, w := range l.line {
		if w.owner == owner {
			break
		}
		if slices.Contains(w.pools, pool) {
			n++
		}
	}
	return n
}

// inLine returns how many wait for an address of the pool. The caller holds
// l.mu.
func (l *Lessee) inLine(pool string) int { return l.ahead(Owner{}, pool) }

// Freed returns a channel that is closed when an address may have come free
// that a pod could get: one that has cooled down here, one that was claimed, or
// one that another node gave back in a block that this node watches. To miss
// none, ask for it before [Lessee.Acquire], and wait for it after.
func (l *Lessee) Freed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.freedNow
}

// tellFreed closes the channel of [Lessee.Freed]. The caller holds l.mu.
func (l *Lessee) tellFreed() {
	close(l.freedNow)
	l.freedNow = make(chan struct{})
}
