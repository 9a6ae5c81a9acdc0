package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// record writes verdicts as `go test -json` writes outcomes (go doc
// test2json), with a test for each bug of a package called mutants. The zero
// record writes nowhere.
type record struct {
	to  io.WriteCloser
	err error
}

// openRecord begins the file anew; an empty path is the zero record.
func openRecord(path string) (*record, error) {
	if path == "" {
		return &record{}, nil
	}
	// Append, so that a second run at the same time leaves no holes.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("make the file that -json names: %w", err)
	}
	return &record{to: f}, nil
}

// event is a line of go test -json.
type event struct {
	Action, Package string
	Test            string `json:",omitempty"`
	Output          string `json:",omitempty"`
}

func (r *record) write(events ...event) {
	for _, e := range events {
		if r.to == nil || r.err != nil {
			return
		}
		e.Package = "mutants"
		line, err := json.Marshal(e)
		if err == nil {
			_, err = fmt.Fprintf(r.to, "%s\n", line)
		}
		r.err = err
	}
}

// begin says which bugs there are. One without a verdict counts as failed.
func (r *record) begin(mutants []mutant) {
	for i := range mutants {
		r.write(event{Action: "run", Test: mutants[i].name})
	}
}

// verdict says what became of a bug.
func (r *record) verdict(m *mutant, v *verdict) {
	action, why := "pass", "caught by "+strings.Join(v.caughtBy, ", ")
	switch {
	case v.err != nil:
		action, why = "fail", v.err.Error()
	case !v.caught():
		action, why = "fail", "missed by "+strings.Join(v.missedBy, ", ")+": "+m.bug
	}
	first, _, _ := strings.Cut(why, "\n")
	r.write(event{Action: "output", Test: m.name, Output: first + "\n"}, event{Action: action, Test: m.name})
}

// end says how all of it ended, with an error of writing it down or else the
// given one.
func (r *record) end(outcome error) error {
	if outcome != nil {
		r.write(event{Action: "output", Output: outcome.Error() + "\n"}, event{Action: "fail"})
	} else {
		r.write(event{Action: "pass"})
	}
	if r.to != nil && r.err == nil {
		r.err = r.to.Close()
	}
	if r.err != nil {
		return errors.Join(outcome, fmt.Errorf("write the verdicts: %w", r.err))
	}
	return outcome
}
