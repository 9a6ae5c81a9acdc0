package coordinator

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-ipam/holdfast/cni"
)

// lines tells a side as an operator would see it, in order.
func (d *side) lines() []string {
	var all []string
	for _, n := range d.neighbours {
		all = append(all, fmt.Sprintf("neigh %s lladdr %s dev %s", n.addr, n.mac, n.dev))
	}
	for _, r := range d.routes {
		line := fmt.Sprintf("route table %d %s", r.table, r.destination)
		if r.gateway.IsValid() {
			line += " via " + r.gateway.String()
		}
		line += " dev " + r.dev
		if r.source.IsValid() {
			line += " src " + r.source.String()
		}
		all = append(all, line)
	}
	for _, r := range d.rules {
		all = append(all, r.String())
	}
	for _, f := range d.marks {
		all = append(all, fmt.Sprintf("marks of IPv%d", f))
	}
	for _, r := range d.staleRoutes {
		all = append(all, fmt.Sprintf("remove route table %d %s dev %s", r.table, r.destination, r.dev))
	}
	for _, n := range d.staleNeighbours {
		all = append(all, fmt.Sprintf("remove neigh %s dev %s", n.addr, n.dev))
	}
	return all
}

func addresses(texts ...string) (all []address) {
	for _, text := range texts {
		all = append(all, address{prefix: netip.MustParsePrefix(text)})
	}
	return all
}

// connected returns the routes that the kernel makes for an interface's
// addresses, and default routes through the gateways.
func connected(l link, gateways ...string) (routes []route) {
	for _, a := range l.addrs {
		routes = append(routes, route{table: 254, destination: a.prefix.Masked(), source: a.prefix.Addr(), dev: l.name, protocol: 2})
	}
	for _, text := range gateways {
		gateway := netip.MustParseAddr(text)
		routes = append(routes, route{table: 254, destination: familyOf(gateway).everything(), gateway: gateway, dev: l.name})
	}
	return routes
}

// nodeWith returns a node with two addresses of each family, and further links.
func nodeWith(further ...link) *view {
	links := append([]link{
		{index: 1, name: "lo", addrs: addresses("127.0.0.1/8", "10.99.0.1/32")},
		{index: 2, name: "eth0", addrs: addresses("172.18.0.2/16", "fd00:18::2/64", "fe80::2/64")},
		{index: 3, name: "ens192", addrs: addresses("10.6.0.11/16", "fd00:6::b/64", "fe80::3/64")},
	}, further...)
	return &view{links: links, routes: slices.Concat(connected(links[1], "172.18.0.1", "fd00:18::1"), connected(links[2]))}
}

// podWith returns a pod with eth0 of the underlay, and further links.
func podWith(further ...link) *view {
	eth0 := link{index: 2, name: "eth0", kind: "macvlan", mac: "02:00:00:00:00:02", addrs: addresses("10.6.168.101/16", "fd00:6::65/64")}
	return &view{links: append([]link{{index: 1, name: "lo", addrs: addresses("127.0.0.1/8", "::1/128")}, eth0}, further...),
		routes: connected(eth0, "10.6.0.1", "fd00:6::1")}
}

// setting returns the settings of a network configuration without braces.
func setting(t *testing.T, conf string, cluster cni.Coordination) *settings {
	t.Helper()
	c, err := parseConfig([]byte("{" + conf + "}"))
	if err != nil {
		t.Fatal(err)
	}
	if cluster.Mode == "" {
		cluster.Mode = modeAuto
	}
	s, err := c.settings(&cluster)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const container = "0123456789abcdef0123456789abcdef"

func TestPlanOfAnUnderlayPod(t *testing.T) {
	t.Parallel()
	node := nodeWith(link{index: 9, name: "docker0", addrs: addresses("172.17.0.1/16")})
	node.neighbours = []neighbour{{"ens192", netip.MustParseAddr("10.6.168.101"), "02:00:00:00:00:99", false}, {"ens192", netip.MustParseAddr("10.6.0.1"), "02:00:00:00:00:98", false}}
	p, err := newPlan(request{settings: setting(t, `"serviceCIDR":["10.96.0.0/12"]`, cni.Coordination{}), container: container, network: "lan", ifName: "eth0", pod: podWith(), node: node})
	if err != nil {
		t.Fatal(err)
	}
	out, in := macOf(container, "node"), macOf(container, "pod")
	if diff := cmp.Diff([]string{
		"neigh 10.6.0.11 lladdr " + out + " dev veth0", "neigh 172.18.0.2 lladdr " + out + " dev veth0",
		"neigh fd00:6::b lladdr " + out + " dev veth0", "neigh fd00:18::2 lladdr " + out + " dev veth0",
		"route table 254 10.6.0.11/32 dev veth0 src 10.6.168.101", "route table 254 172.18.0.2/32 dev veth0 src 10.6.168.101",
		"route table 254 10.96.0.0/12 via 10.6.0.11 dev veth0 src 10.6.168.101", "route table 100 0.0.0.0/0 via 10.6.0.11 dev veth0",
		"route table 254 fd00:6::b/128 dev veth0 src fd00:6::65", "route table 254 fd00:18::2/128 dev veth0 src fd00:6::65",
		"route table 100 ::/0 via fd00:6::b dev veth0",
		"the rule 1000 of IPv4 fwmark 0x1 lookup 100", "the rule 1000 of IPv6 fwmark 0x1 lookup 100",
		"marks of IPv4", "marks of IPv6",
	}, p.pod.lines()); diff != "" {
		t.Errorf("in the pod (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{
		"neigh 10.6.168.101 lladdr " + in + " dev veth0123456789a", "neigh fd00:6::65 lladdr " + in + " dev veth0123456789a",
		"route table 500 10.6.168.101/32 dev veth0123456789a", "route table 500 fd00:6::65/128 dev veth0123456789a",
		"the rule 1000 of IPv4 lookup 500", "the rule 1000 of IPv6 lookup 500",
		"remove neigh 10.6.168.101 dev ens192",
	}, p.node.lines()); diff != "" {
		t.Errorf("on the node (-want +got):\n%s", diff)
	}
}

// A node without a family has nothing to reach of it, and gets nothing of it.
func TestPlanLeavesAFamilyOutThatTheNodeHasNot(t *testing.T) {
	t.Parallel()
	node := &view{links: []link{{index: 2, name: "eth0", addrs: addresses("10.6.0.11/16", "fe80::2/64")}}}
	p, err := newPlan(request{settings: setting(t, `"serviceCIDR":["10.96.0.0/12","fd00:96::/112"]`, cni.Coordination{}), container: container, ifName: "eth0", pod: podWith(), node: node})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(append(p.pod.lines(), p.node.lines()...), "\n"); strings.Contains(got, "fd00") || strings.Contains(got, "IPv6") || !strings.Contains(got, "10.96.0.0/12") {
		t.Errorf("planned\n%s", got)
	}
}

func TestModeFollowsFromTheInterface(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mode, nic    string
		paired       bool
		overlay, bad bool
	}{
		{"auto", "eth0", false, false, false}, {"auto", "eth0", true, false, false},
		{"auto", "net1", true, false, false}, {"auto", "net1", false, true, false},
		{"underlay", "eth0", false, false, false}, {"underlay", "net1", true, false, false}, {"underlay", "net1", false, false, true},
		{"overlay", "net1", false, true, false}, {"overlay", "eth0", false, false, true}, {"overlay", "net1", true, false, true},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			t.Parallel()
			pod := podWith(link{index: 3, name: "net1", addrs: addresses("10.7.0.9/16")})
			if c.paired {
				pod.links = append(pod.links, link{index: 4, name: "veth0", kind: "veth"})
			}
			p := &planner{request: request{settings: &settings{mode: c.mode, firstNIC: "eth0"}, ifName: c.nic, pod: pod}}
			err := p.setMode()
			if _, told := errors.AsType[*types.Error](err); told != c.bad || err == nil && p.overlay != c.overlay {
				t.Errorf("overlay is %v (%v)", p.overlay, err)
			}
		})
	}
}

func TestNodesAddressesAreInTheOrderOfTheirUse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		links []link
		more  []route
		pod   string
		want  string
	}{
		"on the pod's network first": {nil, nil, "10.6.168.101/16", "[10.6.0.11 172.18.0.2]"},
		"else behind the default":    {nil, nil, "10.9.0.9/16", "[172.18.0.2 10.6.0.11]"},
		"the longest route":          {nil, []route{{table: 254, destination: netip.MustParsePrefix("10.9.0.0/16"), dev: "ens192"}}, "10.9.0.9/16", "[10.6.0.11 172.18.0.2]"},
		"a route's own source":       {nil, []route{{table: 254, destination: netip.MustParsePrefix("10.9.0.0/16"), dev: "ens192", source: netip.MustParseAddr("10.6.0.12")}}, "10.9.0.9/16", "[10.6.0.12 172.18.0.2 10.6.0.11]"},
		"a lower metric":             {nil, []route{{table: 254, destination: netip.MustParsePrefix("10.6.0.0/16"), dev: "eth0", metric: -1}}, "10.6.168.101/16", "[172.18.0.2 10.6.0.11]"},
		"no route of the pod's own":  {nil, []route{{table: 500, destination: netip.MustParsePrefix("10.6.168.101/32"), dev: "eth0"}}, "10.6.168.101/16", "[10.6.0.11 172.18.0.2]"},
		"none of other networks of containers": {[]link{{name: "cni0", addrs: addresses("10.244.0.1/24")}, {name: "virbr0", addrs: addresses("192.168.122.1/24")},
			{name: "vethdeadbeef", addrs: addresses("10.244.0.2/32")}, {name: "kube-ipvs0", addrs: addresses("10.96.0.1/32")}, {name: "bond0", addrs: addresses("10.8.0.11/16")}},
			nil, "10.6.168.101/16", "[10.6.0.11 172.18.0.2 10.8.0.11]"},
		"an interface that begins like lo": {[]link{{name: "local1", addrs: addresses("10.8.0.11/16")}}, nil, "10.6.168.101/16", "[10.6.0.11 172.18.0.2 10.8.0.11]"},
		"but the pod's own peer":           {[]link{{name: "cali1", addrs: addresses("10.244.0.1/24")}, {name: "cali2", addrs: addresses("10.244.0.2/24")}}, nil, "10.6.168.101/16", "[10.6.0.11 172.18.0.2 10.244.0.1]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			node := nodeWith(c.links...)
			node.routes = append(node.routes, c.more...)
			if got := fmt.Sprint(hostsOf(node, "cali1", addresses(c.pod))[ipv4]); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// A further interface gets the first table that nobody uses, and finds what it
// has begun with.
func TestTableOfAFurtherInterface(t *testing.T) {
	t.Parallel()
	net1 := link{index: 3, name: "net1", kind: "macvlan", addrs: addresses("10.7.0.9/16")}
	own := rule{family: ipv4, priority: sourcePriority, from: netip.MustParsePrefix("10.7.0.9/32"), table: 107}
	for name, c := range map[string]struct {
		routes []route
		rules  []rule
		want   int
	}{
		"nothing there":         {nil, nil, 101},
		"its rule":              {nil, []rule{own}, 107},
		"another one's rule":    {nil, []rule{{family: ipv6, priority: sourcePriority, from: netip.MustParsePrefix("fd00:8::9/128"), table: 101}}, 102},
		"somebody's routes":     {[]route{{table: 101, destination: netip.MustParsePrefix("1.0.0.0/8"), dev: "eth0"}}, nil, 102},
		"its own routes":        {[]route{{table: 101, destination: netip.MustParsePrefix("1.0.0.0/8"), dev: "net1"}}, nil, 101},
		"routes to the node":    {[]route{{table: 101, destination: netip.MustParsePrefix("10.6.0.11/32"), dev: "veth0"}}, nil, 101},
		"a rule of other kinds": {nil, []rule{{family: ipv4, priority: 7, table: 101, other: true}}, 102},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := podWith(net1, link{index: 4, name: "veth0", kind: "veth"})
			pod.routes = append(pod.routes, connected(net1, "10.7.0.1")...)
			pod.routes, pod.rules = append(pod.routes, c.routes...), c.rules
			p, err := newPlan(request{settings: setting(t, "", cni.Coordination{}), container: container, ifName: "net1", pod: pod, node: nodeWith()})
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(p.pod.lines(), "\n")
			for _, want := range []string{
				fmt.Sprintf("the rule 1100 of IPv4 from 10.7.0.9 lookup %d", c.want), fmt.Sprintf("route table %d 0.0.0.0/0 via 10.7.0.1 dev net1", c.want),
				fmt.Sprintf("route table %d 10.6.0.11/32 dev veth0", c.want), "the rule 1100 of IPv4 from 10.6.168.101 lookup 99",
				"remove route table 254 0.0.0.0/0 dev net1",
			} {
				if !strings.Contains(got, want) {
					t.Errorf("the plan lacks %q:\n%s", want, got)
				}
			}
		})
	}
}

// What the network says goes before what the cluster says, and the pod's word
// on its default route before both.
func TestSettingsOfTheNetworkGoFirst(t *testing.T) {
	t.Parallel()
	cluster := cni.Coordination{
		Mode: "overlay", HijackCIDR: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}, PodMACPrefix: "0a:01", TunePodRoutes: new(false),
		PodDefaultRouteNIC: "net1", HostRuleTable: new(int64(501)), PodRPFilter: new(int64(1)), TxQueueLen: new(int64(1001)),
		VethLinkAddress: netip.MustParseAddr("169.254.0.1"), VethMTU: new(int64(1401)), PodCIDR: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16")},
		ServiceCIDR: []netip.Prefix{netip.MustParsePrefix("10.3.0.0/16")}, PolicyRoutes: []cni.PolicyRoute{{Destination: netip.MustParsePrefix("10.4.0.0/16"), Gateway: netip.MustParseAddr("10.6.0.4")}},
	}
	const network = `"mode":"underlay","hijackCIDR":[],"overlayPodCIDR":["10.22.0.1"],"serviceCIDR":["10.33.0.0/16"],"podMACPrefix":"0a:02","tunePodRoutes":true,
		"podDefaultRouteNic":"net2","podDefaultCniNic":"ens5","hostRuleTable":502,"podRPFilter":-1,"txQueueLen":1002,"vethLinkAddress":"169.254.0.2","vethMTU":1402,
		"policyRoutes":[{"dst":"10.44.0.0/16","gw":"10.6.0.44"}]`
	asked := cluster
	asked.DefaultRouteInterface = "net3"
	for name, c := range map[string]struct {
		conf    string
		cluster cni.Coordination
		want    string
	}{
		"nobody": {"", cni.Coordination{}, "auto true eth0  [] [] [] [] [] 500 0 0 invalid IP 1500"},
		"the cluster": {`"txQueueLen":0,"vethMTU":0,"vethLinkAddress":"","podMACPrefix":""`, cluster,
			"overlay false eth0 net1 [10 1] [10.3.0.0/16 10.1.0.0/16] [10.2.0.0/16] [] [{10.4.0.0/16 10.6.0.4}] 501 1 1001 169.254.0.1 1401"},
		"the network": {network, cluster, "underlay true ens5 net2 [10 2] [10.22.0.1/32 10.33.0.0/16] [] [{10.44.0.0/16 10.6.0.44}] [] 502 -1 1002 169.254.0.2 1402"},
		"the pod":     {network, asked, "underlay true ens5 net3 [10 2] [10.22.0.1/32 10.33.0.0/16] [] [{10.44.0.0/16 10.6.0.44}] [] 502 -1 1002 169.254.0.2 1402"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setting(t, c.conf, c.cluster)
			if got := fmt.Sprint(s.mode, " ", s.tune, " ", s.firstNIC, " ", s.routeNIC, " ", s.macPrefix, " ", s.hijack, " ", s.found, " ", s.policyRoutes, " ", s.clusterRoutes,
				" ", s.hostTable, " ", s.rpFilter, " ", s.queue, " ", s.vethAddress, " ", s.vethMTU); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// Addresses and names of a pair follow from its container alone, and can be
// those of an interface.
func TestPairFollowsFromItsContainer(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", 300)
	seen := make(map[string]string)
	for _, container := range []string{"a", container, container + "0", strings.Repeat("f", 64)} {
		p := pairOf(container, long, 1500)
		if len(p.host) > maxName || len(p.alias) > 255 || p.host != pairOf(container, "other", 9000).host {
			t.Errorf("the pair of %s has the name %s and the alias %s", container, p.host, p.alias)
		}
		for _, text := range []string{p.hostMAC, p.podMAC} {
			mac, err := net.ParseMAC(text)
			if err != nil || mac[0]&3 != 2 {
				t.Errorf("%s is no local, individual address (%v)", text, err)
			}
			if other, taken := seen[text]; taken {
				t.Errorf("%s and %s have both %s", container, other, text)
			}
			seen[text] = container
		}
	}
}
