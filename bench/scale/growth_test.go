package main

import (
	"bytes"
	"context"
	"errors"
	"math"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestGrowthIsNamedByItsExponent(t *testing.T) {
	sizes := []int{100, 300, 1000}
	of := func(f func(n float64) float64) (values []float64) {
		for _, n := range sizes {
			values = append(values, f(float64(n)))
		}
		return values
	}
	for _, c := range []struct {
		what   string
		values []float64
		want   string
	}{
		{"flat", of(func(float64) float64 { return 70 }), "constant (0.00)"},
		{"nearly flat", []float64{100, 104, 97}, "constant (-0.01)"},
		{"root", of(math.Sqrt), "less than linear (0.50)"},
		{"with agents", of(func(n float64) float64 { return 3 * n }), "linear (1.00)"},
		{"with their square", of(func(n float64) float64 { return n * n }), "WORSE than linear (2.00)"},
		{"a few", []float64{1, 2, 1}, "-"},
		{"nothing", []float64{0, 0, 50}, "-"},
	} {
		if got := grows(sizes, c.values, noise); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
	if got := grows(sizes[:1], []float64{1000}, noise); got != "-" {
		t.Errorf("one size alone grows %q", got)
	}
}

// small is a report of two sizes: at rest an agent asks once in 10 seconds, and
// a pod costs two requests and an event for every agent.
func small() *report {
	r := newReport(options{rate: 10, batch: 1, holdDown: time.Minute, quiet: time.Second, idle: time.Second})
	for _, n := range []int{10, 100} {
		at := func(name string, seconds float64, pods, requests, events int) {
			r.Stages = append(r.Stages, &stage{
				Agents: n, Name: name, Doing: seconds, Seconds: seconds, Pods: pods, Memory: Memory{Heap: uint64(n) << 20},
				Elected: share{Agents: 1},
				Others:  share{Agents: n - 1, Kinds: []figure{{kind{"watch", "pods"}, count{Requests: requests, Events: events}}}},
			})
		}
		at(idle, 100, 0, 10*n, 0)
		at(podStarts, 10, 50, n+100, 50*n)
	}
	return r
}

func TestWhatIsAskedAtRestIsNoCostOfPods(t *testing.T) {
	r := small()
	for _, n := range []int{10, 100} {
		if got := r.perPod(asked)(r.at(n, podStarts)); got != 2 {
			t.Errorf("with %d agents a pod costs %g requests, want 2", n, got)
		}
		if got := r.beyond(r.at(n, idle), asked); got != float64(10*n) {
			t.Errorf("%d agents ask %g times at rest, want %d", n, got, 10*n)
		}
	}
}

func TestPaperGoesOnOnTheLineThatWasMeasured(t *testing.T) {
	r := small()
	for _, c := range []struct {
		of   figureOf
		want float64
	}{
		{r.perPod(asked), 2},           // constant
		{r.perPod(events), paperNodes}, // one for each agent
	} {
		p, ok := r.project(unit{podStarts, "", c.of})
		if !ok || math.Abs(p.value-c.want) > 1e-6*c.want {
			t.Errorf("projected to %g (%s), want %g", p.value, p.how, c.want)
		}
	}
	if _, ok := r.project(unit{setUp, "", asked}); ok {
		t.Error("a phase that was not measured is projected")
	}
}

func TestTablesHaveEachFigureInItsPlace(t *testing.T) {
	var out bytes.Buffer
	if err := small().print(&out); err != nil {
		t.Fatal(err)
	}
	lines := map[string]bool{}
	for line := range strings.Lines(out.String()) {
		lines[strings.Join(strings.Fields(line), " ")] = true
	}
	for _, want := range []string{
		"watch pods 100 (1.00) 1000 (10.00) linear (1.00)",
		"watch pods 110 (11.00) 200 (20.00) constant (0.00)",
		"pods, events 500 (50.00) 5000 (500.00) linear (1.00)",
		"memory of an agent, MiB of heap and stacks 1.000 1.000 constant (0.00)",
		"pod starts requests for a pod 2.000 2.000 constant (0.00)",
		"watch events for a pod 10.0 100 linear (1.00)",
		"pod starts, requests 2.000 (mean of 2) x 150000 pods = 300000",
		"at 10 pods a second, watch events a second 5000 (line: 0 + 1 x 5000) x 10 pods = 50000",
	} {
		if !lines[want] {
			t.Errorf("no line %q in\n%s", want, &out)
		}
	}
}

func TestWritesThatEveryAgentIsToldOfAreCountedApart(t *testing.T) {
	r := small()
	for _, n := range []int{10, 100} {
		r.Stages = append(r.Stages, &stage{Agents: n, Name: startUp, Seconds: 1, Others: share{Kinds: []figure{
			{kind{"watch", "spiderendpoints"}, count{Requests: n}}, {kind{"watch", "pods"}, count{Requests: n}},
			{kind{"watch", "statefulsets"}, count{Requests: 1}},
		}}})
		s := r.at(n, podStarts)
		s.Others.Kinds = append(s.Others.Kinds,
			figure{kind{"create", "spiderendpoints"}, count{Requests: 50}},
			figure{kind{"update", "spiderendpoints/status"}, count{Requests: 25}},
			figure{kind{"get", "spiderendpoints"}, count{Requests: 1000}},
			figure{kind{"patch", "pods"}, count{Requests: 1000}},
			figure{kind{"patch", "statefulsets"}, count{Requests: 1000}})
		if got := r.toldToAll(s); got != 75 {
			t.Errorf("%g writes are told to all, want 75", got)
		}
	}
	var out bytes.Buffer
	r.seats(&out)
	if want := "1.500 (mean of 2) writes x 10 x 2.50\t= 38"; !strings.Contains(out.String(), want) {
		t.Errorf("no %q in\n%s", want, &out)
	}
	if got := seatSeconds(11); got != 0.01 {
		t.Errorf("11 watches take %g seat-seconds, want two seats for 5 ms", got)
	}
}

func TestElectedAgentsAreCountedApart(t *testing.T) {
	k := kind{"get", "leases"}
	reading := func(a, b, c int) *Reading {
		return &Reading{
			Kinds:    map[string]tally{"a": {k: {Requests: a}}, "b": {k: {Requests: b}}, "c": {k: {Requests: c}}},
			Sent:     map[string]int64{"a": int64(a)},
			Received: map[string]int64{"c": int64(c)},
		}
	}
	var e electedAgents
	e.begin()
	e.note("b")
	e.begin() // who is elected stays so
	e.note("c")
	var s stage
	s.divide(reading(1, 2, 3), reading(11, 22, 33), e.since())
	if got := s.Others.tally()[k].Requests; got != 10 || s.Others.Agents != 1 || s.Others.Sent != 10 {
		t.Errorf("the others: %+v", s.Others)
	}
	if got := s.Elected.tally()[k].Requests; got != 50 || s.Elected.Agents != 2 || s.Elected.Received != 30 {
		t.Errorf("the elected: %+v", s.Elected)
	}
	if got := s.all()[k].Requests; got != 60 {
		t.Errorf("together %d requests, want 60", got)
	}
	if got := asked(&s); got != 0 {
		t.Errorf("%g requests of the election count as somebody's cost", got)
	}
	if got := nodeOf(podName("node-0007", 12)); got != "node-0007" {
		t.Errorf("the elected agent is taken for that of %s", got)
	}
}

func TestTroubleMakesTheRunFail(t *testing.T) {
	r := small()
	if err := r.judge(); err != nil {
		t.Error(err)
	}
	r.trouble.note("an ADD failed", errors.New("first"))
	r.trouble.note("an ADD failed", errors.New("second"))
	if err := r.judge(); err == nil || !strings.Contains(err.Error(), "2 times: an ADD failed, first: first") {
		t.Errorf("the run ends with %v", err)
	}
}

func TestPodsStartAtTheirRateEachOnce(t *testing.T) {
	nodes := []*node{{name: "a"}, {name: "b"}}
	pods := newPods("p", "", nodes, 20)
	var mu sync.Mutex
	seen, on := map[*pod]int{}, map[*node]int{}
	began := time.Now()
	err := paced(t.Context(), 200, pods, func(_ context.Context, p *pod) error {
		mu.Lock()
		defer mu.Unlock()
		seen[p]++
		on[p.node]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 19*time.Second/200 {
		t.Errorf("20 pods at 200 a second started within %s", took)
	}
	if len(seen) != len(pods) || on[nodes[0]] != 10 || on[nodes[1]] != 10 {
		t.Errorf("%d of %d pods started, %v", len(seen), len(pods), on)
	}
	want := errors.New("no")
	if err := paced(t.Context(), 1000, pods, func(context.Context, *pod) error { return want }); !errors.Is(err, want) {
		t.Errorf("a failure becomes %v", err)
	}
}

func TestAddressOfALivingPodIsSeenTwice(t *testing.T) {
	l := living{by: map[netip.Addr]*pod{}}
	a, b := &pod{address: netip.MustParsePrefix("10.64.0.17/12")}, &pod{address: netip.MustParsePrefix("10.64.0.17/12")}
	for range 2 {
		if l.take(a) != nil {
			t.Error("a pod that has its own address counts as two")
		}
	}
	if l.take(b) != a {
		t.Error("two pods have one address, and nobody sees it")
	}
	l.leave(b)
	if l.take(a) != nil {
		t.Error("an address that was given back counts as in use")
	}
}

func TestLostNodesAreATenthAndNotTheElected(t *testing.T) {
	l := &lab{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		l.nodes = append(l.nodes, &node{name: name})
	}
	lost := l.choose(2, map[string]bool{"e": true})
	if got := strings.Join(namesOf(lost), ""); got != "dc" {
		t.Errorf("lost are %s, want d and c", got)
	}
	if got := strings.Join(namesOf(l.nodes), ""); got != "eba" {
		t.Errorf("left are %s", got)
	}
}
