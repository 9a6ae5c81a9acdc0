package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
)

// TestMain lets a copy of this test's program be the process of the agents.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == carryCommand {
		main()
		return
	}
	os.Exit(m.Run())
}

// shortDir returns a directory whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // it holds nothing that counts
	return dir
}

func TestFiveAgentsGoThroughAllPhases(t *testing.T) {
	if err := apitest.Installed(); err != nil {
		t.Skip(err)
	}
	const agents, pods, replicas = 5, 20, 20
	dir, out := shortDir(t), t.TempDir()
	err := Main(t.Context(), []string{"scale", "--agents=5", "--pods=20", "--replicas=20", "--rate=20", "--batch=2",
		"--idle=3s", "--quiet=1s", "--hold-down=6s", "--dir=" + dir, "--out=" + out})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(out, "scale.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	want := []string{startUp, idle, podStarts, podEnds, setUp, setDown, upgrade, loss}
	if got := strings.Join(r.phases(), ", "); got != strings.Join(want, ", ") {
		t.Fatalf("the phases were %s", got)
	}
	var sent, received int64
	for _, s := range r.Stages {
		if s.Elected.Agents+s.Others.Agents != agents || s.Elected.Agents == 0 {
			t.Errorf("%s: %d agents were elected, and %d others, of %d", s.Name, s.Elected.Agents, s.Others.Agents, agents)
		}
		if s.Memory.Heap == 0 || s.Server == 0 {
			t.Errorf("%s: not all was measured: %+v", s.Name, s)
		}
		sent += s.Others.Sent // none in a phase as short as these is as well
		received += s.Elected.Received
	}
	if sent == 0 || received == 0 {
		t.Errorf("bytes were not measured: the elected agent received %d, and others sent %d", received, sent)
	}
	atLeast := func(phase string, k kind, of func(count) int, least int) {
		t.Helper()
		if n := of(r.at(agents, phase).all()[k]); n < least {
			t.Errorf("%s: %d of %s %s, want at least %d", phase, n, k.Verb, k.Resource, least)
		}
	}
	requests, events := func(c count) int { return c.Requests }, func(c count) int { return c.Events }
	atLeast(startUp, kind{"watch", "pods"}, requests, agents)
	atLeast(startUp, kind{"watch", "nodes"}, events, agents) // its own, each
	atLeast(podStarts, kind{"create", "spiderendpoints"}, requests, pods)
	atLeast(podStarts, kind{"watch", "pods"}, events, 2*pods) // bound, and running
	atLeast(podEnds, kind{"watch", "pods"}, events, 2*(pods-agents))
	atLeast(upgrade, kind{"watch", "pods"}, requests, agents)
	atLeast(setUp, kind{"create", "spiderendpoints"}, requests, replicas)
	atLeast(setDown, kind{"delete", "spiderendpoints"}, requests, replicas)
	if n := r.at(agents, podStarts).all()[kind{"create", "pods"}].Requests; n != 0 {
		t.Errorf("%d requests of the run itself are counted as the agents'", n)
	}
	nothingLeft(t, dir)
}

// nothingLeft wants no file in the directory, and no process that works there.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) > 0 {
		t.Errorf("it left %v (%v)", left, err)
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(commands) == 0 {
		t.Fatalf("no processes to be seen: %v", err)
	}
	for _, path := range commands {
		text, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(text), dir) && filepath.Base(filepath.Dir(path)) != "self" && !own(path) {
			t.Errorf("it left a process: %s", strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
}

// own reports whether /proc/PID/cmdline is that of this very process.
func own(path string) bool {
	self, err := os.Readlink("/proc/self")
	return err == nil && filepath.Base(filepath.Dir(path)) == self
}

func TestInterruptLeavesNothingBehind(t *testing.T) {
	if err := apitest.Installed(); err != nil {
		t.Skip(err)
	}
	dir := shortDir(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	done := make(chan error, 1)
	go func() {
		done <- Main(ctx, []string{"scale", "--agents=2", "--pods=2", "--idle=1h", "--dir=" + dir, "--out=" + t.TempDir()})
	}()
	for deadline := time.Now().Add(2 * time.Minute); ; {
		// An agent that listens means that everything runs.
		if running, _ := filepath.Glob(filepath.Join(dir, "*", "2", "a", "node-0001.s")); len(running) > 0 {
			break
		}
		select {
		case err := <-done:
			t.Fatalf("it ended by itself: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal("no agent was started")
		}
	}
	interrupt()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	nothingLeft(t, dir)
}

func TestWrongCommandLineTellsWhatToWrite(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--agents 1", "want numbers from 2 to"},
		{"--agents 20,10", "the smallest first"},
		{"--pods 10", "one for each agent"},
		{"--rate 0", "want at least 1 of each"},
		{"--idle 0s", "like 1m"},
		{"more", "there are only flags"},
	} {
		err := Main(t.Context(), append([]string{"scale"}, strings.Fields(c.args)...))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
	}
}
