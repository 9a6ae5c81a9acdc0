package main

import (
	"net/netip"
	"sync"
	"time"
)

// living is who has which address.
type living struct {
	mu sync.Mutex
	by map[netip.Addr]*pod
}

// take notes the pod's address and returns another pod that has it, if any.
func (l *living) take(p *pod) (other *pod) {
	l.mu.Lock()
	defer l.mu.Unlock()
	other = l.by[p.address.Addr()]
	l.by[p.address.Addr()] = p
	if other == p {
		return nil
	}
	return other
}

// leave forgets the pod's address.
func (l *living) leave(p *pod) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by[p.address.Addr()] == p {
		delete(l.by, p.address.Addr())
	}
}

// departed are the UIDs of pods that are gone.
type departed struct {
	mu   sync.Mutex
	uids map[string]bool
}

func (d *departed) note(p *pod) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.uids[p.uid] = true
}

func (d *departed) has(uid string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.uids[uid]
}

// times are how long calls took.
type times struct {
	mu  sync.Mutex
	all []time.Duration
}

func (t *times) note(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, d)
}

// take returns all of them and forgets them.
func (t *times) take() []time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.all
	t.all = nil
	return all
}

// trouble is what went wrong that must not.
type trouble struct {
	mu sync.Mutex
	// counts is how often, said what the first of a kind said.
	counts map[string]int
	said   map[string]string
}

func (t *trouble) note(what string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts[what]++; t.counts[what] == 1 {
		t.said[what] = err.Error()
	}
}

// read returns a copy.
func (t *trouble) read() (counts map[string]int, said map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	counts, said = map[string]int{}, map[string]string{}
	for what, n := range t.counts {
		counts[what], said[what] = n, t.said[what]
	}
	return counts, said
}
