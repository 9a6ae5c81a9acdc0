package main

import (
	"fmt"
	"testing"

	"github.com/holdfast-ipam/holdfast/cni/nettest"
)

// Pods of one node start and end at the same time, again and again, and share
// a rule and a table: nobody loses what another one removes, and in the end
// nothing is left.
func TestPodsThatComeAndGoAtOnce(t *testing.T) {
	t.Parallel()
	networks := nets{lan4, lan6}
	lan := nettest.NewSwitch(t)
	node := newMachine(t, lan, services, networks.at(11)...)
	empty := state(t, node.Namespace)
	var pods []*pod
	for n := range byte(8) {
		p := node.pod(t, fmt.Sprintf("ee%d", n))
		p.underlay(t, networks, 101+n)
		pods = append(pods, p)
	}
	// Half of them stay, and must keep all of theirs in every round.
	staying, moving := pods[:4], pods[4:]
	atOnce(t, "ADD", staying)
	for range 5 {
		atOnce(t, "ADD", moving)
		atOnce(t, "CHECK", pods)
		atOnce(t, "DEL", moving)
	}
	atOnce(t, "CHECK", staying)
	atOnce(t, "DEL", pods)
	mustBe(t, node.Namespace, empty)
	// The last one ends while the first one starts.
	last, first := pods[:1], pods[1:2]
	atOnce(t, "ADD", last)
	for range 30 {
		ending := begin(t, "DEL", last)
		atOnce(t, "ADD", first)
		end(t, ending)
		atOnce(t, "CHECK", first)
		last, first = first, last
	}
	atOnce(t, "DEL", last)
	mustBe(t, node.Namespace, empty)
}

// atOnce runs the coordinator for all pods at once.
func atOnce(t *testing.T, verb string, pods []*pod) {
	t.Helper()
	end(t, begin(t, verb, pods))
}

func begin(t *testing.T, verb string, pods []*pod) (all []*started) {
	t.Helper()
	for _, p := range pods {
		all = append(all, p.begin(t, verb, "eth0", ""))
	}
	return all
}

func end(t *testing.T, all []*started) {
	t.Helper()
	for _, s := range all {
		mustSucceed(t, s.wait(t))
	}
}
