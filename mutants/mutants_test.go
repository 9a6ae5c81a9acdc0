package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const example = `Bug: it says hello
Seen: everywhere, and
 elsewhere
Breaks: silence
Tests: ./quiet TestOne|TestTwo SEEDS=7
Tests: ./loud TestThree

--- a/hello.txt
+++ b/hello.txt
@@ -1 +1 @@
-silence
+hello
`

// tree returns a tree with one file, and the example in its museum.
func tree(t *testing.T, file string) (dir string, m mutant) {
	t.Helper()
	dir = t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("hello.txt", file)
	write("z-hello.patch", example)
	mutants, err := readMutants(dir, []string{"z"})
	if err != nil || len(mutants) != 1 {
		t.Fatalf("got %v, %v", mutants, err)
	}
	return dir, mutants[0]
}

func TestLabelNamesTestsAndDiffNamesFiles(t *testing.T) {
	_, m := tree(t, "silence\n")
	want := []suite{
		{pkg: "./quiet", tests: []string{"TestOne", "TestTwo"}, env: []string{"SEEDS=7"}},
		{pkg: "./loud", tests: []string{"TestThree"}, env: []string{}},
	}
	if diff := cmp.Diff(want, m.tests, cmp.AllowUnexported(suite{})); diff != "" {
		t.Errorf("tests (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"hello.txt"}, m.files); diff != "" || m.bug != "it says hello" {
		t.Errorf("bug %q, files (-want +got):\n%s", m.bug, diff)
	}
}

func TestEveryLabelIsWhole(t *testing.T) {
	if _, err := readMutants(".", nil); err != nil {
		t.Error(err)
	}
}

func TestPlantingLeavesTheTreeAlone(t *testing.T) {
	dir, m := tree(t, "silence\n")
	scratch := t.TempDir()
	overlay, err := m.plant(t.Context(), dir, scratch)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "hello.txt"):             "silence\n",
		filepath.Join(scratch, m.name, "hello.txt"): "hello\n",
	} {
		if got, err := os.ReadFile(path); string(got) != want {
			t.Errorf("%s says %q, %v, want %q", path, got, err, want)
		}
	}
	if got, err := os.ReadFile(overlay); err != nil || !strings.Contains(string(got), filepath.Join(dir, "hello.txt")) {
		t.Errorf("the overlay is %s, %v", got, err)
	}
}

func TestPatchThatDoesNotApplyTellsHowToRefreshIt(t *testing.T) {
	dir, m := tree(t, "noise\n")
	_, err := m.plant(t.Context(), dir, t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "make mutants ONLY=z-hello") {
		t.Errorf("got %v", err)
	}
}

func TestSubtestsAreSelectedWithTheirTest(t *testing.T) {
	for line, want := range map[string]string{
		"./p TestA|TestB":       "^(TestA|TestB)$",
		"./p TestA/x|TestA/y":   "^TestA$/^(x|y)$",
		"./p TestA/x|TestB/y":   "not subtests of one test",
		"./p TestA|TestA/x K=V": "not subtests of one test",
	} {
		s, err := readSuite(line)
		switch {
		case err != nil && !strings.Contains(err.Error(), want):
			t.Errorf("%s: %v, want %s", line, err, want)
		case err == nil && s.pattern() != want:
			t.Errorf("%s selects %s, want %s", line, s.pattern(), want)
		}
	}
}

func TestEventsTellWhatBecameOfSubtests(t *testing.T) {
	got, _ := readEvents([]byte(`{"Action":"pass","Test":"TestA/x"}
{"Action":"fail","Test":"TestA/y/deep"}
{"Action":"fail","Test":"TestA/y"}
{"Action":"fail","Test":"TestA"}
`), "TestA")
	want := outcome{failed: []string{"TestA/y"}, passed: []string{"TestA/x"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(outcome{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOnlyATestThatFailsCatchesABug(t *testing.T) {
	for _, c := range []struct {
		claim string
		verdict
		want bool
	}{
		{"the test fails", verdict{caughtBy: []string{"TestA"}}, true},
		{"one fails and one passes", verdict{caughtBy: []string{"TestA"}, missedBy: []string{"TestB"}}, false},
		{"no test came to its end", verdict{}, false},
		{"the tests were not built", verdict{err: os.ErrInvalid}, false},
	} {
		if c.caught() != c.want {
			t.Errorf("%s: caught %t, want %t", c.claim, c.caught(), c.want)
		}
	}
}

func TestRecordHasATestForEachBug(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mutants.json")
	r, err := openRecord(path)
	if err != nil {
		t.Fatal(err)
	}
	mutants := []mutant{{name: "a"}, {name: "b", bug: "it is late"}, {name: "c"}}
	r.begin(mutants)
	r.verdict(&mutants[0], &verdict{caughtBy: []string{"TestA"}})
	r.verdict(&mutants[1], &verdict{missedBy: []string{"TestB"}})
	if err := r.end(os.ErrDeadlineExceeded); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the record swallows %v", err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"Action":"run","Package":"mutants","Test":"a"}
{"Action":"run","Package":"mutants","Test":"b"}
{"Action":"run","Package":"mutants","Test":"c"}
{"Action":"output","Package":"mutants","Test":"a","Output":"caught by TestA\n"}
{"Action":"pass","Package":"mutants","Test":"a"}
{"Action":"output","Package":"mutants","Test":"b","Output":"missed by TestB: it is late\n"}
{"Action":"fail","Package":"mutants","Test":"b"}
{"Action":"output","Package":"mutants","Output":"i/o timeout\n"}
{"Action":"fail","Package":"mutants"}
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEventsTellWhatBecameOfTests(t *testing.T) {
	got, said := readEvents([]byte(`{"Action":"run","Test":"TestA"}
{"Action":"output","Test":"TestA","Output":"why\n"}
{"Action":"fail","Test":"TestA/part"}
{"Action":"fail","Test":"TestA"}
{"Action":"pass","Test":"TestB"}
{"Action":"skip","Test":"TestC"}
{"Action":"fail"}
`), "")
	want := outcome{failed: []string{"TestA"}, passed: []string{"TestB"}, skipped: []string{"TestC"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(outcome{})); diff != "" || said != "why\n" {
		t.Errorf("said %q, (-want +got):\n%s", said, diff)
	}
}
