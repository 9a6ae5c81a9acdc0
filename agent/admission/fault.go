package admission

import (
	"fmt"
	"strings"

	"go4.org/netipx"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// Rules are the settings that some rules depend on. The zero Rules are those
// of a cluster with both IP families.
type Rules struct {
	// NoIPv4 and NoIPv6 say that the family is switched off.
	NoIPv4, NoIPv6 bool
}

// fault is a rule that an object breaks.
type fault struct {
	// rule names the rule and what the object breaks it with; of two versions
	// of an object, faults with the same rule are the same fault.
	rule string
	// addrs is how far it goes. Nil for a rule that is broken or is not.
	addrs *netipx.IPSet
	// tell returns the error for these addrs.
	tell func(addrs *netipx.IPSet) *field.Error
}

// always is a fault that has no extent.
func always(rule string, err *field.Error) fault {
	return fault{rule: rule, tell: func(*netipx.IPSet) *field.Error { return err }}
}

// worse returns the errors of those faults that the object did not have
// before, or not to this extent.
func worse(now, before []fault) field.ErrorList {
	had := map[string]fault{}
	for _, f := range before {
		had[f.rule] = f
	}
	var errs field.ErrorList
	for _, f := range now {
		addrs := f.addrs
		if old, ok := had[f.rule]; ok {
			if addrs == nil {
				continue
			}
			if addrs = without(addrs, old.addrs); empty(addrs) {
				continue
			}
		}
		errs = append(errs, f.tell(addrs))
	}
	return errs
}

// maxFaults is how many faults a refusal tells: a pool of a large subnet may
// overlap a thousand others.
const maxFaults = 10

// first returns the first of the errors, and how many more there are.
func first(errs field.ErrorList) field.ErrorList {
	more := len(errs) - maxFaults
	if more <= 0 {
		return errs
	}
	return append(errs[:maxFaults:maxFaults], &field.Error{
		Type: field.ErrorTypeForbidden, Field: errs[maxFaults].Field, BadValue: "",
		Detail: fmt.Sprintf("and %d more rules are broken: correct these first", more),
	})
}

// shown is how many ranges or pods a message names.
const shown = 3

// few returns the first of the items for a message, and how many more there
// are.
func few(items []string) string {
	if len(items) <= shown {
		return strings.Join(items, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(items[:shown], ", "), len(items)-shown)
}

// ranges returns a set of addresses for a message.
func ranges(set *netipx.IPSet) string { return few(v2beta1.FormatRanges(set)) }

// single reports whether the set is one address.
func single(set *netipx.IPSet) bool { return v2beta1.Count(set) == 1 }

func empty(set *netipx.IPSet) bool { return set == nil || len(set.Ranges()) == 0 }

// without returns a without b. A nil set is empty.
func without(a, b *netipx.IPSet) *netipx.IPSet {
	return combined(a, func(s *netipx.IPSetBuilder) {
		if b != nil {
			s.RemoveSet(b)
		}
	})
}

// shared returns what is in both a and b.
func shared(a, b *netipx.IPSet) *netipx.IPSet {
	return combined(a, func(s *netipx.IPSetBuilder) { s.Intersect(b) })
}

func combined(a *netipx.IPSet, with func(*netipx.IPSetBuilder)) *netipx.IPSet {
	var s netipx.IPSetBuilder
	if a != nil {
		s.AddSet(a)
	}
	with(&s)
	set, err := s.IPSet()
	if err != nil { // only for ranges that are not valid; sets have none
		return a
	}
	return set
}
