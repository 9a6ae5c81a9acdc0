package main

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/holdfast-ipam/holdfast/lease"
)

// linearizableLimit bounds the check of one history. They are short: one takes
// milliseconds.
const linearizableLimit = 30 * time.Second

// step is one operation of a history: take makes value the state, which must
// be empty or value before, and leave makes the state empty.
type step struct {
	take  bool
	value string
	// whose is the value that leave ends; empty ends any.
	whose string
}

// register is the sequential specification of both kinds of history: something
// that has one holder at a time.
func register() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return "" },
		Step: func(state, input, _ any) (bool, any) {
			s := input.(step)
			switch {
			case s.take:
				return state == "" || state == s.value, s.value
			case s.whose != "":
				return state == s.whose, ""
			}
			return true, ""
		},
		DescribeOperation: func(input, _ any) string { return fmt.Sprintf("%+v", input) },
	}
}

// addressHistories returns what happened to each address: sandboxes take it at
// some moment between their ADD and its answer, and leave it when they end.
func addressHistories(events []event) map[string][]porcupine.Operation {
	of := map[string][]porcupine.Operation{}
	for _, e := range events {
		key := e.addr.String()
		switch e.kind {
		case answered:
			of[key] = append(of[key], operation(step{take: true, value: e.sandbox.container}, e.asked, e.at))
		case ended:
			of[key] = append(of[key], operation(step{whose: e.sandbox.container}, e.at, e.at))
		}
	}
	return of
}

// identityHistories returns what happened to each StatefulSet identity in each
// family: its pods take an address, always the same, until at some moment while
// no StatefulSet wants the ordinal the claim to it ends.
func identityHistories(events []event, end time.Time) map[string][]porcupine.Operation {
	of := map[string][]porcupine.Operation{}
	since := map[lease.Identity]time.Time{}
	lapse := func(id lease.Identity, until time.Time) {
		for _, family := range []bool{true, false} {
			key := keyOf(id, family)
			of[key] = append(of[key], operation(step{}, since[id], until))
		}
		delete(since, id)
	}
	for _, e := range events {
		_, unwantedNow := since[e.identity]
		switch {
		case e.kind == answered && e.sandbox.pod.set != nil:
			key := keyOf(e.identity, e.addr.Is4())
			of[key] = append(of[key], operation(step{take: true, value: e.addr.String()}, e.asked, e.at))
		case e.kind == unwanted:
			since[e.identity] = e.at
		case e.kind == wanted && unwantedNow:
			lapse(e.identity, e.at)
		}
	}
	for id := range since {
		lapse(id, end)
	}
	return of
}

func keyOf(id lease.Identity, is4 bool) string {
	if is4 {
		return id.String() + " IPv4"
	}
	return id.String() + " IPv6"
}

func operation(s step, from, to time.Time) porcupine.Operation {
	return porcupine.Operation{Input: s, Call: from.UnixNano(), Return: to.UnixNano()}
}

// checkHistories judges the whole run once more, independently of the ledger's
// own judgement: each history must be linearizable. It says how many were
// looked at.
func (l *ledger) checkHistories() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	addresses, identities := addressHistories(l.events), identityHistories(l.events, time.Now())
	operations := l.linearize(linearAddresses, addresses) + l.linearize(linearIdentities, identities)
	return fmt.Sprintf("porcupine: %d operations in the histories of %d addresses and %d StatefulSet identities", operations, len(addresses), len(identities))
}

// linearize judges histories and returns how many operations they have. The
// caller holds l.mu.
func (l *ledger) linearize(c check, histories map[string][]porcupine.Operation) int {
	operations := 0
	for of, history := range histories {
		operations += len(history)
		addr, _ := netip.ParseAddr(of) // an identity has none
		got := porcupine.CheckOperationsTimeout(register(), history, linearizableLimit)
		l.expectHeld(c, got == porcupine.Ok, addr, "", "the history of %s is not linearizable: %s", of, got)
	}
	return operations
}
