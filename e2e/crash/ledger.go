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
	owed   map[lease.Identity]netip.Addr
	wanted map[lease.Identity]bool
	// events is what happened, in order.
	events     []event
	violations []violation
	// uses is how often an address was handed to a sandbox.
	uses int
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
	text string
	addr netip.Addr
	node string
}

// sandbox is a pod sandbox with the one interface eth0.
type sandbox struct {
	pod       *pod
	container string
	// addr is what it was first answered with.
	addr netip.Addr
	// life ends when its machine does.
	life context.Context
}

func newLedger(began time.Time) *ledger {
	l := &ledger{
		began:   began,
		holders: map[netip.Addr]*sandbox{},
		owed:    map[lease.Identity]netip.Addr{},
		wanted:  map[lease.Identity]bool{},
	}
	l.broken, l.fail = context.WithCancel(context.Background())
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

// break notes a broken promise. The caller holds l.mu.
func (l *ledger) breach(addr netip.Addr, node, format string, args ...any) {
	v := violation{text: fmt.Sprintf(format, args...), addr: addr, node: node}
	l.violations = append(l.violations, v)
	l.note(event{addr: addr, node: node, text: "VIOLATION: " + v.text})
	l.fail()
}

// violate is breach for callers outside of the ledger.
func (l *ledger) violate(addr netip.Addr, node, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.breach(addr, node, format, args...)
}

// answer judges an answered ADD. It returns false if the machine has gone
// meanwhile, and with it whoever could use the address.
func (l *ledger) answer(s *sandbox, addr netip.Addr, asked time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.life.Err() != nil {
		return false
	}
	node := s.pod.node.name
	if s.addr.IsValid() {
		if s.addr != addr {
			l.breach(addr, node, "%s lives with %s, and asked again got %s", s, s.addr, addr)
		}
		return true
	}
	s.addr = addr
	l.uses++
	l.note(event{kind: answered, asked: asked, addr: addr, sandbox: s, node: node, identity: s.pod.identity(),
		text: fmt.Sprintf("answered to %s", s)})
	if other := l.holders[addr]; other != nil {
		l.breach(addr, node, "%s is given to %s, and %s lives with it", addr, s, other)
		return true
	}
	l.holders[addr] = s
	l.hold(s, addr)
	return true
}

// hold compares with what the pod's identity is owed. The caller holds l.mu.
func (l *ledger) hold(s *sandbox, addr netip.Addr) {
	if s.pod.set == nil {
		return
	}
	id := s.pod.identity()
	if owed, ok := l.owed[id]; ok && owed != addr {
		l.breach(owed, s.pod.node.name, "%s came back with %s and was wanted ever since it had %s", s, addr, owed)
	}
	if l.wanted[id] {
		l.owed[id] = addr
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
	if !s.addr.IsValid() || l.holders[s.addr] != s {
		return
	}
	delete(l.holders, s.addr)
	l.note(event{kind: ended, addr: s.addr, sandbox: s, node: s.pod.node.name, text: fmt.Sprintf("%s ended (%s)", s, why)})
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
	for _, s := range l.holders {
		if node == nil || s.pod.node == node {
			on = append(on, s)
		}
	}
	slices.SortFunc(on, func(x, y *sandbox) int { return x.addr.Compare(y.addr) })
	return on
}

// lives reports whether the sandbox lives.
func (l *ledger) lives(s *sandbox) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return s.addr.IsValid() && l.holders[s.addr] == s
}

// String names pod, UID, node and container.
func (s *sandbox) String() string {
	return fmt.Sprintf("%s (pod %s on %s, container %s)", s.pod.name, s.pod.uid, s.pod.node.name, s.container)
}
