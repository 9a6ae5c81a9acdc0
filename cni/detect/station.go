package detect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ethernetLen is the length of a hardware address of Ethernet, in bytes.
const ethernetLen = 6

// station is a link of a pod from which to ask.
type station struct {
	pod  *os.File // the pod's network namespace
	link netlink.Link
}

// open finds the link and sets it up.
func open(path, ifname string) (*station, error) {
	pod, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the network namespace: %w", err)
	}
	s := &station{pod: pod}
	if err := s.inside(func() error { return s.setUp(ifname) }); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// setUp finds the link and sets it up. It runs inside.
func (s *station) setUp(ifname string) (err error) {
	s.link, err = netlink.LinkByName(ifname)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return fmt.Errorf("%w %s", ErrNoLink, ifname)
	}
	if err != nil {
		return fmt.Errorf("look %s up: %w", ifname, err)
	}
	attrs := s.link.Attrs()
	if attrs.RawFlags&unix.IFF_NOARP != 0 || len(attrs.HardwareAddr) != ethernetLen {
		return fmt.Errorf("%w on %s", ErrNoNeighbours, ifname)
	}
	if err := netlink.LinkSetUp(s.link); err != nil {
		return fmt.Errorf("set %s up: %w", ifname, err)
	}
	return nil
}

func (s *station) hardware() net.HardwareAddr { return s.link.Attrs().HardwareAddr }

// close lets go of the namespace.
func (s *station) close() { _ = s.pod.Close() } // it was only looked at

// inside runs f in the pod's network namespace. Sockets that f opens stay
// there.
func (s *station) inside(f func() error) error {
	failed := make(chan error, 1)
	go func() {
		// A thread that does not find back ends with its goroutine.
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			failed <- fmt.Errorf("open the own network namespace: %w", err)
			return
		}
		defer own.Close()
		if err := unix.Setns(int(s.pod.Fd()), unix.CLONE_NEWNET); err != nil {
			failed <- fmt.Errorf("enter the network namespace: %w", err)
			return
		}
		err = f()
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		failed <- err
	}()
	return <-failed
}

// awaitUp waits until the link passes frames on ([ErrNoCarrier]).
func (s *station) awaitUp(ctx context.Context) error {
	over := time.NewTimer(upWait)
	defer over.Stop()
	tick := time.NewTicker(pause / 20)
	defer tick.Stop()
	for {
		var up bool
		err := s.inside(func() error {
			link, err := netlink.LinkByIndex(s.link.Attrs().Index)
			if err == nil {
				up = link.Attrs().RawFlags&unix.IFF_RUNNING != 0
			}
			return err
		})
		if err != nil || up {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over.C:
			return ErrNoCarrier
		case <-tick.C:
		}
	}
}

// ears are the sockets of one protocol. The first one is the link's own, which
// is spoken through as well.
type ears []*packet.Conn

func (s *station) listen(p protocol) (e ears, err error) {
	attrs := s.link.Attrs()
	err = s.inside(func() (err error) {
		own := &net.Interface{Index: attrs.Index, MTU: attrs.MTU, Name: attrs.Name, HardwareAddr: attrs.HardwareAddr}
		e, err = e.add(own, p)
		return err
	})
	if err == nil && s.link.Type() == "ipvlan" {
		// All links on one parent have its hardware address, and frames to it
		// are told apart by addresses that this link does not have yet: what
		// is answered to it alone ends at the parent.
		parent := func() error {
			on, err := net.InterfaceByIndex(attrs.ParentIndex)
			if err == nil {
				e, err = e.add(on, p)
			}
			return err
		}
		if attrs.NetNsID < 0 {
			err = s.inside(parent)
		} else {
			err = parent()
		}
	}
	if err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

// add listens on an interface of the namespace that the thread is in.
func (e ears) add(on *net.Interface, p protocol) (ears, error) {
	conn, err := packet.Listen(on, packet.Datagram, p.etherType(), nil)
	if err != nil {
		return e, fmt.Errorf("listen on %s: %w", on.Name, err)
	}
	e = append(e, conn)
	for _, group := range p.groups() {
		if err := conn.JoinGroup(group); err != nil {
			return e, fmt.Errorf("listen to %s on %s: %w", group, on.Name, err)
		}
	}
	return e, nil
}

func (e ears) close() {
	for _, conn := range e {
		_ = conn.Close() // nothing is left to be sent
	}
}

// say sends a frame.
func (e ears) say(f frame) error {
	if _, err := e[0].WriteTo(f.payload, &packet.Addr{HardwareAddr: f.to}); err != nil {
		return fmt.Errorf("send a probe: %w", err)
	}
	return nil
}

// ask sends a frame up to times, a pause apart, and returns the first one that
// answers: nil if nobody has by a pause after the last.
func (e ears) ask(ctx context.Context, f frame, times int, who func(payload []byte, from net.HardwareAddr) net.HardwareAddr) (net.HardwareAddr, error) {
	heard := make(chan net.HardwareAddr, len(e))
	var listening sync.WaitGroup
	defer listening.Wait()
	for _, conn := range e {
		if err := conn.SetReadDeadline(time.Time{}); err != nil {
			return nil, err
		}
		listening.Go(func() { hear(conn, who, heard) })
		defer conn.SetReadDeadline(time.Unix(1, 0)) // ends hear
	}
	timer := time.NewTicker(pause)
	defer timer.Stop()
	for range times {
		if err := e.say(f); err != nil {
			return nil, err
		}
		select {
		case mac := <-heard:
			return mac, nil
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, nil
}

// hear reads frames until one is an answer or the deadline ends it.
func hear(conn *packet.Conn, who func([]byte, net.HardwareAddr) net.HardwareAddr, heard chan<- net.HardwareAddr) {
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		sender, ok := from.(*packet.Addr)
		if !ok {
			continue
		}
		if mac := who(buffer[:n], sender.HardwareAddr); mac != nil {
			heard <- mac
			return
		}
	}
}
