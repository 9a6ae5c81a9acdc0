package selection

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// isPattern tells whether a name has wildcards. None of them may be in the
// name of an object.
func isPattern(name string) bool { return strings.ContainsAny(name, `*?[\`) }

// match returns the pools of the IP version whose names match the pattern, by
// name. No match is a mistake, like a name without a pool.
func (in *Input) match(from string, version int64, pattern string) ([]*v2beta1.SpiderIPPool, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, &InputError{Where: from, Reason: fmt.Sprintf("%s is no pattern for names of pools: want *, ? and [a-z]", quoted(pattern))}
	}
	var matches []*v2beta1.SpiderIPPool
	for _, pool := range in.Pools.List() {
		if ok, _ := path.Match(pattern, pool.Name); ok && pool.Spec.Family() == version { // the pattern was judged above
			matches = append(matches, pool)
		}
	}
	if len(matches) == 0 {
		return nil, &InputError{Where: from, Reason: fmt.Sprintf("no IPv%d pool has a name like %s: create a SpiderIPPool or correct the pattern", version, quoted(pattern))}
	}
	slices.SortFunc(matches, func(x, y *v2beta1.SpiderIPPool) int { return strings.Compare(x.Name, y.Name) })
	return matches, nil
}
