// Package detect finds out, on the link that a pod is about to use, whether
// somebody else has its addresses and whether its gateways are there.
//
// The link exists and is not configured yet, so the kernel can ask nothing: the
// frames are made here and sent through packet sockets. IPv4 is probed as RFC
// 5227, section 2.1.1 says, with ARP requests of the all-zero sender, IPv6 as
// RFC 4862, section 5.4 says, with neighbour solicitations of the unspecified
// address. Both wait for far less than these say, because a pod's start waits
// for them; and neither waits for a link-local address, because none is needed.
//
// What it cannot see: a machine that is switched off or behind a switch that
// does not forward yet, and one that answers late.
package detect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
)

// How long is asked. A machine on the same link answers within a millisecond,
// a loaded one within some ten; each probe is repeated for those that get
// lost. A free address takes all of its probes, 0.3 s, and RFC 5227 would have
// it wait 4 to 7 s.
const (
	probes = 3
	// gatewayProbes: a router that is busy answers ARP late, and who asks for
	// it has the time, because the good case ends with its first answer.
	gatewayProbes = 5
	// pause is between two probes and after the last one.
	pause = 100 * time.Millisecond
	// upWait is how long a link that was set up just now may take to find its
	// carrier. Virtual ones have it at once; the driver of a network card may
	// look every other second.
	upWait = 3 * time.Second
)

// On some links there is nobody to ask, or nobody to be asked yet.
var (
	// ErrNoLink: the interface does not exist (yet), because the main plugin
	// makes it after it has asked for addresses, as ptp does.
	ErrNoLink = errors.New("there is no interface")
	// ErrNoNeighbours: the link is no Ethernet, or does without ARP, as ipvlan
	// in mode l3 does.
	ErrNoNeighbours = errors.New("there are no neighbours")
	// ErrNoCarrier: who is on the link cannot be known, as a cable is missing,
	// or the interface that this one is made of is down.
	ErrNoCarrier = errors.New("there is no carrier")
)

// Target is an address to find out about.
type Target struct {
	// Addr is the pod's address to be.
	Addr netip.Addr
	// Conflict asks whether somebody has it.
	Conflict bool
	// Gateway, if valid, is asked for from Addr. It is of the same family.
	Gateway netip.Addr
}

// Finding is what was found out about the target with the same address.
type Finding struct {
	Addr netip.Addr
	// UsedBy is the hardware address of who has Addr, nil if nobody answered.
	UsedBy net.HardwareAddr
	// NoGateway is set when the target's gateway did not answer.
	NoGateway bool
}

// Probe sets the interface up in the network namespace at path, finds out
// about the targets side by side, and announces the addresses of which
// everything is in order (RFC 5227, section 2.3; RFC 4861, section 7.2.6). It
// returns a finding for each target, in order. A target with a conflict is
// not asked for its gateway: the address is not the pod's to ask from.
//
// On a link with a carrier it takes at most 1 s, and 0.3 s where nothing answers
// that should not. Errors: [ErrNoLink]; [ErrNoNeighbours]; [ErrNoCarrier]; those of the namespace, the link and its sockets.
func Probe(ctx context.Context, path, ifname string, targets []Target) ([]Finding, error) {
	s, err := open(path, ifname)
	if err != nil {
		return nil, fmt.Errorf("probe for addresses on %s in %s: %w", ifname, path, err)
	}
	defer s.close()
	if err := s.awaitUp(ctx); err != nil {
		return nil, fmt.Errorf("probe for addresses on %s: %w", ifname, err)
	}
	findings := make([]Finding, len(targets))
	group, ctx := errgroup.WithContext(ctx)
	for i, target := range targets {
		group.Go(func() (err error) {
			findings[i], err = s.find(ctx, target)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("probe for addresses on %s: %w", ifname, err)
	}
	return findings, nil
}

// find finds out about one target.
func (s *station) find(ctx context.Context, t Target) (f Finding, err error) {
	f.Addr = t.Addr
	p, err := protocolOf(t.Addr)
	if err != nil {
		return f, err
	}
	ears, err := s.listen(p)
	if err != nil {
		return f, err
	}
	defer ears.close()
	if t.Conflict {
		frame, err := p.probe(s.hardware(), t.Addr)
		if err != nil {
			return f, err
		}
		f.UsedBy, err = ears.ask(ctx, frame, probes, func(payload []byte, from net.HardwareAddr) net.HardwareAddr {
			return p.claimant(payload, from, s.hardware(), t.Addr)
		})
		if err != nil || f.UsedBy != nil {
			return f, err
		}
	}
	if t.Gateway.IsValid() {
		frame, err := p.request(s.hardware(), t.Addr, t.Gateway)
		if err != nil {
			return f, err
		}
		heard, err := ears.ask(ctx, frame, gatewayProbes, func(payload []byte, from net.HardwareAddr) net.HardwareAddr {
			return p.answer(payload, from, t.Gateway)
		})
		if f.NoGateway = heard == nil; err != nil || f.NoGateway {
			return f, err
		}
	}
	frame, err := p.announcement(s.hardware(), t.Addr)
	if err != nil {
		return f, err
	}
	// The neighbours learn of the pod a little later if this one gets lost.
	_ = ears.say(frame)
	return f, nil
}

// protocol is how one family asks for an address: ARP, or neighbour discovery.
type protocol interface {
	// etherType is that of its frames, and groups are the hardware addresses
	// to listen on besides one's own.
	etherType() int
	groups() []net.HardwareAddr
	// probe asks whether anybody has addr, without a word on who asks.
	probe(own net.HardwareAddr, addr netip.Addr) (frame, error)
	// claimant returns who has addr by what a frame from a machine says, or
	// is about to take it; nil if it is about something else.
	claimant(payload []byte, from, own net.HardwareAddr, addr netip.Addr) net.HardwareAddr
	// request asks for wanted from one's own address.
	request(own net.HardwareAddr, addr, wanted netip.Addr) (frame, error)
	// answer returns who says in a frame that it has wanted, or nil.
	answer(payload []byte, from net.HardwareAddr, wanted netip.Addr) net.HardwareAddr
	// announcement tells everybody who has addr now.
	announcement(own net.HardwareAddr, addr netip.Addr) (frame, error)
}

// frame is what is sent, without its Ethernet header, and to whom.
type frame struct {
	payload []byte
	to      net.HardwareAddr
}

func protocolOf(addr netip.Addr) (protocol, error) {
	switch {
	case addr.Is4():
		return ipv4{}, nil
	case addr.Is6() && !addr.Is4In6():
		return ipv6{}, nil
	}
	return nil, fmt.Errorf("%q is no address of a pod", addr)
}
