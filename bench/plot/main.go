// Command plot draws what the benchmark has measured: for each stage how many
// ADDs were answered within which time, and what a pod costs the API server.
//
// It is a module of its own, so that what draws is no requirement of the
// product.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	if err := Main(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "plot:", err)
		os.Exit(1)
	}
}

// Main reads the command line: the directory that has bench.json and gets the
// pictures.
func Main(args []string) error {
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	dir := flags.String("dir", ".", "`directory` that has bench.json and gets the pictures")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	return Run(*dir)
}

// Run draws all pictures.
func Run(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "bench.json"))
	if err != nil {
		return fmt.Errorf("no figures, `make bench` makes them: %w", err)
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("%s/bench.json: %w", dir, err)
	}
	groups := r.groups()
	for _, g := range groups {
		if err := drawLatency(g, filepath.Join(dir, "latency-"+fileName(g.title)+".svg")); err != nil {
			return err
		}
	}
	beside := compared(groups)
	if len(beside) == 0 {
		return nil // one system was measured
	}
	return drawRequests(beside, filepath.Join(dir, "requests.svg"))
}

// fileName makes a title a part of a file's name.
func fileName(title string) string {
	return strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(title), "-"), "-")
}

// report is what this program reads of the benchmark's figures.
type report struct {
	Stages []stage
}

// stage is one step, of one system in one round.
type stage struct {
	System, Name      string
	Concurrency, Done int
	Add               []float64
	Requests          []struct {
		Class, Verb, Resource string
		Count                 int
	}
}

// group is a step of all systems, over all rounds.
type group struct {
	// title is the step's name and how many ADDs there were at a time.
	title, step string
	concurrency int
	systems     []system
}

// compared returns the steps that more than one system took, each with the most
// ADDs at a time that there were.
func compared(groups []group) []group {
	most := map[string]int{}
	for _, g := range groups {
		most[g.step] = max(most[g.step], g.concurrency)
	}
	var some []group
	for _, g := range groups {
		if len(g.systems) > 1 && g.concurrency == most[g.step] {
			some = append(some, g)
		}
	}
	return some
}

// system is what one of them did there.
type system struct {
	name string
	// add is the time of each ADD, in milliseconds.
	add []float64
	// requests is how many there were for a pod, by class.
	requests map[string]float64
	pods     int
}

// groups joins rounds and puts systems side by side. Steps without ADDs are
// left out.
func (r *report) groups() []group {
	var all []group
	find := func(s *stage) *group {
		title := fmt.Sprintf("%s, %d at a time", s.Name, s.Concurrency)
		for i := range all {
			if all[i].title == title {
				return &all[i]
			}
		}
		all = append(all, group{title: title, step: s.Name, concurrency: s.Concurrency})
		return &all[len(all)-1]
	}
	for i := range r.Stages {
		s := &r.Stages[i]
		if len(s.Add) == 0 {
			continue
		}
		find(s).join(s)
	}
	for _, g := range all {
		for _, s := range g.systems {
			for class := range s.requests {
				s.requests[class] /= float64(max(s.pods, 1))
			}
		}
	}
	return all
}

// join adds a round.
func (g *group) join(s *stage) {
	i := 0
	for i < len(g.systems) && g.systems[i].name != s.System {
		i++
	}
	if i == len(g.systems) {
		g.systems = append(g.systems, system{name: s.System, requests: map[string]float64{}})
	}
	mine := &g.systems[i]
	mine.add = append(mine.add, s.Add...)
	mine.pods += s.Done
	for _, r := range s.Requests {
		mine.requests[r.Class] += float64(r.Count)
	}
}
