package main

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// What API priority and fairness (KEP-1040) holds a write to cost beyond its
// execution: a seat for each so many watches that may have to be told, for so
// long (package k8s.io/apiserver/pkg/util/flowcontrol/request, config.go and
// mutating_work_estimator.go). A watch that selects by labels, or by a field of
// a custom resource, counts for every write of its kind; one of a name, or of
// the pods of a node, only for what it selects.
const (
	watchesPerSeat = 10
	secondsPerSeat = 0.005
	// ownSeats are those that an API server with its default settings keeps for
	// agents in kube-system (level workload-high). It lends them more while
	// other levels have some to spare.
	ownSeats = 98
)

// seatSeconds are those of a write that so many watches may have to be told.
func seatSeconds(watches float64) float64 {
	return math.Ceil(watches/watchesPerSeat) * secondsPerSeat
}

// toldToAll counts the writes of kinds that every agent watches, but for pods
// and nodes, of which it watches its own.
func (r *report) toldToAll(s *stage) float64 {
	start := r.at(s.Agents, startUp)
	if start == nil {
		return 0
	}
	n := 0
	for k, c := range s.all() {
		switch k.Verb {
		case "create", "update", "patch", "delete":
			resource, _, _ := strings.Cut(k.Resource, "/")
			of := kind{"watch", resource}
			if resource != "pods" && resource != "nodes" && start.all()[of].Requests >= start.Agents {
				n += c.Requests
			}
		}
	}
	return float64(n)
}

// seats is what writes that pods cause would occupy on paper.
func (r *report) seats(w io.Writer) {
	each := seatSeconds(paperNodes)
	fmt.Fprint(w, "\nAPI priority and fairness on paper\n\n")
	fmt.Fprintf(w, "a write of a kind that every agent watches, seat-seconds\tceil(%d watches / %d) x %.0f ms\t= %.2f\t\n",
		paperNodes, watchesPerSeat, 1000*secondsPerSeat, each)
	for _, phase := range []string{podStarts, podEnds, setUp, setDown} {
		p, ok := r.project(unit{phase, "", r.perPod(r.toldToAll)})
		if !ok {
			continue
		}
		fmt.Fprintf(w, "  %s at %d a second, seats (of %d that agents have of their own)\t%s writes x %d x %.2f\t= %.0f\t\n",
			phase, r.Rate, ownSeats, p.how, r.Rate, each, p.value*float64(r.Rate)*each)
	}
}
