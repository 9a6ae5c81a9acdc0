package coordinator

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
)

// pair is the veth pair between a pod and its node.
type pair struct {
	host, hostMAC, podMAC, alias string
	mtu                          int
}

// pairOf returns the pair of a container. Its hardware addresses follow from
// the container, so that a pair that is made again, after a half-finished ADD,
// is known to the neighbours as it was. That they are chosen also keeps udev
// from choosing others later (systemd.link(5), MACAddressPolicy).
func pairOf(container, network string, mtu int) *pair {
	return &pair{
		host: hostVethOf(container), alias: aliasOf(container, network), mtu: mtu,
		hostMAC: macOf(container, "node"), podMAC: macOf(container, "pod"),
	}
}

// hostVethOf is the name of the node's end of a container's pair.
func hostVethOf(container string) string {
	return hostVeth + container[:min(len(container), hostVethID)]
}

// macOf returns a local, individual hardware address (IEEE 802, section 8.4).
func macOf(container, end string) string {
	sum := sha256.Sum256([]byte(end + " " + container))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^1 | 2
	return mac.String()
}

// aliasPrefix begins the alias of a pair's end on the node (`ip link` shows
// it): how GC knows the pairs of its network.
const aliasPrefix = "holdfast "

// aliasOf returns the alias of a pair. The network stands in it as a digest: a
// name may be longer than the kernel's 255 bytes.
func aliasOf(container, network string) string {
	return aliasPrefix + networkID(network) + " " + container
}

func networkID(network string) string {
	sum := sha256.Sum256([]byte(network))
	return fmt.Sprintf("%x", sum[:8])
}

// make makes the pair, unless it is there.
func (p *pair) make(node, pod *space) error {
	outer, inner, err := p.find(node, pod)
	if err != nil {
		return err
	}
	if outer != nil && (inner == nil || !paired(outer, inner)) {
		// The end of another namespace of this container's, which is over.
		if err := node.LinkDel(outer); err != nil {
			return fmt.Errorf("remove the old %s: %w", p.host, err)
		}
		if outer, inner, err = p.find(node, pod); err != nil {
			return err
		}
	}
	if outer == nil {
		if inner != nil {
			return wrong(fmt.Sprintf("the pod has an interface %s that the coordinator has not made", podVeth), "give the pod's network interfaces other names")
		}
		return p.create(node, pod)
	}
	for _, end := range []struct {
		in   *space
		link netlink.Link
		mac  string
	}{{node, outer, p.hostMAC}, {pod, inner, p.podMAC}} {
		if err := p.adjust(end.in, end.link, end.mac); err != nil {
			return err
		}
	}
	return p.sign(node)
}

// find returns both ends, nil for what is not there.
func (p *pair) find(node, pod *space) (outer, inner netlink.Link, err error) {
	if outer, err = byName(node, p.host); err != nil {
		return nil, nil, err
	}
	inner, err = byName(pod, podVeth)
	return outer, inner, err
}

// byName returns a link, or nil.
func byName(s *space, name string) (netlink.Link, error) {
	l, err := s.LinkByName(name)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look %s up: %w", name, err)
	}
	return l, nil
}

func paired(a, b netlink.Link) bool {
	return a.Type() == "veth" && b.Type() == "veth" && a.Attrs().ParentIndex == b.Attrs().Index && b.Attrs().ParentIndex == a.Attrs().Index
}

// create makes both ends, in one step and each in its namespace.
func (p *pair) create(node, pod *space) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = p.host, p.mtu
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerMTU, veth.PeerNamespace = podVeth, uint32(p.mtu), netlink.NsFd(pod.file.Fd())
	var err error
	if veth.HardwareAddr, err = net.ParseMAC(p.hostMAC); err != nil {
		return err
	}
	if veth.PeerHardwareAddr, err = net.ParseMAC(p.podMAC); err != nil {
		return err
	}
	if err := node.LinkAdd(veth); err != nil {
		return fmt.Errorf("make the pair of %s and the pod's %s: %w", p.host, podVeth, err)
	}
	return p.sign(node)
}

// adjust gives an end that was there what it is to have.
func (p *pair) adjust(in *space, end netlink.Link, mac string) error {
	attrs := end.Attrs()
	if attrs.MTU != p.mtu {
		if err := in.LinkSetMTU(end, p.mtu); err != nil {
			return fmt.Errorf("set the MTU of %s to %d: %w", attrs.Name, p.mtu, err)
		}
	}
	if attrs.HardwareAddr.String() == mac {
		return nil
	}
	to, err := net.ParseMAC(mac)
	if err == nil {
		err = in.LinkSetHardwareAddr(end, to)
	}
	if err != nil {
		return fmt.Errorf("set the hardware address of %s: %w", attrs.Name, err)
	}
	return nil
}

// sign marks the node's end as the coordinator's.
func (p *pair) sign(node *space) error {
	outer, err := node.LinkByName(p.host)
	if err == nil && outer.Attrs().Alias != p.alias {
		err = node.LinkSetAlias(outer, p.alias)
	}
	if err != nil {
		return fmt.Errorf("set the alias of %s: %w", p.host, err)
	}
	return nil
}
