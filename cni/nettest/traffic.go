package nettest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// Run runs a command inside and returns what it prints, without the last line's
// end. The test ends if it fails.
func (n *Namespace) Run(t testing.TB, command string, args ...string) string {
	t.Helper()
	var output []byte
	n.Do(t, func() (err error) {
		output, err = exec.CommandContext(t.Context(), command, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %s: %w: %s", command, strings.Join(args, " "), err, output)
		}
		return nil
	})
	return strings.TrimRight(string(output), "\n")
}

// Set sets files below /proc/sys/net to a value.
func (n *Namespace) Set(t testing.TB, value string, files ...string) {
	t.Helper()
	n.Do(t, func() error {
		for _, file := range files {
			if err := os.WriteFile(filepath.Join("/proc/sys/net", file), []byte(value), 0); err != nil {
				return err
			}
		}
		return nil
	})
}

// Get returns the value of a file below /proc/sys/net.
func (n *Namespace) Get(t testing.TB, file string) (value string) {
	t.Helper()
	n.Do(t, func() error {
		text, err := os.ReadFile(filepath.Join("/proc/sys/net", file))
		value = strings.TrimSpace(string(text))
		return err
	})
	return value
}

// Macvlan makes an interface of type macvlan, in bridge mode, on an interface of
// this namespace, gives it to another one, and sets it up there with the
// addresses, for use at once.
func (n *Namespace) Macvlan(t testing.TB, parent string, into *Namespace, ifname string, addrs ...netip.Prefix) {
	t.Helper()
	target, err := os.Open(into.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	n.Do(t, func() error {
		on, err := netlink.LinkByName(parent)
		if err != nil {
			return err
		}
		a := attrs(ifname)
		a.ParentIndex, a.Namespace = on.Attrs().Index, netlink.NsFd(target.Fd())
		return netlink.LinkAdd(&netlink.Macvlan{LinkAttrs: a, Mode: netlink.MACVLAN_MODE_BRIDGE})
	})
	into.Up(t, ifname, addrs...)
}

// Serve listens for TCP and UDP at addr, tells whoever asks what it sees of
// them ("<their address>"), and ends with the test.
func (n *Namespace) Serve(t testing.TB, addr netip.AddrPort) {
	t.Helper()
	var listener net.Listener
	var conn net.PacketConn
	n.Do(t, func() (err error) {
		var config net.ListenConfig
		if listener, err = config.Listen(t.Context(), "tcp", addr.String()); err != nil {
			return err
		}
		conn, err = config.ListenPacket(t.Context(), "udp", addr.String())
		return err
	})
	var serving sync.WaitGroup
	serving.Go(func() { serveTCP(listener) })
	serving.Go(func() { serveUDP(conn) })
	t.Cleanup(func() {
		if err := errors.Join(listener.Close(), conn.Close()); err != nil {
			t.Error(err)
		}
		serving.Wait()
	})
}

func serveTCP(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		// Who has gone away does not want the answer any more.
		_, _ = io.WriteString(conn, seen(conn.RemoteAddr()))
		_ = conn.Close()
	}
}

func serveUDP(conn net.PacketConn) {
	buffer := make([]byte, 1<<16)
	for {
		_, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		_, _ = conn.WriteTo([]byte(seen(from)), from)
	}
}

func seen(addr net.Addr) string {
	at, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return err.Error()
	}
	return at.Addr().Unmap().String()
}

// patience is for how long an answer is waited for. On a network of one machine
// it comes within a millisecond.
const patience = 2 * time.Second

// Ask connects from inside to a server, with a source address if from is valid,
// and returns what it says. The network is tcp or udp.
func (n *Namespace) Ask(t testing.TB, network string, from netip.Addr, to netip.AddrPort) (answer string, err error) {
	t.Helper()
	n.Do(t, func() error {
		answer, err = ask(t.Context(), network, from, to)
		return nil
	})
	return answer, err
}

func ask(ctx context.Context, network string, from netip.Addr, to netip.AddrPort) (string, error) {
	dialer := net.Dialer{Timeout: patience}
	if from.IsValid() {
		dialer.LocalAddr = net.Addr(net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)))
		if network == "udp" {
			dialer.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
	}
	conn, err := dialer.DialContext(ctx, network, to.String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if network == "udp" {
		if _, err := io.WriteString(conn, "who am I?"); err != nil {
			return "", err
		}
		buffer := make([]byte, 100)
		length, err := conn.Read(buffer)
		return string(buffer[:length]), err
	}
	text, err := io.ReadAll(conn)
	return string(text), err
}
