package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/holdfast-ipam/holdfast/e2e/testevent"
)

// wrongs returns what must not be in a stage of Holdfast, however slow the
// machine is.
func (s *stage) wrongs() []string {
	var wrong []string
	expect := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	all := s.tally()
	expect(s.Failed == 0, "%d calls of the plugin failed: %v", s.Failed, s.Errors)
	expect(s.Done == s.Pods, "%d of %d pods", s.Done, s.Pods)
	expect(s.Doubled == 0, "%d addresses are on two pods", s.Doubled)
	expect(s.Left == 0, "%d pods are gone and hold an address", s.Left)
	// While pods are deleted there may be none.
	expect(s.Audited > 0 || strings.HasSuffix(s.Name, deleted), "the API server saw no request: nothing can be told")
	switch {
	case strings.HasSuffix(s.Name, deleted):
		expect(all.of(waited) == 0, "%d requests while DEL waits", all.of(waited))
	case strings.HasSuffix(s.Name, again):
		expect(all.of(waited) == 0, "%d requests while ADD waits on a node with leases", all.of(waited))
		// A few are read because their creation was not answered in time.
		read := all[request{background, "get", "spiderendpoints"}]
		expect(4*read <= s.Pods, "%d endpoints were read of %d pods without a claim", read, s.Pods)
	case s.Name == samePods:
		asked := all.of(waited) + all.of(ahead)
		expect(asked == 0, "%d requests for pods that are the same", asked)
		expect(s.Kept == s.Pods, "%d of %d pods kept their address", s.Kept, s.Pods)
	case s.Name == ofPools8 || s.Name == ofPools48 || s.Name == oneOfMany:
		// A lease is one read and one write, and nobody is in the way.
		expect(all.of(waited) <= 2*s.Pods, "%d requests while %d ADDs wait for a lease", all.of(waited), s.Pods)
	case s.Name == onItsNode:
		changes := all.changes(waited) + all.changes(ahead)
		expect(changes == 0, "%d changes for pods that come back", changes)
		expect(s.Kept == s.Pods, "%d of %d pods kept their address", s.Kept, s.Pods)
	case s.Name == toTheNext:
		expect(s.Kept == s.Pods, "%d of %d pods kept their address", s.Kept, s.Pods)
	}
	return wrong
}

// judge returns what must not be, and writes it to the file for it.
func (r *report) judge() error {
	var all []string
	var told []testevent.Event
	for _, s := range r.Stages {
		wrong := s.wrongs()
		told = append(told, verdict(s.Name, wrong)...)
		for _, w := range wrong {
			all = append(all, s.Name+": "+w)
		}
	}
	if len(r.Stages) == 0 {
		all = append(all, "nothing was measured")
	}
	told = append(told, verdict(whole, all)...)
	err := testevent.Write(r.options.json, told)
	if len(all) > 0 {
		err = errors.Join(errors.New(strings.Join(all, "\n  ")), err)
	}
	return err
}

// suite is the name under which what is judged is counted among the tests,
// whole that of the run as one of them.
const (
	suite = "bench"
	whole = "run"
)

// verdict is what came of one test.
func verdict(test string, wrong []string) []testevent.Event {
	events := []testevent.Event{{Action: "run", Package: suite, Test: test}}
	for _, w := range wrong {
		events = append(events, testevent.Event{Action: "output", Package: suite, Test: test, Output: w + "\n"})
	}
	action := "pass"
	if len(wrong) > 0 {
		action = "fail"
	}
	return append(events, testevent.Event{Action: action, Package: suite, Test: test})
}

// announce writes that the run has begun. If it stays like this, it has not
// passed.
func announce(file string) error {
	return testevent.Write(file, []testevent.Event{{Action: "run", Package: suite, Test: whole}})
}

// skip writes that there was no run, and why.
func skip(file string, reason error) error {
	fmt.Fprintln(os.Stderr, "bench: skipped:", reason)
	return testevent.Write(file, []testevent.Event{
		{Action: "run", Package: suite, Test: whole},
		{Action: "output", Package: suite, Test: whole, Output: reason.Error() + "\n"},
		{Action: "skip", Package: suite, Test: whole},
	})
}
