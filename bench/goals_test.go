package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-ipam/holdfast/bench/process"
)

// figures is a run of two rounds in which every goal is met.
func figures() *report {
	r := newReport(options{
		systems: []string{holdfastName, hostLocalName, whereaboutsName},
		pods:    10, rounds: 2, limit: time.Minute,
	})
	for round := 1; round <= 2; round++ {
		at := func(system, name string, ms, seconds float64) *stage {
			s := &stage{
				Round: round, System: system, Name: name, Concurrency: 1, Pods: 10, Done: 10,
				Seconds: seconds, Add: []float64{ms, ms}, CPU: map[string]float64{}, Memory: process.Memory{Peak: 30 << 10},
			}
			r.Stages = append(r.Stages, s)
			return s
		}
		at(holdfastName, amongPlenty, 2, 1)
		at(hostLocalName, amongPlenty, 2, 1)
		at(whereaboutsName, amongPlenty, 100, 20)
		at(holdfastName, asManyAsPods, 5, 1)
		at(holdfastName, samePods, 1, 1)
		at(holdfastName, onItsNode, 1, 1).Requests = []requests{{request{ahead, "get", "ipblocks"}, 10}}
		at(holdfastName, onItsNode+deleted, 1, 1)
		at(holdfastName, ofSmallPools, 5, 1)
		at(holdfastName, ofPools48, 5, 1)
		at(holdfastName, oneOfMany, 5, 1)
		idle := at(holdfastName, unasked, 0, 60)
		idle.Concurrency, idle.Pods, idle.Done, idle.Add = 0, 0, 0, nil
	}
	return r
}

// change alters the stages of that system and name, in so many rounds.
func (r *report) change(rounds int, system, name string, f func(*stage)) {
	for _, s := range r.Stages {
		if s.Round <= rounds && s.System == system && s.Name == name {
			f(s)
		}
	}
}

func TestGoalIsMetByWhatWasMeasuredAndByNothingElse(t *testing.T) {
	for _, c := range []struct {
		goal, met string
		spoil     func(*report)
	}{
		{"no slower than host-local at p50", "within the spread", func(r *report) {
			r.change(2, holdfastName, amongPlenty, func(s *stage) { s.Add = []float64{3, 3} })
			r.Stages = append(r.Stages, &stage{Round: 3, System: holdfastName, Name: amongPlenty, Concurrency: 1, Add: []float64{1}},
				&stage{Round: 3, System: hostLocalName, Name: amongPlenty, Concurrency: 1, Add: []float64{2}})
		}},
		{"no slower than host-local at p99", "no", func(r *report) {
			r.change(2, holdfastName, amongPlenty, func(s *stage) { s.Add = []float64{2, 3} })
		}},
		{"10 times the pods a second of whereabouts", "no", func(r *report) {
			r.change(2, whereaboutsName, amongPlenty, func(s *stage) { s.Seconds = 9 })
		}},
		{"no ADD fails: as many as pods", "no", func(r *report) { r.change(1, holdfastName, asManyAsPods, func(s *stage) { s.Failed = 1 }) }},
		{"no ADD fails: as many as pods", "no", func(r *report) { r.change(1, holdfastName, asManyAsPods, func(s *stage) { s.Done = 9 }) }},
		{"same UID again", "no", func(r *report) {
			r.change(1, holdfastName, samePods, func(s *stage) { s.Requests = []requests{{request{waited, "get", "ipblocks"}, 1}} })
		}},
		{"again on its node", "no", func(r *report) {
			r.change(1, holdfastName, onItsNode, func(s *stage) { s.Requests = []requests{{request{ahead, "patch", "ipblocks"}, 1}} })
		}},
		{"ahead: DEL", "no", func(r *report) {
			r.change(1, holdfastName, onItsNode+deleted, func(s *stage) { s.Requests = []requests{{request{waited, "get", "ipblocks"}, 1}} })
		}},
		{"under 40 MiB", "no", func(r *report) {
			r.change(1, holdfastName, samePods, func(s *stage) { s.Memory.Peak = 41 << 10 })
		}},
		{"of a core", "no", func(r *report) {
			r.change(1, holdfastName, unasked, func(s *stage) { s.CPU[beside] = 60 * nodeCount * 3 * idleCPU })
		}},
		{"requests a minute", "no", func(r *report) {
			r.change(1, holdfastName, unasked, func(s *stage) {
				s.Requests = []requests{{request{background, "get", "leases"}, 3 * 60 * nodeCount}}
			})
		}},
		{"p50: pools of an IPv6 /48", "no", func(r *report) {
			r.change(2, holdfastName, ofPools48, func(s *stage) { s.Add = []float64{6, 6} })
		}},
	} {
		before := figures().goals()
		r := figures()
		c.spoil(r)
		if got := met(before, c.goal); got != "yes" {
			t.Errorf("%s: %q, want it met\n%s", c.goal, got, printed(before))
		}
		if got := met(r.goals(), c.goal); got != c.met {
			t.Errorf("%s: %q, want %q\n%s", c.goal, got, c.met, printed(r.goals()))
		}
	}
}

// met returns what the table says of a goal.
func met(t table, goal string) string {
	i := slices.IndexFunc(t.rows, func(cells []string) bool { return strings.Contains(cells[0], goal) })
	if i < 0 {
		return "no such goal"
	}
	return t.rows[i][2]
}

func printed(t table) string {
	var out bytes.Buffer
	_ = t.text(&out) // a buffer takes everything
	return out.String()
}

func TestGoalThatWasNotMeasuredIsNotTold(t *testing.T) {
	r := newReport(options{systems: []string{holdfastName}, scenarios: []string{unasked}, pods: 10, rounds: 1, limit: time.Minute})
	if got := r.goals(); len(got.rows) != 0 {
		t.Errorf("of nothing it tells\n%s", printed(got))
	}
	if got := (ratio{}).met(true, 1); got == "yes" {
		t.Error("a ratio of nothing meets a goal")
	}
}

func TestStepsAreComparedWithinTheirSystem(t *testing.T) {
	for name, want := range map[string]string{
		ofPools8: ofSmallPools, ofPools48 + deleted: ofSmallPools + deleted, oneOfMany + again: alone + again,
		ofSmallPools: "", alone: "", amongPlenty: "",
	} {
		if got := comparedWith(name); got != want {
			t.Errorf("%s is compared with %q, want %q", name, got, want)
		}
	}
	r := figures()
	got := r.besides()
	if len(got.rows) != 1 || got.rows[0][2] != ofSmallPools+", 1 at a time" || got.rows[0][3] != "1.00 (1.00 to 1.00)" {
		t.Errorf("compared:\n%s", printed(got))
	}
}

func TestPageHasAllTablesAndEveryCellInItsColumn(t *testing.T) {
	r := figures()
	r.Stages[0].Errors = map[string]int{"a|b": 1}
	var out bytes.Buffer
	if err := r.print(&out, (*table).markdown); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\n### Goals\n", "\n| goal | measured | met |\n|---|---|---|\n", "| plenty, 1 at a time | holdfast | 2.0 | 2.0 |",
		"|  | host-local | 2.0 |", `| 1 | a\|b |`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}

func TestSystemIsSaidToLackWhatIsNotMeasuredWithIt(t *testing.T) {
	o := options{scenarios: scenarioNames(), systems: names(), concurrency: []int{1, 10}}
	for _, name := range names() {
		want := 0
		for _, scenario := range scenarioNames() {
			if lacks(name, scenario) == "" {
				want += len(o.scenario(scenario))
			}
		}
		if got := len(o.chosen(name, 1)); got != want {
			t.Errorf("%s plays %d scenarios, want %d", name, got, want)
		}
	}
	if got, want := len(o.chosen(holdfastName, 1)), len(scenarioNames())+1; got != want {
		t.Errorf("holdfast plays %d scenarios, want all %d", got, want)
	}
	for name, fewer := range map[string]int{holdfastName: 1, hostLocalName: 0, whereaboutsName: 1, slicesName: 2} {
		if first, second := o.chosen(name, 1), o.chosen(name, 2); len(second) != len(first)-fewer {
			t.Errorf("%s plays %d scenarios first and %d then, want %d fewer", name, len(first), len(second), fewer)
		}
	}
	r := newReport(o)
	r.Rounds = 2
	for want, told := range map[string]bool{
		"not measured: its addresses": true, "first round only: to it": true, "first round only: it is compared": true, "holdfast not": false,
	} {
		if got := strings.Contains(strings.Join(strings.Fields(printed(r.lacking())), " "), want); got != told {
			t.Errorf("that it says %q is %t:\n%s", want, got, printed(r.lacking()))
		}
	}
}

func TestTimesOfAShortRunOrABusyMachineAreNotForQuoting(t *testing.T) {
	for _, c := range []struct {
		pods, rounds int
		load         float64
		warned       bool
	}{{1000, 5, 0.1, false}, {100, 5, 0.1, true}, {1000, 1, 0.1, true}, {1000, 5, 2, true}} {
		r := figures()
		r.Pods, r.Rounds, r.Machine.Load = c.pods, c.rounds, c.load
		if got := strings.Contains(r.conditions().note, "say little"); got != c.warned {
			t.Errorf("%+v: warned is %t", c, got)
		}
	}
}

func TestTablesAreMadeAnewOfTheFiguresOfARun(t *testing.T) {
	o := options{
		systems: []string{hostLocalName, holdfastName}, scenarios: []string{inPlenty, inCrowd},
		pods: 10, rounds: 2, limit: time.Minute, out: t.TempDir(),
	}
	if err := Main(t.Context(), []string{"bench", "--render", "--out", o.out}); err == nil || !strings.Contains(err.Error(), "without --render first") {
		t.Errorf("without figures: %v", err)
	}
	r := newReport(o)
	r.Stages = figures().Stages
	if err := r.save(); err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(o.out, "tables.md")
	before, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(page); err != nil {
		t.Fatal(err)
	}
	if err := Main(t.Context(), []string{"bench", "--render", "--out", o.out}); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(before), string(after)); diff != "" {
		t.Errorf("the page of the figures read back (-first +again):\n%s", diff)
	}
}
