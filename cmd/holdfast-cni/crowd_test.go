package main

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

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

// An ADD that is killed leaves nothing that keeps the next one, or a DEL, from
// its work, however far it got.
func TestAddThatIsKilledIsMadeWhole(t *testing.T) {
	t.Parallel()
	networks := nets{lan4, lan6}
	lan := nettest.NewSwitch(t)
	node := newMachine(t, lan, services, networks.at(11)...)
	empty := state(t, node.Namespace)
	p := node.pod(t, "ed")
	p.underlay(t, networks, 101)
	serve(t, p.Namespace, networks.at(101)...)
	for name, reached := range map[string]func() bool{
		"the pair is made":            func() bool { return has(t, p.Namespace, "veth0") },
		"the pod has its first route": func() bool { return routes(t, p.Namespace, 254) > 2 },
		"the pod has its way back":    func() bool { return routes(t, p.Namespace, 100) > 0 },
		"the node has its routes":     func() bool { return routes(t, node.Namespace, 500) > 0 },
	} {
		killed := p.begin(t, "ADD", "eth0", "")
		for until := time.Now().Add(5 * time.Second); !reached(); {
			if time.Now().After(until) {
				t.Fatalf("%s: it has not come so far", name)
			}
		}
		if err := killed.command.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		killed.wait(t)
		p.add(t, "eth0", "")
		p.check(t, "eth0", "")
		reaches(t, name, node.Namespace, netip.Addr{}, on(at(lan6, 101).Addr()), netip.Addr{})
		mustSucceed(t, p.run(t, "DEL", "eth0", ""))
		mustBe(t, node.Namespace, empty)
		// The sandbox goes on, as it does when a runtime starts over.
		p.Run(t, "ip", "rule", "del", "pref", "1000")
		p.Run(t, "ip", "-6", "rule", "del", "pref", "1000")
	}
}

func has(t *testing.T, n *nettest.Namespace, name string) (there bool) {
	t.Helper()
	n.Do(t, func() error {
		_, err := netlink.LinkByName(name)
		there = err == nil
		return nil
	})
	return there
}

// routes counts the routes of a table.
func routes(t *testing.T, n *nettest.Namespace, table int) (count int) {
	t.Helper()
	n.Do(t, func() error {
		all, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
		count = len(all)
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil // it is just being made, and is asked for again
		}
		return err
	})
	return count
}
