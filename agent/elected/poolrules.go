package elected

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-ipam/holdfast/agent/admission"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// shownConflicts is how many broken rules a condition tells.
const shownConflicts = 3

// conflicts are the rules that a pool breaks, told for people, beside the
// versions of pools that key names.
type conflicts struct {
	key, told string
}

// poolChanged has a pool counted, and if its spec changed those that may
// overlap it too.
func (s *poolStatus) poolChanged(was, is *v2beta1.SpiderIPPool) {
	s.later(is.Name)
	if was == nil || was.UID != is.UID || was.Generation != is.Generation {
		subnet, _ := is.Spec.Prefix() // one that cannot be understood overlaps nothing
		s.space.put(is.Name, subnet)
		s.neighboursLater(is)
	}
}

func (s *poolStatus) poolGone(was *v2beta1.SpiderIPPool) {
	s.mu.Lock()
	delete(s.wrote, was.Name)
	delete(s.parsed, was.Name)
	delete(s.conflicts, was.Name)
	s.mu.Unlock()
	s.completePool.forget(was.Name)
	s.space.put(was.Name, netip.Prefix{})
	s.neighboursLater(was)
}

func (s *poolStatus) neighboursLater(of *v2beta1.SpiderIPPool) {
	for _, other := range s.neighbours(of) {
		s.later(other.Name)
	}
}

// neighbours returns the other pools with addresses of the pool's subnet,
// ordered by name.
func (s *poolStatus) neighbours(of *v2beta1.SpiderIPPool) []v2beta1.SpiderIPPool {
	subnet, err := of.Spec.Prefix()
	if err != nil {
		return nil
	}
	var near []v2beta1.SpiderIPPool
	for _, name := range s.space.near(subnet) {
		if p, ok := s.pools.Get(name); ok && name != of.Name {
			near = append(near, *p)
		}
	}
	return near
}

// judgeConflicts shows the rules that would refuse the pool were it applied
// now. The webhook refuses it in time if an agent can be reached, and if the
// other object was there by then. One that cannot be understood is judged by
// nothing else.
func (s *poolStatus) judgeConflicts(pool *v2beta1.SpiderIPPool, unusable error) {
	told := ""
	if unusable == nil {
		told = s.conflictsOf(pool)
	}
	if told == "" && meta.FindStatusCondition(pool.Status.Conditions, v2beta1.ConditionConflicting) == nil {
		return
	}
	condition := metav1.Condition{
		Type: v2beta1.ConditionConflicting, Status: metav1.ConditionFalse, ObservedGeneration: pool.Generation,
		Reason: "RulesKept", Message: "no rule is broken",
	}
	if told != "" {
		condition.Status, condition.Reason, condition.Message = metav1.ConditionTrue, "RuleBroken", told
	}
	meta.SetStatusCondition(&pool.Status.Conditions, condition)
}

// conflictsOf judges a pool again only when it or a neighbour has changed:
// pools are counted far more often than that.
func (s *poolStatus) conflictsOf(pool *v2beta1.SpiderIPPool) string {
	near := s.neighbours(pool)
	var key strings.Builder
	for _, p := range append(slices.Clone(near), *pool) {
		fmt.Fprint(&key, p.UID, " ", p.Generation, " ", p.DeletionTimestamp != nil, ";")
	}
	s.mu.Lock()
	known := s.conflicts[pool.Name]
	s.mu.Unlock()
	if known.key == key.String() {
		return known.told
	}
	known = conflicts{key: key.String()}
	if errs := admission.Pool(pool, nil, near, s.rules); len(errs) > 0 {
		known.told = errs[:min(len(errs), shownConflicts)].ToAggregate().Error()
	}
	s.mu.Lock()
	s.conflicts[pool.Name] = known
	s.mu.Unlock()
	return known.told
}

// finish lets a pool go that is being deleted, when its last address is back:
// by the caches, and then by quorum reads. It reports whether the pool went.
func (s *poolStatus) finish(ctx context.Context, pool *v2beta1.SpiderIPPool) (gone bool, err error) {
	if !slices.Contains(pool.Finalizers, v2beta1.Finalizer) || len(s.tally(pool).has) > 0 {
		return false, nil
	}
	users, err := admission.Users(ctx, s.kinds, pool, s.neighbours(pool))
	if err != nil {
		return false, fmt.Errorf("look for users of pool %s: %w", pool.Name, err)
	}
	if len(users) > 0 {
		return false, nil // the caches are about to learn of them
	}
	var patch struct {
		Metadata struct {
			ResourceVersion string   `json:"resourceVersion"`
			Finalizers      []string `json:"finalizers"`
		} `json:"metadata"`
	}
	patch.Metadata.ResourceVersion = pool.ResourceVersion
	patch.Metadata.Finalizers = slices.DeleteFunc(slices.Clone(pool.Finalizers), func(f string) bool { return f == v2beta1.Finalizer })
	text, err := json.Marshal(patch)
	if err != nil {
		return false, fmt.Errorf("let pool %s go: %w", pool.Name, err)
	}
	if _, err := s.client.Patch(ctx, pool.Name, types.MergePatchType, text, metav1.PatchOptions{}); err != nil {
		return false, fmt.Errorf("let pool %s go: %w", pool.Name, guarded(err))
	}
	s.log.Info("its last address is back: the pool goes", "pool", pool.Name)
	return true, nil
}
