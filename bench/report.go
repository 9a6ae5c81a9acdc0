package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// report is what a run has found.
type report struct {
	// Machine tells where, Pods, Rounds and Limit how.
	Machine machine
	Pods    int
	Rounds  int
	Limit   string
	Began   time.Time
	Stages  []*stage

	options options
}

// machine is what figures depend on.
type machine struct {
	Cores  int
	Kernel string
	Go     string
}

func newReport(o options) *report {
	r := &report{
		Machine: machine{Cores: runtime.NumCPU(), Go: runtime.Version()},
		Pods:    o.pods, Rounds: o.rounds, Limit: o.limit.String(), Began: time.Now(), options: o,
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Machine.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return r
}

// say tells whoever waits how far it is.
func (r *report) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%7.1fs  %s\n", time.Since(r.Began).Seconds(), fmt.Sprintf(format, args...))
}

// add keeps a stage.
func (r *report) add(s *stage) {
	r.Stages = append(r.Stages, s)
	r.say("%s, %s, %d at a time: %d of %d pods in %.1f s, %d failed", s.System, s.Name, s.Concurrency, s.Done, s.Pods, s.Seconds, s.Failed)
}

// save writes all figures, each latency included, as JSON.
func (r *report) save() error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.options.out, 0o755); err != nil {
		return err
	}
	name := "bench.json"
	if r.options.quick {
		name = "quick.json"
	}
	return os.WriteFile(filepath.Join(r.options.out, name), append(text, '\n'), 0o644)
}

// judge returns what must not be, however slow the machine is.
func (r *report) judge() error {
	var wrong []string
	expect := func(s *stage, ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, s.Name+": "+fmt.Sprintf(format, args...))
		}
	}
	for _, s := range r.Stages {
		all := s.tally()
		// Where there is no address but those that have just come free, one
		// rests first, and a runtime's next try gets it.
		expect(s, s.Failed == 0 || s.Name == asManyAsPods+rebuilt, "%d calls of the plugin failed: %v", s.Failed, s.Errors)
		expect(s, s.Done == s.Pods, "%d of %d pods", s.Done, s.Pods)
		expect(s, s.Doubled == 0, "%d addresses are on two pods", s.Doubled)
		expect(s, s.Left == 0, "%d pods are gone and hold an address", s.Left)
		expect(s, s.Audited > 0, "the API server saw no request: nothing can be told")
		switch {
		case strings.HasSuffix(s.Name, deleted):
			expect(s, all.of(waited) == 0, "%d requests while DEL waits", all.of(waited))
		case s.Name == onItsNode:
			expect(s, all.changes(waited)+all.changes(ahead) == 0, "%d changes for pods that come back", all.changes(waited)+all.changes(ahead))
			expect(s, s.Kept == s.Pods, "%d of %d pods kept their address", s.Kept, s.Pods)
		case s.Name == toTheNext:
			expect(s, s.Kept == s.Pods, "%d of %d pods kept their address", s.Kept, s.Pods)
		}
	}
	if len(r.Stages) == 0 {
		wrong = append(wrong, "nothing was measured")
	}
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "\n  "))
	}
	return nil
}
