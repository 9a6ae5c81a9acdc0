package main

import (
	"cmp"
	"fmt"
	"slices"
)

// row is a stage of one system over all rounds.
type row struct {
	system, name string
	concurrency  int
	stages       []*stage
}

// rows joins the rounds, in the order in which stages were first measured,
// systems side by side.
func (r *report) rows() []*row {
	var all []*row
	for _, s := range r.Stages {
		i := slices.IndexFunc(all, func(x *row) bool {
			return x.system == s.System && x.name == s.Name && x.concurrency == s.Concurrency
		})
		if i < 0 {
			all = append(all, &row{s.System, s.Name, s.Concurrency, nil})
			i = len(all) - 1
		}
		all[i].stages = append(all[i].stages, s)
	}
	order := map[string]int{}
	for i, x := range all {
		if _, ok := order[x.title()]; !ok {
			order[x.title()] = i
		}
	}
	slices.SortStableFunc(all, func(x, y *row) int {
		return cmp.Or(order[x.title()]-order[y.title()],
			slices.Index(r.Systems, x.system)-slices.Index(r.Systems, y.system))
	})
	return all
}

func (x *row) title() string {
	if x.concurrency == 0 {
		return x.name
	}
	return fmt.Sprintf("%s, %d at a time", x.name, x.concurrency)
}

// sum adds up a figure of all rounds.
func (x *row) sum(f func(*stage) int) int {
	n := 0
	for _, s := range x.stages {
		n += f(s)
	}
	return n
}

func done(s *stage) int { return s.Done }

// perPod divides by the pods that were done, or gives the figure of a round
// where there are none.
func (x *row) perPod(n float64) float64 {
	return n / float64(cmp.Or(x.sum(done), len(x.stages)))
}

// times are the latencies that the row is about: of ADD, or of DEL where
// nothing is added.
func times(s *stage) []float64 {
	if len(s.Add) > 0 {
		return s.Add
	}
	return s.Del
}

// pooled are the latencies of all rounds.
func (x *row) pooled() []float64 {
	var all []float64
	for _, s := range x.stages {
		all = append(all, times(s)...)
	}
	return all
}

// quantile returns the smallest of the values that is not less than the share
// q of them, or 0 without any.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	i := int(q*float64(len(sorted)) + 0.999999)
	return sorted[min(max(i, 1), len(sorted))-1]
}

// rate is pods per second.
func rate(s *stage) float64 {
	if s.Seconds == 0 {
		return 0
	}
	return float64(s.Done) / s.Seconds
}

// median is that of a figure over the rounds.
func (x *row) median(f func(*stage) float64) float64 {
	var all []float64
	for _, s := range x.stages {
		all = append(all, f(s))
	}
	return quantile(all, 0.5)
}

// traffic returns how many requests of the class there were for a pod.
func (x *row) traffic(class string) (reads, writes float64) {
	changes := x.sum(func(s *stage) int { return s.tally().changes(class) })
	all := x.sum(func(s *stage) int { return s.tally().of(class) })
	return x.perPod(float64(all - changes)), x.perPod(float64(changes))
}

// cpu is in milliseconds for a pod.
func (x *row) cpu(who string) float64 {
	total := 0.0
	for _, s := range x.stages {
		total += s.CPU[who]
	}
	return x.perPod(total * 1000)
}

// ratio is a figure of one row as a multiple of that of another, in each round
// that has both. Rounds without the other's are left out.
type ratio []float64

// ratioOf compares a figure of two rows.
func ratioOf(x, y *row, f func(*stage) float64) ratio {
	var all ratio
	for _, a := range x.stages {
		for _, b := range y.stages {
			if a.Round == b.Round && f(b) > 0 {
				all = append(all, f(a)/f(b))
			}
		}
	}
	return all
}

// String is "median (least to most)".
func (r ratio) String() string {
	if len(r) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f (%.2f to %.2f)", quantile(r, 0.5), slices.Min(r), slices.Max(r))
}

// The figures that are compared.
func p50(s *stage) float64 { return quantile(times(s), 0.5) }
func p99(s *stage) float64 { return quantile(times(s), 0.99) }

// peak is what a process of the system had resident at most, in MiB.
func peak(s *stage) float64 { return float64(s.Memory.Peak) / 1024 }
