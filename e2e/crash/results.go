package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"time"
)

// suite is the name under which the checks are counted among the tests.
const suite = "crash"

// testEvent is a line of `go test -json` (go doc test2json).
type testEvent struct {
	Action  string
	Package string
	Test    check
	Output  string  `json:",omitempty"`
	Elapsed float64 `json:",omitempty"` // in seconds
}

// announce writes to the file, if one is named, that every check has begun. If
// it stays like this, none of them has passed.
func announce(file string) error {
	if file == "" {
		return nil
	}
	var begun []testEvent
	for _, c := range checks() {
		begun = append(begun, testEvent{Action: "run", Package: suite, Test: c})
	}
	return writeEvents(file, begun)
}

// writeResults writes to the file, if one is named, what came of each check.
func writeResults(file string, verdicts []verdict, cutShort bool) error {
	if file == "" {
		return nil
	}
	var events []testEvent
	for _, v := range verdicts {
		what, why := v.outcome(cutShort)
		events = append(events, testEvent{Action: "run", Package: suite, Test: v.check})
		if why != "" {
			events = append(events, testEvent{Action: "output", Package: suite, Test: v.check, Output: why + "\n"})
		}
		events = append(events, testEvent{
			Action: string(what), Package: suite, Test: v.check,
			Elapsed: v.took.Round(time.Millisecond).Seconds(),
		})
	}
	return writeEvents(file, events)
}

func writeEvents(file string, events []testEvent) error {
	var lines bytes.Buffer
	out := json.NewEncoder(&lines)
	for _, e := range events {
		if err := out.Encode(e); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, lines.Bytes(), 0o644)
}
