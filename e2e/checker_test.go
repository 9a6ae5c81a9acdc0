//go:build e2e

package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-ipam/holdfast/e2e/checker"
)

// The checker that finds nothing in every other scenario finds something
// here: an address that somebody gives to a second pod by hand.
func TestCheckerSeesTwoPodsWithOneAddress(t *testing.T) {
	s := begin(t, "two-holders")
	s.statefulSet("web", 2, template("web", s.pool("p", "10.6.17.16-10.6.17.19"), spread))
	pods := s.ready("web", 2)
	onPod := func(verb string) {
		t.Helper()
		_, err := s.cluster.OnNode(s.ctx, pods[1].Spec.NodeName, `
id=$(crictl pods --quiet --no-trunc --state Ready --label io.kubernetes.pod.uid=`+string(pods[1].UID)+`)
path=$(crictl inspectp "$id" | jq -r '.info.runtimeSpec.linux.namespaces[] | select(.type == "network").path')
nsenter --net="$path" ip addr `+verb+" "+pods[0].Status.PodIP+`/32 dev eth0`)
		s.must(err)
	}
	onPod("add")
	found := checker.Compare(checker.Gather(s.ctx, s.cluster))
	onPod("del")
	if !slices.ContainsFunc(found, func(v checker.Violation) bool {
		return v.Never && strings.Contains(v.Detail, pods[0].Status.PodIP) &&
			strings.Contains(v.Detail, "web-0") && strings.Contains(v.Detail, "web-1")
	}) {
		t.Errorf("web-1 had the address %s of web-0, and the checker found only %v", pods[0].Status.PodIP, found)
	}
}
