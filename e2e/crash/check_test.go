package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func outcomes(verdicts []verdict, cutShort bool) map[check]outcome {
	of := map[check]outcome{}
	for _, v := range verdicts {
		of[v.check], _ = v.outcome(cutShort)
	}
	return of
}

func TestCheckPassesOnlyWhenItHasLookedAndFoundNothing(t *testing.T) {
	s := newStage(t)
	s.expect(unique, true, netip.Addr{}, "", "")
	s.expect(rested, true, netip.Addr{}, "", "")
	s.expect(rested, false, netip.Addr{}, "", "it did not rest")
	for cutShort, unseen := range map[bool]outcome{false: fail, true: skip} {
		of := outcomes(s.verdicts(), cutShort)
		if of[unique] != pass || of[rested] != fail || of[emptied] != unseen {
			t.Errorf("cut short %t: a check that looked ended with %s, one that found something with %s, one that never looked with %s",
				cutShort, of[unique], of[rested], of[emptied])
		}
	}
}

// events reads a file of results.
func events(t *testing.T, file string) map[string]string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	last := map[string]string{}
	for line := range bytes.Lines(content) {
		var e struct{ Action, Package, Test string }
		if err := json.Unmarshal(line, &e); err != nil || e.Package != suite {
			t.Fatalf("%s is no test event of this package: %v", line, err)
		}
		last[e.Test] = e.Action
	}
	return last
}

func TestResultsCountOnlyWhatHasEnded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new", "crash.json")
	if err := announce(file); err != nil {
		t.Fatal(err)
	}
	begun, ended := map[string]string{}, map[string]string{}
	for _, c := range checks() {
		begun[string(c)], ended[string(c)] = "run", "fail"
	}
	if diff := cmp.Diff(begun, events(t, file)); diff != "" {
		t.Errorf("before anything was looked at (-want +got):\n%s", diff)
	}
	s := newStage(t)
	s.expect(unique, true, netip.Addr{}, "", "")
	ended[string(unique)] = "pass"
	if err := writeResults(file, s.verdicts(), false); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ended, events(t, file)); diff != "" {
		t.Errorf("in the end (-want +got):\n%s", diff)
	}
}
