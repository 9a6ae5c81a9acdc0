package ifacer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// bond is a bond as a network wants it.
type bond struct {
	// Name is "sp_bond0" if it is left out.
	Name string `json:"name"`
	// Mode is the number of a mode of the bonding driver, 0 (balance-rr) if it
	// is left out.
	Mode int `json:"mode"`
	// Options are options of the bonding driver, see options.go.
	Options string `json:"options"`

	// wants is what the kernel is asked for: what Mode and Options say.
	wants *netlink.Bond
	// given are the keys in Options, in their order.
	given []string
	// primary is the value of the option primary.
	primary string
}

// find returns the bond if it is there with just these members, and nil if it
// can be made, or be completed: a bond that is down, without a member that
// does not belong to it, is one that somebody was interrupted in making. One
// that is up is in use, perhaps an administrator's own, and is not changed.
func (b *bond) find(there links, members []netlink.Link) (netlink.Link, error) {
	link := there.named(b.Name)
	if err := b.free(there, link, members); err != nil || link == nil {
		return nil, err
	}
	is, ok := link.(*netlink.Bond)
	if !ok {
		return nil, wrong(fmt.Sprintf("%s exists on this node and is no bond, but of type %s", b.Name, link.Type()),
			"choose another name for the bond, in bond.name, or let the network name it as its only master")
	}
	if is.Mode != b.wants.Mode {
		return nil, wrong(fmt.Sprintf("the bond %s of this node has mode %d (%s), and the network wants mode %d (%s)", b.Name, int(is.Mode), is.Mode, b.Mode, b.wants.Mode),
			b.advice())
	}
	complete, err := b.sameMembers(there, is, members)
	if err != nil {
		return nil, err
	}
	if err := b.sameOptions(there, is, complete); err != nil || !complete {
		return nil, err
	}
	return is, nil
}

// advice is what to do about a bond that is not as the network wants it.
func (b *bond) advice() string {
	return fmt.Sprintf("correct the network's bond so that all networks say the same of %s, choose another name for it, or, when no pod uses it, remove it with `ip link delete %s`", b.Name, b.Name)
}

// free refuses members that belong to something else than link.
func (b *bond) free(there links, link netlink.Link, members []netlink.Link) error {
	for _, member := range members {
		attrs := member.Attrs()
		if attrs.MasterIndex == 0 || link != nil && attrs.MasterIndex == link.Attrs().Index {
			continue
		}
		master := there.name(attrs.MasterIndex)
		return wrong(fmt.Sprintf("%s belongs to %s on this node, and the network wants it in the bond %s", attrs.Name, master, b.Name),
			fmt.Sprintf("name %s as the network's only master, or take %s out of it with `ip link set %s nomaster`", master, attrs.Name, attrs.Name))
	}
	return nil
}

// sameMembers reports whether the bond has all members, and refuses others.
func (b *bond) sameMembers(there links, is *netlink.Bond, members []netlink.Link) (complete bool, err error) {
	var want, have []string
	for _, member := range members {
		want = append(want, member.Attrs().Name)
	}
	for _, link := range there {
		if link.Attrs().MasterIndex == is.Index {
			have = append(have, link.Attrs().Name)
		}
	}
	slices.Sort(want)
	slices.Sort(have)
	if slices.Equal(want, have) {
		return true, nil
	}
	foreign := slices.ContainsFunc(have, func(name string) bool { return !slices.Contains(want, name) })
	if !foreign && !isUp(is) {
		return false, nil
	}
	return false, wrong(
		fmt.Sprintf("the bond %s of this node has the interfaces [%s], and the network wants [%s]", b.Name, strings.Join(have, " "), strings.Join(want, " ")),
		b.advice()+"; an interface is put in with `ip link set NAME down` and `ip link set NAME master "+b.Name+"`")
}

// sameOptions refuses a bond that has an option of the network otherwise.
// What the network leaves open may be as it is. A primary that is not a member
// yet is not told by the kernel.
func (b *bond) sameOptions(there links, is *netlink.Bond, complete bool) error {
	options := known()
	for _, key := range b.given {
		var want, have string
		switch {
		case key != keyPrimary:
			want, have = options[key].get(b.wants), options[key].get(is)
		case complete:
			want, have = b.primaryIn(there), there.primaryOf(is)
		}
		if want != have {
			return wrong(fmt.Sprintf("the bond %s of this node has %s=%s, and the network wants %s=%s", b.Name, key, have, key, want), b.advice())
		}
	}
	return nil
}

// primaryIn is the name of the primary, which the network may give by an
// alternative one.
func (b *bond) primaryIn(there links) string {
	if link := there.named(b.primary); link != nil {
		return link.Attrs().Name
	}
	return b.primary
}

// primaryOf is the name of the primary that a bond has.
func (l links) primaryOf(is *netlink.Bond) string {
	if is.Primary > 0 {
		return l.name(is.Primary)
	}
	return "none"
}

// makeBond returns the bond, made or completed if need be, and up.
func (n *node) makeBond(b *bond, members []netlink.Link) (netlink.Link, error) {
	find := func(there links) (netlink.Link, error) { return b.findAgain(there, members) }
	return n.findOrMake(find, func() error { return n.assemble(b, members) })
}

// findAgain is find for members that may have changed since they were listed.
func (b *bond) findAgain(there links, members []netlink.Link) (netlink.Link, error) {
	current := make([]netlink.Link, len(members))
	for i, member := range members {
		current[i] = there.at(member.Attrs().Index)
		if current[i] == nil {
			return nil, failed("make the bond "+b.Name, fmt.Errorf("%s has just disappeared", member.Attrs().Name))
		}
	}
	return b.find(there, current)
}

// assemble makes the bond unless it is there, and puts the members in that
// are not in it. If anything fails the members are as before, as is the bond
// unless it was there.
func (n *node) assemble(b *bond, members []netlink.Link) (err error) {
	if err := n.mustBeUnused(b, members); err != nil {
		return err
	}
	there, err := n.links()
	if err != nil {
		return err
	}
	link := there.named(b.Name)
	if link == nil {
		if link, err = n.addBond(b, there, members); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				err = also(err, n.dissolve(link, members))
			}
		}()
	}
	for _, member := range members {
		if err := n.enslave(link, member); err != nil {
			return err
		}
	}
	if there, err = n.links(); err != nil {
		return err
	}
	// What the kernel made of the options is seen before anything uses it.
	found, err := b.findAgain(there, members)
	if err != nil || found == nil {
		return err
	}
	return n.up(found)
}

// mustBeUnused refuses members by which the node is reached: an interface in
// a bond has addresses no more, and being put in takes its routes away. What
// the network itself gives, link-local and autoconfigured IPv6 addresses, is
// on every interface that is up.
func (n *node) mustBeUnused(b *bond, members []netlink.Link) error {
	for _, member := range members {
		if member.Attrs().MasterIndex != 0 {
			continue
		}
		addrs, err := again(func() ([]netlink.Addr, error) { return n.netlink.AddrList(member, netlink.FAMILY_ALL) })
		if err != nil {
			return failed("list the addresses of "+member.Attrs().Name, err)
		}
		for _, addr := range addrs {
			if own(addr) {
				return wrong(fmt.Sprintf("%s has the address %s of this node, which it would lose in the bond %s", member.Attrs().Name, addr.IPNet, b.Name),
					fmt.Sprintf("bond interfaces without addresses, or make the bond on the nodes yourself, with the address on it, and name %s as the network's only master", b.Name))
			}
		}
	}
	return nil
}

// own reports whether somebody gave the address to the interface on purpose.
func own(addr netlink.Addr) bool {
	if addr.IP.IsLinkLocalUnicast() {
		return false
	}
	const permanent = 0x80 // IFA_F_PERMANENT: no lifetime, so not autoconfigured
	return addr.IP.To4() != nil || addr.Flags&permanent != 0
}

// addBond makes the bond, down and without members. Its MTU is the smallest
// of the members', because each gets the bond's when it is put in.
func (n *node) addBond(b *bond, there links, members []netlink.Link) (netlink.Link, error) {
	wants := *b.wants
	wants.Name = b.Name
	wants.MTU = slices.MinFunc(members, func(x, y netlink.Link) int { return x.Attrs().MTU - y.Attrs().MTU }).Attrs().MTU
	if primary := there.named(b.primary); primary != nil {
		wants.Primary = primary.Attrs().Index
	}
	if err := n.netlink.LinkAdd(&wants); err != nil {
		return nil, failed(fmt.Sprintf("make the bond %s with mode %d (%s) and options %q", b.Name, b.Mode, b.wants.Mode, b.Options), err)
	}
	return &wants, nil
}

// enslave puts a member into the bond. The kernel takes only one that is
// down, and brings it up.
func (n *node) enslave(bond, member netlink.Link) error {
	attrs := member.Attrs()
	if attrs.MasterIndex == bond.Attrs().Index {
		return nil
	}
	if err := n.netlink.LinkSetDown(member); err != nil {
		return failed("take "+attrs.Name+" down", err)
	}
	if err := n.netlink.LinkSetMaster(member, bond); err != nil {
		err = failed(fmt.Sprintf("put %s into the bond %s", attrs.Name, bond.Attrs().Name), err)
		return also(err, n.restore(member))
	}
	return nil
}

// dissolve removes a bond that was just made, and leaves its members as they
// were: the kernel gives them their MTU and hardware address back.
func (n *node) dissolve(bond netlink.Link, members []netlink.Link) error {
	if err := n.netlink.LinkDel(bond); err != nil {
		return failed("remove the bond "+bond.Attrs().Name+" again", err)
	}
	for _, member := range members {
		if err := n.restore(member); err != nil {
			return err
		}
	}
	return nil
}

// restore brings a member up that was up before.
func (n *node) restore(member netlink.Link) error {
	if !isUp(member) {
		return nil
	}
	if err := n.netlink.LinkSetUp(member); err != nil {
		return failed("bring "+member.Attrs().Name+" up again", err)
	}
	return nil
}
