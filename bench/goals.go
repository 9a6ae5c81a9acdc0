package main

import (
	"fmt"
	"slices"
	"strings"
)

const (
	// memoryGoal is the most that an agent shall have resident, in MiB.
	memoryGoal = 40
	// tenfold is how many times the pods per second of Whereabouts.
	tenfold = 10
	// An agent that nobody asks shall use at most so much of a core, and make
	// so many requests a second.
	idleCPU, idleRequests = 0.001, 0.1
)

// goals is the table of what Holdfast is to reach, and whether it does. Its
// rows are there for what was measured.
func (r *report) goals() table {
	t := table{
		title: "Goals",
		note:  "A ratio is the median of the rounds (least to most); it is met within the spread if that of some round meets it",
		head:  []string{"goal", "measured", "met"},
	}
	if !r.quotable() {
		t.note += ". The times of this run say little"
	}
	all := r.rows()
	for _, part := range []func(*table, []*row){floorGoals, tenfoldGoals, failureGoals, costGoals, memoryGoals, idleGoals, poolGoals} {
		part(&t, all)
	}
	return t
}

// met says whether a ratio is at most a limit, or at least.
func (r ratio) met(atMost bool, limit float64) string {
	reaches := func(x float64) bool { return x == limit || (x < limit) == atMost }
	switch {
	case len(r) == 0:
		return "not measured"
	case reaches(quantile(r, 0.5)):
		return "yes"
	case slices.ContainsFunc(r, reaches):
		return "within the spread"
	}
	return "no"
}

// plainly is yes or no.
func plainly(met bool) string {
	if met {
		return "yes"
	}
	return "no"
}

// floorGoals: an ADD is no slower than with what writes a file on one node.
func floorGoals(t *table, all []*row) {
	for _, x := range all {
		floor := find(all, hostLocalName, x.title())
		if x.system != holdfastName || floor == nil || x.name != amongPlenty && x.name != amongPlenty+again {
			continue
		}
		half, most := ratioOf(x, floor, p50), ratioOf(x, floor, p99)
		t.add(fmt.Sprintf("ADD no slower than host-local at p50: %s", x.title()), half.String(), half.met(true, 1))
		t.add(fmt.Sprintf("ADD no slower than host-local at p99: %s", x.title()), most.String(), most.met(true, 1))
	}
}

// tenfoldGoals: ten times as many pods a second as with Whereabouts.
func tenfoldGoals(t *table, all []*row) {
	for _, x := range all {
		if x.system != holdfastName || x.name != amongPlenty && x.name != asManyAsPods {
			continue
		}
		for _, name := range []string{whereaboutsName, slicesName} {
			if y := find(all, name, x.title()); y != nil {
				rates := ratioOf(x, y, rate)
				t.add(fmt.Sprintf("%d times the pods a second of %s: %s", tenfold, name, x.title()), rates.String(), rates.met(false, tenfold))
			}
		}
	}
}

// failureGoals: no ADD fails where there are as many addresses as pods.
func failureGoals(t *table, all []*row) {
	for _, name := range []string{asManyAsPods, asManyAsPods + rebuilt} {
		for _, x := range all {
			if x.system != holdfastName || x.name != name {
				continue
			}
			failed, pods := x.sum(func(s *stage) int { return s.Failed }), x.sum(func(s *stage) int { return s.Pods })
			t.add("no ADD fails: "+x.title(), fmt.Sprintf("%d failed, %d of %d pods started", failed, x.sum(done), pods),
				plainly(failed == 0 && x.sum(done) == pods))
		}
	}
}

// costGoals: requests for a pod that its ADD waits for or that are made ahead
// of it are at most those of the design.
func costGoals(t *table, all []*row) {
	for _, c := range []struct {
		what, name    string
		reads, writes float64
	}{
		{"stateless, node with leases", amongPlenty + again, 0, 0},
		{"StatefulSet pod, same UID again", samePods, 0, 0},
		{"StatefulSet pod, again on its node", onItsNode, 1, 0},
		{"StatefulSet pod, first time", atFirst, 1, 2},
		{"StatefulSet pod, on another node", toTheNext, 3, 2},
		{"DEL", deleted, 0, 0},
	} {
		whole := &row{}
		for _, x := range all {
			if x.system == holdfastName && (x.name == c.name || c.name == deleted && strings.HasSuffix(x.name, deleted)) {
				whole.stages = append(whole.stages, x.stages...)
			}
		}
		if len(whole.stages) == 0 {
			continue
		}
		reads, writes := whole.traffic(waited)
		early, changes := whole.traffic(ahead)
		t.add(fmt.Sprintf("at most %g+%g requests waited for or ahead: %s", c.reads, c.writes, c.what),
			fmt.Sprintf("%s, of them waited for %s", pair(reads+early, writes+changes), pair(reads, writes)),
			plainly(reads+early <= c.reads && writes+changes <= c.writes))
	}
}

// memoryGoals: an agent stays small.
func memoryGoals(t *table, all []*row) {
	most, among := map[bool]float64{}, map[bool]string{}
	for _, x := range all {
		if x.system != holdfastName {
			continue
		}
		many := strings.HasPrefix(x.name, oneOfMany)
		for _, s := range x.stages {
			if mib := peak(s); mib > most[many] {
				most[many], among[many] = mib, x.title()
			}
		}
	}
	for _, many := range []bool{false, true} {
		if most[many] > 0 {
			t.add(fmt.Sprintf("peak memory of an agent under %d MiB", memoryGoal),
				fmt.Sprintf("%.1f MiB: %s", most[many], among[many]), plainly(most[many] < memoryGoal))
		}
	}
}

// idleGoals: an agent that nobody asks does next to nothing.
func idleGoals(t *table, all []*row) {
	x := find(all, holdfastName, unasked)
	if x == nil {
		return
	}
	var seconds, cpu float64
	made, elections := 0, 0
	for _, s := range x.stages {
		seconds += s.Seconds * nodeCount
		cpu += s.CPU[beside]
		for k, n := range s.tally() {
			made += n
			if k.Resource == "leases" {
				elections += n
			}
		}
	}
	t.add(fmt.Sprintf("idle: at most %g%% of a core for an agent", idleCPU*100),
		fmt.Sprintf("%.3f%%", 100*cpu/seconds), plainly(cpu/seconds <= idleCPU))
	t.add(fmt.Sprintf("idle: at most %g requests a minute of an agent", idleRequests*60),
		fmt.Sprintf("%.1f, of them %.1f for the election", float64(made)/seconds*60, float64(elections)/seconds*60),
		plainly(float64(made)/seconds <= idleRequests))
}

// poolGoals: neither the size of a pool nor their number matters.
func poolGoals(t *table, all []*row) {
	for _, x := range all {
		y := x.base(all)
		if x.system != holdfastName || y == nil || strings.HasSuffix(x.name, deleted) {
			continue
		}
		half, most := ratioOf(x, y, p50), ratioOf(x, y, p99)
		t.add(fmt.Sprintf("ADD no slower at p50: %s, than: %s", x.title(), y.title()), half.String(), half.met(true, 1))
		t.add(fmt.Sprintf("ADD no slower at p99: %s, than: %s", x.title(), y.title()), most.String(), most.met(true, 1))
	}
}
