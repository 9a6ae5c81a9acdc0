package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// compareKinds orders kinds by resource.
func compareKinds(x, y kind) int {
	return cmp.Or(strings.Compare(x.Resource, y.Resource), strings.Compare(x.Verb, y.Verb))
}

// print writes the tables.
func (r *report) print(out io.Writer) error {
	if len(r.Stages) == 0 {
		return nil // a run that was interrupted early
	}
	var err error
	for _, table := range []func(io.Writer){r.overview, r.requests, r.watched, r.units, r.paper, r.seats} {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		table(w)
		err = cmp.Or(err, w.Flush())
	}
	return err
}

const mib = 1 << 20

// overview is the table of times, CPU and memory.
func (r *report) overview(w io.Writer) {
	fmt.Fprintf(w, "\n%d cores, Linux %s, %s; pods at %d a second, %d agents upgraded at a time, hold-down %s\n", r.Cores, r.Kernel, r.Go, r.Rate, r.Batch, r.HoldDown)
	fmt.Fprint(w, "seconds it took (until it was quiet); pods a second that were achieved; ADD in ms; CPU seconds; memory in MiB: for an agent (heap and stacks, resident), and of the API server\n\n")
	fmt.Fprint(w, "\tAGENTS\tSECONDS\tQUIET\tPODS\tPODS/S\tP50\tP99\tMAX\tCPU AGENTS\tSERVER\tETCD\tRUN\tMEMORY\tRESIDENT\tSERVER\t409\t429\tFAILED\t\n")
	for _, phase := range r.phases() {
		title := phase
		for _, n := range r.sizes(phase) {
			s := r.at(n, phase)
			sum := s.all().total()
			fmt.Fprintf(w, "%s\t%d\t%.1f\t%.1f\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.2f\t%.2f\t%.0f\t%d\t%d\t%d\t\n",
				title, n, s.Doing, s.Seconds, s.Pods, s.Rate, s.Adds[0], s.Adds[1], s.Adds[2],
				s.CPU[ofAgents], s.CPU[ofServer], s.CPU[ofEtcd], s.CPU[ofRun],
				s.weight(), s.resident(), float64(s.Server)/1024, sum.Conflicts, sum.Throttled, sum.Failed)
			title = ""
		}
	}
}

// running is how many agents ran at the end of the phase.
func (s *stage) running() float64 {
	n := s.Agents
	if s.Name == loss {
		n -= lostOf(n)
	}
	return float64(n)
}

// weight is the memory of an agent in MiB: an equal share of the heap and the
// stacks of the process of all.
func (s *stage) weight() float64 {
	return float64(s.Memory.Heap+s.Memory.Stacks) / s.running() / mib
}

// resident is the same of all that the process has beside files.
func (s *stage) resident() float64 { return float64(s.Resident) / s.running() / 1024 }

// columns are the sizes at which a phase was measured, as heads of columns.
func columns(sizes []int, of string) string {
	var b strings.Builder
	for _, n := range sizes {
		fmt.Fprintf(&b, "%d %s\t", n, of)
	}
	return b.String()
}

// kindsOf are all kinds of a phase at any size.
func (r *report) kindsOf(phase string) []kind {
	seen := map[kind]bool{}
	for _, n := range r.sizes(phase) {
		for k := range r.at(n, phase).all() {
			seen[k] = true
		}
	}
	return slices.SortedFunc(maps.Keys(seen), compareKinds)
}

// noise is below how many requests or events nothing is said of growth.
const noise = 20

// requests is the table of requests by verb and resource.
func (r *report) requests(w io.Writer) {
	fmt.Fprint(w, "\nrequests of all agents together: how many (a second). GROWS: with the number of agents, beyond what is asked at rest\n")
	for _, phase := range r.phases() {
		sizes := r.sizes(phase)
		fmt.Fprintf(w, "\n%s\t%sGROWS\t\n", phase, columns(sizes, "agents"))
		r.row(w, phase, "all", noise, func(s *stage) float64 { return float64(s.all().total().Requests) })
		for _, k := range r.kindsOf(phase) {
			least := float64(noise)
			if k.Resource == electionLeases && phase != idle {
				least = math.Inf(1) // it goes by the time that has passed
			}
			r.row(w, phase, k.Verb+" "+k.Resource, least, func(s *stage) float64 { return float64(s.all()[k].Requests) })
		}
	}
}

// row is a row of counts of a phase, if there is anything to count. Counts below
// least say nothing of growth.
func (r *report) row(w io.Writer, phase, title string, least float64, of figureOf) {
	var cells strings.Builder
	var more []float64
	sizes, any := r.sizes(phase), false
	for _, n := range sizes {
		s := r.at(n, phase)
		v := of(s)
		any = any || v != 0
		more = append(more, r.beyond(s, of))
		fmt.Fprintf(&cells, "%.0f (%.2f)\t", v, v/s.Seconds)
	}
	if any {
		fmt.Fprintf(w, "  %s\t%s%s\t\n", title, cells.String(), grows(sizes, more, least))
	}
}

// watched is the table of watch events and their bytes.
func (r *report) watched(w io.Writer) {
	fmt.Fprint(w, "\nwatch events of all agents together: how many (a second), and KiB of them, decompressed (a second); bookmarks are among the bytes\n")
	for _, phase := range r.phases() {
		sizes := r.sizes(phase)
		fmt.Fprintf(w, "\n%s\t%sGROWS\t\n", phase, columns(sizes, "agents"))
		for _, k := range r.kindsOf(phase) {
			if k.Verb != "watch" {
				continue
			}
			r.row(w, phase, k.Resource+", events", noise, func(s *stage) float64 { return float64(s.all()[k].Events) })
			r.row(w, phase, k.Resource+", KiB", noise, func(s *stage) float64 { return float64(s.all()[k].Received) / 1024 })
		}
		r.row(w, phase, "connections, KiB received", noise, func(s *stage) float64 { return float64(s.Others.Received+s.Elected.Received) / 1024 })
		r.row(w, phase, "connections, KiB sent", noise, func(s *stage) float64 { return float64(s.Others.Sent+s.Elected.Sent) / 1024 })
	}
}
