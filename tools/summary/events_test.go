package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func events(lines ...string) string { return strings.Join(lines, "\n") + "\n" }

func summarize(t *testing.T, text string) (string, bool) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "run.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	ok, err := run(&out, []string{"unit=" + file})
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), ok
}

func TestSummaryCountsCases(t *testing.T) {
	tests := map[string]struct {
		events string
		last   string
		ok     bool
	}{
		"a test with subtests counts as its subtests": {
			events(
				`{"Action":"run","Package":"p","Test":"TestA"}`,
				`{"Action":"run","Package":"p","Test":"TestA/x"}`,
				`{"Action":"run","Package":"p","Test":"TestA/y"}`,
				`{"Action":"pass","Package":"p","Test":"TestA/x"}`,
				`{"Action":"pass","Package":"p","Test":"TestA/y"}`,
				`{"Action":"pass","Package":"p","Test":"TestA"}`,
				`{"Action":"pass","Package":"p"}`,
			), "2 passed, 0 failed, 0 skipped", true,
		},
		"a skip is counted and its reason shown": {
			events(
				`{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: this kernel has no 8021q\n"}`,
				`{"Action":"output","Package":"p","Test":"TestA","Output":"--- SKIP: TestA (0.00s)\n"}`,
				`{"Action":"skip","Package":"p","Test":"TestA"}`,
				`{"Action":"pass","Package":"p"}`,
			), "0 passed, 0 failed, 1 skipped", true,
		},
		"a subtest that failed fails once": {
			events(
				`{"Action":"fail","Package":"p","Test":"TestA/x"}`,
				`{"Action":"fail","Package":"p","Test":"TestA"}`,
				`{"Action":"fail","Package":"p"}`,
			), "0 passed, 1 failed, 0 skipped", false,
		},
		"a test that failed after its subtests passed": {
			events(
				`{"Action":"pass","Package":"p","Test":"TestA/x"}`,
				`{"Action":"fail","Package":"p","Test":"TestA"}`,
				`{"Action":"fail","Package":"p"}`,
			), "1 passed, 1 failed, 0 skipped", false,
		},
		"a package that did not compile": {
			events(`{"Action":"fail","Package":"p"}`), "0 passed, 1 failed, 0 skipped", false,
		},
		"a process that died in the middle of a test": {
			events(
				`{"Action":"pass","Package":"p","Test":"TestA"}`,
				`{"Action":"run","Package":"p","Test":"TestB"}`,
			), "1 passed, 1 failed, 0 skipped", false,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			out, ok := summarize(t, tc.events)
			lines := strings.Split(strings.TrimSpace(out), "\n")
			if got := lines[len(lines)-1]; got != tc.last || ok != tc.ok {
				t.Errorf("last line %q, ok %t; want %q, %t\n%s", got, ok, tc.last, tc.ok, out)
			}
			if strings.Contains(tc.last, "1 skipped") && !strings.Contains(out, "no 8021q") {
				t.Errorf("the reason of the skip is missing:\n%s", out)
			}
		})
	}
}

func TestSummaryCountsLostResultsAsFailed(t *testing.T) {
	dir := t.TempDir()
	for name, tc := range map[string]struct{ text, last string }{
		"nothing in it": {"", "0 passed, 1 failed, 0 skipped"},
		"cut off":       {events(`{"Action":"pass","Package":"p","Test":"TestA"}`, `{"Action":"pa`), "1 passed, 1 failed, 0 skipped"},
		"not there":     {"", "0 passed, 1 failed, 0 skipped"},
	} {
		file := filepath.Join(dir, name)
		if name != "not there" {
			if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var out bytes.Buffer
		ok, err := run(&out, []string{"e2e=" + file})
		if ok || err != nil || !strings.HasSuffix(strings.TrimSpace(out.String()), tc.last) {
			t.Errorf("%s: ok %t, error %v, want a failure that ends with %q:\n%s", name, ok, err, tc.last, out.String())
		}
	}
}
