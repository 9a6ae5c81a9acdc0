package main

import (
	"fmt"
	"io"
)

// What the paper is about.
const (
	paperNodes = 5000
	paperPods  = 150_000
)

// projected is a figure at paperNodes, and how it was got.
type projected struct {
	value float64
	how   string
}

// project takes a figure to paperNodes: as the mean of what was measured where
// that is constant, and on the line through it where it is not.
func (r *report) project(u unit) (p projected, ok bool) {
	sizes, values := r.values(u)
	if len(values) == 0 {
		return p, false
	}
	xs, sum := make([]float64, len(sizes)), 0.0
	for i, n := range sizes {
		xs[i] = float64(n)
		sum += values[i]
	}
	e, grown := exponent(sizes, values)
	if !grown || way(e) == constant {
		mean := sum / float64(len(values))
		return projected{mean, fmt.Sprintf("%s (mean of %d)", digits(mean), len(values))}, true
	}
	a, b := fit(xs, values)
	at := a + b*paperNodes
	return projected{at, fmt.Sprintf("%s (line: %.4g + %.4g x %d)", digits(at), a, b, paperNodes)}, true
}

// paper is what a large cluster would cost.
func (r *report) paper(w io.Writer) {
	fmt.Fprintf(w, "\non paper: %d nodes and %d pods, from the slopes above. Watch events of a pool tell of all its pods; their size is that which was measured\n\n", paperNodes, paperPods)
	line := func(title string, u unit, times float64, of string) {
		p, ok := r.project(u)
		if !ok || p.value == 0 {
			return
		}
		if times == 1 {
			fmt.Fprintf(w, "%s\t%s\t\n", title, p.how)
			return
		}
		fmt.Fprintf(w, "%s\t%s x %.0f %s\t= %s\t\n", title, p.how, times, of, digits(p.value*times))
	}
	rest := idleUnits()
	line("at rest, requests a second", rest[0], paperNodes, "agents")
	for _, k := range r.kindsOf(idle) {
		line("  "+k.Verb+" "+k.Resource, unit{idle, "", perSecond(func(s *share) float64 { return float64(s.tally()[k].Requests) })}, paperNodes, "agents")
	}
	line("at rest, watch events a second", rest[1], paperNodes, "agents")
	line("at rest, bytes received a second", rest[2], paperNodes, "agents")
	line("at rest, cores of the API server", unit{idle, "", func(s *stage) float64 { return s.CPU[ofServer] / s.Seconds }}, 1, "")
	line("at rest, MiB of the API server", unit{idle, "", func(s *stage) float64 { return float64(s.Server) / 1024 }}, 1, "")
	line("watches that are open", unit{startUp, "", r.perAgent(watches)}, paperNodes, "agents")
	for _, phase := range []string{startUp, upgrade} {
		line(phase+", requests", unit{phase, "", r.perAgent(asked)}, paperNodes, "agents")
		line(phase+", watch events", unit{phase, "", r.perAgent(events)}, paperNodes, "agents")
		line(phase+", KiB received", unit{phase, "", r.perAgent(received)}, paperNodes, "agents")
	}
	for _, phase := range []string{podStarts, podEnds, setUp, setDown} {
		line(phase+", requests", unit{phase, "", r.perPod(asked)}, paperPods, "pods")
		line("  at "+fmt.Sprint(r.Rate)+" pods a second, watch events a second", unit{phase, "", r.perPod(events)}, float64(r.Rate), "pods")
		line("  at "+fmt.Sprint(r.Rate)+" pods a second, KiB a second", unit{phase, "", r.perPod(received)}, float64(r.Rate), "pods")
		line("  at "+fmt.Sprint(r.Rate)+" pods a second, CPU ms of the API server a second", unit{phase, "", r.perPod(serverCPU)}, float64(r.Rate), "pods")
	}
	line("a tenth lost, requests", unit{loss, "", perLost(caused)}, float64(lostOf(paperNodes)), "nodes")
}
