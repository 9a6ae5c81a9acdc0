package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// report is what a run has found.
type report struct {
	// Machine tells where, Versions to Scenarios what, Pods to Crowd how.
	Machine   machine
	Versions  map[string]string
	Systems   []string
	Scenarios []string
	Pods      int
	Rounds    int
	// Limit is for how long a stage began ADDs, PeerLimit that of Whereabouts.
	Limit     string
	PeerLimit string
	Crowd     int
	Began     time.Time
	Stages    []*stage

	options options
}

// machine is what figures depend on.
type machine struct {
	Cores  int
	Kernel string
	// Load is how many processes wanted to run in the minute before.
	Load float64
}

func newReport(o options) *report {
	r := &report{
		Machine: machine{Cores: runtime.NumCPU()}, Systems: o.systems, Scenarios: o.scenarios,
		Pods: o.pods, Rounds: o.rounds, Limit: o.limit.String(), PeerLimit: o.peerLimit.String(), Crowd: o.crowded, Began: time.Now(), options: o,
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Machine.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(load), &r.Machine.Load) // 0 where it is not told
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
	x := row{name: s.Name, concurrency: s.Concurrency}
	r.say("%s, %s: %d of %d pods in %.1f s, %d failed", s.System, x.title(), s.Done, s.Pods, s.Seconds, s.Failed)
}

// save writes all figures, each latency included, as JSON, and, unless they are
// counts only, the tables for a page.
func (r *report) save() error {
	if err := os.MkdirAll(r.options.out, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if r.options.quick {
		return os.WriteFile(filepath.Join(r.options.out, "quick.json"), append(text, '\n'), 0o644)
	}
	if err := os.WriteFile(filepath.Join(r.options.out, figuresFile), append(text, '\n'), 0o644); err != nil {
		return err
	}
	return r.savePage()
}

// figuresFile has all figures of a run, from which its tables and pictures are
// made.
const figuresFile = "bench.json"

// savePage writes the tables for a page.
func (r *report) savePage() error {
	var page bytes.Buffer
	if err := r.print(&page, (*table).markdown); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.options.out, "tables.md"), page.Bytes(), 0o644)
}

// renderAgain makes the tables of the run whose figures are in the directory.
func renderAgain(o options, out io.Writer) error {
	text, err := os.ReadFile(filepath.Join(o.out, figuresFile))
	if err != nil {
		return fmt.Errorf("no figures, run it without --render first: %w", err)
	}
	r := &report{options: o}
	if err := json.Unmarshal(text, r); err != nil {
		return fmt.Errorf("%s/%s: %w", o.out, figuresFile, err)
	}
	return errors.Join(r.savePage(), r.print(out, (*table).text))
}
