package checker

import (
	"cmp"
	"fmt"
	"slices"
)

// Violation is one broken rule.
type Violation struct {
	// Rule is the name of the rule.
	Rule string
	// Never is set for rules that hold at every moment. The others hold once
	// a cluster has come to rest, because endpoints and status follow the
	// data path: see [Settle].
	Never bool
	// Detail says who disagrees with whom about what.
	Detail string
}

// String returns rule and detail on one line.
func (v Violation) String() string { return v.Rule + ": " + v.Detail }

type rule struct {
	name  string
	never bool
	check func(*view, reporter)
}

type reporter func(format string, args ...any)

// rules lists every rule, the deadliest first.
func rules() []rule {
	return []rule{
		{"one address, one pod", true, oneHolder},
		{"one address, one lessee", true, oneLessee},
		{"everything is seen", false, everythingIsSeen},
		{"one address, one assignment", false, oneAssignment},
		{"a pod's address is assigned to it", false, addressesAreAssigned},
		{"an assigned address is a pod's", false, assignmentsAreReal},
		{"a journal speaks of leased addresses", false, journalIsLeased},
		{"a lessee exists", false, lesseesExist},
		{"a pod's status tells its address", false, podsTellTheirAddress},
		{"a pod has an endpoint that agrees", false, podsHaveEndpoints},
		{"an endpoint has an owner", false, endpointsHaveOwners},
		{"a StatefulSet pod's address is pinned", false, stickyIsPinned},
		{"a pin has an endpoint", false, pinsHaveEndpoints},
		{"a pin has an owner", false, pinsHaveOwners},
		{"a pool's status tells its use", false, statusAgrees},
	}
}

// Compare returns what is wrong in the snapshot, sorted by rule, nothing if
// all witnesses agree.
func Compare(s Snapshot) []Violation {
	v := newView(s)
	var found []Violation
	for _, r := range rules() {
		before := len(found)
		r.check(v, func(format string, args ...any) {
			found = append(found, Violation{r.name, r.never, fmt.Sprintf(format, args...)})
		})
		slices.SortFunc(found[before:], func(a, b Violation) int { return cmp.Compare(a.Detail, b.Detail) })
	}
	return found
}
