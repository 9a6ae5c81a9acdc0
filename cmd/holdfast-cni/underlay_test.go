package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/nftables"

	"github.com/holdfast-ipam/holdfast/cni/nettest"
)

const services = `,"serviceCIDR":["10.96.0.0/12","fd00:96::/112"],"overlayPodCIDR":["10.244.0.0/16"]`

// virtual is the address of a service in the network's family.
func virtual(network netip.Prefix) netip.Addr {
	if network.Addr().Is4() {
		return netip.MustParseAddr("10.96.0.10")
	}
	return netip.MustParseAddr("fd00:96::10")
}

// A pod on the underlay reaches its node and all pods, is reached by them, and
// reaches services, over each family.
func TestUnderlayPodReachesEverythingItShould(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, networks nets) {
		lan := nettest.NewSwitch(t)
		router, _ := lan.Host(t, networks.at(1)...)
		here, there := newMachine(t, lan, services, networks.at(11)...), newMachine(t, lan, services, networks.at(12)...)
		pods := map[byte]*pod{101: here.pod(t, "a1"), 102: here.pod(t, "a2"), 103: there.pod(t, "a3")}
		for n, p := range pods {
			p.underlay(t, networks, n)
			p.add(t, "eth0", "")
			p.check(t, "eth0", "")
			serve(t, p.Namespace, networks.at(n)...)
		}
		serve(t, here.Namespace, networks.at(11)...)
		serve(t, there.Namespace, networks.at(12)...)
		serve(t, router, networks.at(1)...)
		for _, network := range networks {
			addr := func(n byte) netip.Addr { return at(network, n).Addr() }
			any := netip.Addr{}
			unmasked, beyond := netip.AddrPortFrom(virtual(network), 81), netip.AddrPortFrom(virtual(network), 82)
			here.service(t, on(virtual(network)), on(addr(103)), true)
			here.service(t, unmasked, on(addr(103)), false)
			here.service(t, beyond, on(addr(12)), false)
			reaches(t, "node to its pod", here.Namespace, any, on(addr(101)), addr(11))
			reaches(t, "node to another node's pod", here.Namespace, any, on(addr(103)), addr(11))
			reaches(t, "pod to its node", pods[101].Namespace, any, on(addr(11)), addr(101))
			reaches(t, "pod to another node", pods[101].Namespace, any, on(addr(12)), addr(101))
			reaches(t, "pod to pod on its node", pods[101].Namespace, any, on(addr(102)), addr(101))
			reaches(t, "pod to pod on another node", pods[101].Namespace, any, on(addr(103)), addr(101))
			reaches(t, "pod to router", pods[101].Namespace, any, on(addr(1)), addr(101))
			reaches(t, "router to pod", router, any, on(addr(101)), addr(1))
			reaches(t, "pod to service with a backend on another node", pods[101].Namespace, any, on(virtual(network)), addr(11))
			reaches(t, "pod to service with a kube-proxy that takes it for the cluster's", pods[101].Namespace, any, unmasked, addr(11))
			reaches(t, "pod to service that another node is", pods[101].Namespace, any, beyond, addr(11))
		}
	})
}

// A service leads to a backend on the client's own node, also to the client
// itself, and back.
func TestUnderlayPodReachesServicesOnItsOwnNode(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, networks nets) {
		lan := nettest.NewSwitch(t)
		here := newMachine(t, lan, services, networks.at(11)...)
		client, server := here.pod(t, "c1"), here.pod(t, "c2")
		for n, p := range map[byte]*pod{101: client, 102: server} {
			p.underlay(t, networks, n)
			p.add(t, "eth0", "")
			serve(t, p.Namespace, networks.at(n)...)
		}
		for _, network := range networks {
			addr := func(n byte) netip.Addr { return at(network, n).Addr() }
			plain, masked := on(virtual(network)), netip.AddrPortFrom(virtual(network), 81)
			here.service(t, plain, on(addr(102)), false)
			here.service(t, masked, on(addr(101)), true)
			reaches(t, "pod to service", client.Namespace, netip.Addr{}, plain, addr(101))
			reaches(t, "pod to a service that is itself", client.Namespace, netip.Addr{}, masked, netip.Addr{})
		}
	})
}

// A client whose address the node does not change (externalTrafficPolicy Local)
// is answered through the node, though it is on the pod's own network, or
// though the pod knows no way to it.
func TestAnswersOfANodePortGoBackThroughTheNode(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, networks nets) {
		for name, gateways := range map[string][]netip.Addr{"with a default route": routers(networks), "without a default route": nil} {
			t.Run(name, func(t *testing.T) {
				lan := nettest.NewSwitch(t)
				here := newMachine(t, lan, services, networks.at(11)...)
				near, _ := lan.Host(t, networks.at(50)...)
				far, outside := beyond(t, lan, networks)
				p := here.pod(t, "d1")
				p.attach(t, "eth0", "eth0", nic{networks.at(101), gateways})
				p.add(t, "eth0", "")
				serve(t, p.Namespace, networks.at(101)...)
				for i, network := range networks {
					node := netip.AddrPortFrom(at(network, 11).Addr(), 30080)
					here.Run(t, "ip", "route", "replace", "default", "via", at(network, 1).Addr().String())
					here.service(t, node, on(at(network, 101).Addr()), false)
					reaches(t, "client on the pod's network", near, netip.Addr{}, node, at(network, 50).Addr())
					by := []string{"tcp", "udp"}
					if gateways == nil {
						by = by[:1] // see package cni/coordinator: what the kernel does for TCP, it does not for UDP
					}
					reachesBy(t, "client far away", far, netip.Addr{}, node, outside[i].Addr(), by...)
				}
			})
		}
	})
}

// beyond returns a host behind the networks' router, and its addresses.
func beyond(t *testing.T, lan *nettest.Switch, networks nets) (*nettest.Namespace, []netip.Prefix) {
	t.Helper()
	var outside nets
	for _, network := range networks {
		if network.Addr().Is4() {
			outside = append(outside, netip.MustParsePrefix("192.0.2.0/24"))
		} else {
			outside = append(outside, netip.MustParsePrefix("2001:db8::/64"))
		}
	}
	wide := nettest.NewSwitch(t)
	router, _ := lan.Host(t, networks.at(1)...)
	wide.Plug(t, router, "eth1")
	router.Up(t, "eth1", outside.at(1)...)
	router.Set(t, "1", "ipv4/ip_forward", "ipv6/conf/all/forwarding")
	far, _ := wide.Host(t, outside.at(9)...)
	for _, r := range outside.at(1) {
		far.Run(t, "ip", "route", "add", "default", "via", r.Addr().String())
	}
	return far, outside.at(9)
}

// Nothing is left on a node when its pods are gone, whatever else is gone by
// then, and what is left of others stays.
func TestNothingIsLeftOnTheNode(t *testing.T) {
	t.Parallel()
	networks := nets{lan4, lan6}
	lan := nettest.NewSwitch(t)
	node := newMachine(t, lan, services, networks.at(11)...)
	before := state(t, node.Namespace)
	first, second := node.pod(t, "e1"), node.pod(t, "e2")
	first.underlay(t, networks, 101)
	second.underlay(t, networks, 102)
	first.add(t, "eth0", "")
	with := state(t, node.Namespace)
	second.add(t, "eth0", "")
	node.agent.server.Close() // DEL needs none
	for range 2 {
		mustSucceed(t, second.run(t, "DEL", "eth0", "", "CNI_NETNS=", "CNI_ARGS="))
		mustBe(t, node.Namespace, with)
	}
	for range 2 {
		mustSucceed(t, first.run(t, "DEL", "eth0", "", "CNI_NETNS=/var/run/netns/gone"))
		mustBe(t, node.Namespace, before)
	}
	// An ADD that got no further than to make the pair, without its alias.
	host := "veth" + first.id[:11]
	node.Run(t, "ip", "link", "add", host, "type", "veth", "peer", "name", "inner")
	mustSucceed(t, first.run(t, "DEL", "eth0", ""))
	mustBe(t, node.Namespace, before)
	// A name that is another container's, as its alias says.
	node.Run(t, "ip", "link", "add", host, "type", "veth", "peer", "name", "inner")
	node.Run(t, "ip", "link", "set", host, "alias", "holdfast 0011223344556677 "+first.id[:11]+"ffff")
	others := state(t, node.Namespace)
	mustSucceed(t, first.run(t, "DEL", "eth0", ""))
	mustBe(t, node.Namespace, others)
}

// An ADD that is repeated changes nothing, and one that ended anywhere half way
// is made whole by the next.
func TestAddIsMadeWholeByTheNext(t *testing.T) {
	t.Parallel()
	networks := nets{lan4, lan6}
	lan := nettest.NewSwitch(t)
	node := newMachine(t, lan, services, networks.at(11)...)
	p := node.pod(t, "f1")
	p.underlay(t, networks, 101)
	first := p.add(t, "eth0", "")
	onNode, inPod := state(t, node.Namespace), state(t, p.Namespace)
	again := func(what string) {
		t.Helper()
		if got := p.add(t, "eth0", ""); got.Stdout != first.Stdout {
			t.Errorf("%s: printed %s, want %s as before", what, got.Stdout, first.Stdout)
		}
		p.check(t, "eth0", "")
		reaches(t, what, node.Namespace, netip.Addr{}, on(at(lan6, 101).Addr()), netip.Addr{})
	}
	serve(t, p.Namespace, networks.at(101)...)
	again("nothing was missing")
	mustBe(t, node.Namespace, onNode)
	mustBe(t, p.Namespace, inPod)
	host := "veth" + p.id[:11]
	for _, broken := range []string{"node ip link set " + host + " down", "pod ip link del veth0", "node ip link del " + host,
		"node ip route flush table 500", "node ip rule del pref 1000", "pod ip route flush table 100", "pod ip link set veth0 address 02:00:00:00:00:01",
		"pod ip link set veth0 down", "pod ip -6 rule del pref 1000"} {
		where, words := node.Namespace, strings.Fields(broken)
		if words[0] == "pod" {
			where = p.Namespace
		}
		where.Run(t, words[1], words[2:]...)
		again(broken)
	}
}

// CHECK says what is missing.
func TestCheckNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	networks := nets{lan4, lan6}
	lan := nettest.NewSwitch(t)
	node := newMachine(t, lan, services, networks.at(11)...)
	const top = `,"txQueueLen":777,"vethLinkAddress":"169.254.9.9","podMACPrefix":"0a:1b"`
	p := node.pod(t, "9a")
	p.underlay(t, networks, 101)
	p.add(t, "eth0", top)
	host := "veth" + p.id[:11]
	removed := func(in *nettest.Namespace, told string) {
		t.Helper()
		p.check(t, "eth0", top)
		in.Do(t, func() error {
			conn, err := nftables.New()
			if err != nil {
				return err
			}
			conn.DelTable(&nftables.Table{Name: "holdfast", Family: nftables.TableFamilyIPv4})
			return conn.Flush()
		})
		if printed := cniError(t, p.run(t, "CHECK", "eth0", top)); !strings.Contains(printed.Msg, told) {
			t.Errorf("without its table of nftables, CHECK says %q, want %q in it", printed.Msg, told)
		}
		p.add(t, "eth0", top)
	}
	removed(p.Namespace, "nftables of IPv4, chain output of table holdfast: answers go back to the node in the pod")
	removed(node.Namespace, "10.6.0.101 in the set pods of nftables' table holdfast on the node")
	for _, c := range []struct{ broken, told string }{
		{"pod ip route del 10.6.0.11", "the route to 10.6.0.11/32 through veth0 in table 254 in the pod"},
		{"pod ip -6 route del fd00:96::/112", "the route to fd00:96::/112 through veth0 in table 254 in the pod"},
		{"pod ip route flush table 100", "the route to 0.0.0.0/0 through veth0 in table 100 in the pod"},
		{"pod ip rule del pref 1000", "the rule 1000 of IPv4 fwmark 0x1 lookup 100 in the pod"},
		{"pod ip neigh del 10.6.0.11 dev veth0", "the neighbour 10.6.0.11"},
		{"pod ip link set eth0 txqueuelen 1", "a transmit queue of 777 (it has 1)"},
		{"pod ip addr del 169.254.9.9/32 dev veth0", "the address 169.254.9.9 on veth0 in the pod"},
		{"pod ip link set eth0 address 02:00:00:00:00:01", "the hardware address 0a:1b:0a:06:00:65 (it has 02:00:00:00:00:01)"},
		{"pod sysctl -w net.ipv4.conf.eth0.rp_filter=1", "net/ipv4/conf/eth0/rp_filter being 0 (it is 1)"},
		{"node ip -6 route del fd00:6::65 table 500", "the route to fd00:6::65/128 through " + host + " in table 500 on the node"},
		{"node ip rule del pref 1000", "the rule 1000 of IPv4 lookup 500 on the node"},
		{"node ip neigh del 10.6.0.101 dev " + host, "the neighbour 10.6.0.101"},
		{"node ip link del " + host, "the pair of " + host + " on the node and veth0"},
	} {
		p.check(t, "eth0", top)
		where, words := node.Namespace, strings.Fields(c.broken)
		if words[0] == "pod" {
			where = p.Namespace
		}
		where.Run(t, words[1], words[2:]...)
		if printed := cniError(t, p.run(t, "CHECK", "eth0", top)); !strings.Contains(printed.Msg, c.told) {
			t.Errorf("after %s, CHECK says %q, want %q in it", c.broken, printed.Msg, c.told)
		}
		p.add(t, "eth0", top)
	}
}

// Settings show where they are meant to.
func TestSettingsOfTheLinks(t *testing.T) {
	t.Parallel()
	lan := nettest.NewSwitch(t)
	node := newMachine(t, lan, `,"txQueueLen":900,"vethMTU":1400,"podRPFilter":2,"hostRuleTable":600,"podMACPrefix":"0a:ff"`, at(lan4, 11))
	filters := node.Get(t, "ipv4/conf/all/rp_filter")
	p := node.pod(t, "b1")
	p.underlay(t, nets{lan4}, 101)
	got := p.add(t, "eth0", `,"txQueueLen":0,"podMACPrefix":"0a:1b","vethLinkAddress":"169.254.9.9"`)
	host := "veth" + p.id[:11]
	if !strings.Contains(got.Stdout, `"mac": "0a:1b:0a:06:00:65"`) {
		t.Errorf("printed %s, want the hardware address that eth0 has got", got.Stdout)
	}
	for _, c := range []struct {
		in          *nettest.Namespace
		show, wants string
	}{
		{p.Namespace, "ip link show eth0", "0a:1b:0a:06:00:65"}, {p.Namespace, "ip link show eth0", "qlen 900"},
		{p.Namespace, "ip link show veth0", "mtu 1400"}, {node.Namespace, "ip link show " + host, "mtu 1400"},
		{p.Namespace, "ip addr show veth0", "inet 169.254.9.9/32 scope link"},
		{p.Namespace, "ip route get 10.6.0.11", "dev veth0 src 10.6.0.101"},
		{node.Namespace, "ip route show table 600", "10.6.0.101 dev " + host}, {node.Namespace, "ip rule show pref 1000", "from all lookup 600"},
	} {
		words := strings.Fields(c.show)
		if said := c.in.Run(t, words[0], words[1:]...); !strings.Contains(said, c.wants) {
			t.Errorf("%s says %s, want %s in it", c.show, said, c.wants)
		}
	}
	for _, dev := range []string{"all", "default", "eth0", "veth0"} {
		if value := p.Get(t, "ipv4/conf/"+dev+"/rp_filter"); value != "2" {
			t.Errorf("rp_filter of the pod's %s is %s, want 2", dev, value)
		}
	}
	if value := node.Get(t, "ipv4/conf/all/rp_filter"); value != filters {
		t.Errorf("rp_filter of the node became %s, want it left at %s", value, filters)
	}
	serve(t, node.Namespace, at(lan4, 11))
	reaches(t, "pod to node", p.Namespace, netip.Addr{}, on(at(lan4, 11).Addr()), at(lan4, 101).Addr())
}

// With either word for off, nothing is changed and nobody is asked.
func TestOffIsOff(t *testing.T) {
	t.Parallel()
	lan := nettest.NewSwitch(t)
	for _, c := range []struct {
		conf, cluster string
		asked         int
	}{{`,"mode":"disabled"`, "auto", 0}, {`,"mode":"disable"`, "auto", 0}, {``, "disabled", 1}} {
		t.Run(fmt.Sprintf("%s, cluster %s", c.conf, c.cluster), func(t *testing.T) {
			node := newMachine(t, lan, "", at(lan4, 11))
			node.agent = newAgent(t, 200, `{"mode":"`+c.cluster+`"}`)
			p := node.pod(t, "b2")
			p.underlay(t, nets{lan4}, 101)
			onNode, inPod := state(t, node.Namespace), state(t, p.Namespace)
			got := p.add(t, "eth0", c.conf)
			if !sameJSON(got.Stdout, p.result("eth0")) {
				t.Errorf("printed %s, want prevResult %s", got.Stdout, p.result("eth0"))
			}
			if asked := node.agent.asked(); len(asked) != c.asked {
				t.Errorf("the agent was asked %v, want %d requests", asked, c.asked)
			}
			p.check(t, "eth0", c.conf)
			mustBe(t, node.Namespace, onNode)
			mustBe(t, p.Namespace, inPod)
		})
	}
}

// A node whose address changes goes on to reach its pods, and to lead them to
// services.
func TestPodsOutliveAChangeOfTheirNodesAddress(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, networks nets) {
		lan := nettest.NewSwitch(t)
		here := newMachine(t, lan, services, networks.at(11)...)
		other, _ := lan.Host(t, networks.at(50)...)
		serve(t, other, networks.at(50)...)
		p := here.pod(t, "e7")
		p.underlay(t, networks, 101)
		p.add(t, "eth0", "")
		serve(t, p.Namespace, networks.at(101)...)
		for i := range networks {
			here.Run(t, "ip", "addr", "del", networks.at(11)[i].String(), "dev", "eth0")
		}
		here.Up(t, "eth0", networks.at(12)...)
		for i, network := range networks {
			service := netip.AddrPortFrom(virtual(network), 81)
			here.service(t, service, on(networks.at(50)[i].Addr()), false)
			reaches(t, "the node to its pod", here.Namespace, netip.Addr{}, on(networks.at(101)[i].Addr()), networks.at(12)[i].Addr())
			reaches(t, "pod to service", p.Namespace, netip.Addr{}, service, networks.at(12)[i].Addr())
		}
	})
}
