package main

import "sync"

// kind is what is asked of the API server, in the words of its audit log.
type kind struct{ Verb, Resource string }

// count is what was asked and what was answered.
type count struct {
	Requests int
	// Sent and Received are the bytes of bodies.
	Sent, Received int64
	// Events are those of watches, the first state of each object included,
	// and Bookmarks those that tell nothing but a version.
	Events, Bookmarks int
	// Conflicts were answered 409, Throttled 429, and Failed 5xx or not at all.
	Conflicts, Throttled, Failed int
}

// plus returns the sum.
func (c count) plus(d count) count {
	return count{
		c.Requests + d.Requests, c.Sent + d.Sent, c.Received + d.Received,
		c.Events + d.Events, c.Bookmarks + d.Bookmarks,
		c.Conflicts + d.Conflicts, c.Throttled + d.Throttled, c.Failed + d.Failed,
	}
}

// minus returns the difference.
func (c count) minus(d count) count {
	return count{
		c.Requests - d.Requests, c.Sent - d.Sent, c.Received - d.Received,
		c.Events - d.Events, c.Bookmarks - d.Bookmarks,
		c.Conflicts - d.Conflicts, c.Throttled - d.Throttled, c.Failed - d.Failed,
	}
}

// tally counts by kind.
type tally map[kind]count

// add adds another tally.
func (t tally) add(more tally) {
	for k, c := range more {
		t[k] = t[k].plus(c)
	}
}

// since returns what came on top of the tally before.
func (t tally) since(before tally) tally {
	more := tally{}
	for k, c := range t {
		if d := c.minus(before[k]); d != (count{}) {
			more[k] = d
		}
	}
	return more
}

// total adds up all kinds.
func (t tally) total() count {
	var sum count
	for _, c := range t {
		sum = sum.plus(c)
	}
	return sum
}

// ledger is a tally that many write to.
type ledger struct {
	mu    sync.Mutex
	kinds tally
}

func (l *ledger) note(k kind, c count) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kinds[k] = l.kinds[k].plus(c)
}

// read returns a copy.
func (l *ledger) read() tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	copied := make(tally, len(l.kinds))
	copied.add(l.kinds)
	return copied
}
