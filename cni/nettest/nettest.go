// Package nettest builds networks for tests: network namespaces that belong to
// a test and go with it, on Ethernet segments of its own. Nothing of the
// machine's own network is touched. It needs root.
package nettest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"go4.org/netipx"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace. It lasts until the test ends.
type Namespace struct {
	// Path is where processes find it.
	Path string
	work chan func()
}

// New makes a network namespace, its loopback interface up. Without root, the
// test is skipped.
func New(t testing.TB) *Namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	n := &Namespace{work: make(chan func())}
	made := make(chan error)
	go func() {
		// The thread is the namespace's, and ends with this goroutine.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		n.Path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		made <- err
		for f := range n.work {
			f()
		}
	}()
	t.Cleanup(func() { close(n.work) })
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	n.Do(t, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	return n
}

// Do runs f inside, on a thread of the namespace's own. f must not end its
// goroutine (t.Fatal).
func (n *Namespace) Do(t testing.TB, f func() error) {
	t.Helper()
	failed := make(chan error)
	n.work <- func() { failed <- f() }
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}

// Switch is an Ethernet segment.
type Switch struct {
	inside *Namespace
	ports  int
}

// NewSwitch makes a segment with nothing on it.
func NewSwitch(t testing.TB) *Switch {
	t.Helper()
	s := &Switch{inside: New(t)}
	s.inside.Do(t, func() error {
		bridge := &netlink.Bridge{LinkAttrs: attrs("br")}
		if err := netlink.LinkAdd(bridge); err != nil {
			return fmt.Errorf("make a bridge: %w", err)
		}
		return netlink.LinkSetUp(bridge)
	})
	return s
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// Plug connects a namespace: it gets the interface, down and without
// addresses. It returns its hardware address.
func (s *Switch) Plug(t testing.TB, n *Namespace, ifname string) (mac net.HardwareAddr) {
	t.Helper()
	s.ports++
	port := fmt.Sprintf("port%d", s.ports)
	into, err := os.Open(n.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer into.Close()
	s.inside.Do(t, func() error {
		veth := &netlink.Veth{LinkAttrs: attrs(port), PeerName: ifname, PeerNamespace: netlink.NsFd(into.Fd())}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("make %s: %w", port, err)
		}
		bridge, err := netlink.LinkByName("br")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMaster(veth, bridge); err != nil {
			return err
		}
		return netlink.LinkSetUp(veth)
	})
	n.Do(t, func() error {
		link, err := netlink.LinkByName(ifname)
		if err == nil {
			mac = link.Attrs().HardwareAddr
		}
		return err
	})
	return mac
}

// Cut takes the carrier from the interface that was plugged in last.
func (s *Switch) Cut(t testing.TB) {
	t.Helper()
	s.inside.Do(t, func() error {
		port, err := netlink.LinkByName(fmt.Sprintf("port%d", s.ports))
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(port)
	})
}

// Up sets an interface up and gives it addresses, for use at once: without
// duplicate address detection.
func (n *Namespace) Up(t testing.TB, ifname string, addrs ...netip.Prefix) {
	t.Helper()
	n.Do(t, func() error {
		link, err := netlink.LinkByName(ifname)
		if err != nil {
			return err
		}
		// A router forwards nothing before its link-local address is there.
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+ifname+"/accept_dad", []byte("0"), 0); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		for _, addr := range addrs {
			a := &netlink.Addr{IPNet: netipx.PrefixIPNet(addr)}
			if addr.Addr().Is6() {
				a.Flags = unix.IFA_F_NODAD
			}
			if err := netlink.AddrAdd(link, a); err != nil {
				return fmt.Errorf("give %s %s: %w", ifname, addr, err)
			}
		}
		return nil
	})
}

// Host is a machine on the segment: a namespace whose eth0 has the addresses.
func (s *Switch) Host(t testing.TB, addrs ...netip.Prefix) (*Namespace, net.HardwareAddr) {
	t.Helper()
	n := New(t)
	mac := s.Plug(t, n, "eth0")
	n.Up(t, "eth0", addrs...)
	return n, mac
}
