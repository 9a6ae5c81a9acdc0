package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// event is what `go test -json` writes (`go doc test2json`).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// outcome is how a test ended; the zero value is a test that did not.
type outcome int

const (
	unfinished outcome = iota
	passed
	failed
	skipped
)

// result is one case: a test without subtests, a test that failed although
// none of its subtests did, or a package that failed although none of its
// tests did (it did not compile, or the process died).
type result struct {
	pkg, test string
	outcome   outcome
	reason    string
}

func (r result) name() string { return strings.TrimSpace(r.pkg + " " + r.test) }

func (r result) count() count {
	switch r.outcome {
	case passed:
		return count{passed: 1}
	case skipped:
		return count{skipped: 1}
	default:
		return count{failed: 1}
	}
}

// key names a test; a package has no test name.
type key struct{ pkg, test string }

// log is what is known of the tests of one run.
type log struct {
	order   []key
	outcome map[key]outcome
	// said is the last output that says something, the reason of a skip or a
	// failure.
	said map[key]string
	// parent holds tests with subtests, and packages with tests.
	parent map[key]bool
	// failedBelow holds the parents of which a child failed.
	failedBelow map[key]bool
}

// read turns a run's events into its cases, in the order they began, up to the
// first that cannot be read. A run without any is an error.
func read(r io.Reader) ([]result, error) {
	l := log{outcome: map[key]outcome{}, said: map[key]string{}, parent: map[key]bool{}, failedBelow: map[key]bool{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return l.results(), fmt.Errorf("%.80q is no test event: %w", lines.Text(), err)
		}
		l.take(e)
	}
	results := l.results()
	if err := lines.Err(); err != nil {
		return results, err
	}
	if len(results) == 0 {
		return nil, errors.New("no test ran")
	}
	return results, nil
}

func (l *log) take(e event) {
	k := key{e.Package, e.Test}
	if e.Package == "" {
		return // a build's own events; the package that needed it fails too
	}
	if _, known := l.outcome[k]; !known {
		l.order = append(l.order, k)
		l.outcome[k] = unfinished
		if up, ok := k.above(); ok {
			l.parent[up] = true
		}
	}
	switch e.Action {
	case "output":
		if line := strings.TrimSpace(e.Output); says(line) {
			l.said[k] = line
		}
	case "pass":
		l.outcome[k] = passed
	case "skip":
		l.outcome[k] = skipped
	case "fail":
		l.outcome[k] = failed
	}
}

// says reports whether an output line is the test's own.
func says(line string) bool {
	for _, frame := range []string{"=== ", "--- ", "FAIL", "PASS", "ok  \t", "exit status", "coverage:"} {
		if strings.HasPrefix(line, frame) {
			return false
		}
	}
	return line != ""
}

// above returns the test that k is a subtest of, or its package.
func (k key) above() (key, bool) {
	if k.test == "" {
		return key{}, false
	}
	up := key{pkg: k.pkg}
	if i := strings.LastIndexByte(k.test, '/'); i >= 0 {
		up.test = k.test[:i]
	}
	return up, true
}

func (l *log) results() []result {
	for _, k := range l.order {
		if o := l.outcome[k]; o == failed || o == unfinished {
			for up, ok := k.above(); ok; up, ok = up.above() {
				l.failedBelow[up] = true
			}
		}
	}
	var results []result
	for _, k := range l.order {
		if l.counts(k) {
			results = append(results, result{pkg: k.pkg, test: k.test, outcome: l.outcome[k], reason: l.reason(k)})
		}
	}
	return results
}

// counts reports whether k is a case of its own.
func (l *log) counts(k key) bool {
	o := l.outcome[k]
	if o == failed || o == unfinished {
		return !l.failedBelow[k]
	}
	return k.test != "" && !l.parent[k]
}

func (l *log) reason(k key) string {
	if said := l.said[k]; said != "" {
		return said
	}
	if l.outcome[k] == unfinished {
		return "it began and did not end"
	}
	return "no reason given"
}
