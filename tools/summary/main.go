// Summary reads what `go test -json` wrote and prints what came of it: a line
// for each file, every failure and every skip by name with its reason, and at
// the end "N passed, N failed, N skipped". A test that began and did not end
// counts as failed, and so does a file that is missing, empty or cut off. It
// exits with 1 when something failed.
//
//	summary unit=build/test/unit.json e2e=build/test/e2e.json
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	ok, err := run(os.Stdout, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "summary:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

// run prints the summary of all parts and tells whether nothing failed.
func run(w io.Writer, args []string) (bool, error) {
	if len(args) == 0 {
		return false, errors.New("name at least one part, as in: summary unit=results.json")
	}
	var total count
	for _, arg := range args {
		name, file, _ := strings.Cut(arg, "=")
		results, err := load(file)
		if err != nil {
			results = append(results, result{pkg: name, outcome: failed, reason: err.Error()})
		}
		total.add(show(w, name, results))
	}
	fmt.Fprintf(w, "\n%s\n", total)
	return total.failed == 0, nil
}

// load reads a file of test events, up to the first that cannot be read.
func load(file string) ([]result, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("it left no results: %w", err)
	}
	defer f.Close()
	results, err := read(f)
	if err != nil {
		return results, fmt.Errorf("%s: %w", file, err)
	}
	return results, nil
}

// show prints one part and returns its numbers.
func show(w io.Writer, name string, results []result) count {
	var c count
	for _, r := range results {
		c.add(r.count())
	}
	fmt.Fprintf(w, "%-8s %s\n", name, c)
	for _, r := range results {
		switch r.outcome {
		case passed:
		case skipped:
			fmt.Fprintf(w, "    skipped %s: %s\n", r.name(), r.reason)
		default:
			fmt.Fprintf(w, "    FAILED  %s: %s\n", r.name(), r.reason)
		}
	}
	return c
}

// count is how many cases had which outcome.
type count struct{ passed, failed, skipped int }

func (c *count) add(o count) {
	c.passed += o.passed
	c.failed += o.failed
	c.skipped += o.skipped
}

func (c count) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", c.passed, c.failed, c.skipped)
}
