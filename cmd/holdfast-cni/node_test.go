package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"go4.org/netipx"

	"github.com/holdfast-ipam/holdfast/cni/nettest"
)

// The tests of the coordinator have nodes, routers and pods of their own: each
// is a network namespace, on Ethernet segments of the test's. Pods get their
// interfaces as the plugin macvlan makes them, and the real binary is run on the
// node as a runtime runs it. They need root.

// Networks of the tests. The router of each has its first address.
var (
	lan4 = netip.MustParsePrefix("10.6.0.0/16")
	lan6 = netip.MustParsePrefix("fd00:6::/64")
)

// at returns the n-th address of a network, with the network's length.
func at(network netip.Prefix, n byte) netip.Prefix {
	b := network.Addr().AsSlice()
	b[len(b)-1] = n
	addr, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(addr, network.Bits())
}

// nets are the networks of a test: IPv4, IPv6 or both.
type nets []netip.Prefix

func (n nets) at(i byte) (addrs []netip.Prefix) {
	for _, network := range n {
		addrs = append(addrs, at(network, i))
	}
	return addrs
}

// eachFamily runs a test with IPv4, with IPv6 and with both.
func eachFamily(t *testing.T, test func(*testing.T, nets)) {
	for name, networks := range map[string]nets{"IPv4": {lan4}, "IPv6": {lan6}, "both": {lan4, lan6}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, networks)
		})
	}
}

// machine is a node.
type machine struct {
	*nettest.Namespace
	agent *agent
}

// newMachine returns a node whose eth0 is on the segment. Its agent answers
// with the settings, JSON without braces.
func newMachine(t *testing.T, lan *nettest.Switch, settings string, addrs ...netip.Prefix) *machine {
	t.Helper()
	ns, _ := lan.Host(t, addrs...)
	ns.Set(t, "1", "ipv4/ip_forward", "ipv6/conf/all/forwarding")
	// A node that filters strictly, as some distributions' do, must do.
	ns.Set(t, "1", "ipv4/conf/all/rp_filter", "ipv4/conf/eth0/rp_filter")
	return &machine{ns, newAgent(t, 200, `{"mode":"auto"`+settings+`}`)}
}

// pod is a pod on a node.
type pod struct {
	*nettest.Namespace
	node *machine
	id   string
	nics map[string]*nic
}

// nic is an interface of a pod, as its main plugin has made it.
type nic struct {
	addrs    []netip.Prefix
	gateways []netip.Addr
}

// pod returns a pod without interfaces.
func (m *machine) pod(t *testing.T, id string) *pod {
	t.Helper()
	p := &pod{Namespace: nettest.New(t), node: m, id: id + strings.Repeat("0", 64-len(id)), nics: make(map[string]*nic)}
	// What a pod may have inherited must not keep it from working.
	p.Set(t, "2", "ipv4/conf/default/rp_filter", "ipv4/conf/all/rp_filter")
	return p
}

// attach gives the pod an interface on the node's master, with default routes
// through the gateways, of which there is none for a zero Addr.
func (p *pod) attach(t *testing.T, name, master string, n nic) {
	t.Helper()
	p.nics[name] = &n
	p.node.Macvlan(t, master, p.Namespace, name, n.addrs...)
	p.Do(t, func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, gateway := range n.gateways {
			to := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			if gateway.Is4() {
				to = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			}
			// As the main plugins do it (ipam.ConfigureIface).
			if err := netlink.RouteAddEcmp(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: netipx.PrefixIPNet(to), Gw: gateway.AsSlice()}); err != nil {
				return fmt.Errorf("route to %s through %s: %w", to, gateway, err)
			}
		}
		return nil
	})
}

// underlay gives the pod eth0 on the node's eth0, with the n-th address of each
// network and its router.
func (p *pod) underlay(t *testing.T, networks nets, n byte) {
	t.Helper()
	p.attach(t, "eth0", "eth0", nic{networks.at(n), routers(networks)})
}

func routers(networks nets) (gateways []netip.Addr) {
	for _, r := range networks.at(1) {
		gateways = append(gateways, r.Addr())
	}
	return gateways
}

// result is the prevResult of an interface.
func (p *pod) result(name string) string {
	n := p.nics[name]
	type address struct {
		Address   string `json:"address"`
		Gateway   string `json:"gateway,omitempty"`
		Interface int    `json:"interface"`
	}
	type routes struct {
		Destination string `json:"dst"`
		Gateway     string `json:"gw"`
	}
	said := map[string]any{"cniVersion": "1.0.0", "interfaces": []any{map[string]any{"name": name, "sandbox": p.Path}}}
	var ips []address
	var defaults []routes
	for _, a := range n.addrs {
		one := address{Address: a.String()}
		for _, gateway := range n.gateways {
			if gateway.Is4() == a.Addr().Is4() {
				one.Gateway = gateway.String()
			}
		}
		ips = append(ips, one)
	}
	for _, gateway := range n.gateways {
		to := "::/0"
		if gateway.Is4() {
			to = "0.0.0.0/0"
		}
		defaults = append(defaults, routes{to, gateway.String()})
	}
	said["ips"], said["routes"] = ips, defaults
	text, err := json.Marshal(said)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// begin starts the coordinator on the node for an interface, with further
// members of the network configuration.
func (p *pod) begin(t *testing.T, verb, name, top string, env ...string) *started {
	t.Helper()
	stdin := chain("1.0.0", fmt.Sprintf(`%s,"ipam_unix_socket_path":%q,"prevResult":%s`, top, p.node.agent.socket, p.result(name)))
	return p.node.begin(t, "coordinator", stdin, append(environment(verb, "CNI_CONTAINERID="+p.id, "CNI_IFNAME="+name, "CNI_NETNS="+p.Path), env...)...)
}

// run begins and waits for the end.
func (p *pod) run(t *testing.T, verb, name, top string, env ...string) outcome {
	t.Helper()
	return p.begin(t, verb, name, top, env...).wait(t)
}

// begin starts a plugin on the node.
func (m *machine) begin(t *testing.T, plugin, stdin string, env ...string) *started {
	t.Helper()
	s := prepare(t, plugin, stdin, env...)
	m.Do(t, s.command.Start)
	return s
}

// run begins and waits for the end.
func (m *machine) run(t *testing.T, plugin, stdin string, env ...string) outcome {
	t.Helper()
	return m.begin(t, plugin, stdin, env...).wait(t)
}

// add coordinates an interface of the pod and returns what the plugin prints.
func (p *pod) add(t *testing.T, name, top string) outcome {
	t.Helper()
	got := p.run(t, "ADD", name, top)
	mustSucceed(t, got)
	return got
}

// check fails the test unless CHECK finds everything.
func (p *pod) check(t *testing.T, name, top string) {
	t.Helper()
	mustSucceed(t, p.run(t, "CHECK", name, top))
}

// state is all that the coordinator could leave in a namespace, as lines.
func state(t *testing.T, n *nettest.Namespace) []string {
	t.Helper()
	var lines []string
	for _, command := range []string{
		"-br link show", "-4 rule show", "-6 rule show", "-4 route show table all", "-6 route show table all",
		"-4 neigh show nud permanent", "-6 neigh show nud permanent",
	} {
		for _, line := range strings.Split(n.Run(t, "ip", strings.Fields(command)...), "\n") {
			words := strings.Fields(strings.ReplaceAll(line, "linkdown", "")) // which comes late
			switch {
			case len(words) == 0 || strings.Contains(line, "table local") || strings.HasPrefix(words[0], "fe80:") || words[0] == "multicast":
				// The kernel's own, some of which come by and by.
			case command == "-br link show":
				lines = append(lines, fmt.Sprintf("link %s %s", words[0], words[2])) // without whether it is up
			default:
				lines = append(lines, "ip "+command+": "+strings.Join(words, " "))
			}
		}
	}
	slices.Sort(lines) // the kernel lists neighbours in an order that changes
	n.Do(t, func() (err error) {
		lines, err = appendTables(lines)
		return err
	})
	return lines
}

// appendTables appends the coordinator's tables of nftables, with their rules
// and what is in their sets.
func appendTables(lines []string) ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	for _, f := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		chains, err := conn.ListChainsOfTableFamily(f)
		if err != nil {
			return nil, err
		}
		for _, chain := range chains {
			if chain.Table.Name != "holdfast" {
				continue // kube-proxy's, or iptables'
			}
			rules, err := conn.GetRules(chain.Table, chain)
			if err != nil {
				return nil, err
			}
			sets, err := conn.GetSets(chain.Table)
			if err != nil {
				return nil, err
			}
			line := fmt.Sprintf("nft %d %s: %d rules", f, chain.Name, len(rules))
			for _, set := range sets {
				elements, err := conn.GetSetElements(set)
				if err != nil {
					return nil, err
				}
				var keys []string
				for _, e := range elements {
					keys = append(keys, fmt.Sprintf("%x", e.Key))
				}
				slices.Sort(keys)
				line += fmt.Sprintf(", %s %s", set.Name, keys)
			}
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// mustBe fails the test unless the namespace is as it was.
func mustBe(t *testing.T, n *nettest.Namespace, before []string) {
	t.Helper()
	if diff := cmp.Diff(before, state(t, n)); diff != "" {
		t.Errorf("the namespace is not as it was (-before +now):\n%s", diff)
	}
}

// reaches fails the test unless the server answers over TCP and UDP and sees
// the client as seen; a zero Addr for whatever it is.
func reaches(t *testing.T, what string, from *nettest.Namespace, source netip.Addr, to netip.AddrPort, seen netip.Addr) {
	t.Helper()
	reachesBy(t, what, from, source, to, seen, "tcp", "udp")
}

func reachesBy(t *testing.T, what string, from *nettest.Namespace, source netip.Addr, to netip.AddrPort, seen netip.Addr, networks ...string) {
	t.Helper()
	for _, network := range networks {
		answer, err := from.Ask(t, network, source, to)
		if err != nil {
			t.Errorf("%s: %s to %s: %v", what, network, to, err)
		} else if seen.IsValid() && answer != seen.String() {
			t.Errorf("%s: %s to %s was seen as %s, want %s", what, network, to, answer, seen)
		}
	}
}

const port = 8080

func on(addr netip.Addr) netip.AddrPort { return netip.AddrPortFrom(addr, port) }

// serve serves at the addresses.
func serve(t *testing.T, n *nettest.Namespace, addrs ...netip.Prefix) {
	t.Helper()
	for _, a := range addrs {
		n.Serve(t, on(a.Addr()))
	}
}

// service does on a node what kube-proxy does for a service's address and port:
// it leads to the backend, and those who are not the cluster's get the node's
// address (KUBE-MARK-MASQ) if masquerade is set.
func (m *machine) service(t *testing.T, virtual, backend netip.AddrPort, masquerade bool) {
	t.Helper()
	command, target := "iptables", backend.String()
	if virtual.Addr().Is6() {
		command = "ip6tables"
	}
	if _, err := exec.LookPath(command); err != nil {
		t.Skipf("%s is not installed: no service to reach", command)
	}
	for _, protocol := range []string{"tcp", "udp"} {
		match := []string{"-t", "nat", "-A", "PREROUTING", "-d", virtual.Addr().String(), "-p", protocol, "--dport", fmt.Sprint(virtual.Port())}
		if masquerade {
			m.Run(t, command, append(match, "-j", "MARK", "--set-xmark", "0x4000/0x4000")...)
		}
		m.Run(t, command, append(match, "-j", "DNAT", "--to-destination", target)...)
	}
	m.Run(t, command, "-t", "nat", "-A", "POSTROUTING", "-m", "mark", "--mark", "0x4000/0x4000", "-j", "MASQUERADE")
}
