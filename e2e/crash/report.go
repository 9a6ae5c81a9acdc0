package main

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

const (
	// shownViolations is how many broken promises are told with their history;
	// the first is what matters.
	shownViolations = 3
	// shownLines bounds each part of a history, newest last.
	shownLines = 60
)

// report prints figures and broken promises, writes the results, and reports
// whether every check has passed.
func (w *world) report() (clean bool, err error) {
	w.judgeLogs()
	histories := w.ledger.checkHistories()
	w.ledger.mu.Lock()
	found, uses := w.ledger.violations, w.ledger.uses
	w.ledger.mu.Unlock()
	verdicts, cutShort := w.ledger.verdicts(), len(found) > 0
	fmt.Printf("\n%s%s%s\n", w.tally.table(), table(verdicts, cutShort), histories)
	fmt.Printf("%d sandboxes had an address, %d violations, seed %d\n", uses, len(found), w.options.seed)
	w.tellAll(found)
	clean = true
	for _, v := range verdicts {
		what, _ := v.outcome(cutShort)
		clean = clean && what == pass
	}
	return clean, writeResults(w.options.json, verdicts, cutShort)
}

// tellAll prints the broken promises, if any, and where more is to be found.
func (w *world) tellAll(found []violation) {
	for i, v := range found {
		fmt.Printf("\nVIOLATION: %s\n", v.text)
		if i < shownViolations {
			w.tell(v)
		}
	}
	if len(found) > 0 {
		fmt.Printf("\nThe agents' logs and journals are in %s\n", w.dir)
	}
}

// tell prints the history of the address that a promise was broken about.
func (w *world) tell(v violation) {
	if v.addr.IsValid() {
		section("What happened to "+v.addr.String(), w.ledger.history(v.addr))
		section("The versions of its block", w.record.of(v.addr, shownLines))
	}
	for _, n := range w.nodes {
		section("What the agent of "+n.name+" says of it", n.mentions(v.addr))
	}
}

func section(title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Printf("  %s:\n", title)
	for _, line := range lines[max(0, len(lines)-shownLines):] {
		fmt.Printf("    %s\n", line)
	}
}

// history returns what happened to an address, and to the nodes meanwhile
// where it lived.
func (l *ledger) history(addr netip.Addr) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	on := map[string]bool{"": true}
	for _, e := range l.events {
		if e.addr == addr {
			on[e.node] = true
		}
	}
	names := map[string]bool{}
	for _, e := range l.events {
		if e.addr == addr && e.sandbox != nil && e.sandbox.pod.set != nil {
			names[e.sandbox.pod.name] = true
		}
	}
	var lines []string
	for _, e := range l.events {
		about := e.addr == addr || !e.addr.IsValid() && e.kind == remark && on[e.node] || names[e.identity.Pod]
		if about {
			lines = append(lines, fmt.Sprintf("%9.3fs  %-7s %s", e.at.Sub(l.began).Seconds(), e.node, e.text))
		}
	}
	return lines
}

// mentions returns the lines of the agent's log that name the address.
func (n *node) mentions(addr netip.Addr) []string {
	if !addr.IsValid() {
		return nil
	}
	return n.grep(`"`+addr.String()+`"`, `"`+addr.String()+`/`)
}

// grep returns the lines of the agent's log that contain one of the texts.
func (n *node) grep(texts ...string) []string {
	f, err := os.Open(n.log())
	if err != nil {
		return nil // it never ran
	}
	defer f.Close()
	var lines []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(s.Text(), text) }) {
			lines = append(lines, s.Text())
		}
	}
	return lines
}

// judgeLogs finds what no agent may ever write.
func (w *world) judgeLogs() {
	for _, n := range w.nodes {
		said := n.grep("panic:", "fatal error:", "WARNING: DATA RACE")
		w.ledger.expect(healthy, len(said) == 0, netip.Addr{}, n.name, "the log of %s says: %q", n.name, said)
	}
}
