//go:build e2e

package e2e

import (
	"testing"
)

func TestPodKeepsItsAddressWhenRecreatedOnItsNode(t *testing.T) {
	s := begin(t, "same-node")
	node := s.workers()[0]
	s.statefulSet("web", 1, template("web", s.pool("p", "10.6.11.1-10.6.11.4"), onNode(node)))
	before := s.ready("web", 1)
	s.deletePods(before...)
	s.keeps(before, s.ready("web", 1, before...))
}

func TestPodKeepsItsAddressOnAnotherNode(t *testing.T) {
	s := begin(t, "other-node")
	s.statefulSet("web", 2, template("web", s.pool("p", "10.6.11.5-10.6.11.8")))
	before := s.ready("web", 2)
	from := before[0].Spec.NodeName
	s.cordon(from)
	s.deletePods(before[0])
	after := s.ready("web", 2, before[0])
	s.keeps(before, after)
	if after[0].Spec.NodeName == from {
		t.Errorf("web-0 is still on %s", from)
	}
	s.must(s.kubectl("", "exec", "web-1", "--", "ping", "-c", "1", "-w", "20", after[0].Status.PodIP))
	// And back again: the first node has held the address before.
	s.uncordon(from)
	s.cordon(after[0].Spec.NodeName)
	s.deletePods(after[0])
	back := s.ready("web", 2, after[0])
	s.keeps(before, back)
	if back[0].Spec.NodeName == after[0].Spec.NodeName {
		t.Errorf("web-0 is still on %s", after[0].Spec.NodeName)
	}
}

func TestAllPodsKeepTheirAddressesWhenDeletedAtOnce(t *testing.T) {
	s := begin(t, "all-at-once")
	s.statefulSet("web", 5, template("web", s.pool("p", "10.6.11.16-10.6.11.31"), spread))
	before := s.ready("web", 5)
	s.deletePods(before...)
	s.keeps(before, s.ready("web", 5, before...))
}

func TestDefaultPoolSticksWithoutAnyAnnotation(t *testing.T) {
	s := begin(t, "default-pool")
	s.statefulSet("web", 2, template("web", "", noAnnotations))
	before := s.ready("web", 2)
	s.within("10.244.0.16", "10.244.255.239", before)
	s.cordon(before[0].Spec.NodeName)
	s.deletePods(before...)
	s.keeps(before, s.ready("web", 2, before...))
}
