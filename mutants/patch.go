package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// mutant is a bug to plant.
type mutant struct {
	name  string // of the file, without .patch
	path  string
	bug   string
	tests []suite
	files []string // that the patch changes, by their path in the tree
}

// suite is tests of one package, with what they are told by the environment.
type suite struct {
	pkg string
	// parent is the test that all of them are subtests of, or empty.
	parent string
	tests  []string // by their full names
	env    []string
}

// readSuite reads "./package TestName|TestOther KEY=VALUE".
func readSuite(line string) (suite, error) {
	words := strings.Fields(line)
	if len(words) < 2 {
		return suite{}, fmt.Errorf("want \"Tests: ./package TestName\", not %q", line)
	}
	s := suite{pkg: words[0], tests: strings.Split(words[1], "|"), env: words[2:]}
	s.parent = above(s.tests[0])
	for _, test := range s.tests {
		if above(test) != s.parent {
			return suite{}, fmt.Errorf("%q and %q are not subtests of one test: give each a line \"Tests:\"", s.tests[0], test)
		}
	}
	return s, nil
}

// readMutants returns the patches in dir whose names begin with one of only,
// all of them where it is empty.
func readMutants(dir string, only []string) ([]mutant, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil {
		return nil, err
	}
	var mutants []mutant
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".patch")
		if !chosen(name, only) {
			continue
		}
		m, err := readMutant(name, path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		mutants = append(mutants, m)
	}
	if len(mutants) == 0 {
		return nil, fmt.Errorf("no patch in %s begins with %q", dir, only)
	}
	return mutants, nil
}

func chosen(name string, only []string) bool {
	for _, prefix := range only {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return len(only) == 0
}

func readMutant(name, path string) (mutant, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return mutant{}, err
	}
	label, diff, _ := strings.Cut(string(text), "\n--- a/")
	fields := readLabel(label)
	for _, key := range []string{"Bug", "Seen", "Breaks", "Tests"} {
		if len(fields[key]) == 0 {
			return mutant{}, fmt.Errorf("its label has no %q (see doc.go)", key)
		}
	}
	m := mutant{name: name, path: path, bug: fields["Bug"][0]}
	for _, line := range fields["Tests"] {
		s, err := readSuite(line)
		if err != nil {
			return mutant{}, err
		}
		m.tests = append(m.tests, s)
	}
	for line := range strings.Lines(diff) {
		if file, ok := strings.CutPrefix(line, "+++ b/"); ok {
			file, _, _ = strings.Cut(strings.TrimSpace(file), "\t")
			m.files = append(m.files, file)
		}
	}
	if len(m.files) == 0 {
		return mutant{}, fmt.Errorf("it changes no file: want a unified diff with a/ and b/")
	}
	return m, nil
}

// readLabel returns the fields of a label by their names.
func readLabel(label string) map[string][]string {
	fields := map[string][]string{}
	key := ""
	for line := range strings.Lines(label) {
		line = strings.TrimRight(line, "\n")
		if before, after, ok := strings.Cut(line, ": "); ok && !strings.HasPrefix(line, " ") {
			key = before
			fields[key] = append(fields[key], after)
		} else if n := len(fields[key]); n > 0 && strings.HasPrefix(line, " ") {
			fields[key][n-1] += " " + strings.TrimSpace(line)
		}
	}
	return fields
}

// plant writes the files of the tree with the bug in them, and the overlay
// that puts them in place of the originals, below scratch. It returns the
// path of the overlay.
func (m *mutant) plant(ctx context.Context, tree, scratch string) (string, error) {
	dir := filepath.Join(scratch, m.name)
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	replace := map[string]string{}
	for _, file := range m.files {
		text, err := os.ReadFile(filepath.Join(tree, file))
		if err != nil {
			return "", fmt.Errorf("%w\n%s", err, m.howToRefresh())
		}
		copied := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(copied), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(copied, text, 0o644); err != nil {
			return "", err
		}
		replace[filepath.Join(tree, file)] = copied
	}
	apply := exec.CommandContext(ctx, "git", "apply", m.path)
	apply.Dir = dir
	// Or git finds the repository around the copies and looks at that.
	apply.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+scratch)
	if out, err := apply.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s does not apply any more: %s\n%s", m.path, bytes.TrimSpace(out), m.howToRefresh())
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, overlay, 0o644)
}

// howToRefresh tells how to make a patch fit the code again.
func (m *mutant) howToRefresh() string {
	return fmt.Sprintf(`The code has changed. Plant the bug again, where %[2]s have no changes of your own:
	edit them by hand to do what the label of mutants/%[1]s.patch says, then
	{ sed '/^--- a/,$d' mutants/%[1]s.patch; git diff --no-color %[2]s | sed '/^diff /d; /^index /d'; } >build/refreshed
	git checkout -- %[2]s && mv build/refreshed mutants/%[1]s.patch
	make mutants ONLY=%[1]s`, m.name, strings.Join(m.files, " "))
}
