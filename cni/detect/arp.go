package detect

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
)

// ipv4 asks by ARP (RFC 826).
type ipv4 struct{}

func (ipv4) etherType() int             { return int(ethernet.EtherTypeARP) }
func (ipv4) groups() []net.HardwareAddr { return nil } // broadcasts reach everyone

// nobody is the target hardware address of a request (RFC 5227, section 1.1).
func nobody() net.HardwareAddr { return make(net.HardwareAddr, ethernetLen) }

// arpRequest returns a request to everybody: probes come from 0.0.0.0, and
// announcements ask for the sender's own address.
func arpRequest(own net.HardwareAddr, sender, wanted netip.Addr) (frame, error) {
	p, err := arp.NewPacket(arp.OperationRequest, own, sender, nobody(), wanted)
	if err != nil {
		return frame{}, fmt.Errorf("make an ARP request for %s from %s: %w", wanted, own, err)
	}
	payload, err := p.MarshalBinary()
	return frame{payload: payload, to: ethernet.Broadcast}, err
}

func (ipv4) probe(own net.HardwareAddr, addr netip.Addr) (frame, error) {
	return arpRequest(own, netip.IPv4Unspecified(), addr)
}

func (ipv4) request(own net.HardwareAddr, addr, wanted netip.Addr) (frame, error) {
	return arpRequest(own, addr, wanted)
}

func (ipv4) announcement(own net.HardwareAddr, addr netip.Addr) (frame, error) {
	return arpRequest(own, addr, addr)
}

// claimant: whoever sends from the address has it, and whoever else probes
// for it is about to (RFC 5227, section 2.1.1).
func (ipv4) claimant(payload []byte, _, own net.HardwareAddr, addr netip.Addr) net.HardwareAddr {
	p, ok := parse4(payload)
	if !ok {
		return nil
	}
	probing := p.Operation == arp.OperationRequest && p.SenderIP == netip.IPv4Unspecified() &&
		p.TargetIP == addr && p.SenderHardwareAddr.String() != own.String()
	if p.SenderIP == addr || probing {
		return p.SenderHardwareAddr
	}
	return nil
}

func (ipv4) answer(payload []byte, _ net.HardwareAddr, wanted netip.Addr) net.HardwareAddr {
	p, ok := parse4(payload)
	if !ok || p.SenderIP != wanted {
		return nil
	}
	return p.SenderHardwareAddr
}

// parse4 takes a packet apart, if it is one of IPv4 on Ethernet.
func parse4(payload []byte) (p arp.Packet, ok bool) {
	err := p.UnmarshalBinary(payload)
	return p, err == nil && p.ProtocolType == uint16(ethernet.EtherTypeIPv4) && len(p.SenderHardwareAddr) == ethernetLen
}
