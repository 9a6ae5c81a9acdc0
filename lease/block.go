package lease

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Size is the number of addresses in a block. It is one size for the life of
// a cluster: the name of a block, and with it the meeting point of
// overlapping pools, depends on it.
const Size = 16

// Node is a node as the protocol knows it. A node that was deleted and
// created again under its old name is another node, so the UID decides and
// the name is for people.
type Node struct {
	Name string
	UID  string
}

// Identity names one interface of one StatefulSet pod. It outlives the pod:
// every pod that ever bears the name is the same identity.
type Identity struct {
	Namespace string
	Pod       string
	Interface string
	// Kind is empty for a StatefulSet's pod. An identity of another kind is
	// that of what its pods run for one after the other, and Pod is the name of
	// that: a pod of the same name is somebody else.
	Kind string
}

// String returns "namespace/pod:interface", after the kind if there is one.
func (i Identity) String() string {
	text := i.Namespace + "/" + i.Pod + ":" + i.Interface
	if i.Kind != "" {
		text = i.Kind + " " + text
	}
	return text
}

// Lease is a node's right to hand out certain addresses of a block.
type Lease struct {
	Node  Node
	Addrs Set
}

// Pin is the mark that one identity owns an address, running or not.
type Pin struct {
	Addr     netip.Addr
	Identity Identity
	// Releasing is the first of the two steps that remove a pin. The lessee
	// whose confirming read finds it takes it off before it answers.
	Releasing bool
}

// Block is the state of one IPBlock. The zero Block is not valid: start from
// [NewBlock]. Methods that change a block change it in memory; a [Cluster]
// makes the change true.
type Block struct {
	prefix netip.Prefix
	// Version is the resourceVersion the state was read at, empty for a
	// block that is yet to be created.
	Version string
	// Leases holds at most one lease per node UID, none of them empty, no
	// two with an address in common.
	Leases []Lease
	// Pins holds at most one pin per address. A pinned address may be
	// unleased: pins survive their node.
	Pins []Pin
}

// BlockOf returns the prefix of the block that addr belongs to.
func BlockOf(addr netip.Addr) netip.Prefix {
	p, err := addr.Unmap().WithZone("").Prefix(addr.Unmap().BitLen() - 4)
	if err != nil {
		return netip.Prefix{} // only for the zero Addr
	}
	return p
}

// NewBlock returns the block at prefix without leases and pins. The prefix
// must be one that [BlockOf] returns.
func NewBlock(prefix netip.Prefix) (Block, error) {
	if !prefix.IsValid() || prefix != BlockOf(prefix.Addr()) {
		return Block{}, fmt.Errorf("%s is no block: want an aligned IPv4 /28 or IPv6 /124", prefix)
	}
	return Block{prefix: prefix}, nil
}

// Prefix returns the addresses the block covers.
func (b *Block) Prefix() netip.Prefix { return b.prefix }

// Name returns the name of the block's object, see [Name].
func (b *Block) Name() string { return Name(b.prefix) }

// Name returns the name of the object for the block at prefix. It is a
// DNS-1123 subdomain and one-to-one: "10.6.168.96-28", and for IPv6 all eight
// groups, "fd00-0000-0000-0000-0000-0000-0000-0010-124", because a name may
// neither contain "::" nor depend on how someone shortens an address.
func Name(prefix netip.Prefix) string {
	text := prefix.Addr().String()
	if prefix.Addr().Is6() {
		text = strings.ReplaceAll(prefix.Addr().StringExpanded(), ":", "-")
	}
	return text + "-" + strconv.Itoa(prefix.Bits())
}

// ParseName is the inverse of [Name]. It refuses every string that Name does
// not return.
func ParseName(name string) (netip.Prefix, error) {
	addr, length, _ := cutLast(name, "-")
	if strings.Count(addr, "-") == 7 {
		addr = strings.ReplaceAll(addr, "-", ":")
	}
	prefix, err := netip.ParsePrefix(addr + "/" + length)
	if err != nil || prefix != BlockOf(prefix.Addr()) || Name(prefix) != name {
		return netip.Prefix{}, fmt.Errorf("%q is not the name of a block, like 10.6.168.96-28", name)
	}
	return prefix, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// Addr returns the address at the offset.
func (b *Block) Addr(offset int) netip.Addr {
	bytes := b.prefix.Addr().AsSlice()
	bytes[len(bytes)-1] |= byte(offset)
	addr, _ := netip.AddrFromSlice(bytes)
	return addr
}

// Offset returns the place of addr in its block.
func Offset(addr netip.Addr) int {
	bytes := addr.AsSlice()
	return int(bytes[len(bytes)-1] & (Size - 1))
}

// LeasedTo returns what the node leases, by UID.
func (b *Block) LeasedTo(nodeUID string) Set {
	for _, l := range b.Leases {
		if l.Node.UID == nodeUID {
			return l.Addrs
		}
	}
	return 0
}

// Leased returns what any node leases.
func (b *Block) Leased() Set {
	var s Set
	for _, l := range b.Leases {
		s |= l.Addrs
	}
	return s
}

// Pinned returns the addresses that carry a pin.
func (b *Block) Pinned() Set {
	var s Set
	for _, p := range b.Pins {
		s |= only(Offset(p.Addr))
	}
	return s
}

// Claimable returns what any node may claim: neither leased nor pinned.
func (b *Block) Claimable() Set { return all &^ b.Leased() &^ b.Pinned() }

// Empty reports whether the block says nothing that its absence would not.
func (b *Block) Empty() bool { return len(b.Leases) == 0 && len(b.Pins) == 0 }

// PinAt returns the pin of addr.
func (b *Block) PinAt(addr netip.Addr) (Pin, bool) {
	for _, p := range b.Pins {
		if p.Addr == addr {
			return p, true
		}
	}
	return Pin{}, false
}

// LesseeOf returns the node that leases addr.
func (b *Block) LesseeOf(addr netip.Addr) (Node, bool) {
	for _, l := range b.Leases {
		if l.Addrs.Has(Offset(addr)) {
			return l.Node, true
		}
	}
	return Node{}, false
}

// Clone returns a copy that shares nothing with b.
func (b *Block) Clone() Block {
	c := *b
	c.Leases = slices.Clone(b.Leases)
	c.Pins = slices.Clone(b.Pins)
	return c
}

// Equal reports whether b and c say the same, whatever their versions.
func (b *Block) Equal(c *Block) bool {
	return b.prefix == c.prefix && slices.Equal(b.Leases, c.Leases) && slices.Equal(b.Pins, c.Pins)
}

// Claim leases the addresses of want that are claimable to the node and
// returns them.
func (b *Block) Claim(node Node, want Set) Set {
	got := want & b.Claimable()
	b.grant(node, got)
	return got
}

// Yield takes the addresses of give from the node's lease. Addresses it does
// not lease are passed over, and so are pinned ones: those leave with their
// pin only.
func (b *Block) Yield(nodeUID string, give Set) Set {
	gone := give & b.LeasedTo(nodeUID) &^ b.Pinned()
	b.take(nodeUID, gone)
	return gone
}

// Fence ends the lease of a node that is gone, but for the addresses that pods
// hold there. Its pins stay. It returns the addresses whose lease it ended.
func (b *Block) Fence(nodeUID string, held map[netip.Addr]bool) Set {
	gone := b.LeasedTo(nodeUID)
	for offset := range gone.Offsets() {
		if held[b.Addr(offset)] {
			gone &^= only(offset)
		}
	}
	b.take(nodeUID, gone)
	return gone
}

// ErrNotPinned says that an address does not carry the pin a change is about.
var ErrNotPinned = errors.New("the address is not pinned to this identity")

// ErrNotLeased says that a node does not lease the address a change is about.
var ErrNotLeased = errors.New("the address is not leased to this node")

// Pin marks addr as owned by the identity. The node must lease it and nobody
// else may have pinned it ([ErrNotLeased], [ErrNotPinned]). A mark of
// releasing on the identity's own pin is taken off.
func (b *Block) Pin(nodeUID string, addr netip.Addr, id Identity) error {
	if !b.LeasedTo(nodeUID).Has(Offset(addr)) {
		return fmt.Errorf("pin %s for %s: %w", addr, id, ErrNotLeased)
	}
	for i := range b.Pins {
		if b.Pins[i].Addr != addr {
			continue
		}
		if b.Pins[i].Identity != id {
			return fmt.Errorf("pin %s for %s: pinned to %s: %w", addr, id, b.Pins[i].Identity, ErrNotPinned)
		}
		b.Pins[i].Releasing = false
		return nil
	}
	b.Pins = append(b.Pins, Pin{Addr: addr, Identity: id})
	slices.SortFunc(b.Pins, func(x, y Pin) int { return x.Addr.Compare(y.Addr) })
	return nil
}

// TakeOver moves the one pinned address addr to the node where the identity's
// pod now lives, from whatever node leases it or from none, and takes off a
// mark of releasing. The pin must be the identity's ([ErrNotPinned]).
func (b *Block) TakeOver(node Node, addr netip.Addr, id Identity) error {
	pin, ok := b.PinAt(addr)
	if !ok || pin.Identity != id {
		return fmt.Errorf("take %s over for %s: %w", addr, id, ErrNotPinned)
	}
	if from, leased := b.LesseeOf(addr); leased {
		b.take(from.UID, only(Offset(addr)))
	}
	b.grant(node, only(Offset(addr)))
	return b.Pin(node.UID, addr, id)
}

// MarkReleasing is the first step of removing a pin ([ErrNotPinned]).
func (b *Block) MarkReleasing(addr netip.Addr, id Identity) error {
	return b.setReleasing(addr, id, true)
}

// Unmark takes a mark of releasing off again ([ErrNotPinned]).
func (b *Block) Unmark(addr netip.Addr, id Identity) error {
	return b.setReleasing(addr, id, false)
}

func (b *Block) setReleasing(addr netip.Addr, id Identity, releasing bool) error {
	for i, p := range b.Pins {
		if p.Addr == addr && p.Identity == id {
			b.Pins[i].Releasing = releasing
			return nil
		}
	}
	return fmt.Errorf("%s for %s: %w", addr, id, ErrNotPinned)
}

// Unpin is the second step of removing a pin: it must be marked as releasing
// ([ErrNotPinned]). The address stays with its lessee.
func (b *Block) Unpin(addr netip.Addr, id Identity) error {
	for i, p := range b.Pins {
		if p.Addr == addr && p.Identity == id && p.Releasing {
			b.Pins = slices.Delete(b.Pins, i, i+1)
			return nil
		}
	}
	return fmt.Errorf("unpin %s for %s: %w", addr, id, ErrNotPinned)
}

func (b *Block) grant(node Node, add Set) {
	if add == 0 {
		return
	}
	for i := range b.Leases {
		if b.Leases[i].Node.UID == node.UID {
			b.Leases[i].Addrs |= add
			return
		}
	}
	b.Leases = append(b.Leases, Lease{Node: node, Addrs: add})
	slices.SortFunc(b.Leases, func(x, y Lease) int { return strings.Compare(x.Node.UID, y.Node.UID) })
}

func (b *Block) take(nodeUID string, gone Set) {
	for i := range b.Leases {
		if b.Leases[i].Node.UID == nodeUID {
			b.Leases[i].Addrs &^= gone
		}
	}
	b.Leases = slices.DeleteFunc(b.Leases, func(l Lease) bool { return l.Addrs == 0 })
}

// Validate returns what makes the block impossible: a lease twice, two
// lessees of one address, a pin twice or outside of the block. A block read
// from a cluster passes it before anything is built on it.
func (b *Block) Validate() error {
	var leased, pinned Set
	for i, l := range b.Leases {
		if l.Node.UID == "" || l.Addrs == 0 {
			return fmt.Errorf("block %s: lease %d (node %q) is empty or has no node UID", b.Name(), i, l.Node.Name)
		}
		if leased&l.Addrs != 0 {
			return fmt.Errorf("block %s: offsets %s are leased twice", b.Name(), leased&l.Addrs)
		}
		if b.LeasedTo(l.Node.UID) != l.Addrs {
			return fmt.Errorf("block %s: node %q has two leases", b.Name(), l.Node.Name)
		}
		leased |= l.Addrs
	}
	for _, p := range b.Pins {
		if !b.prefix.Contains(p.Addr) {
			return fmt.Errorf("block %s: pin of %s lies outside", b.Name(), p.Addr)
		}
		if pinned.Has(Offset(p.Addr)) {
			return fmt.Errorf("block %s: %s is pinned twice", b.Name(), p.Addr)
		}
		pinned |= only(Offset(p.Addr))
	}
	return nil
}
