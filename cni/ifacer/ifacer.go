// Package ifacer is the CNI plugin "ifacer", which stands before the main
// plugin in configurations that SpiderMultusConfig renders for networks with
// a VLAN or a bond. It makes on the node what the main plugin then names as
// its master: the bond of several interfaces, and the VLAN interface
// "<interface>.<id>" on the bond or on the one interface.
//
// What it makes belongs to the node and not to the pod: all pods of all
// networks of that VLAN share it. Therefore an ADD that finds it there only
// checks that it is what the network says, and a DEL leaves it: the next pod
// may be using it already, and nothing on a node counts who else does. It is
// removed by hand, with `ip link delete`, or by the node's next boot.
//
//	config.go   the network configuration
//	options.go  the options of a bond, as text and in the kernel
//	bond.go     the bond
//	vlan.go     the VLAN interface
//	links.go    what the node has, the lock, and what both need
//
// The plugin starts for every pod, so it has one look at all links of the
// node under a lock, and mostly finds that nothing is to be done.
package ifacer

import (
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
)

// Add makes the network's links on the node, as far as they are not there,
// and brings them up (CNI spec, section 2, ADD). It prints prevResult, or
// without one, as the first of a chain, an empty result: the links are none
// of the pod's. The errors of all verbs are *types.Error.
func Add(args *skel.CmdArgs) error {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	result, err := conf.result()
	if err != nil {
		return err
	}
	if err := onNode(conf.provide); err != nil {
		return err
	}
	return types.PrintResult(result, conf.CNIVersion)
}

// Check fails when a link of the network is missing, is down, or is not what
// the network says (CNI spec, section 2, CHECK).
func Check(args *skel.CmdArgs) error {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	return onNode(conf.check)
}

// Del succeeds and leaves the links: other pods may use them (CNI spec,
// section 2, DEL).
func Del(*skel.CmdArgs) error { return nil }

// GC succeeds: no attachment has anything of its own here (CNI spec 1.1.0,
// section 2, GC).
func GC(*skel.CmdArgs) error { return nil }

// Ready is the verb STATUS: an ADD needs nothing that could be missing for
// all networks (CNI spec 1.1.0, section 2, STATUS).
func Ready(*skel.CmdArgs) error { return nil }

// result returns what an ADD prints.
func (c *config) result() (types.Result, error) {
	if c.PrevResult != nil {
		return c.PrevResult, nil
	}
	result, err := (&current.Result{CNIVersion: current.ImplementedSpecVersion}).GetAsVersion(c.CNIVersion)
	if err != nil {
		return nil, types.NewError(types.ErrIncompatibleCNIVersion, fmt.Sprintf("there is no result of CNI version %q", c.CNIVersion),
			err.Error())
	}
	return result, nil
}

// provide makes the network's links and brings them up.
func (c *config) provide(n *node) error {
	unlock, err := n.lock()
	if err != nil {
		return err
	}
	defer unlock()
	parent, err := c.parent(n)
	if err != nil {
		return err
	}
	if c.VlanID == 0 {
		return n.up(parent)
	}
	link, err := n.makeVLAN(c.vlan(parent))
	if err != nil {
		return err
	}
	if err := n.up(parent); err != nil {
		return err
	}
	return n.up(link)
}

// parent returns what the VLAN is on: the bond, made if it is missing, or
// the one interface.
func (c *config) parent(n *node) (netlink.Link, error) {
	there, err := n.links()
	if err != nil {
		return nil, err
	}
	members, err := c.members(there)
	if err != nil {
		return nil, err
	}
	if c.Bond == nil {
		return members[0], nil
	}
	return n.makeBond(c.Bond, members)
}

// members returns the network's interfaces.
func (c *config) members(there links) ([]netlink.Link, error) {
	var members []netlink.Link
	var missing []string
	for _, name := range c.Interfaces {
		if link := there.named(name); link != nil {
			if other := links(members).at(link.Attrs().Index); other != nil {
				return nil, wrong(fmt.Sprintf("\"interfaces\" names %s twice: %s is another name of it", other.Attrs().Name, name), "name each interface once")
			}
			members = append(members, link)
		} else {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return nil, types.NewError(types.ErrInvalidNetworkConfig,
			"this node has no interface "+strings.Join(missing, " and no interface "),
			"the network names it in \"interfaces\", which is the master of a SpiderMultusConfig: name an interface that `ip link` shows on every node the network's pods run on, or keep these pods off this node")
	}
	return members, nil
}

// check reports the first thing that is not as an ADD leaves it.
func (c *config) check(n *node) error {
	there, err := n.links()
	if err != nil {
		return err
	}
	members, err := c.members(there)
	if err != nil {
		return err
	}
	parent := members[0]
	if c.Bond != nil {
		if parent, err = c.Bond.find(there, members); err != nil {
			return err
		}
		if parent == nil {
			return missing("bond", c.Bond.Name)
		}
	}
	if err := mustBeUp(parent); err != nil || c.VlanID == 0 {
		return err
	}
	v := c.vlan(parent)
	link, err := v.find(there)
	if err != nil {
		return err
	}
	if link == nil {
		return missing("VLAN interface", v.name)
	}
	return mustBeUp(link)
}

// missing is the error of a CHECK for a link that was removed.
func missing(what, name string) error {
	return types.NewError(types.ErrInternal, fmt.Sprintf("the %s %s is gone from this node", what, name),
		"the next pod of the network that starts here makes it again; this one has lost its interface and must be recreated")
}

func mustBeUp(link netlink.Link) error {
	if isUp(link) {
		return nil
	}
	name := link.Attrs().Name
	return types.NewError(types.ErrInternal, fmt.Sprintf("the interface %s is down", name),
		fmt.Sprintf("bring it up with `ip link set %s up`, or start another pod of the network on this node", name))
}
