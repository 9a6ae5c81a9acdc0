package ifacer

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dumps is how often a list of the kernel's is asked for that another
// process changes meanwhile.
const dumps = 20

// node is the network namespace the plugin was started in, which is the
// node's own (CNI spec, section 2: a runtime starts plugins in its own).
type node struct {
	netlink *netlink.Handle
	// namespace names the namespace to lock.
	namespace string
}

// onNode does something with the namespace of the calling thread.
func onNode(do func(*node) error) error {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return failed("talk to the kernel", err)
	}
	defer handle.Close()
	return do(&node{netlink: handle, namespace: fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())})
}

// lock lets one process at a time change the namespace's links, and returns
// what ends that. The lock is on the namespace itself: it needs no file that
// somebody would have to remove, and ends with the process whatever happens.
// Whoever does not know it is met with a second look, see makeVLAN.
func (n *node) lock() (unlock func(), err error) {
	file, err := os.Open(n.namespace)
	if err != nil {
		return nil, failed("lock the node's links", err)
	}
	for {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, failed("lock the node's links", errors.Join(err, file.Close()))
	}
	return func() { _ = file.Close() }, nil // opened for reading: nothing can be lost
}

// links are all links of a node at one moment.
type links []netlink.Link

// links returns the node's links.
func (n *node) links() (links, error) {
	there, err := again(n.netlink.LinkList)
	if err != nil {
		return nil, failed("list the node's interfaces", err)
	}
	return there, nil
}

// again asks for a list until the kernel could give it in one piece.
func again[T any](list func() ([]T, error)) (all []T, err error) {
	for range dumps {
		all, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// findOrMake returns the link that find finds, nil for none, after it was
// made if it was missing. Whether making it succeeded shows when it is looked
// for again: somebody who does not take the lock, an administrator or another
// program, may have been faster, with the right link or with a wrong one.
func (n *node) findOrMake(find func(links) (netlink.Link, error), create func() error) (netlink.Link, error) {
	there, err := n.links()
	if err != nil {
		return nil, err
	}
	if link, err := find(there); link != nil || err != nil {
		return link, err
	}
	refused := create()
	if there, err = n.links(); err != nil {
		return nil, errors.Join(refused, err)
	}
	link, err := find(there)
	switch {
	case err != nil || link != nil:
		return link, err
	case refused != nil:
		return nil, refused
	}
	return nil, failed("make a link", errors.New("somebody removes it as soon as it is made"))
}

// named returns the link with the name, or with an alternative name like it,
// or nil.
func (l links) named(name string) netlink.Link {
	for _, link := range l {
		if link.Attrs().Name == name {
			return link
		}
	}
	for _, link := range l {
		for _, other := range link.Attrs().AltNames {
			if other == name {
				return link
			}
		}
	}
	return nil
}

// at returns the link with the index, or nil.
func (l links) at(index int) netlink.Link {
	for _, link := range l {
		if link.Attrs().Index == index {
			return link
		}
	}
	return nil
}

// name returns the name of the link with the index, for people.
func (l links) name(index int) string {
	if link := l.at(index); link != nil {
		return link.Attrs().Name
	}
	return fmt.Sprintf("interface %d of another namespace", index)
}

func isUp(link netlink.Link) bool { return link.Attrs().Flags&net.FlagUp != 0 }

// up brings a link up.
func (n *node) up(link netlink.Link) error {
	if isUp(link) {
		return nil
	}
	if err := n.netlink.LinkSetUp(link); err != nil {
		return failed("bring "+link.Attrs().Name+" up", err)
	}
	return nil
}

// failed is the error of something that the kernel refused.
func failed(what string, err error) error {
	details := "see the kernel's log on this node for the reason"
	switch {
	case errors.Is(err, unix.EPERM):
		details = "the plugin needs the rights of root on the node: a container runtime must start it as root, in the node's own network namespace"
	case errors.Is(err, unix.EOPNOTSUPP):
		details = "the node's kernel lacks the driver (load the module 8021q for VLANs, bonding for bonds), or the interface is of a kind that cannot have this"
	case errors.Is(err, netlink.ErrDumpInterrupted):
		details = "the node's links change all the time; it is tried again"
	}
	return types.NewError(types.ErrInternal, fmt.Sprintf("cannot %s: %s", what, err), details)
}

// also adds to an error what went wrong in cleaning up after it.
func also(err, further error) error {
	first, ok := errors.AsType[*types.Error](err)
	if further == nil || !ok {
		return err
	}
	return types.NewError(first.Code, first.Msg, first.Details+"; besides: "+further.Error())
}
