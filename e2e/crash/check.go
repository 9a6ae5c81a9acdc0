package main

import (
	"fmt"
	"strings"
	"time"
)

// check is one thing that every run is held against, in the words of the
// report.
type check string

const (
	// These are looked at while things break.
	unique     check = "no two pods have one address"
	repeatable check = "asked again, an agent says the same"
	kept       check = "a pod that restarts in place keeps its address"
	sticky     check = "a StatefulSet's pod keeps its address"
	offered    check = "a pod gets what it asked for"
	rested     check = "an address rests between two pods"
	journaled  check = "a journal has what was answered"
	leased     check = "a block leases and pins what is in use"
	healthy    check = "no agent ends, panics or hangs by itself"
	playable   check = "the loop can go on"
	// Those of histories are looked at when all is over.
	linearAddresses  check = "the history of each address is linearizable"
	linearIdentities check = "the history of each StatefulSet identity is linearizable"
	// Those of the account are looked at when everything is up again.
	agreed   check = "every pod has its address and all records agree"
	used     check = "every pool is used to its last address"
	agreedIn check = "all records agree about full pools"
	emptied  check = "nothing remains of what was deleted"
)

func checks() []check {
	return []check{
		unique, repeatable, kept, sticky, offered, rested, journaled, leased, healthy, playable,
		linearAddresses, linearIdentities, agreed, used, agreedIn, emptied,
	}
}

// verdict is what came of a check.
type verdict struct {
	check check
	// looks is how often something was compared. A check that never looked
	// has not passed.
	looks  int
	broken []violation
	took   time.Duration
}

// outcome is that of a test: see `go doc test2json`.
type outcome string

const (
	pass outcome = "pass"
	fail outcome = "fail"
	skip outcome = "skip"
)

// outcome returns how the check ended, and why if it did not pass. A run that
// was cut short may not have come to it.
func (v *verdict) outcome(cutShort bool) (outcome, string) {
	switch {
	case len(v.broken) > 0:
		return fail, v.broken[0].text
	case v.looks > 0:
		return pass, ""
	case cutShort:
		return skip, "the run ended before it came to this"
	}
	return fail, "there was nothing to look at: let it run for longer"
}

// verdicts returns what came of each check.
func (l *ledger) verdicts() []verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []verdict
	for _, c := range checks() {
		v := verdict{check: c, looks: l.looks[c], took: time.Since(l.began)}
		if took, ok := l.took[c]; ok {
			v.took = took
		}
		for _, found := range l.violations {
			if found.check == c {
				v.broken = append(v.broken, found)
			}
		}
		all = append(all, v)
	}
	return all
}

// table shows the checks, one on a line.
func table(verdicts []verdict, cutShort bool) string {
	var b strings.Builder
	b.WriteString("checks, and how often they looked:\n")
	for _, v := range verdicts {
		what, why := v.outcome(cutShort)
		if why != "" {
			why = ": " + why
		}
		fmt.Fprintf(&b, "  %s  %7d  %s%s\n", what, v.looks, v.check, why)
	}
	return b.String()
}
