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

// table is a part of what is printed. A first column without a heading names
// the step, once for all rows that are about it.
type table struct {
	// title says what it shows, note how it is to be read, if there is more
	// to say.
	title, note string
	head        []string
	rows        [][]string
}

// add appends a row.
func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// under returns the title if the row before is about another.
func (t *table) under(title string) string {
	for _, cells := range slices.Backward(t.rows) {
		if cells[0] == title {
			return ""
		}
		if cells[0] != "" {
			break
		}
	}
	return title
}

// text writes the table for a terminal.
func (t *table) text(out io.Writer) error {
	fmt.Fprintf(out, "\n%s\n", strings.TrimSuffix(t.title+". "+t.note, ". "))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\n%s\t\n", strings.ToUpper(strings.Join(t.head, "\t")))
	for _, cells := range t.rows {
		fmt.Fprintf(w, "%s\t\n", strings.Join(cells, "\t"))
	}
	return w.Flush()
}

// markdown writes the table for a page.
func (t *table) markdown(out io.Writer) error {
	var text strings.Builder
	fmt.Fprintf(&text, "\n### %s\n\n", t.title)
	if t.note != "" {
		fmt.Fprintf(&text, "%s.\n\n", t.note)
	}
	line := func(cells []string) {
		for _, c := range cells {
			text.WriteString("| " + strings.ReplaceAll(c, "|", `\|`) + " ")
		}
		text.WriteString("|\n")
	}
	line(t.head)
	text.WriteString(strings.Repeat("|---", len(t.head)) + "|\n")
	for _, cells := range t.rows {
		line(cells)
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// tables are all that there is to print of a run.
func (r *report) tables() []table {
	all := []table{r.times(), r.costs(), r.kinds()}
	if !r.options.quick {
		all = append([]table{r.conditions()}, all...)
		all = append(all, r.ratios(), r.besides(), r.lacking())
	}
	all = append(all, r.troubles())
	if !r.options.quick {
		all = append(all, r.goals())
	}
	return slices.DeleteFunc(all, func(t table) bool { return len(t.rows) == 0 })
}

// print writes the tables.
func (r *report) print(out io.Writer, write func(*table, io.Writer) error) error {
	for _, t := range r.tables() {
		if err := write(&t, out); err != nil {
			return err
		}
	}
	return nil
}

// A run with less than this, or on a machine that has other work, is not one to
// quote times from.
const (
	enoughRounds = 5
	enoughPods   = 1000
	idleLoad     = 0.5
)

// quotable reports whether the run's times say something.
func (r *report) quotable() bool {
	return r.Rounds >= enoughRounds && r.Pods >= enoughPods && r.Machine.Load <= idleLoad
}

// conditions is the table of what figures depend on.
func (r *report) conditions() table {
	t := table{title: "How it was measured", head: []string{"", "value"}}
	if !r.quotable() {
		t.note = fmt.Sprintf("This run shows that everything works, and its times say little: that takes %d rounds of %d pods on a machine that does nothing else. Requests, failures and addresses are counted as on any machine", enoughRounds, enoughPods)
	}
	t.add("when", r.Began.UTC().Format("2006-01-02 15:04 MST"))
	t.add("machine", fmt.Sprintf("%d cores, Linux %s", r.Machine.Cores, r.Machine.Kernel))
	t.add("load of it just before", fmt.Sprintf("%.1f processes", r.Machine.Load))
	t.add("asked for", fmt.Sprintf("%d pods on %d nodes, rounds: %d", r.Pods, nodeCount, r.Rounds))
	t.add("no ADD begins after", r.Limit)
	if r.PeerLimit != r.Limit {
		t.add("no ADD of Whereabouts begins after", r.PeerLimit)
	}
	if slices.Contains(r.Scenarios, inCrowd) {
		t.add("pools where they are many", fmt.Sprint(r.Crowd))
	}
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		t.add(name, r.Versions[name])
	}
	return t
}

// times is the table of latencies and outcomes.
func (r *report) times() table {
	t := table{
		title: fmt.Sprintf("%d pods, rounds: %d, %d cores: time of ADD (of DEL where pods are deleted) in ms", r.Pods, r.Rounds, r.Machine.Cores),
		note:  "A step begins no ADD after " + r.Limit + " (of Whereabouts " + r.PeerLimit + "): where fewer are done than there are pods, that was its end",
		head:  []string{"", "system", "p50", "p99", "max", "pods/s", "pods", "done", "failed", "kept", "left"},
	}
	if r.options.quick {
		t.title, t.note = fmt.Sprintf("%d pods, one round: counts only", r.Pods), ""
		t.head = slices.Delete(t.head, 2, 6)
	}
	for _, x := range r.rows() {
		cells := []string{t.under(x.title()), x.system}
		if !r.options.quick {
			all := x.pooled()
			for _, figure := range []float64{quantile(all, 0.5), quantile(all, 0.99), quantile(all, 1), x.median(rate)} {
				cells = append(cells, fmt.Sprintf("%.1f", figure))
			}
		}
		for _, f := range []func(*stage) int{
			func(s *stage) int { return s.Pods }, done, func(s *stage) int { return s.Failed },
			func(s *stage) int { return s.Kept }, func(s *stage) int { return s.Left },
		} {
			cells = append(cells, fmt.Sprint(x.sum(f)))
		}
		t.add(cells...)
	}
	return t
}

// costs is the table of requests, CPU time and memory.
func (r *report) costs() table {
	t := table{
		title: "Requests for a pod, reads+writes (in a round, where there are no pods)",
		head:  []string{"", "system", "waited for", "ahead", "background", "seen by server"},
	}
	if !r.options.quick {
		t.title += "; CPU milliseconds for a pod; peak memory of an agent in MiB, and without its program's file"
		t.head = append(t.head, "plugins", "agents", "server", "etcd", "memory", "own")
	}
	for _, x := range r.rows() {
		cells := []string{t.under(x.title()), x.system}
		for _, class := range []string{waited, ahead, background} {
			cells = append(cells, pair(x.traffic(class)))
		}
		cells = append(cells, fmt.Sprintf("%.2f", x.perPod(float64(x.sum(func(s *stage) int { return s.Audited })))))
		if !r.options.quick {
			for _, figure := range []float64{
				x.cpu("plugins"), x.cpu(beside), x.cpu("API server"), x.cpu("etcd"),
				x.median(peak),
				x.median(func(s *stage) float64 { return float64(s.Memory.Own) / 1024 }),
			} {
				cells = append(cells, fmt.Sprintf("%.1f", figure))
			}
		}
		t.add(cells...)
	}
	return t
}

// pair is "reads+writes". What is not nothing does not look like it.
func pair(reads, writes float64) string {
	text := func(n float64) string {
		if n > 0 && n < 0.005 {
			return fmt.Sprintf("%.1g", n)
		}
		return fmt.Sprintf("%.2f", n)
	}
	return text(reads) + "+" + text(writes)
}

// kinds is the table of requests by verb and resource.
func (r *report) kinds() table {
	t := table{
		title: "Requests for a pod by kind, those of at least one for a hundred pods",
		head:  []string{"", "system", "requests"},
	}
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
		if len(parts) > 0 {
			t.add(t.under(x.title()), x.system, strings.Join(parts, "; "))
		}
	}
	return t
}

// ratios compares Holdfast with each of the others, round by round.
func (r *report) ratios() table {
	t := table{
		title: "Holdfast as a multiple of each other system",
		note:  "Median of the rounds (least to most). Of p50 and p99, less than 1 is to Holdfast's good, of pods per second more",
		head:  []string{"", "to", "p50", "p99", "pods/s"},
	}
	all := r.rows()
	for _, x := range all {
		mine := find(all, holdfastName, x.title())
		if x.system == holdfastName || mine == nil || x.concurrency == 0 {
			continue
		}
		t.add(t.under(x.title()), x.system, ratioOf(mine, x, p50).String(), ratioOf(mine, x, p99).String(), ratioOf(mine, x, rate).String())
	}
	return t
}

// find returns the row of a system and a step, or nil.
func find(all []*row, system, title string) *row {
	i := slices.IndexFunc(all, func(x *row) bool { return x.system == system && x.title() == title })
	if i < 0 {
		return nil
	}
	return all[i]
}

// besides compares steps of one system with each other.
func (r *report) besides() table {
	t := table{
		title: "Large pools and many pools as a multiple of small ones and of a single one",
		note:  "Median of the rounds (least to most), within each system",
		head:  []string{"", "system", "as a multiple of", "p50", "p99", "pods/s"},
	}
	all := r.rows()
	for _, x := range all {
		if y := x.base(all); y != nil {
			t.add(t.under(x.title()), x.system, y.title(), ratioOf(x, y, p50).String(), ratioOf(x, y, p99).String(), ratioOf(x, y, rate).String())
		}
	}
	return t
}

// base returns the row that a row of the same system is compared with, or nil.
func (x *row) base(all []*row) *row {
	name := comparedWith(x.name)
	if name == "" {
		return nil
	}
	y := *x
	y.name = name
	return find(all, x.system, y.title())
}

// lacking tells what was not measured, or once, and why.
func (r *report) lacking() table {
	t := table{title: "Not measured, or in the first round only", head: []string{"scenario", "system", "why"}}
	for _, scenario := range r.Scenarios {
		for _, system := range r.Systems {
			if why := lacks(system, scenario); why != "" {
				t.add(t.under(scenario), system, "not measured: "+why)
			} else if why = once(system, scenario); why != "" && r.Rounds > 1 {
				t.add(t.under(scenario), system, "first round only: "+why)
			}
		}
	}
	return t
}

// troubles tells what plugins said that failed.
func (r *report) troubles() table {
	t := table{title: "What failed", head: []string{"", "system", "times", "what it said"}}
	for _, x := range r.rows() {
		said := map[string]int{}
		for _, s := range x.stages {
			for text, n := range s.Errors {
				said[text] += n
			}
		}
		for _, text := range slices.Sorted(maps.Keys(said)) {
			t.add(t.under(x.title()), x.system, fmt.Sprint(said[text]), text)
		}
	}
	return t
}
