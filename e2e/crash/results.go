package main

import (
	"time"

	"github.com/holdfast-ipam/holdfast/e2e/testevent"
)

// suite is the name under which the checks are counted among the tests.
const suite = "crash"

// announce writes to the file, if one is named, that every check has begun. If
// it stays like this, none of them has passed.
func announce(file string) error {
	var begun []testevent.Event
	for _, c := range checks() {
		begun = append(begun, testevent.Event{Action: "run", Package: suite, Test: string(c)})
	}
	return testevent.Write(file, begun)
}

// writeResults writes to the file, if one is named, what came of each check.
func writeResults(file string, verdicts []verdict, cutShort bool) error {
	var events []testevent.Event
	for _, v := range verdicts {
		what, why := v.outcome(cutShort)
		events = append(events, testevent.Event{Action: "run", Package: suite, Test: string(v.check)})
		if why != "" {
			events = append(events, testevent.Event{Action: "output", Package: suite, Test: string(v.check), Output: why + "\n"})
		}
		events = append(events, testevent.Event{
			Action: string(what), Package: suite, Test: string(v.check),
			Elapsed: v.took.Round(time.Millisecond).Seconds(),
		})
	}
	return testevent.Write(file, events)
}
