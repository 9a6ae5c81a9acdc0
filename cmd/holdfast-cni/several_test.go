package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/holdfast-ipam/holdfast/cni/nettest"
)

// campus is three networks with a node on each, and a router between them that
// drops what comes from where it does not route to: an answer that takes
// another way than the question is lost.
type campus struct {
	lans []nets
	node *machine
	// far is a host behind the router, which has farAddrs and serves there.
	far      *nettest.Namespace
	farAddrs []netip.Prefix
}

func lans() []nets {
	var all []nets
	for _, n := range []string{"6", "7", "8"} {
		all = append(all, nets{netip.MustParsePrefix("10." + n + ".0.0/16"), netip.MustParsePrefix("fd00:" + n + "::/64")})
	}
	return all
}

// newCampus returns a campus. The node has an address on the first network
// alone.
func newCampus(t *testing.T, settings string) *campus {
	t.Helper()
	c := &campus{lans: lans()}
	first := nettest.NewSwitch(t)
	c.node = newMachine(t, first, settings, c.lans[0].at(11)...)
	router, _ := first.Host(t, c.lans[0].at(1)...)
	for i, lan := range c.lans[1:] {
		segment, name := nettest.NewSwitch(t), fmt.Sprintf("eth%d", i+1)
		segment.Plug(t, c.node.Namespace, name)
		c.node.Up(t, name)
		segment.Plug(t, router, name)
		router.Up(t, name, lan.at(1)...)
	}
	outside := nets{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/64")}
	wide := nettest.NewSwitch(t)
	wide.Plug(t, router, "eth9")
	router.Up(t, "eth9", outside.at(1)...)
	router.Set(t, "1", "ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/all/rp_filter")
	c.far, _ = wide.Host(t, outside.at(9)...)
	c.farAddrs = outside.at(9)
	for _, gateway := range outside.at(1) {
		c.far.Run(t, "ip", "route", "add", "default", "via", gateway.Addr().String())
	}
	for _, gateway := range c.lans[0].at(1) {
		c.node.Run(t, "ip", "route", "add", "default", "via", gateway.Addr().String())
	}
	serve(t, c.far, c.farAddrs...)
	serve(t, c.node.Namespace, c.lans[0].at(11)...)
	return c
}

// pod returns a pod with an interface on each of the networks, in order, which
// are coordinated with the further members of the configurations.
func (c *campus) pod(t *testing.T, id string, top ...string) *pod {
	t.Helper()
	p := c.node.pod(t, id)
	for i, more := range top {
		name := fmt.Sprintf("net%d", i)
		if i == 0 {
			name = "eth0"
		}
		p.attach(t, name, fmt.Sprintf("eth%d", i), nic{c.lans[i].at(101), routers(c.lans[i])})
		p.add(t, name, more)
		serve(t, p.Namespace, c.lans[i].at(101)...)
	}
	return p
}

// mustRoute fails the test unless `ip route get` with the arguments says so.
func mustRoute(t *testing.T, n *nettest.Namespace, get, want string) {
	t.Helper()
	if said := n.Run(t, "ip", append([]string{"route", "get"}, strings.Fields(get)...)...); !strings.Contains(said, want) {
		t.Errorf("ip route get %s says %s, want %s in it", get, said, want)
	}
}

// A pod with three interfaces answers on the one that it was asked on, and what
// has an address of it leaves on its interface; each reaches the node, services
// and the world, and what has none yet leaves on the interface that is asked
// for.
func TestEachInterfaceAnswersForItself(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, cluster, top string
		lead               int // the interface with the default route
	}{
		{"the first has the default route", "", "", 0},
		{"the first by name", "", `,"podDefaultRouteNic":"eth0"`, 0},
		{"the second has it", "", `,"podDefaultRouteNic":"net1"`, 1},
		{"the third has it, by the cluster", `,"podDefaultRouteNIC":"net2"`, "", 2},
		{"the third has it, by the pod", `,"defaultRouteInterface":"net2"`, `,"podDefaultRouteNic":"net1"`, 2},
		{"one that is not known of", "", `,"podDefaultRouteNic":"net7"`, 0},
		{"one that others of the cluster have", `,"podDefaultRouteNIC":"data","interfaces":["eth0","net1","net2"]`, "", 0},
		{"one that others of the network have", `,"interfaces":["eth0"]`, `,"podDefaultRouteNic":"net7"`, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			campus := newCampus(t, services+c.cluster)
			p := campus.pod(t, "aa", c.top, c.top, c.top)
			checkAll(t, p, c.top)
			campus.reachAll(t, p, c.lead, 3)
			onNode, inPod := state(t, campus.node.Namespace), state(t, p.Namespace)
			for _, name := range []string{"net2", "net1", "eth0", "net1", "net2"} {
				p.add(t, name, c.top)
			}
			checkAll(t, p, c.top)
			mustBe(t, campus.node.Namespace, onNode)
			mustBe(t, p.Namespace, inPod)
		})
	}
}

func checkAll(t *testing.T, p *pod, top string) {
	t.Helper()
	for name := range p.nics {
		p.check(t, name, top)
	}
}

// reachAll fails the test unless everybody reaches everybody. lead is the
// interface with the default route, of as many as there are.
func (c *campus) reachAll(t *testing.T, p *pod, lead, interfaces int) {
	t.Helper()
	for f := range c.farAddrs {
		far := c.farAddrs[f].Addr()
		service, node := netip.AddrPortFrom(virtual(c.farAddrs[f]), port), on(c.lans[0].at(11)[f].Addr())
		if interfaces == len(c.lans) {
			nodePort := netip.AddrPortFrom(node.Addr(), 30080)
			c.node.service(t, service, on(far), true)
			c.node.service(t, nodePort, on(c.lans[0].at(101)[f].Addr()), false)
			reaches(t, "the world to a NodePort", c.far, netip.Addr{}, nodePort, far)
		}
		reaches(t, "pod to the world", p.Namespace, netip.Addr{}, on(far), c.lans[lead].at(101)[f].Addr())
		for i, lan := range c.lans[:interfaces] {
			own, what := lan.at(101)[f].Addr(), fmt.Sprintf("interface %d: ", i)
			reaches(t, what+"the world to it", c.far, netip.Addr{}, on(own), far)
			reaches(t, what+"to the world", p.Namespace, own, on(far), own)
			reaches(t, what+"the node to it", c.node.Namespace, netip.Addr{}, on(own), node.Addr())
			reaches(t, what+"to the node", p.Namespace, own, node, own)
			if interfaces == len(c.lans) {
				reaches(t, what+"to a service", p.Namespace, own, service, node.Addr())
			}
		}
	}
}

// Without tunePodRoutes, routes stay as the main plugins have made them.
func TestRoutesStayWithoutTunePodRoutes(t *testing.T) {
	t.Parallel()
	campus := newCampus(t, services+`,"tunePodRoutes":false`)
	p := campus.pod(t, "ab", "", "")
	rules := p.Run(t, "ip", "rule") + p.Run(t, "ip", "-6", "rule")
	if strings.Contains(rules, "1100:") {
		t.Errorf("the pod has the rules %s", rules)
	}
	defaults := p.Run(t, "ip", "route", "show", "default")
	if !strings.Contains(defaults, "dev eth0") || !strings.Contains(defaults, "dev net1") {
		t.Errorf("the pod has the default routes %s, want both", defaults)
	}
	reaches(t, "the node to net1", campus.node.Namespace, netip.Addr{}, on(campus.lans[1].at(101)[0].Addr()), netip.Addr{})
	checkAll(t, p, "")
}

// The network of the cluster's pods may be that of an interface, or a part of
// it: then they are on its link. A wider one leads through the node.
func TestPodsOnTheLinkNeedNoNode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ pods, node, first, second string }{
		{`"10.6.0.0/16","fd00:6::/64"`, "", "10.6.3.3", ""},
		{`"10.6.3.0/24","fd00:6::/112"`, "", "10.6.3.3", ""},
		{`"10.7.0.0/16","fd00:7::/64"`, "", "", "10.7.3.3"},
		{`"10.7.3.0/24"`, "", "", "10.7.3.3"},
		{`"10.0.0.0/8","fd00::/16"`, "10.9.9.9", "10.6.3.3", "10.7.3.3"},
	} {
		t.Run(c.pods, func(t *testing.T) {
			t.Parallel()
			campus := newCampus(t, `,"overlayPodCIDR":[`+c.pods+`]`)
			p := campus.pod(t, "fa", "", "")
			for to, dev := range map[string]string{c.node: "dev veth0", c.first: "dev eth0", c.second: "dev net1"} {
				if to != "" {
					mustRoute(t, p.Namespace, to, dev)
				}
			}
			p.add(t, "eth0", "")
			p.check(t, "eth0", "")
			p.check(t, "net1", "")
			campus.reachAll(t, p, 0, 2)
		})
	}
}

// policyRoutes are routes of what leaves on the interface, those of the first
// one for the whole pod.
func TestPolicyRoutes(t *testing.T) {
	t.Parallel()
	campus := newCampus(t, services)
	p := campus.pod(t, "ac", `,"policyRoutes":[{"dst":"198.51.100.0/24","gw":"10.6.0.2"}]`,
		`,"policyRoutes":[{"dst":"198.51.100.0/24","gw":"10.7.0.3"},{"dst":"2001:db8:9::9","gw":"fd00:7::3"}]`)
	mustRoute(t, p.Namespace, "198.51.100.1", "via 10.6.0.2 dev eth0")
	mustRoute(t, p.Namespace, "198.51.100.1 from 10.6.0.101", "via 10.6.0.2 dev eth0")
	mustRoute(t, p.Namespace, "198.51.100.1 from 10.7.0.101", "via 10.7.0.3 dev net1")
	mustRoute(t, p.Namespace, "2001:db8:9::9 from fd00:7::65", "via fd00:7::3 dev net1")
	mustRoute(t, p.Namespace, "2001:db8:9::9", "via fd00:6::1 dev eth0")
	// The cluster's are for the interface whose network has the router.
	campus.node.agent = newAgent(t, 200, `{"mode":"auto","policyRoutes":[{"dst":"203.0.113.0/24","gw":"10.8.0.4"}]}`)
	p = campus.pod(t, "ad", "", "", "")
	mustRoute(t, p.Namespace, "203.0.113.1 from 10.8.0.101", "via 10.8.0.4 dev net2")
	mustRoute(t, p.Namespace, "203.0.113.1 from 10.7.0.101", "via 10.7.0.1 dev net1")
}

// An interface without a router leaves the default route where it is, and one
// that is asked to have it must have one.
func TestAnInterfaceWithoutARouter(t *testing.T) {
	t.Parallel()
	campus := newCampus(t, services)
	p := campus.pod(t, "ae", "")
	p.attach(t, "net1", "eth1", nic{addrs: campus.lans[1].at(101)})
	p.add(t, "net1", "")
	p.check(t, "net1", "")
	mustRoute(t, p.Namespace, "192.0.2.9", "via 10.6.0.1 dev eth0")
	serve(t, p.Namespace, campus.lans[1].at(101)...)
	reaches(t, "the node to net1", campus.node.Namespace, netip.Addr{}, on(campus.lans[1].at(101)[1].Addr()), netip.Addr{})
	before := state(t, p.Namespace)
	refused := p.run(t, "ADD", "net1", `,"podDefaultRouteNic":"net1"`)
	if printed := cniError(t, refused); !strings.Contains(printed.Msg, "net1 is to have the pod's default route, and has no router") {
		t.Errorf("printed %+v, want what net1 lacks", printed)
	}
	mustBe(t, p.Namespace, before)
}

// An interface without addresses (disableIPAM) has nothing to be coordinated,
// and gets what needs none.
func TestAnInterfaceWithoutAddresses(t *testing.T) {
	t.Parallel()
	campus := newCampus(t, services)
	p := campus.pod(t, "a0", "")
	before := state(t, campus.node.Namespace)
	p.attach(t, "net1", "eth1", nic{})
	p.add(t, "net1", `,"txQueueLen":55,"podMACPrefix":"0a:1b"`)
	p.check(t, "net1", `,"txQueueLen":55,"podMACPrefix":"0a:1b"`)
	if said := p.Run(t, "ip", "link", "show", "net1"); !strings.Contains(said, "qlen 55") {
		t.Errorf("net1 is %s, want a queue of 55", said)
	}
	mustBe(t, campus.node.Namespace, before)
	bare := campus.node.pod(t, "a1")
	bare.attach(t, "eth0", "eth0", nic{})
	bare.add(t, "eth0", "")
	bare.check(t, "eth0", "")
	mustSucceed(t, bare.run(t, "DEL", "eth0", ""))
	mustBe(t, campus.node.Namespace, before)
}

// A DEL of one interface leaves the others as they were.
func TestDelOfOneInterfaceLeavesTheOthers(t *testing.T) {
	t.Parallel()
	campus := newCampus(t, services)
	empty := state(t, campus.node.Namespace)
	p := campus.pod(t, "af", "")
	one := state(t, campus.node.Namespace)
	for i, name := range []string{"net1", "net2"} {
		p.attach(t, name, fmt.Sprintf("eth%d", i+1), nic{campus.lans[i+1].at(101), routers(campus.lans[i+1])})
		p.add(t, name, "")
	}
	for _, name := range []string{"net2", "net1", "net1"} {
		mustSucceed(t, p.run(t, "DEL", name, "", "CNI_ARGS="))
	}
	mustBe(t, campus.node.Namespace, one)
	reaches(t, "the node to eth0", campus.node.Namespace, netip.Addr{}, on(campus.lans[0].at(101)[0].Addr()), netip.Addr{})
	mustSucceed(t, p.run(t, "DEL", "eth0", ""))
	mustSucceed(t, p.run(t, "DEL", "net1", ""))
	mustBe(t, campus.node.Namespace, empty)
}

// GC removes what belongs to its network's sandboxes that are over, and no
// other's.
func TestGCRemovesWhatIsOver(t *testing.T) {
	t.Parallel()
	networks := nets{lan4, lan6}
	lan := nettest.NewSwitch(t)
	node := newMachine(t, lan, services, networks.at(11)...)
	empty := state(t, node.Namespace)
	kept, over, others := node.pod(t, "ba"), node.pod(t, "bb"), node.pod(t, "bc")
	kept.underlay(t, networks, 101)
	kept.add(t, "eth0", "")
	others.underlay(t, networks, 103)
	stdin := strings.Replace(chain("1.0.0", fmt.Sprintf(`,"ipam_unix_socket_path":%q,"prevResult":%s`, node.agent.socket, others.result("eth0"))), `"lan"`, `"another"`, 1)
	if got := node.run(t, "coordinator", stdin, environment("ADD", "CNI_CONTAINERID="+others.id, "CNI_NETNS="+others.Path)...); got.Exit != 0 {
		t.Fatalf("ADD in another network ended with %+v", got)
	}
	node.Run(t, "ip", "link", "add", "vethabcdefabcd0", "type", "veth", "peer", "name", "foreign")
	before := state(t, node.Namespace)
	over.underlay(t, networks, 102)
	over.add(t, "eth0", "")
	gc := func(valid string) {
		t.Helper()
		mustSucceed(t, node.run(t, "coordinator", chain("1.1.0", `,"cni.dev/valid-attachments":`+valid), environment("GC")...))
	}
	gc(fmt.Sprintf(`[{"containerID":%q,"ifname":"eth0"}]`, kept.id))
	mustBe(t, node.Namespace, before)
	mustSucceed(t, others.run(t, "DEL", "eth0", ""))
	node.Run(t, "ip", "link", "del", "foreign")
	gc(`[]`)
	mustBe(t, node.Namespace, empty)
}

// overlay gives the pod eth0 as an overlay network's plugin does: a veth pair
// whose other end is on the node and routes.
func (p *pod) overlay(t *testing.T, n byte) {
	t.Helper()
	networks := nets{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:244::/64")}
	peer := fmt.Sprintf("cali%d", n)
	p.node.Run(t, "ip", "link", "add", peer, "type", "veth", "peer", "name", "tmp")
	p.take(t, "tmp", "eth0")
	p.node.Up(t, peer, networks.at(1)...)
	p.Up(t, "eth0", networks.at(n)...)
	for _, gateway := range networks.at(1) {
		p.Run(t, "ip", "route", "add", "default", "via", gateway.Addr().String())
	}
	p.nics["eth0"] = &nic{networks.at(n), routers(networks)}
}

// take moves an interface of the node into the pod.
func (p *pod) take(t *testing.T, from, to string) {
	t.Helper()
	into, err := os.Open(p.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer into.Close()
	p.node.Do(t, func() error {
		link, err := netlink.LinkByName(from)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetName(link, to+"tmp"); err != nil {
			return err
		}
		return netlink.LinkSetNsFd(link, int(into.Fd()))
	})
	p.Run(t, "ip", "link", "set", to+"tmp", "name", to)
}

// In mode overlay, the pod's eth0 serves as the way between node and pod.
func TestOverlayPodWithInterfacesOfTheUnderlay(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"", `,"mode":"overlay"`} {
		t.Run("mode"+mode, func(t *testing.T) {
			t.Parallel()
			campus := newCampus(t, services)
			empty := state(t, campus.node.Namespace)
			p := campus.node.pod(t, "ca")
			p.overlay(t, 5)
			plain := state(t, campus.node.Namespace)
			for i, name := range []string{"net1", "net2"} {
				p.attach(t, name, fmt.Sprintf("eth%d", i), nic{campus.lans[i].at(101), routers(campus.lans[i])})
				p.add(t, name, mode)
				serve(t, p.Namespace, campus.lans[i].at(101)...)
			}
			for _, name := range []string{"net2", "net1"} {
				p.check(t, name, mode)
				p.add(t, name, mode)
			}
			mustHaveNo(t, p.Namespace, "veth0")
			for f, far := range campus.farAddrs {
				node := on(campus.lans[0].at(11)[f].Addr())
				for i := range 2 {
					own := campus.lans[i].at(101)[f].Addr()
					reaches(t, "the world to the underlay", campus.far, netip.Addr{}, on(own), far.Addr())
					reaches(t, "the underlay to the world", p.Namespace, own, on(far.Addr()), own)
					reaches(t, "the node to the underlay", campus.node.Namespace, netip.Addr{}, on(own), netip.Addr{})
					reaches(t, "the underlay to the node", p.Namespace, own, node, own)
				}
				reaches(t, "the overlay to the node", p.Namespace, netip.Addr{}, node, p.nics["eth0"].addrs[f].Addr())
				mustRoute(t, p.Namespace, far.Addr().String(), "dev eth0")
				mustRoute(t, p.Namespace, virtual(far).String(), "dev eth0")
			}
			for _, name := range []string{"net2", "net1"} {
				mustSucceed(t, p.run(t, "DEL", name, "", "CNI_ARGS="))
			}
			mustBe(t, campus.node.Namespace, plain)
			campus.node.Run(t, "ip", "link", "del", "cali5")
			mustSucceed(t, p.run(t, "DEL", "net1", mode))
			mustBe(t, campus.node.Namespace, empty)
		})
	}
}

func mustHaveNo(t *testing.T, n *nettest.Namespace, name string) {
	t.Helper()
	n.Do(t, func() error {
		if _, err := netlink.LinkByName(name); err == nil {
			return fmt.Errorf("there is an interface %s", name)
		}
		return nil
	})
}

// An overlay pod whose default route is asked for on the underlay answers on
// both.
func TestOverlayPodWithItsDefaultRouteOnTheUnderlay(t *testing.T) {
	t.Parallel()
	campus := newCampus(t, services)
	p := campus.node.pod(t, "cb")
	p.overlay(t, 6)
	p.attach(t, "net1", "eth0", nic{campus.lans[0].at(101), routers(campus.lans[0])})
	p.add(t, "net1", `,"podDefaultRouteNic":"net1"`)
	p.check(t, "net1", `,"podDefaultRouteNic":"net1"`)
	serve(t, p.Namespace, p.nics["eth0"].addrs...)
	for f, far := range campus.farAddrs {
		reaches(t, "pod to the world", p.Namespace, netip.Addr{}, on(far.Addr()), campus.lans[0].at(101)[f].Addr())
		reaches(t, "the node to the overlay", campus.node.Namespace, netip.Addr{}, on(p.nics["eth0"].addrs[f].Addr()), netip.Addr{})
		mustRoute(t, p.Namespace, far.Addr().String()+" from "+p.nics["eth0"].addrs[f].Addr().String(), "dev eth0")
	}
}
