package main

import (
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
	mu     sync.Mutex
	counts map[string]int
	// refusals are refused ADDs by reason, names and numbers left out.
	refusals map[string]int
	// vague is what differs between two refusals for one reason.
	vague *regexp.Regexp
}

func newTally() *tally {
	return &tally{
		counts: map[string]int{}, refusals: map[string]int{},
		vague: regexp.MustCompile(`"[^"]*"|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[a-z/]*[a-z]+(-[a-z])?-[0-9]+(-[0-9]+)*|[0-9]+(\.[0-9]+)*(-28)?|/tmp/[^ ]*`),
	}
}

func (t *tally) add(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[what]++
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
	c := t.counts
	return fmt.Sprintf("%d sandboxes live; ADD %d, refused %d; DEL %d; kill -9 %d; SIGSTOP %d; lines broken %d; API server paused %d, restarted %d; nodes lost %d",
		living, c["ADD"], c["ADD refused"], c["DEL"], c["kill -9"], c["SIGSTOP"], c["line cut"]+c["line lossy"]+c["line silent"], c["API server paused"], c["API server restarted"], c["nodes lost"])
}

// table is everything that was counted.
func (t *tally) table() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(t.counts)) {
		fmt.Fprintf(&b, "  %7d  %s\n", t.counts[what], what)
	}
	b.WriteString("refused ADDs by reason:\n")
	for _, why := range slices.SortedFunc(maps.Keys(t.refusals), func(x, y string) int { return t.refusals[y] - t.refusals[x] }) {
		fmt.Fprintf(&b, "  %7d  %s\n", t.refusals[why], why)
	}
	return b.String()
}
