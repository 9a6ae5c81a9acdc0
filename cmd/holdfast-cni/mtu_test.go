package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ipam/holdfast/cni/nettest"
)

// Between a pod and its node pass packets up to vethMTU in one piece, larger
// ones in several, and who forbids that is told.
func TestPacketsUpToTheMTUPassInOnePiece(t *testing.T) {
	t.Parallel()
	const mtu = 1400
	eachFamily(t, func(t *testing.T, networks nets) {
		lan := nettest.NewSwitch(t)
		node := newMachine(t, lan, `,"vethMTU":1400`, networks.at(11)...)
		p := node.pod(t, "c1")
		p.underlay(t, networks, 101)
		p.add(t, "eth0", "")
		serve(t, node.Namespace, networks.at(11)...)
		serve(t, p.Namespace, networks.at(101)...)
		for _, network := range networks {
			fits := mtu - 20 - 8 // headers of IPv4 and UDP
			if network.Addr().Is6() {
				fits = mtu - 40 - 8
			}
			for what, way := range map[string]struct {
				from *nettest.Namespace
				to   netip.Addr
			}{
				"pod to node": {p.Namespace, at(network, 11).Addr()}, "node to pod": {node.Namespace, at(network, 101).Addr()},
			} {
				if err := datagram(t, way.from, way.to, fits, true); err != nil {
					t.Errorf("%s, %d bytes in one piece: %v", what, fits, err)
				}
				if err := datagram(t, way.from, way.to, fits+1, true); !errors.Is(err, syscall.EMSGSIZE) {
					t.Errorf("%s, %d bytes in one piece: %v, want %v", what, fits+1, err, syscall.EMSGSIZE)
				}
				if err := datagram(t, way.from, way.to, 4000, false); err != nil {
					t.Errorf("%s, 4000 bytes in pieces: %v", what, err)
				}
			}
		}
	})
}

// datagram sends so many bytes over UDP, whole if it must not be split (RFC
// 8899 calls that probing), and waits for the answer.
func datagram(t *testing.T, from *nettest.Namespace, to netip.Addr, size int, whole bool) (err error) {
	t.Helper()
	from.Do(t, func() error {
		err = sendDatagram(to, size, whole)
		return nil
	})
	return err
}

func sendDatagram(to netip.Addr, size int, whole bool) error {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(on(to)))
	if err != nil {
		return err
	}
	defer conn.Close()
	if whole {
		if err := forbidPieces(conn, to); err != nil {
			return fmt.Errorf("forbid fragments: %w", err)
		}
	}
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write(make([]byte, size)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 100))
	return err
}

// forbidPieces has the kernel set "don't fragment" and split nothing itself
// (ip(7), IP_MTU_DISCOVER).
func forbidPieces(conn *net.UDPConn, to netip.Addr) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	level, option := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER
	if to.Is6() {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, unix.IP_PMTUDISC_DO) }); err != nil {
		return err
	}
	return failed
}
