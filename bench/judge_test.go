package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestQuickRunIsJudged gives the judge what must not be, one thing at a time.
func TestQuickRunIsJudged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "test", "bench.json")
	right := func() *stage {
		return &stage{System: holdfastName, Name: onItsNode, Pods: 2, Done: 2, Kept: 2, Audited: 1}
	}
	for _, c := range []struct {
		spoil func(*stage)
		want  string
	}{
		{func(*stage) {}, ""},
		{func(s *stage) { s.Failed = 1 }, "1 calls of the plugin failed"},
		{func(s *stage) { s.Done = 1 }, "1 of 2 pods"},
		{func(s *stage) { s.Doubled = 1 }, "on two pods"},
		{func(s *stage) { s.Left = 1 }, "hold an address"},
		{func(s *stage) { s.Kept = 1 }, "kept their address"},
		{func(s *stage) { s.Audited = 0 }, "nothing can be told"},
		{func(s *stage) { s.Name, s.Audited = "plenty"+deleted, 0 }, ""},
		{func(s *stage) { s.Requests = []requests{{request{waited, "patch", "ipblocks"}, 1}} }, "1 changes"},
		{func(s *stage) { s.Name, s.Failed = asManyAsPods+rebuilt, 1 }, "1 calls of the plugin failed"},
		{func(s *stage) {
			s.Name, s.Requests = "plenty"+again, []requests{{request{waited, "create", "ipblocks"}, 1}}
		}, "1 requests while ADD waits"},
		{func(s *stage) {
			s.Name, s.Requests = "plenty"+again, []requests{{request{background, "get", "spiderendpoints"}, 1}}
		}, "1 endpoints were read"},
		{func(s *stage) {
			s.Name, s.Requests = samePods, []requests{{request{ahead, "get", "ipblocks"}, 1}}
		}, "1 requests for pods that are the same"},
		{func(s *stage) { s.Name, s.Kept = samePods, 0 }, "kept their address"},
		{func(s *stage) {
			s.Name, s.Requests = ofPools8, []requests{{request{waited, "get", "ipblocks"}, 5}}
		}, "5 requests while 2 ADDs wait"},
		{func(s *stage) {
			s.Name, s.Requests = oneOfMany, []requests{{request{waited, "get", "ipblocks"}, 2}, {request{waited, "patch", "ipblocks"}, 2}}
		}, ""},
		{func(s *stage) {
			s.Name, s.Requests = "plenty"+deleted, []requests{{request{waited, "get", "ipblocks"}, 1}}
		}, "1 requests while DEL waits"},
	} {
		s := right()
		c.spoil(s)
		err := (&report{Stages: []*stage{s}, options: options{json: file}}).judge()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v is judged %v, want %q", s, err, c.want)
		}
		told, readErr := os.ReadFile(file)
		if readErr != nil {
			t.Fatal(readErr)
		}
		if failed := strings.Contains(string(told), `"Action":"fail"`); failed != (err != nil) {
			t.Errorf("judged %v, it tells\n%s", err, told)
		}
	}
	if (&report{}).judge() == nil {
		t.Error("a run that measured nothing is right")
	}
}

func TestRunThatEndsBeforeItIsJudgedHasNotPassed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bench.json")
	if err := announce(file); err != nil {
		t.Fatal(err)
	}
	told, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(told), `"Action":"run"`) || strings.Contains(string(told), `"Action":"pass"`) {
		t.Errorf("it tells\n%s", told)
	}
}
