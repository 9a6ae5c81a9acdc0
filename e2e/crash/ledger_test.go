package main

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-ipam/holdfast/lease"
)

// stage is a ledger with pods on two nodes that need no agents.
type stage struct {
	*ledger
	t    *testing.T
	life context.Context
	lose context.CancelFunc
}

func newStage(t *testing.T) *stage {
	s := &stage{ledger: newLedger(t.Context(), time.Now()), t: t}
	s.life, s.lose = context.WithCancel(t.Context())
	return s
}

// pod returns a pod, of a StatefulSet if it has one's name.
func (s *stage) pod(name, on string) *pod {
	p := &pod{name: name, uid: name + " on " + on, node: &node{name: on}, offer: &offer{"lab", []pool{newPool("lab", "10.6.0.0/16", "10.6.0.0-10.6.0.9")}}}
	if strings.HasPrefix(name, "web-") {
		p.set = &statefulSet{}
	}
	return p
}

func prefixes(addr string) []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr(addr), 16)}
}

// add has a sandbox of the pod answered with the address.
func (s *stage) add(p *pod, container, addr string) *sandbox {
	made := &sandbox{pod: p, container: container, life: s.life}
	s.answer(made, prefixes(addr), time.Now())
	return made
}

// wantViolations compares how many promises were broken by the ledger's own
// judgement, and whether the check of histories finds one too.
func (s *stage) wantViolations(n int, inHistories bool) {
	s.t.Helper()
	if len(s.violations) != n || n > 0 != (s.broken.Err() != nil) {
		s.t.Errorf("the ledger found %d broken promises, want %d: %+v", len(s.violations), n, s.violations)
	}
	said := s.checkHistories()
	if found := len(s.violations) > n; found != inHistories {
		s.t.Errorf("a history is not linearizable: %t, want %t (%s)", found, inHistories, said)
	}
}

func TestTwoSandboxesWithOneAddressAreFound(t *testing.T) {
	s := newStage(t)
	s.add(s.pod("a", "node-0"), "a-0", "10.6.0.1")
	s.add(s.pod("b", "node-1"), "b-0", "10.6.0.2")
	s.wantViolations(0, false)
	s.add(s.pod("c", "node-1"), "c-0", "10.6.0.1")
	s.wantViolations(1, true)
}

func TestSandboxThatEndedHoldsNothing(t *testing.T) {
	s := newStage(t)
	first := s.add(s.pod("a", "node-0"), "a-0", "10.6.0.1")
	s.finish(first, "killed")
	s.finish(first, "killed once more")
	if s.lives(first) {
		t.Error("a sandbox lives that was killed")
	}
	second := s.add(first.pod, "a-1", "10.6.0.1")
	s.finish(first, "and late")
	if !s.lives(second) {
		t.Error("the end of one sandbox ended another")
	}
	s.wantViolations(0, false)
}

func TestRestartInPlaceWithAnotherAddressIsFound(t *testing.T) {
	for late, want := range map[bool]int{false: 1, true: 0} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t)
			p := s.pod("a", "node-0")
			s.finish(s.add(p, "a-0", "10.6.0.1"), "killed")
			s.finish(s.add(p, "a-1", "10.6.0.1"), "killed")
			if late {
				time.Sleep(coolDown) // synctest's time
			}
			s.add(p, "a-2", "10.6.0.2")
			s.wantViolations(want, false)
		})
	}
}

func TestAddressThatHasNotRestedIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.finish(s.add(s.pod("a", "node-0"), "a-0", "10.6.0.1"), "killed")
		s.finish(s.add(s.pod("a", "node-0"), "a-1", "10.6.0.1"), "killed")
		time.Sleep(coolDown) // synctest's time
		s.finish(s.add(s.pod("b", "node-0"), "b-0", "10.6.0.1"), "killed")
		s.wantViolations(0, false)
		time.Sleep(coolDown - time.Millisecond)
		s.add(s.pod("c", "node-0"), "c-0", "10.6.0.1")
		s.wantViolations(1, false)
	})
}

func TestSecondAnswerThatDiffersIsFound(t *testing.T) {
	s := newStage(t)
	first := s.add(s.pod("a", "node-0"), "a-0", "10.6.0.1")
	s.answer(first, prefixes("10.6.0.1"), time.Now())
	s.wantViolations(0, false)
	s.answer(first, prefixes("10.6.0.2"), time.Now())
	s.wantViolations(1, false)
}

func TestAnswerFromAnotherPoolIsFound(t *testing.T) {
	s := newStage(t)
	s.add(s.pod("a", "node-0"), "a-0", "10.6.0.10")
	s.wantViolations(1, false)
}

func TestAnswerWithoutAddressIsFound(t *testing.T) {
	s := newStage(t)
	s.answer(&sandbox{pod: s.pod("a", "node-0"), life: s.life}, nil, time.Now())
	s.wantViolations(1, false)
}

func TestAnswerToALostMachineIsNobodys(t *testing.T) {
	s := newStage(t)
	first := s.add(s.pod("a", "node-0"), "a-0", "10.6.0.1")
	s.lose()
	s.endAll(first.pod.node)
	if late := s.add(s.pod("b", "node-0"), "b-0", "10.6.0.2"); s.lives(first) || s.lives(late) {
		t.Error("a sandbox lives without a machine")
	}
	s.wantViolations(0, false)
}

func TestStatefulSetPodWithAnotherAddressIsFound(t *testing.T) {
	for _, c := range []struct {
		name     string
		meantime func(*stage, lease.Identity)
		broken   bool
	}{
		{"wanted ever since", func(*stage, lease.Identity) {}, true},
		{"unwanted meanwhile", func(s *stage, id lease.Identity) { s.unwant(id); s.want(id) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			web := s.pod("web-0", "node-0")
			s.want(web.identity())
			s.finish(s.add(web, "w-0", "10.6.0.1"), "restarted")
			s.finish(s.add(web, "w-1", "10.6.0.1"), "deleted")
			c.meantime(s, web.identity())
			s.add(s.pod("web-0", "node-1"), "w-2", "10.6.0.2")
			broken := 0
			if c.broken {
				broken = 1
			}
			s.wantViolations(broken, c.broken)
		})
	}
}
