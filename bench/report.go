package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
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
