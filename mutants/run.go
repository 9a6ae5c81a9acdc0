package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// outcome is what became of the tests of a suite, by their names.
type outcome struct {
	failed, passed, skipped []string
}

// run runs a suite, with an overlay if there is one. It returns an error when
// the tests cannot be built or did not run.
func run(ctx context.Context, tree, overlay string, s suite) (outcome, error) {
	args := []string{"test", "-json", "-count=1", "-vet=off", "-timeout=2m", "-run", s.pattern()}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	test := exec.CommandContext(ctx, "go", append(args, s.pkg)...)
	test.Dir = tree
	test.Env = append(os.Environ(), s.env...)
	var stderr bytes.Buffer
	test.Stderr = &stderr
	out, err := test.Output()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		return outcome{}, err
	}
	o, said := readEvents(out, s.parent)
	switch {
	case ctx.Err() != nil:
		return outcome{}, ctx.Err()
	case err != nil && len(o.failed) == 0:
		return outcome{}, fmt.Errorf("%s could not be tested: %s", s.pkg, tail(said+stderr.String()))
	case len(o.passed)+len(o.failed)+len(o.skipped) == 0:
		return outcome{}, fmt.Errorf("%s has none of the tests %s: correct the label", s.pkg, strings.Join(s.tests, ", "))
	}
	return o, nil
}

// pattern selects the tests of a suite and nothing else.
func (s *suite) pattern() string {
	levels := []string{}
	var names []string
	for _, test := range s.tests {
		names = append(names, strings.TrimPrefix(test, s.parent+"/"))
	}
	if s.parent != "" {
		levels = append(levels, "^"+s.parent+"$")
	}
	return strings.Join(append(levels, "^("+strings.Join(names, "|")+")$"), "/")
}

// readEvents reads what go test -json prints (go doc test2json): the outcomes
// of the subtests of parent, or of the tests where it is empty.
func readEvents(out []byte, parent string) (o outcome, said string) {
	for line := range bytes.Lines(out) {
		var event struct{ Action, Test, Output string }
		if json.Unmarshal(line, &event) != nil {
			said += string(line)
			continue
		}
		said += event.Output
		if event.Test == "" || above(event.Test) != parent {
			continue
		}
		switch event.Action {
		case "fail":
			o.failed = append(o.failed, event.Test)
		case "pass":
			o.passed = append(o.passed, event.Test)
		case "skip":
			o.skipped = append(o.skipped, event.Test)
		}
	}
	return o, said
}

// above returns the test that a subtest belongs to, or nothing.
func above(test string) string {
	return test[:max(0, strings.LastIndexByte(test, '/'))]
}

// tail returns the end of a long output.
func tail(out string) string {
	const most = 20
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "\n\t")
}

// sound runs every test that a mutant names on the tree as it is, each once
// for every environment. Only a test that passes there can catch a bug.
func sound(ctx context.Context, tree string, mutants []mutant) error {
	var suites []suite
	for _, m := range mutants {
		for _, s := range m.tests {
			i := slices.IndexFunc(suites, func(o suite) bool { return o.pkg == s.pkg && o.parent == s.parent && slices.Equal(o.env, s.env) })
			if i < 0 {
				i = len(suites)
				suites = append(suites, suite{pkg: s.pkg, parent: s.parent, env: s.env})
			}
			for _, test := range s.tests {
				if !slices.Contains(suites[i].tests, test) {
					suites[i].tests = append(suites[i].tests, test)
				}
			}
		}
	}
	for _, s := range suites {
		o, err := run(ctx, tree, "", s)
		if err != nil {
			return err
		}
		if bad := append(o.failed, o.skipped...); len(bad) > 0 {
			return fmt.Errorf("%s: %s fail or are skipped without any bug planted: mend that first", s.pkg, strings.Join(bad, ", "))
		}
		for _, test := range s.tests {
			if !slices.Contains(o.passed, test) {
				return fmt.Errorf("%s has no test %s, which a label names: correct the label", s.pkg, test)
			}
		}
	}
	return nil
}
