package ifacer

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/holdfast-ipam/holdfast/cni/nettest"
)

// The tests of this file have a network namespace each, and in it what a node
// has: e1, e2 and e3, ends of veth pairs. They need root, and a kernel with
// VLANs and bonds.

// look returns the namespace as the plugin sees it, through a socket of its
// own as each process has one.
func look(t *testing.T, inside *nettest.Namespace) *node {
	t.Helper()
	n := &node{namespace: inside.Path}
	inside.Do(t, func() (err error) {
		n.netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	t.Cleanup(n.netlink.Close)
	return n
}

// newNode returns a node with the interfaces e1, e2 and e3.
func newNode(t *testing.T) (*nettest.Namespace, *node) {
	t.Helper()
	inside := nettest.New(t)
	n := look(t, inside)
	for i := 1; i <= 3; i++ {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = fmt.Sprintf("e%d", i)
		must(t, n.netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprintf("wire%d", i)}))
		must(t, n.netlink.LinkSetUp(n.link(t, fmt.Sprintf("wire%d", i))))
	}
	return inside, n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// needs skips the test where the kernel has no driver for such links.
func needs(t *testing.T, n *node, kinds ...string) {
	t.Helper()
	for _, kind := range kinds {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "probe"
		var probe netlink.Link
		switch kind {
		case "vlan":
			attrs.ParentIndex = n.link(t, "e3").Attrs().Index
			probe = &netlink.Vlan{LinkAttrs: attrs, VlanId: 4000}
		case "bond":
			probe = netlink.NewLinkBond(attrs)
		}
		err := n.netlink.LinkAdd(probe)
		if errors.Is(err, unix.EOPNOTSUPP) {
			t.Skipf("this kernel has no links of type %s (module 8021q for vlan, bonding for bond): TestLinksOnAKernelWithVLANsAndBonds has it run on one that does", kind)
		}
		must(t, err)
		must(t, n.netlink.LinkDel(probe))
	}
}

func (n *node) link(t *testing.T, name string) netlink.Link {
	t.Helper()
	there, err := n.links()
	must(t, err)
	link := there.named(name)
	if link == nil {
		t.Fatalf("there is no %s, only %s", name, n.names(t))
	}
	return link
}

// names tells all links, for comparison.
func (n *node) names(t *testing.T) string {
	t.Helper()
	there, err := n.links()
	must(t, err)
	var names []string
	for _, link := range there {
		names = append(names, fmt.Sprintf("%s(%s,%d,up=%v)", link.Attrs().Name, link.Type(), link.Attrs().MasterIndex, isUp(link)))
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func parsed(t *testing.T, conf string) *config {
	t.Helper()
	c, err := parseConfig([]byte(conf))
	must(t, err)
	return c
}

// refused fails the test unless err says both.
func refused(t *testing.T, err error, message, advice string) {
	t.Helper()
	said, ok := errors.AsType[*types.Error](err)
	if !ok || !strings.Contains(said.Msg, message) || !strings.Contains(said.Details, advice) {
		t.Errorf("the user is told %v, want %q and the advice %q", err, message, advice)
	}
}

const (
	vlan100    = `{"interfaces":["e1"],"vlanID":100}`
	bonded100  = `{"interfaces":["e1","e2"],"vlanID":100,"bond":{"name":"bond0","mode":1,"options":"miimon=200;primary=e2;fail_over_mac=active"}}`
	bondedOnly = `{"interfaces":["e1","e2"],"bond":{"name":"bond0","mode":4,"options":"miimon=100;xmit_hash_policy=layer3+4;lacp_rate=fast"}}`
)

func TestVLANInterfaceIsMadeOnce(t *testing.T) {
	_, n := newNode(t)
	needs(t, n, "vlan")
	must(t, n.netlink.LinkSetMTU(n.link(t, "e1"), 1400))
	conf := parsed(t, vlan100)
	refused(t, conf.check(n), "e1 is down", "ip link set e1 up")
	must(t, conf.provide(n))
	made, ok := n.link(t, "e1.100").(*netlink.Vlan)
	if !ok || made.VlanId != 100 || made.ParentIndex != n.link(t, "e1").Attrs().Index || made.MTU != 1400 || !isUp(made) || !isUp(n.link(t, "e1")) {
		t.Errorf("made %+v", made)
	}
	before := n.names(t)
	must(t, conf.provide(n))
	if again := n.link(t, "e1.100"); again.Attrs().Index != made.Index || n.names(t) != before {
		t.Errorf("the second time there is %s, before %s", n.names(t), before)
	}
	must(t, conf.check(n))
	must(t, n.netlink.LinkSetDown(made))
	refused(t, conf.check(n), "e1.100 is down", "ip link set e1.100 up")
	must(t, conf.provide(n))
	must(t, conf.check(n))
	must(t, n.netlink.LinkDel(made))
	refused(t, conf.check(n), "VLAN interface e1.100 is gone", "recreated")
}

func TestManyPodsMakeOneVLANAndOneBond(t *testing.T) {
	inside, n := newNode(t)
	needs(t, n, "vlan", "bond")
	const pods = 16
	errs := make(chan error, pods)
	var wg sync.WaitGroup
	for range pods {
		each := look(t, inside) // a process of its own has a socket of its own
		conf := parsed(t, bonded100)
		wg.Go(func() { errs <- conf.provide(each) })
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		must(t, err)
	}
	must(t, parsed(t, bonded100).check(n))
}

// Somebody else who makes links takes no lock.
func TestLinkThatAppearsMeanwhileIsTaken(t *testing.T) {
	_, n := newNode(t)
	needs(t, n, "vlan")
	v := parsed(t, vlan100).vlan(n.link(t, "e1"))
	looks := 0
	link, err := n.findOrMake(
		func(there links) (netlink.Link, error) {
			looks++
			return v.find(there)
		},
		func() error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.ParentIndex = v.name, v.parent.Attrs().Index
			must(t, n.netlink.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: 100, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}))
			return failed("make it", n.netlink.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: 100}))
		})
	if err != nil || link.Attrs().Name != "e1.100" || looks != 2 {
		t.Errorf("after %d looks there is %v (%v)", looks, link, err)
	}
}

func TestBondIsMadeWithItsOptionsAndAVLANOnIt(t *testing.T) {
	_, n := newNode(t)
	needs(t, n, "vlan", "bond")
	must(t, n.netlink.LinkSetMTU(n.link(t, "e1"), 9000))
	must(t, n.netlink.LinkSetMTU(n.link(t, "e2"), 8000))
	must(t, n.netlink.LinkSetUp(n.link(t, "e1"))) // the kernel takes only what is down
	conf := parsed(t, bonded100)
	for range 2 { // the second time nothing is left to do
		must(t, conf.provide(n))
	}
	must(t, conf.check(n))
	bond, ok := n.link(t, "bond0").(*netlink.Bond)
	if !ok || bond.Mode != netlink.BOND_MODE_ACTIVE_BACKUP || bond.Miimon != 200 || bond.FailOverMac != netlink.BOND_FAIL_OVER_MAC_ACTIVE ||
		bond.Primary != n.link(t, "e2").Attrs().Index || bond.MTU != 8000 || !isUp(bond) {
		t.Fatalf("made %+v", bond)
	}
	for _, name := range []string{"e1", "e2"} {
		if member := n.link(t, name); member.Attrs().MasterIndex != bond.Index || !isUp(member) || member.Attrs().MTU != 8000 {
			t.Errorf("%s is %+v", name, member.Attrs())
		}
	}
	if v, ok := n.link(t, "bond0.100").(*netlink.Vlan); !ok || v.ParentIndex != bond.Index || v.MTU != 8000 || !isUp(v) {
		t.Errorf("on it is %+v", v)
	}
}

func TestBondWithoutAVLANIsMade(t *testing.T) {
	_, n := newNode(t)
	needs(t, n, "bond")
	conf := parsed(t, bondedOnly)
	must(t, conf.provide(n))
	must(t, conf.check(n))
	bond, ok := n.link(t, "bond0").(*netlink.Bond)
	if !ok || bond.XmitHashPolicy != netlink.BOND_XMIT_HASH_POLICY_LAYER3_4 || bond.LacpRate != netlink.BOND_LACP_RATE_FAST || !isUp(bond) {
		t.Errorf("made %+v", bond)
	}
	must(t, n.netlink.LinkSetNoMaster(n.link(t, "e2")))
	refused(t, conf.check(n), "has the interfaces [e1], and the network wants [e1 e2]", "master bond0")
	must(t, n.netlink.LinkDel(bond))
	refused(t, conf.check(n), "bond bond0 is gone", "makes it again")
}

// A bond that is down and lacks members is what a process leaves that was
// killed at its work.
func TestBondThatWasLeftHalfMadeIsCompleted(t *testing.T) {
	_, n := newNode(t)
	needs(t, n, "bond")
	conf := parsed(t, `{"interfaces":["e1","e2"],"bond":{"name":"bond0","mode":1,"options":"miimon=200;primary=e2"}}`)
	there, err := n.links()
	must(t, err)
	members, err := conf.members(there)
	must(t, err)
	bond, err := n.addBond(conf.Bond, there, members)
	must(t, err)
	must(t, n.enslave(bond, members[0]))
	must(t, conf.provide(n))
	must(t, conf.check(n))
	if n.link(t, "bond0").Attrs().Index != bond.Attrs().Index {
		t.Error("it was made anew")
	}
}

func TestWhatStandsInTheWayIsNamedAndLeftAlone(t *testing.T) {
	for name, c := range map[string]struct {
		conf            string
		before          func(*testing.T, *node)
		message, advice string
	}{
		"no interface": {`{"interfaces":["e9"],"vlanID":5}`, nil, "no interface e9", "ip link"},
		"no member":    {`{"interfaces":["e1","e8","e9"],"bond":{}}`, nil, "no interface e8 and no interface e9", "ip link"},
		"the VLAN under another name": {vlan100, func(t *testing.T, n *node) {
			n.addVLAN(t, "blue", "e1", 100)
		}, "VLAN 100 of e1 exists on this node under the name blue", "name blue as its master"},
		"the VLAN of another interface": {vlan100, func(t *testing.T, n *node) {
			n.addVLAN(t, "e2.100", "e2", 100)
		}, "has VLAN 100 already as e2.100, on e2", "one master"},
		"another VLAN of the name": {vlan100, func(t *testing.T, n *node) {
			n.addVLAN(t, "e1.100", "e1", 101)
		}, "e1.100 exists on this node with VLAN 101", "ip link delete e1.100"},
		"the name on another interface": {vlan100, func(t *testing.T, n *node) {
			n.addVLAN(t, "e1.100", "e2", 100)
		}, "e1.100 exists on this node on e2", "ip link delete e1.100"},
		"the name of something else": {vlan100, func(t *testing.T, n *node) {
			n.rename(t, "e3", "e1.100")
		}, "e1.100 exists on this node and is no VLAN interface, but of type veth", "ip link delete e1.100"},
		"the bond's name of something else": {bondedOnly, func(t *testing.T, n *node) {
			n.rename(t, "e3", "bond0")
		}, "bond0 exists on this node and is no bond, but of type veth", "another name"},
		"a bond of another mode": {bondedOnly, func(t *testing.T, n *node) {
			n.addBondOf(t, "bond0", netlink.BOND_MODE_BALANCE_XOR, "e1", "e2")
		}, "has mode 2 (balance-xor), and the network wants mode 4 (802.3ad)", "ip link delete bond0"},
		"a bond of other options": {bondedOnly, func(t *testing.T, n *node) {
			n.addBondOf(t, "bond0", netlink.BOND_MODE_802_3AD, "e1", "e2")
		}, "has xmit_hash_policy=layer2, and the network wants xmit_hash_policy=layer3+4", "say the same of bond0"},
		"a bond with one more": {bondedOnly, func(t *testing.T, n *node) {
			n.addBondOf(t, "bond0", netlink.BOND_MODE_802_3AD, "e1", "e2", "e3")
		}, "has the interfaces [e1 e2 e3], and the network wants [e1 e2]", "say the same of bond0"},
		"half a bond of other options": {bondedOnly, func(t *testing.T, n *node) {
			n.addBondOf(t, "bond0", netlink.BOND_MODE_802_3AD, "e1")
			must(t, n.netlink.LinkSetDown(n.link(t, "bond0")))
		}, "has xmit_hash_policy=layer2", "say the same of bond0"},
		"a member of another bond": {bondedOnly, func(t *testing.T, n *node) {
			n.addBondOf(t, "other", netlink.BOND_MODE_802_3AD, "e2", "e3")
		}, "e2 belongs to other", "ip link set e2 nomaster"},
		"a member with the node's address": {bondedOnly, func(t *testing.T, n *node) {
			n.addAddress(t, "e2", "10.6.0.5/16")
		}, "e2 has the address 10.6.0.5/16", "without addresses"},
		"an option that the mode has not": {`{"interfaces":["e1","e2"],"bond":{"name":"bond0","mode":0,"options":"lacp_rate=fast"}}`, func(t *testing.T, n *node) {
			needs(t, n, "bond")
		}, `cannot make the bond bond0 with mode 0 (balance-rr) and options "lacp_rate=fast"`, "kernel's log"},
		"an option that the kernel changes": {`{"interfaces":["e1","e2"],"bond":{"name":"bond0","mode":1,"options":"miimon=100;updelay=150"}}`, func(t *testing.T, n *node) {
			needs(t, n, "bond")
			must(t, n.netlink.LinkSetUp(n.link(t, "e2")))
		}, "has updelay=100, and the network wants updelay=150", "correct the network's bond"},
	} {
		t.Run(name, func(t *testing.T) {
			_, n := newNode(t)
			if c.before != nil {
				c.before(t, n)
			}
			conf, before := parsed(t, c.conf), n.names(t)
			err := conf.provide(n)
			refused(t, err, c.message, c.advice)
			if after := n.names(t); after != before {
				t.Errorf("now there is %s, before there was %s", after, before)
			}
		})
	}
}

func (n *node) addVLAN(t *testing.T, name, parent string, id int) {
	t.Helper()
	needs(t, n, "vlan")
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = name, n.link(t, parent).Attrs().Index
	must(t, n.netlink.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: id}))
}

func (n *node) addBondOf(t *testing.T, name string, mode netlink.BondMode, members ...string) {
	t.Helper()
	needs(t, n, "bond")
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	bond := netlink.NewLinkBond(attrs)
	bond.Mode, bond.Miimon = mode, 100
	must(t, n.netlink.LinkAdd(bond))
	for _, member := range members {
		must(t, n.enslave(bond, n.link(t, member)))
	}
	must(t, n.netlink.LinkSetUp(bond))
}

func (n *node) rename(t *testing.T, from, to string) {
	t.Helper()
	must(t, n.netlink.LinkSetName(n.link(t, from), to))
}

func (n *node) addAddress(t *testing.T, name, address string) {
	t.Helper()
	addr, err := netlink.ParseAddr(address)
	must(t, err)
	must(t, n.netlink.AddrAdd(n.link(t, name), addr))
}

// One process at a time changes a node's links: who comes second waits.
func TestLinksAreMadeOneAfterTheOther(t *testing.T) {
	inside, n := newNode(t)
	unlock, err := n.lock()
	must(t, err)
	done := make(chan error, 1)
	second := look(t, inside)
	go func() { done <- parsed(t, `{"interfaces":["e1"]}`).provide(second) }()
	for !waitsFor(t, inside.Path) {
		select {
		case err := <-done:
			t.Fatalf("it did not wait (%v)", err)
		case <-time.After(time.Millisecond):
		}
	}
	if isUp(n.link(t, "e1")) {
		t.Error("it changed something before")
	}
	unlock()
	must(t, <-done)
	if !isUp(n.link(t, "e1")) {
		t.Error("it did nothing afterwards")
	}
}

// waitsFor reports whether somebody waits for a lock of the file (proc(5),
// /proc/locks: "-> FLOCK ..." with major:minor:inode).
func waitsFor(t *testing.T, path string) bool {
	t.Helper()
	var file unix.Stat_t
	must(t, unix.Stat(path, &file))
	locks, err := os.ReadFile("/proc/locks")
	must(t, err)
	for line := range strings.Lines(string(locks)) {
		if strings.Contains(line, "-> FLOCK") && strings.Contains(line, fmt.Sprintf(":%d ", file.Ino)) {
			return true
		}
	}
	return false
}

func TestLockIsTheNamespaces(t *testing.T) {
	inside, n := newNode(t)
	unlock, err := n.lock()
	must(t, err)
	defer unlock()
	for _, c := range []struct {
		path string
		want error
	}{{inside.Path, unix.EWOULDBLOCK}, {nettest.New(t).Path, nil}} {
		file, err := os.Open(c.path)
		must(t, err)
		defer file.Close()
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, c.want) {
			t.Errorf("another process that asks for %s gets %v, want %v", c.path, err, c.want)
		}
	}
}
