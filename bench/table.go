package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
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
			slices.Index(r.options.systems, x.system)-slices.Index(r.options.systems, y.system))
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

// print writes the tables.
func (r *report) print(out io.Writer) error {
	var err error
	for _, table := range []func(io.Writer){r.times, r.costs, r.kinds, r.ratios, r.troubles} {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		table(w)
		err = cmp.Or(err, w.Flush())
	}
	return err
}

// times is the table of latencies and outcomes.
func (r *report) times(w io.Writer) {
	if r.options.quick {
		fmt.Fprintf(w, "\n%d pods, one round: counts only\n\n\tSYSTEM\tPODS\tDONE\tFAILED\tKEPT\tLEFT\t\n", r.Pods)
	} else {
		fmt.Fprintf(w, "\n%d pods, %d rounds, %d cores: time of ADD (of DEL where pods are deleted) in ms\n\n\tSYSTEM\tP50\tP99\tMAX\tPODS/S\tPODS\tDONE\tFAILED\tKEPT\tLEFT\t\n", r.Pods, r.Rounds, r.Machine.Cores)
	}
	head := heading("")
	for _, x := range r.rows() {
		fmt.Fprintf(w, "%s\t%s\t", head.of(x), x.system)
		if !r.options.quick {
			all := x.pooled()
			fmt.Fprintf(w, "%.1f\t%.1f\t%.1f\t%.1f\t", quantile(all, 0.5), quantile(all, 0.99), quantile(all, 1), x.median(rate))
		}
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t\n", x.sum(func(s *stage) int { return s.Pods }), x.sum(done),
			x.sum(func(s *stage) int { return s.Failed }), x.sum(func(s *stage) int { return s.Kept }), x.sum(func(s *stage) int { return s.Left }))
	}
}

// heading is the title that a table has shown last.
type heading string

// of returns the row's title if it is a new one.
func (h *heading) of(x *row) string {
	if string(*h) == x.title() {
		return ""
	}
	*h = heading(x.title())
	return x.title()
}

// median is that of a figure over the rounds.
func (x *row) median(f func(*stage) float64) float64 {
	var all []float64
	for _, s := range x.stages {
		all = append(all, f(s))
	}
	return quantile(all, 0.5)
}

// costs is the table of requests, CPU time and memory.
func (r *report) costs(w io.Writer) {
	fmt.Fprintf(w, "\nrequests for a pod, reads+writes (in a round, where there are no pods)")
	if !r.options.quick {
		fmt.Fprintf(w, "; CPU milliseconds for a pod; peak memory of an agent in MiB, and without its program's file")
	}
	fmt.Fprint(w, "\n\n\tSYSTEM\tWAITED FOR\tAHEAD\tBACKGROUND\tSEEN BY SERVER\t")
	if !r.options.quick {
		fmt.Fprint(w, "PLUGINS\tAGENTS\tSERVER\tETCD\tMEMORY\tOWN\t")
	}
	fmt.Fprintln(w)
	head := heading("")
	for _, x := range r.rows() {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%.2f\t", head.of(x), x.system, x.traffic(waited), x.traffic(ahead), x.traffic(background),
			x.perPod(float64(x.sum(func(s *stage) int { return s.Audited }))))
		if !r.options.quick {
			fmt.Fprintf(w, "%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t", x.cpu("plugins"), x.cpu(beside), x.cpu("API server"), x.cpu("etcd"),
				x.median(func(s *stage) float64 { return float64(s.Memory.Peak) / 1024 }),
				x.median(func(s *stage) float64 { return float64(s.Memory.Own) / 1024 }))
		}
		fmt.Fprintln(w)
	}
}

// traffic is "reads+writes" for a pod.
func (x *row) traffic(class string) string {
	changes := x.sum(func(s *stage) int { return s.tally().changes(class) })
	reads := x.sum(func(s *stage) int { return s.tally().of(class) }) - changes
	return fmt.Sprintf("%.2f+%.2f", x.perPod(float64(reads)), x.perPod(float64(changes)))
}

// cpu is in milliseconds for a pod.
func (x *row) cpu(who string) float64 {
	total := 0.0
	for _, s := range x.stages {
		total += s.CPU[who]
	}
	return x.perPod(total * 1000)
}

// kinds is the table of requests by verb and resource.
func (r *report) kinds(w io.Writer) {
	fmt.Fprint(w, "\nrequests for a pod by kind, those of at least one for a hundred pods\n")
	head := heading("")
	for _, x := range r.rows() {
		sum := tally{}
		for _, s := range x.stages {
			for k, n := range s.tally() {
				sum[k] += n
			}
		}
		var parts []string
		for _, k := range slices.SortedFunc(maps.Keys(sum), func(a, b request) int {
			return cmp.Or(strings.Compare(b.Class, a.Class), sum[b]-sum[a], strings.Compare(a.Verb+a.Resource, b.Verb+b.Resource))
		}) {
			if n := x.perPod(float64(sum[k])); n >= 0.01 {
				parts = append(parts, fmt.Sprintf("%s %s %s %.2f", k.Class, k.Verb, k.Resource, n))
			}
		}
		if len(parts) == 0 {
			continue
		}
		if title := head.of(x); title != "" {
			fmt.Fprintln(w, title)
		}
		fmt.Fprintf(w, "   %s: %s\n", x.system, strings.Join(parts, "; "))
	}
}

// ratios compares Holdfast with each of the others, round by round.
func (r *report) ratios(w io.Writer) {
	if r.options.quick || len(r.options.systems) < 2 {
		return
	}
	fmt.Fprint(w, "\nHoldfast as a multiple of each other system: median of the rounds (least to most)\n\n\tTO\tP50\tP99\tPODS/S\t\n")
	all := r.rows()
	head := heading("")
	for _, x := range all {
		i := slices.IndexFunc(all, func(y *row) bool { return y.system == holdfastName && y.title() == x.title() })
		if x.system == holdfastName || i < 0 || x.concurrency == 0 {
			continue
		}
		fmt.Fprintf(w, "%s\t%s", head.of(x), x.system)
		for _, f := range []func(*stage) float64{
			func(s *stage) float64 { return quantile(times(s), 0.5) },
			func(s *stage) float64 { return quantile(times(s), 0.99) },
			rate,
		} {
			fmt.Fprintf(w, "\t%s", spread(all[i], x, f))
		}
		fmt.Fprintln(w, "\t")
	}
}

// spread is the ratio of a figure of two systems in each round: "median (least
// to most)".
func spread(x, y *row, f func(*stage) float64) string {
	var ratios []float64
	for _, a := range x.stages {
		for _, b := range y.stages {
			if a.Round == b.Round && f(b) > 0 {
				ratios = append(ratios, f(a)/f(b))
			}
		}
	}
	if len(ratios) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f (%.2f to %.2f)", quantile(ratios, 0.5), slices.Min(ratios), slices.Max(ratios))
}

// troubles tells what plugins said that failed.
func (r *report) troubles(w io.Writer) {
	for _, x := range r.rows() {
		said := map[string]int{}
		for _, s := range x.stages {
			for text, n := range s.Errors {
				said[text] += n
			}
		}
		for _, text := range slices.Sorted(maps.Keys(said)) {
			fmt.Fprintf(w, "\n%s, %s: %d times: %s\n", x.system, x.title(), said[text], text)
		}
	}
}
