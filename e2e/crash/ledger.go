package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-ipam/holdfast/lease"
)

// ledger is the judge. It knows which sandbox lives with which address, by
// what the agents' sockets answered and by nothing else, and which address
// each StatefulSet pod is to come back with.
//
// A sandbox lives from the answer of its first ADD until just before its DEL
// is sent, its kubelet kills it, or its machine goes.
type ledger struct {
	began time.Time
	// broken ends with the first broken promise.
	broken context.Context
	fail   context.CancelFunc

	mu sync.Mutex
	// holders are the sandboxes that live.
	holders map[netip.Addr]*sandbox
	// owed is what each identity has to come back with, wanted which of them
	// a StatefulSet wants.
	owed   map[lease.Identity][]netip.Prefix
	wanted map[lease.Identity]bool
	// last is who lived with an address last, and until when.
	last map[netip.Addr]end
	// events is what happened, in order.
	events     []event
	violations []violation
	// looks is how often a check compared something, took how long it was
	// looked at if not all the time.
	looks map[check]int
	took  map[check]time.Duration
	// uses is how often an address was handed to a sandbox.
	uses int
}

// end is the end of a sandbox: of which pod, and when by the wall clock, which
// is what agents measure an address's rest by.
type end struct {
	pod string
	at  time.Time
}

// event is one thing that happened to an address or a node, for people and
// for the check of histories.
type event struct {
	at   time.Time
	kind kind
	// asked is when the ADD was sent that the answer belongs to.
	asked    time.Time
	addr     netip.Addr
	sandbox  *sandbox
	identity lease.Identity
	node     string
	text     string
}

type kind int

const (
	remark kind = iota
	// answered: a sandbox that did not live lives with addr from now on.
	answered
	// ended: a sandbox that had addr does not live any more.
	ended
	// unwanted: no StatefulSet wants the identity from now on, until wanted.
	unwanted
	wanted
)

// violation is a promise that was broken.
type violation struct {
	check check
	text  string
	addr  netip.Addr
	node  string
}

// sandbox is a pod sandbox with the one interface eth0.
type sandbox struct {
	pod       *pod
	container string
	// prefixes are what it was first answered with, ended is when it did not
	// live any more, by the wall clock.
	prefixes []netip.Prefix
	ended    time.Time
	// life ends when its machine does.
	life context.Context
}

func newLedger(ctx context.Context, began time.Time) *ledger {
	l := &ledger{
		began:   began,
		holders: map[netip.Addr]*sandbox{},
		owed:    map[lease.Identity][]netip.Prefix{},
		wanted:  map[lease.Identity]bool{},
		last:    map[netip.Addr]end{},
		looks:   map[check]int{},
		took:    map[check]time.Duration{},
	}
	l.broken, l.fail = context.WithCancel(context.WithoutCancel(ctx))
	return l
}

// note adds an event. The caller holds l.mu.
func (l *ledger) note(e event) {
	e.at = time.Now()
	l.events = append(l.events, e)
}

// remark notes what happened to a node, or to the API server.
func (l *ledger) remark(node, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note(event{node: node, text: fmt.Sprintf(format, args...)})
}

// expect notes that something was compared for a check, and a broken promise
// unless it was as it should be.
func (l *ledger) expect(c check, ok bool, addr netip.Addr, node, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expectHeld(c, ok, addr, node, format, args...)
}

func (l *ledger) expectHeld(c check, ok bool, addr netip.Addr, node, format string, args ...any) {
	l.looks[c]++
	if ok {
		return
	}
	v := violation{check: c, text: fmt.Sprintf(format, args...), addr: addr, node: node}
	l.violations = append(l.violations, v)
	l.note(event{addr: addr, node: node, text: "VIOLATION: " + v.text})
	l.fail()
}

// violate notes a broken promise.
func (l *ledger) violate(c check, addr netip.Addr, node, format string, args ...any) {
	l.expect(c, false, addr, node, format, args...)
}

// timed notes how long a check of the account took.
func (l *ledger) timed(c check, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.took[c] = took
}

// answer judges an answered ADD. Nobody can use the addresses if the machine
// has gone meanwhile.
func (l *ledger) answer(s *sandbox, prefixes []netip.Prefix, asked time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	node := s.pod.node.name
	switch {
	case s.life.Err() != nil:
		return
	case s.prefixes != nil:
		l.expectHeld(repeatable, slices.Equal(s.prefixes, prefixes), s.prefixes[0].Addr(), node,
			"%s lives with %s, and asked again got %s", s, s.prefixes, prefixes)
		return
	case len(prefixes) == 0:
		l.expectHeld(offered, false, netip.Addr{}, node, "%s got no address and no error", s)
		return
	}
	wrong := s.pod.offer.fits(prefixes)
	l.expectHeld(offered, wrong == "", prefixes[0].Addr(), node, "%s got %s", s, wrong)
	s.prefixes = prefixes
	l.again(s)
	l.uses++
	for _, prefix := range prefixes {
		addr := prefix.Addr()
		l.note(event{kind: answered, asked: asked, addr: addr, sandbox: s, node: node, identity: s.pod.identity(),
			text: fmt.Sprintf("answered to %s", s)})
		other := l.holders[addr]
		l.expectHeld(unique, other == nil, addr, node, "%s is given to %s, and %s lives with it", addr, s, other)
		l.rest(s, addr)
		l.holders[addr] = s
	}
	l.hold(s)
}

// again compares with what the sandbox before had, if it is the same pod's and
// ended just now: nobody else can have got its addresses since. The caller holds
// l.mu.
func (l *ledger) again(s *sandbox) {
	before := s.pod.before
	if before != nil && time.Now().Round(0).Sub(before.ended) < coolDown {
		l.expectHeld(kept, slices.Equal(before.prefixes, s.prefixes), before.prefixes[0].Addr(), s.pod.node.name,
			"%s got %s, and %s had %s just now", s, s.prefixes, before, before.prefixes)
	}
	s.pod.before = s
}

// rest compares with the rest that an address is to have before another pod
// gets it. The caller holds l.mu.
func (l *ledger) rest(s *sandbox, addr netip.Addr) {
	last, ok := l.last[addr]
	if !ok || last.pod == s.pod.name {
		return
	}
	rest := time.Now().Round(0).Sub(last.at)
	l.expectHeld(rested, rest >= coolDown, addr, s.pod.node.name, "%s is given to %s, %s after %s had it", addr, s, rest, last.pod)
}

// hold compares with what the pod's identity is owed. The caller holds l.mu.
func (l *ledger) hold(s *sandbox) {
	if s.pod.set == nil {
		return
	}
	id := s.pod.identity()
	if owed, ok := l.owed[id]; ok {
		l.expectHeld(sticky, slices.Equal(owed, s.prefixes), owed[0].Addr(), s.pod.node.name,
			"%s came back with %s and was wanted ever since it had %s", s, s.prefixes, owed)
	}
	if l.wanted[id] {
		l.owed[id] = s.prefixes
	}
}

// finish notes that a sandbox does not live any more. It is called before
// anything is sent that tells an agent so.
func (l *ledger) finish(s *sandbox, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.finishHeld(s, why)
}

func (l *ledger) finishHeld(s *sandbox, why string) {
	for _, prefix := range s.prefixes {
		if l.holders[prefix.Addr()] == s {
			delete(l.holders, prefix.Addr())
			s.ended = time.Now().Round(0)
			l.last[prefix.Addr()] = end{s.pod.name, s.ended}
			l.note(event{kind: ended, addr: prefix.Addr(), sandbox: s, node: s.pod.node.name, text: fmt.Sprintf("%s ended (%s)", s, why)})
		}
	}
}

// want notes that a StatefulSet wants the identities: the update that says so
// has succeeded.
func (l *ledger) want(ids ...lease.Identity) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		if !l.wanted[id] {
			l.wanted[id] = true
			l.note(event{kind: wanted, identity: id, text: id.String() + " is wanted"})
		}
	}
}

// unwant notes that the identities may lose their addresses: the update that
// says so is about to be sent.
func (l *ledger) unwant(ids ...lease.Identity) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		if l.wanted[id] {
			delete(l.wanted, id)
			delete(l.owed, id)
			l.note(event{kind: unwanted, identity: id, text: id.String() + " is no longer wanted"})
		}
	}
}

// isWanted reports whether a StatefulSet wants the identity.
func (l *ledger) isWanted(id lease.Identity) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wanted[id]
}

// endAll ends the sandboxes of a machine whose life has ended.
func (l *ledger) endAll(node *node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.holders {
		if s.pod.node == node && s.life.Err() != nil {
			l.finishHeld(s, "its machine is gone")
		}
	}
}

// living returns the sandboxes that live on the node, on any with nil.
func (l *ledger) living(node *node) []*sandbox {
	l.mu.Lock()
	defer l.mu.Unlock()
	var on []*sandbox
	for addr, s := range l.holders {
		if addr == s.prefixes[0].Addr() && (node == nil || s.pod.node == node) {
			on = append(on, s)
		}
	}
	slices.SortFunc(on, func(x, y *sandbox) int { return x.prefixes[0].Addr().Compare(y.prefixes[0].Addr()) })
	return on
}

// lives reports whether the sandbox lives.
func (l *ledger) lives(s *sandbox) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return s.prefixes != nil && l.holders[s.prefixes[0].Addr()] == s
}

// taken returns the addresses that sandboxes live with.
func (l *ledger) taken() map[netip.Addr]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := map[netip.Addr]bool{}
	for addr := range l.holders {
		taken[addr] = true
	}
	return taken
}

// String names pod, UID, node and container.
func (s *sandbox) String() string {
	if s == nil {
		return "nobody"
	}
	return fmt.Sprintf("%s (pod %s on %s, container %s)", s.pod.name, s.pod.uid, s.pod.node.name, s.container)
}
