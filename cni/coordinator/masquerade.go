package coordinator

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A pod's question to a service is led by its node to a backend, and the answer
// must come back through the node. From a backend on the pod's own network it
// would go to the pod directly, as from nobody that it has asked. kube-proxy
// prevents that by giving the question the node's address, but only for sources
// that it does not take for the cluster's: not where the network of pods that
// kubeadm was told is the underlay, nor where it was told none. So the node has
//
//	table ip holdfast {
//		set pods { type ipv4_addr; elements = { 10.6.168.101, ... } }
//		chain postrouting {
//			type nat hook postrouting priority srcnat + 10
//			ct status & dnat != 0 ip saddr @pods ip daddr != @pods masquerade
//		}
//	}
//
// and the same of IPv6, while it has such pods: those of the routes that the
// coordinator has made. It comes behind kube-proxy's own rules, which go first.
// A backend on the same node answers through the node by itself, and sees who
// asks.
const podsSet = "pods"

const (
	// ctStatusDNAT is IPS_DST_NAT of the kernel.
	ctStatusDNAT = 1 << 5
	// masqueradePriority is behind that of NAT of sources.
	masqueradePriority = 110
)

// packetAddrs is where the addresses stand in a family's header: RFC 791,
// section 3.1, and RFC 8200, section 3.
func packetAddrs(f family) (source, destination, length uint32, keyType nftables.SetDatatype) {
	if f == ipv4 {
		return 12, 16, 4, nftables.TypeIPAddr
	}
	return 8, 24, 16, nftables.TypeIP6Addr
}

// podAddrs returns the addresses of a family that the coordinator has made the
// node's routes to, in order.
func podAddrs(node *view, f family) []netip.Addr {
	var addrs []netip.Addr
	for _, r := range node.routes {
		if r.protocol == protocol && r.table != unix.RT_TABLE_MAIN && r.family() == f && r.destination.IsSingleIP() {
			addrs = append(addrs, r.destination.Addr())
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

// masquerade brings the node's tables to what the node's routes say. It is for
// who holds the lock.
func (s *space) masquerade(node *view) error {
	conn, err := s.nftables()
	if err != nil {
		return err
	}
	changed := false
	for _, f := range families() {
		wanted := podAddrs(node, f)
		there, err := masqueraded(conn, f)
		if err != nil {
			return err
		}
		if slices.Equal(wanted, there) {
			continue
		}
		changed = true
		if err := replaceMasquerade(conn, f, wanted); err != nil {
			return err
		}
	}
	if !changed {
		return nil
	}
	return flush(conn)
}

// masqueraded returns the addresses in a family's set, in order; none without
// it.
func masqueraded(conn *nftables.Conn, f family) ([]netip.Addr, error) {
	set, err := conn.GetSetByName(tableOf(f), podsSet)
	var elements []nftables.SetElement
	if err == nil {
		elements, err = conn.GetSetElements(set)
	}
	if errors.Is(err, unix.ENOENT) || isUnsupported(err) {
		return nil, nil // who has never made one has none to remove
	}
	if err != nil {
		return nil, fmt.Errorf("list the pods in nftables: %w", err)
	}
	var addrs []netip.Addr
	for _, e := range elements {
		if addr, ok := netip.AddrFromSlice(e.Key); ok {
			addrs = append(addrs, addr)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs, nil
}

// replaceMasquerade adds to a transaction that a family's table is what it is to
// be for these addresses: none without any.
func replaceMasquerade(conn *nftables.Conn, f family, addrs []netip.Addr) error {
	table := tableOf(f)
	conn.AddTable(table) // so that there is one to remove
	conn.DelTable(table)
	if len(addrs) == 0 {
		return nil
	}
	conn.AddTable(table)
	source, destination, length, keyType := packetAddrs(f)
	set := &nftables.Set{Table: table, Name: podsSet, KeyType: keyType}
	elements := make([]nftables.SetElement, len(addrs))
	for i, addr := range addrs {
		elements[i].Key = addr.AsSlice()
	}
	if err := conn.AddSet(set, elements); err != nil {
		return fmt.Errorf("list the pods in nftables: %w", err)
	}
	priority := nftables.ChainPriority(masqueradePriority)
	chain := conn.AddChain(&nftables.Chain{Table: table, Name: "postrouting", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: &priority})
	zero := make([]byte, 4)
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(ctStatusDNAT), Xor: zero},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: zero},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: source, Len: length},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: destination, Len: length},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID, Invert: true},
		&expr.Masq{},
	}})
	return nil
}

// missingMasquerade returns which of the routes' addresses are not masqueraded.
func (d *side) missingMasquerade(node *space) ([]string, error) {
	conn, err := node.nftables()
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, f := range families() {
		there, err := masqueraded(conn, f)
		if err != nil {
			return nil, err
		}
		for _, addr := range podAddrs(&view{routes: d.routes}, f) {
			if !slices.Contains(there, addr) {
				missing = append(missing, fmt.Sprintf("%s in the set %s of nftables' table %s", addr, podsSet, nftTable))
			}
		}
	}
	return missing, nil
}
