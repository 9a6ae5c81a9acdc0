package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// report is what a run has found.
type report struct {
	// Cores, Kernel and Go tell where.
	Cores      int
	Kernel, Go string
	// Rate, HoldDown, Quiet and Idle tell how.
	Rate, Batch           int
	HoldDown, Quiet, Idle string
	Began                 time.Time
	Stages                []*stage
	// Troubles is how often something went wrong, and Said what the first of a
	// kind said.
	Troubles map[string]int
	Said     map[string]string

	trouble *trouble
	speak   sync.Mutex
}

func newReport(o options) *report {
	r := &report{
		Cores: runtime.NumCPU(), Go: runtime.Version(), Began: time.Now(),
		Rate: o.rate, Batch: o.batch, HoldDown: o.holdDown.String(), Quiet: o.quiet.String(), Idle: o.idle.String(),
		trouble: &trouble{counts: map[string]int{}, said: map[string]string{}},
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return r
}

// say tells whoever waits how far it is.
func (r *report) say(format string, args ...any) {
	r.speak.Lock()
	defer r.speak.Unlock()
	fmt.Fprintf(os.Stderr, "%7.1fs  %s\n", time.Since(r.Began).Seconds(), fmt.Sprintf(format, args...))
}

// add keeps a stage.
func (r *report) add(s *stage) {
	r.Stages = append(r.Stages, s)
	sum := s.all().total()
	r.say("%d agents: %s: %.1f s (%.1f s until it was quiet), %d requests, %d watch events, %.1f MiB of answers",
		s.Agents, s.Name, s.Doing, s.Seconds, sum.Requests, sum.Events, float64(sum.Received)/(1<<20))
}

// save writes all figures as JSON.
func (r *report) save(dir string) error {
	r.Troubles, r.Said = r.trouble.read()
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "scale.json"), append(text, '\n'), 0o644)
}

// judge returns an error if anything went wrong that must not.
func (r *report) judge() error {
	counts, said := r.trouble.read()
	if len(counts) == 0 {
		return nil
	}
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d times: %s, first: %s", counts[what], what, said[what]))
	}
	return fmt.Errorf("something went wrong that must not:\n%s", strings.Join(parts, "\n"))
}

// sizes are the numbers of agents of which all phases were measured, or at
// least those that were, in the order of their size.
func (r *report) sizes(phase string) []int {
	var sizes []int
	for _, s := range r.Stages {
		if s.Name == phase {
			sizes = append(sizes, s.Agents)
		}
	}
	return sizes
}

// at returns what was measured of a phase at a size, or nil.
func (r *report) at(agents int, phase string) *stage {
	for _, s := range r.Stages {
		if s.Agents == agents && s.Name == phase {
			return s
		}
	}
	return nil
}

// phases are those that were measured, in their order.
func (r *report) phases() []string {
	var names []string
	for _, s := range r.Stages {
		if !slices.Contains(names, s.Name) {
			names = append(names, s.Name)
		}
	}
	return names
}
