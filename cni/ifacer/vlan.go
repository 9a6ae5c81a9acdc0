package ifacer

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// vlan is a VLAN interface as a network wants it.
type vlan struct {
	name   string
	id     int
	parent netlink.Link
}

func (c *config) vlan(parent netlink.Link) vlan {
	return vlan{name: vlanName(c.lower(), c.VlanID), id: c.VlanID, parent: parent}
}

// find returns the VLAN interface if it is there, and nil if it can be made.
// It refuses a link of its name that is something else, and a link of the
// same VLAN that has another name: as in Spiderpool, a node has one interface
// for a VLAN.
func (v vlan) find(there links) (netlink.Link, error) {
	link := there.named(v.name)
	if link != nil {
		if err := v.is(link, there); err != nil {
			return nil, err
		}
	}
	for _, other := range there {
		o, ok := other.(*netlink.Vlan)
		if !ok || o.VlanId != v.id || link != nil && o.Index == link.Attrs().Index {
			continue
		}
		if o.ParentIndex == v.parent.Attrs().Index {
			return nil, wrong(
				fmt.Sprintf("VLAN %d of %s exists on this node under the name %s, and the network needs it as %s", v.id, v.parent.Attrs().Name, o.Name, v.name),
				fmt.Sprintf("let the network name %s as its master, without a VLAN, or remove it with `ip link delete %s`", o.Name, o.Name))
		}
		return nil, wrong(
			fmt.Sprintf("this node has VLAN %d already as %s, on %s, and the network wants it as %s", v.id, o.Name, there.name(o.ParentIndex), v.name),
			fmt.Sprintf("a node has one interface for a VLAN: let all networks of VLAN %d have one master, or remove the other with `ip link delete %s`", v.id, o.Name))
	}
	return link, nil
}

// is says how the link of the VLAN interface's name differs from it.
func (v vlan) is(link netlink.Link, there links) error {
	advice := fmt.Sprintf("remove it with `ip link delete %s`, or name it as the network's master, without a VLAN", v.name)
	o, ok := link.(*netlink.Vlan)
	switch {
	case !ok:
		return wrong(fmt.Sprintf("%s exists on this node and is no VLAN interface, but of type %s", v.name, link.Type()), advice)
	case o.VlanId != v.id:
		return wrong(fmt.Sprintf("%s exists on this node with VLAN %d, and the network wants VLAN %d", v.name, o.VlanId, v.id), advice)
	case o.ParentIndex != v.parent.Attrs().Index:
		return wrong(fmt.Sprintf("%s exists on this node on %s, and the network wants it on %s", v.name, there.name(o.ParentIndex), v.parent.Attrs().Name), advice)
	case o.VlanProtocol == netlink.VLAN_PROTOCOL_8021AD:
		return wrong(fmt.Sprintf("%s exists on this node with protocol 802.1ad, and the network wants 802.1Q", v.name), advice)
	}
	return nil
}

// makeVLAN returns the VLAN interface, made if it is missing. Its MTU is then
// its parent's, which the kernel sees to.
func (n *node) makeVLAN(v vlan) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = v.name, v.parent.Attrs().Index
	return n.findOrMake(v.find, func() error {
		err := n.netlink.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: v.id, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q})
		if err != nil {
			return failed(fmt.Sprintf("make VLAN %d of %s", v.id, v.parent.Attrs().Name), err)
		}
		return nil
	})
}
