package main

import (
	"fmt"
	"io"
	"strings"
)

// unit is a figure for one agent, one pod or one lost node, which is to be the
// same however many agents there are.
type unit struct {
	phase, name string
	// of is the figure of a stage for one of them.
	of figureOf
}

// lostOf is how many of so many nodes are lost.
func lostOf(agents int) int { return max(1, agents/10) }

// perPod and perAgent divide what is beyond rest.
func (r *report) perPod(of figureOf) figureOf {
	return func(s *stage) float64 { return r.beyond(s, of) / float64(s.Pods) }
}

func (r *report) perAgent(of figureOf) figureOf {
	return func(s *stage) float64 { return r.beyond(s, of) / float64(s.Agents) }
}

// perLost divides by the nodes that were lost.
func perLost(of figureOf) figureOf {
	return func(s *stage) float64 { return of(s) / float64(lostOf(s.Agents)) }
}

// perSecond is a figure of one of the agents that are not elected, a second.
func perSecond(of func(*share) float64) figureOf {
	return func(s *stage) float64 { return of(&s.Others) / float64(max(1, s.Others.Agents)) / s.Seconds }
}

// The figures that units are made of follow.

// asked are the requests but for those of the election, which go by the time
// that has passed and by nothing else.
func asked(s *stage) float64 {
	n := 0
	for k, c := range s.all() {
		if k.Resource != electionLeases {
			n += c.Requests
		}
	}
	return float64(n)
}

// caused are the requests but for those that agents make without a cause. Since
// the upgrade they look at their Nodes more often than at rest.
func caused(s *stage) float64 {
	n := 0
	for k, c := range s.all() {
		if !k.steady() {
			n += c.Requests
		}
	}
	return float64(n)
}

func events(s *stage) float64 { return float64(s.all().total().Events) }
func received(s *stage) float64 {
	return float64(s.Others.Received+s.Elected.Received) / 1024
}
func serverCPU(s *stage) float64 { return 1000 * s.CPU[ofServer] }

// watches counts those that were begun.
func watches(s *stage) float64 {
	n := 0
	for k, c := range s.all() {
		if k.Verb == "watch" {
			n += c.Requests
		}
	}
	return float64(n)
}

// idleUnits are those of an agent at rest.
func idleUnits() []unit {
	return []unit{
		{idle, "requests of an agent that is not elected, a second", perSecond(func(s *share) float64 { return float64(s.tally().total().Requests) })},
		{idle, "watch events of such an agent, a second", perSecond(func(s *share) float64 { return float64(s.tally().total().Events) })},
		{idle, "bytes such an agent receives, a second", perSecond(func(s *share) float64 { return float64(s.Received) })},
		{idle, "bytes such an agent sends, a second", perSecond(func(s *share) float64 { return float64(s.Sent) })},
		{idle, "CPU milliseconds of an agent, a second", func(s *stage) float64 { return 1000 * s.CPU[ofAgents] / s.Seconds / s.running() }},
		{idle, "memory of an agent, MiB of heap and stacks", (*stage).weight},
		{idle, "requests of the elected agent, a second", func(s *stage) float64 { return float64(s.Elected.tally().total().Requests) / s.Seconds }},
	}
}

// units lists what is to be flat.
func (r *report) allUnits() []unit {
	all := idleUnits()
	for _, phase := range []string{startUp, upgrade} {
		all = append(all,
			unit{phase, "requests for an agent", r.perAgent(asked)},
			unit{phase, "watches an agent begins", r.perAgent(watches)},
			unit{phase, "watch events for an agent", r.perAgent(events)},
			unit{phase, "KiB received for an agent", r.perAgent(received)},
			unit{phase, "CPU milliseconds of the API server for an agent", r.perAgent(serverCPU)})
	}
	for _, phase := range []string{podStarts, podEnds, setUp, setDown} {
		all = append(all,
			unit{phase, "requests for a pod", r.perPod(asked)},
			unit{phase, "of these, writes of kinds that every agent watches", r.perPod(r.toldToAll)},
			unit{phase, "watch events for a pod", r.perPod(events)},
			unit{phase, "KiB received for a pod, by all agents", r.perPod(received)},
			unit{phase, "CPU milliseconds of the API server for a pod", r.perPod(serverCPU)})
	}
	return append(all,
		unit{loss, "requests for a lost node", perLost(caused)},
		unit{loss, "watch events for a lost node", perLost(events)})
}

// values are those of a unit at all sizes.
func (r *report) values(u unit) (sizes []int, values []float64) {
	sizes = r.sizes(u.phase)
	for _, n := range sizes {
		values = append(values, u.of(r.at(n, u.phase)))
	}
	return sizes, values
}

// units is the table of what is to be flat.
func (r *report) units(w io.Writer) {
	fmt.Fprint(w, "\nwhat is to be flat: for one agent, pod or lost node, beyond what is asked at rest and without the election\n\n")
	sizes := r.sizes(idle)
	fmt.Fprintf(w, "\t\t%sGROWS\t\n", columns(sizes, "agents"))
	last := ""
	for _, u := range r.allUnits() {
		sizes, values := r.values(u)
		if len(values) == 0 {
			continue
		}
		title := u.phase
		if title == last {
			title = ""
		}
		last = u.phase
		var cells strings.Builder
		for _, v := range values {
			fmt.Fprintf(&cells, "%s\t", digits(v))
		}
		fmt.Fprintf(w, "%s\t%s\t%s%s\t\n", title, u.name, cells.String(), grows(sizes, values, 0))
	}
}

// digits writes a figure with as many digits as it deserves.
func digits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
