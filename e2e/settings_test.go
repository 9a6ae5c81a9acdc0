//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAnotherPoolInTheAnnotationKeepsTheAddress(t *testing.T) {
	s := begin(t, "keep")
	s.statefulSet("web", 2, template("web", s.pool("old", "10.6.15.1-10.6.15.4")))
	before := s.ready("web", 2)
	s.annotate("web", s.pool("new", "10.6.15.5-10.6.15.8"))
	s.keeps(before, s.ready("web", 2, before...))
}

func TestSwitchGivesAnAddressOfTheNewPool(t *testing.T) {
	installed(t, "--set", "ipam.statefulSetPoolChange=switch")
	s := begin(t, "switch")
	old := s.pool("old", "10.6.15.9-10.6.15.12")
	s.statefulSet("web", 2, template("web", old))
	before := s.ready("web", 2)
	s.annotate("web", s.pool("new", "10.6.15.13-10.6.15.16"))
	after := s.ready("web", 2, before...)
	s.within("10.6.15.13", "10.6.15.16", after)
	s.counts(grace, old, 0)
	s.deletePods(after...)
	s.keeps(after, s.ready("web", 2, after...))
}

// annotate changes the pool in the StatefulSet's template, which restarts its
// pods.
func (s *scenario) annotate(set, pool string) {
	s.Helper()
	patch := fmt.Sprintf(`{"spec": {"template": {"metadata": {"annotations": {%q: %q}}}}}`, poolAnnotation, use(pool))
	s.must(s.kubectl("", "patch", "statefulset", set, "-p", patch))
}

// Addresses that stateless pods give back rest, so pods that are deleted and
// made again at once come back with others.
func TestWithStatefulSetsDisabledTheirPodsAreStateless(t *testing.T) {
	installed(t, "--set", "ipam.enableStatefulSet=false")
	s := begin(t, "disabled")
	pool := s.pool("p", "10.6.15.17-10.6.15.24")
	s.statefulSet("web", 2, template("web", pool, onNode(s.workers()[0])))
	before := s.ready("web", 2)
	s.unpinned()
	s.deletePods(before...)
	after := s.ready("web", 2, before...)
	s.within("10.6.15.17", "10.6.15.24", after)
	if maps.Equal(addresses(before), addresses(after)) {
		t.Errorf("both pods came back with the addresses they had, %v", addresses(after))
	}
	s.unpinned()
	s.scale("statefulset/web", 0)
	s.counts(grace, pool, 0)
}

// unpinned fails the scenario if an address is held for one of its pods.
func (s *scenario) unpinned() {
	s.Helper()
	blocks, err := s.cluster.CRDs.IPBlocks().List(s.ctx, metav1.ListOptions{})
	s.must(err)
	for _, b := range blocks.Items {
		for _, p := range b.Spec.Pins {
			if strings.HasPrefix(p.Pod, s.namespace+"/") {
				s.Errorf("%s is pinned for %s", p.Address, p.Pod)
			}
		}
	}
}
