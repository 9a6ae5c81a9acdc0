package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/holdfast-ipam/holdfast/cni/nettest"
)

// What cannot be is refused in words that say what to do, and nothing changes.
func TestWhatCannotBeIsRefusedAndChangesNothing(t *testing.T) {
	t.Parallel()
	const agent = `{"mode":"auto"}`
	for _, c := range []struct{ name, nic, top, agent, told, advice string }{
		{"unknown mode", "eth0", `,"mode":"sideways"`, agent, `no mode "sideways"`, "auto, underlay, overlay or disabled"},
		{"unknown mode of the cluster", "eth0", ``, `{"mode":"sideways"}`, `no mode "sideways"`, "auto, underlay, overlay or disabled"},
		{"overlay of the first", "eth0", `,"mode":"overlay"`, agent, "cannot be that of eth0", "underlay or auto"},
		{"underlay without a pair", "net1", `,"mode":"underlay"`, agent, "needs the interface veth0", "eth0, must have the coordinator too"},
		{"overlay without a pair", "net1", ``, agent, "needs eth0 to be a veth pair", "give the pod's first network the coordinator too"},
		{"overlay of nothing", "net1", `,"podDefaultCniNic":"ens5"`, agent, "there is no ens5", "podDefaultCniNic"},
		{"no interface", "net3", ``, agent, "the pod has no interface net3", "main plugin"},
		{"a long name", "eth0", `,"podDefaultCniNic":"abcdefghijklmnop"`, agent, "cannot be the name of an interface", "15"},
		{"the pair for the default route", "net1", `,"podDefaultRouteNic":"veth0"`, agent, "veth0 is to have the pod's default route, and cannot", "eth0"},
		{"the pod's word on no interface", "eth0", ``, `{"mode":"auto","defaultRouteInterface":"net7","interfaces":["eth0"]}`, `default-route-nic is "net7", and the pod gets no such interface`, "eth0"},
		{"the network's word on no interface", "eth0", `,"podDefaultRouteNic":"net7"`, `{"mode":"auto","interfaces":["eth0","data"]}`, `podDefaultRouteNic is "net7", and the pod gets no such interface`, "eth0, data"},
		{"table main", "eth0", `,"hostRuleTable":254`, agent, "hostRuleTable is 254", "like 500"},
		{"table 0", "eth0", `,"hostRuleTable":0`, agent, "hostRuleTable is 0", "like 500"},
		{"table of the cluster", "eth0", ``, `{"mode":"auto","hostRuleTable":4294967296}`, "hostRuleTable is 4294967296", "like 500"},
		{"filter", "eth0", `,"podRPFilter":3`, agent, "podRPFilter is 3", "0, 1 or 2"},
		{"queue", "eth0", `,"txQueueLen":-1`, agent, "txQueueLen is -1", "packets"},
		{"MTU", "eth0", `,"vethMTU":67`, agent, "vethMTU is 67", "68"},
		{"MTU for IPv6", "eth0", `,"vethMTU":1279`, agent, "vethMTU is 1279, and eth0 has an IPv6 address", "1280"},
		{"MTU of the cluster", "eth0", ``, `{"mode":"auto","vethMTU":70000}`, "vethMTU is 70000", "65535"},
		{"link address", "eth0", `,"vethLinkAddress":"169.254.1.1/32"`, agent, `vethLinkAddress "169.254.1.1/32"`, "without a length"},
		{"MAC prefix", "eth0", `,"podMACPrefix":"0a1b"`, agent, `podMACPrefix "0a1b"`, "like 0a:1b"},
		{"MAC prefix of three", "eth0", `,"podMACPrefix":"0a:1b:2c"`, agent, "podMACPrefix", "like 0a:1b"},
		{"MAC prefix of a group", "eth0", `,"podMACPrefix":"01:1b"`, agent, "group", "even"},
		{"network", "eth0", `,"hijackCIDR":["10.0.0.0/33"]`, agent, `hijackCIDR has "10.0.0.0/33"`, "10.96.0.0/12"},
		{"network of pods", "eth0", `,"overlayPodCIDR":["x"]`, agent, `overlayPodCIDR has "x"`, "10.96.0.0/12"},
		{"network of services", "eth0", `,"serviceCIDR":[""]`, agent, `serviceCIDR has ""`, "10.96.0.0/12"},
		{"the own network", "eth0", `,"hijackCIDR":["10.6.0.0/16"]`, agent, "10.6.0.0/16 is to be reached through the node, and eth0 has a route to it", "leave it out"},
		{"everything", "eth0", `,"hijackCIDR":["::/0"]`, agent, "::/0 is to be reached through the node, and eth0 has a route to it", "leave it out"},
		{"route to nowhere", "eth0", `,"policyRoutes":[{"dst":"here","gw":"10.6.0.1"}]`, agent, `policyRoutes[0].dst "here"`, "10.0.0.0/8"},
		{"route through nobody", "eth0", `,"policyRoutes":[{"dst":"1.1.1.1","gw":"there"}]`, agent, `policyRoutes[0].gw "there"`, "router"},
		{"route of two versions", "eth0", `,"policyRoutes":[{"dst":"1.1.1.1","gw":"fd00:6::1"}]`, agent, "policyRoutes[0] leads to 1.1.1.1/32 through fd00:6::1", "same IP version"},
		{"route of another network", "eth0", `,"policyRoutes":[{"dst":"1.1.1.1","gw":"10.9.0.1"}]`, agent, "10.9.0.1 is not on eth0", "10.6.0.0/16"},
		{"route there is", "eth0", `,"policyRoutes":[{"dst":"0.0.0.0/0","gw":"10.6.0.2"}]`, agent, "has a route there already", "leave one"},
		{"socket", "eth0", `,"ipam_unix_socket_path":"a.sock"`, agent, "not an absolute path", "leave the key out"},
		{"no address of a pool", "eth0", ``, `{"mode":"auto","hijackCIDR":["::ffff:10.0.0.0/104"]}`, "not a Holdfast agent of this version", "restart"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			networks := nets{lan4, lan6}
			node := newMachine(t, nettest.NewSwitch(t), "", networks.at(11)...)
			node.agent = newAgent(t, 200, c.agent)
			p := node.pod(t, "da")
			p.underlay(t, networks, 101)
			p.nics["net1"], p.nics["net3"] = &nic{}, &nic{}
			if c.nic == "net1" {
				p.attach(t, "net1", "eth0", nic{addrs: networks.at(102)})
			}
			onNode, inPod := state(t, node.Namespace), state(t, p.Namespace)
			top := c.top
			stdin := chain("1.0.0", fmt.Sprintf(`,"ipam_unix_socket_path":%q%s,"prevResult":%s`, node.agent.socket, top, p.result(c.nic)))
			printed := cniError(t, node.run(t, "coordinator", stdin, environment("ADD", "CNI_CONTAINERID="+p.id, "CNI_IFNAME="+c.nic, "CNI_NETNS="+p.Path)...))
			if !strings.Contains(printed.Msg, c.told) || !strings.Contains(printed.Details, c.advice) {
				t.Errorf("the user is told %q (%q), want %q and the advice %q", printed.Msg, printed.Details, c.told, c.advice)
			}
			mustBe(t, node.Namespace, onNode)
			mustBe(t, p.Namespace, inPod)
		})
	}
}

// What the agent refuses, the user reads in the agent's words; and a pod that
// CNI_ARGS do not name is nobody to ask for.
func TestTheAgentsRefusalIsTheUsers(t *testing.T) {
	t.Parallel()
	node := newMachine(t, nettest.NewSwitch(t), "", at(lan4, 11))
	node.agent = newAgent(t, 400, `{"code":7,"msg":"SpiderCoordinator default is not synced","details":"see its status.reason"}`)
	p := node.pod(t, "db")
	p.underlay(t, nets{lan4}, 101)
	printed := cniError(t, p.run(t, "ADD", "eth0", ""))
	if printed.Msg != "SpiderCoordinator default is not synced" || printed.Details != "see its status.reason" {
		t.Errorf("printed %+v, want what the agent said", printed)
	}
	printed = cniError(t, p.run(t, "ADD", "eth0", "", "CNI_ARGS="))
	if printed.Code != types.ErrInvalidEnvironmentVariables {
		t.Errorf("without CNI_ARGS it printed %+v, want code %d", printed, types.ErrInvalidEnvironmentVariables)
	}
	node.agent.mustHaveBeenAsked(t, call{"POST", "/v1/coordination",
		`{"containerID":"` + p.id + `","interface":"eth0","pod":{"namespace":"default","name":"test-sts-0","uid":"u-1"}}`})
}

// An interface of the pod's own that has the name of the pair's end is left
// alone.
func TestAnotherVeth0IsNotTaken(t *testing.T) {
	t.Parallel()
	node := newMachine(t, nettest.NewSwitch(t), "", at(lan4, 11))
	p := node.pod(t, "dc")
	p.underlay(t, nets{lan4}, 101)
	p.Run(t, "ip", "link", "add", "veth0", "type", "veth", "peer", "name", "other")
	onNode, inPod := state(t, node.Namespace), state(t, p.Namespace)
	if printed := cniError(t, p.run(t, "ADD", "eth0", "")); !strings.Contains(printed.Msg, "veth0 that the coordinator has not made") {
		t.Errorf("printed %+v, want whose veth0 it is", printed)
	}
	mustBe(t, node.Namespace, onNode)
	mustBe(t, p.Namespace, inPod)
}

// The neighbours of an address that has moved learn of its new owner at once,
// also when an ADD is repeated.
func TestNeighboursLearnOfAnAddressThatMoved(t *testing.T) {
	t.Parallel()
	networks := nets{lan4, lan6}
	lan := nettest.NewSwitch(t)
	router, _ := lan.Host(t, networks.at(1)...)
	node := newMachine(t, lan, "", networks.at(11)...)
	p := node.pod(t, "dd")
	p.underlay(t, networks, 101)
	for range 2 {
		for _, a := range networks.at(101) {
			router.Run(t, "ip", "neigh", "replace", a.Addr().String(), "lladdr", "02:00:00:00:00:99", "dev", "eth0", "nud", "reachable")
		}
		p.add(t, "eth0", `,"podMACPrefix":"0a:1b"`)
		for _, a := range networks.at(101) {
			awaitNeighbour(t, router, a.Addr(), "0a:1b:0a:06:00:65")
		}
	}
	// The node's own memory of another owner goes, too.
	node.Run(t, "ip", "neigh", "replace", "10.6.0.101", "lladdr", "02:00:00:00:00:99", "dev", "eth0", "nud", "stale")
	p.add(t, "eth0", `,"podMACPrefix":"0a:1b"`)
	if left := node.Run(t, "ip", "neigh", "show", "10.6.0.101", "dev", "eth0"); left != "" {
		t.Errorf("the node has still %s", left)
	}
}

func awaitNeighbour(t *testing.T, n *nettest.Namespace, addr netip.Addr, mac string) {
	t.Helper()
	until := time.Now().Add(5 * time.Second)
	for {
		said := n.Run(t, "ip", "neigh", "show", addr.String())
		if strings.Contains(said, mac) {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("the neighbour is %s, want %s", said, mac)
		}
	}
}
