package detect_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/holdfast-ipam/holdfast/cni/detect"
	"github.com/holdfast-ipam/holdfast/cni/nettest"
)

// The tests of this file send real frames between network namespaces.

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefixes(s ...string) (p []netip.Prefix) {
	for _, s := range s {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

// pod is a namespace with the link net1 as a main plugin leaves it before it
// asks for addresses: down, and without any.
func pod(t *testing.T, lan *nettest.Switch) (*nettest.Namespace, net.HardwareAddr) {
	t.Helper()
	n := nettest.New(t)
	return n, lan.Plug(t, n, "net1")
}

// probe returns what is found out, and how long that took.
func probe(t *testing.T, in *nettest.Namespace, targets ...detect.Target) ([]detect.Finding, time.Duration) {
	t.Helper()
	begin := time.Now()
	found, err := detect.Probe(t.Context(), in.Path, "net1", targets)
	if err != nil {
		t.Fatal(err)
	}
	return found, time.Since(begin)
}

// want compares findings.
func want(t *testing.T, got []detect.Finding, want ...detect.Finding) {
	t.Helper()
	text := func(findings []detect.Finding) (s []string) {
		for _, f := range findings {
			s = append(s, fmt.Sprintf("%s used by %q, no gateway: %t", f.Addr, f.UsedBy, f.NoGateway))
		}
		return s
	}
	if diff := cmp.Diff(text(want), text(got)); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
}

// budget is the doc comment's bound, and what a busy machine may add to it.
const budget = time.Second + 500*time.Millisecond

func TestFreeAddressesPassWithinTheBudget(t *testing.T) {
	t.Parallel()
	lan := nettest.NewSwitch(t)
	lan.Host(t, prefixes("10.0.0.9/24", "fd00::9/64")...)
	in, _ := pod(t, lan)
	got, took := probe(t, in,
		detect.Target{Addr: addr("10.0.0.1"), Conflict: true}, detect.Target{Addr: addr("fd00::1"), Conflict: true})
	want(t, got, detect.Finding{Addr: addr("10.0.0.1")}, detect.Finding{Addr: addr("fd00::1")})
	if took < 300*time.Millisecond || took > budget {
		t.Errorf("it took %s: three probes in less, or one family after the other", took)
	}
}

func TestUsedAddressIsFoundWithWhoHasIt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ used, free string }{
		{"10.0.0.1/24", "fd00::1/64"},
		{"fd00::1/64", "10.0.0.1/24"},
	} {
		t.Run(c.used, func(t *testing.T) {
			t.Parallel()
			lan := nettest.NewSwitch(t)
			_, mac := lan.Host(t, prefixes(c.used)...)
			in, _ := pod(t, lan)
			used, free := netip.MustParsePrefix(c.used).Addr(), netip.MustParsePrefix(c.free).Addr()
			got, took := probe(t, in, detect.Target{Addr: used, Conflict: true}, detect.Target{Addr: free, Conflict: true})
			want(t, got, detect.Finding{Addr: used, UsedBy: mac}, detect.Finding{Addr: free})
			if took > budget {
				t.Errorf("it took %s", took)
			}
		})
	}
}

func TestGatewayIsFound(t *testing.T) {
	t.Parallel()
	lan := nettest.NewSwitch(t)
	lan.Host(t, prefixes("10.0.0.254/24", "fd00::fe/64")...)
	in, _ := pod(t, lan)
	got, took := probe(t, in,
		detect.Target{Addr: addr("10.0.0.1"), Gateway: addr("10.0.0.254")},
		detect.Target{Addr: addr("fd00::1"), Gateway: addr("fd00::fe")})
	want(t, got, detect.Finding{Addr: addr("10.0.0.1")}, detect.Finding{Addr: addr("fd00::1")})
	if took > 600*time.Millisecond {
		t.Errorf("it took %s, although the gateways answer at once", took)
	}
}

func TestAbsentGatewayIsFoundAbsent(t *testing.T) {
	t.Parallel()
	lan := nettest.NewSwitch(t)
	lan.Host(t, prefixes("10.0.0.254/24")...)
	in, _ := pod(t, lan)
	got, took := probe(t, in,
		detect.Target{Addr: addr("10.0.0.1"), Conflict: true, Gateway: addr("10.0.0.254")},
		detect.Target{Addr: addr("fd00::1"), Conflict: true, Gateway: addr("fd00::fe")})
	want(t, got, detect.Finding{Addr: addr("10.0.0.1")}, detect.Finding{Addr: addr("fd00::1"), NoGateway: true})
	if took > budget {
		t.Errorf("it took %s", took)
	}
}

// Who asks the gateway from an address that is somebody else's takes it away.
func TestGatewayIsNotAskedFromAnAddressInUse(t *testing.T) {
	t.Parallel()
	lan := nettest.NewSwitch(t)
	gateway, _ := lan.Host(t, prefixes("10.0.0.254/24", "fd00::fe/64")...)
	_, mac := lan.Host(t, prefixes("10.0.0.1/24", "fd00::1/64")...)
	in, _ := pod(t, lan)
	got, _ := probe(t, in,
		detect.Target{Addr: addr("10.0.0.1"), Conflict: true, Gateway: addr("10.0.0.254")},
		detect.Target{Addr: addr("fd00::1"), Conflict: true, Gateway: addr("fd00::fe")})
	want(t, got, detect.Finding{Addr: addr("10.0.0.1"), UsedBy: mac}, detect.Finding{Addr: addr("fd00::1"), UsedBy: mac})
	for _, a := range []string{"10.0.0.1", "fd00::1"} {
		if known := neighbour(t, gateway, addr(a)); known != nil {
			t.Errorf("the gateway believes that %s has %s", known, a)
		}
	}
}

// neighbour returns who has an address as the namespace knows, or nil.
func neighbour(t *testing.T, n *nettest.Namespace, addr netip.Addr) (mac net.HardwareAddr) {
	t.Helper()
	n.Do(t, func() error {
		all, err := netlink.NeighList(0, 0)
		for _, known := range all {
			if ip, ok := netip.AddrFromSlice(known.IP); ok && ip.Unmap() == addr {
				mac = known.HardwareAddr
			}
		}
		return err
	})
	return mac
}

// A neighbour that talked to the last owner of the address would go on doing
// so for a minute.
func TestFreeAddressIsAnnounced(t *testing.T) {
	t.Parallel()
	lan := nettest.NewSwitch(t)
	host, _ := lan.Host(t, prefixes("10.0.0.9/24", "fd00::9/64")...)
	in, mac := pod(t, lan)
	stale := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	for _, a := range []string{"10.0.0.1", "fd00::1"} {
		host.Do(t, func() error {
			link, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return netlink.NeighSet(&netlink.Neigh{
				LinkIndex: link.Attrs().Index, IP: addr(a).AsSlice(), HardwareAddr: stale, State: netlink.NUD_STALE,
			})
		})
	}
	probe(t, in, detect.Target{Addr: addr("10.0.0.1"), Conflict: true}, detect.Target{Addr: addr("fd00::1"), Conflict: true})
	for _, a := range []string{"10.0.0.1", "fd00::1"} {
		deadline := time.Now().Add(10 * time.Second)
		for neighbour(t, host, addr(a)).String() != mac.String() {
			if time.Now().After(deadline) {
				t.Fatalf("the neighbour believes that %s has %s, and it is %s", neighbour(t, host, addr(a)), a, mac)
			}
			<-time.After(5 * time.Millisecond)
		}
	}
}

// Of two that probe for one address at once, at least one hears of it: who
// hears first stops, and may have been too early for the other's switch port.
func TestOfTwoProbersAtOnceOneGivesWay(t *testing.T) {
	t.Parallel()
	for _, a := range []string{"10.0.0.1", "fd00::1"} {
		t.Run(a, func(t *testing.T) {
			t.Parallel()
			lan := nettest.NewSwitch(t)
			one, macOne := pod(t, lan)
			two, macTwo := pod(t, lan)
			target := detect.Target{Addr: addr(a), Conflict: true}
			other := make(chan []detect.Finding)
			go func() {
				found, err := detect.Probe(t.Context(), one.Path, "net1", []detect.Target{target})
				if err != nil {
					t.Error(err)
				}
				other <- found
			}()
			got, _ := probe(t, two, target)
			heard := (<-other)[0].UsedBy
			if got[0].UsedBy.String() != macOne.String() && heard.String() != macTwo.String() {
				t.Errorf("one found %q, the other %q; want %s or %s", heard, got[0].UsedBy, macTwo, macOne)
			}
		})
	}
}

func TestMacvlanIsProbedFrom(t *testing.T) {
	t.Parallel()
	lan := nettest.NewSwitch(t)
	_, mac := lan.Host(t, prefixes("10.0.0.1/24", "fd00::1/64")...)
	node, _ := lan.Host(t)
	in := nettest.New(t)
	child(t, node, in, func(a netlink.LinkAttrs) netlink.Link {
		return &netlink.Macvlan{LinkAttrs: a, Mode: netlink.MACVLAN_MODE_BRIDGE}
	})
	got, _ := probe(t, in,
		detect.Target{Addr: addr("10.0.0.1"), Conflict: true}, detect.Target{Addr: addr("fd00::1"), Conflict: true},
		detect.Target{Addr: addr("10.0.0.2"), Conflict: true}, detect.Target{Addr: addr("fd00::2"), Conflict: true})
	want(t, got, detect.Finding{Addr: addr("10.0.0.1"), UsedBy: mac}, detect.Finding{Addr: addr("fd00::1"), UsedBy: mac},
		detect.Finding{Addr: addr("10.0.0.2")}, detect.Finding{Addr: addr("fd00::2")})
}

// child makes net1 in a pod, a child of the node's eth0.
func child(t *testing.T, node, in *nettest.Namespace, kind func(netlink.LinkAttrs) netlink.Link) {
	t.Helper()
	into, err := os.Open(in.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer into.Close()
	node.Do(t, func() error {
		parent, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.ParentIndex, attrs.Namespace = "net1", parent.Attrs().Index, netlink.NsFd(into.Fd())
		return netlink.LinkAdd(kind(attrs))
	})
}

func TestWhatCannotBeProbedSaysWhy(t *testing.T) {
	t.Parallel()
	lan := nettest.NewSwitch(t)
	in, _ := pod(t, lan)
	target := detect.Target{Addr: addr("10.0.0.1"), Conflict: true}
	for name, c := range map[string]struct {
		path, ifname string
		target       detect.Target
		want         error
	}{
		"no link yet":         {in.Path, "eth0", target, detect.ErrNoLink},
		"no Ethernet":         {in.Path, "lo", target, detect.ErrNoNeighbours},
		"no namespace":        {"/var/run/netns/there-is-none", "net1", target, os.ErrNotExist},
		"no address":          {in.Path, "net1", detect.Target{Conflict: true}, nil},
		"IPv4 in IPv6":        {in.Path, "net1", detect.Target{Addr: addr("::ffff:10.0.0.1"), Conflict: true}, nil},
		"not a namespace":     {"/dev/null", "net1", target, nil},
		"a name out of range": {in.Path, "an-interface-with-a-name-beyond-16-bytes", target, nil},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := detect.Probe(t.Context(), c.path, c.ifname, []detect.Target{c.target})
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("found %v, %v; want %v", found, err, c.want)
			}
		})
	}
}

// Silence on a link that carries nothing says nothing.
func TestAddressOnALinkWithoutCarrierIsNotFree(t *testing.T) {
	t.Parallel()
	lan := nettest.NewSwitch(t)
	in, _ := pod(t, lan)
	lan.Cut(t)
	if found, err := detect.Probe(t.Context(), in.Path, "net1", []detect.Target{{Addr: addr("10.0.0.1"), Conflict: true}}); !errors.Is(err, detect.ErrNoCarrier) {
		t.Errorf("found %v, %v; want %v", found, err, detect.ErrNoCarrier)
	}
}

func TestProbingEndsWithItsContext(t *testing.T) {
	t.Parallel()
	lan := nettest.NewSwitch(t)
	in, _ := pod(t, lan)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := detect.Probe(ctx, in.Path, "net1", []detect.Target{{Addr: addr("10.0.0.1"), Conflict: true}}); !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}
