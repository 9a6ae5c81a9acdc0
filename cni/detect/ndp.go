package detect

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
)

// ipv6 asks by neighbour discovery (RFC 4861).
type ipv6 struct{}

const (
	headerLen = 40 // RFC 8200, section 3
	icmpv6    = 58
	// hopLimit shows that no router has passed the message on (RFC 4861,
	// section 7.1).
	hopLimit = 255
)

func (ipv6) etherType() int { return int(ethernet.EtherTypeIPv6) }

// groups: who defends an address against a probe tells all nodes, because the
// one who asks has no address (RFC 4861, section 7.2.4).
func (ipv6) groups() []net.HardwareAddr {
	return []net.HardwareAddr{multicast(netip.IPv6LinkLocalAllNodes())}
}

// multicast returns where frames to a group go (RFC 2464, section 7).
func multicast(group netip.Addr) net.HardwareAddr {
	b := group.As16()
	return net.HardwareAddr{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// packet6 puts an IPv6 header in front of a message to a group.
func packet6(m ndp.Message, source, group netip.Addr) (frame, error) {
	body, err := ndp.MarshalMessageChecksum(m, source, group)
	if err != nil {
		return frame{}, fmt.Errorf("make a message from %s to %s: %w", source, group, err)
	}
	packet := make([]byte, headerLen, headerLen+len(body))
	packet[0] = 6 << 4 // version; traffic class and flow label are 0
	binary.BigEndian.PutUint16(packet[4:], uint16(len(body)))
	packet[6], packet[7] = icmpv6, hopLimit
	copy(packet[8:], source.AsSlice())
	copy(packet[24:], group.AsSlice())
	return frame{payload: append(packet, body...), to: multicast(group)}, nil
}

// solicitation asks for an address. The unspecified address has no link-layer
// option (RFC 4861, section 4.3).
func solicitation(own net.HardwareAddr, source, wanted netip.Addr) (frame, error) {
	group, err := ndp.SolicitedNodeMulticast(wanted)
	if err != nil {
		return frame{}, fmt.Errorf("ask for %s: %w", wanted, err)
	}
	m := &ndp.NeighborSolicitation{TargetAddress: wanted}
	if !source.IsUnspecified() {
		m.Options = []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: own}}
	}
	return packet6(m, source, group)
}

func (ipv6) probe(own net.HardwareAddr, addr netip.Addr) (frame, error) {
	return solicitation(own, netip.IPv6Unspecified(), addr)
}

func (ipv6) request(own net.HardwareAddr, addr, wanted netip.Addr) (frame, error) {
	return solicitation(own, addr, wanted)
}

func (ipv6) announcement(own net.HardwareAddr, addr netip.Addr) (frame, error) {
	return packet6(&ndp.NeighborAdvertisement{
		Override: true, TargetAddress: addr,
		Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: own}},
	}, addr, netip.IPv6LinkLocalAllNodes())
}

// claimant: whoever advertises the address has it, and whoever else solicits
// it from the unspecified address is about to (RFC 4862, section 5.4.3).
func (ipv6) claimant(payload []byte, from, own net.HardwareAddr, addr netip.Addr) net.HardwareAddr {
	source, m := parse6(payload)
	switch m := m.(type) {
	case *ndp.NeighborAdvertisement:
		return advertiser(m, from, addr)
	case *ndp.NeighborSolicitation:
		if m.TargetAddress == addr && source.IsUnspecified() && from.String() != own.String() {
			return from
		}
	}
	return nil
}

func (ipv6) answer(payload []byte, from net.HardwareAddr, wanted netip.Addr) net.HardwareAddr {
	_, m := parse6(payload)
	if m, ok := m.(*ndp.NeighborAdvertisement); ok {
		return advertiser(m, from, wanted)
	}
	return nil
}

// advertiser returns who an advertisement of the address is from: whom it
// names, or else who has sent it.
func advertiser(m *ndp.NeighborAdvertisement, from net.HardwareAddr, addr netip.Addr) net.HardwareAddr {
	if m.TargetAddress != addr {
		return nil
	}
	for _, o := range m.Options {
		if o, ok := o.(*ndp.LinkLayerAddress); ok && o.Direction == ndp.Target && len(o.Addr) == ethernetLen {
			return o.Addr
		}
	}
	return from
}

// parse6 takes a packet apart; nil is none of neighbour discovery, or one that
// is not to be believed.
func parse6(packet []byte) (source netip.Addr, m ndp.Message) {
	if len(packet) < headerLen || packet[0]>>4 != 6 || packet[6] != icmpv6 || packet[7] != hopLimit {
		return source, nil
	}
	end := headerLen + int(binary.BigEndian.Uint16(packet[4:]))
	if end > len(packet) {
		return source, nil
	}
	source = netip.AddrFrom16([16]byte(packet[8:24]))
	m, err := ndp.ParseMessage(packet[headerLen:end])
	if err != nil {
		return source, nil
	}
	return source, m
}
