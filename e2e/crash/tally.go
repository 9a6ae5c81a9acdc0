package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/holdfast-ipam/holdfast/cni"
)

// tally counts what happened.
type tally struct {
	mu sync.Mutex
	// counts is what was asked and played, faults what was broken.
	counts, faults map[string]int
	// refusals are refused ADDs by reason, names and numbers left out.
	refusals map[string]int
	// vague is what differs between two refusals for one reason.
	vague *regexp.Regexp
}

func newTally() *tally {
	return &tally{
		counts: map[string]int{}, faults: map[string]int{}, refusals: map[string]int{},
		vague: regexp.MustCompile(`"[^"]*"|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[a-z/]*[a-z]+(-[a-z])?-[0-9]+(-[0-9]+)*|[0-9]+(\.[0-9]+)*(-28)?|/tmp/[^ ]*`),
	}
}

func (t *tally) add(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[what]++
}

func (t *tally) fault(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults[what]++
}

// refused counts an ADD that got no address.
func (t *tally) refused(err error, impatient bool) {
	reason := "the agent: " + t.vague.ReplaceAllString(err.Error(), "…")
	switch {
	case impatient:
		reason = "the runtime gave up early"
	case errors.Is(err, cni.ErrNoAnswer):
		reason = "no answer in time"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts["ADD refused"]++
	t.refusals[reason]++
}

// line is the state of a run on one line.
func (t *tally) line(living int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, f := t.counts, t.faults
	return fmt.Sprintf("%d sandboxes live; ADD %d, refused %d; DEL %d; kill -9 %d; SIGSTOP %d; lines broken %d; API server paused %d, restarted %d; nodes lost %d",
		living, c["ADD"], c["ADD refused"], c["DEL"], f["kill -9"], f["SIGSTOP"], f["line cut"]+f["line lossy"]+f["line silent"]+f["line late"], f["API server paused"], f["API server restarted"], f["nodes lost"])
}

// table is everything that was counted.
func (t *tally) table() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	section := func(title string, counts map[string]int, order func(x, y string) int) {
		fmt.Fprintf(&b, "%s:\n", title)
		for _, what := range slices.SortedFunc(maps.Keys(counts), order) {
			fmt.Fprintf(&b, "  %7d  %s\n", counts[what], what)
		}
	}
	section("operations", t.counts, strings.Compare)
	section("faults", t.faults, strings.Compare)
	section("refused ADDs by reason", t.refusals, func(x, y string) int {
		return cmp.Or(t.refusals[y]-t.refusals[x], strings.Compare(x, y))
	})
	return b.String()
}
