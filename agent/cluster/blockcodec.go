package cluster

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// encodeBlock returns the spec of a block that [lease.Block.Validate] passes.
func encodeBlock(b *lease.Block) v1alpha1.IPBlockSpec {
	spec := v1alpha1.IPBlockSpec{
		CIDR:    b.Prefix().String(),
		Leases:  []v1alpha1.Lease{},
		Pins:    []v1alpha1.Pin{},
		Summary: v1alpha1.Summary{Free: int32(b.Claimable().Len())},
	}
	var leases, pins []string
	for _, l := range b.Leases {
		spec.Leases = append(spec.Leases, v1alpha1.Lease{
			Node: l.Node.Name, NodeUID: l.Node.UID, Addresses: ranges(b, l.Addrs, netip.Addr.String),
		})
		leases = append(leases, l.Node.Name+":"+strings.Join(ranges(b, l.Addrs, lastPart), ","))
	}
	for _, p := range b.Pins {
		pod := p.Identity.Namespace + "/" + p.Identity.Pod
		spec.Pins = append(spec.Pins, v1alpha1.Pin{
			Address: p.Addr.String(), Pod: pod, Interface: p.Identity.Interface, Kind: p.Identity.Kind, Releasing: p.Releasing,
		})
		pins = append(pins, lastPart(p.Addr)+"="+pod)
	}
	spec.Summary.Leases = strings.Join(leases, " ")
	spec.Summary.Pins = strings.Join(pins, " ")
	return spec
}

// patchSpec is an IPBlockSpec for a merge patch: empty values are named, or
// the patch would leave the old ones.
type patchSpec struct {
	CIDR    string           `json:"cidr"`
	Leases  []v1alpha1.Lease `json:"leases"`
	Pins    []v1alpha1.Pin   `json:"pins"`
	Summary patchSummary     `json:"summary"`
}

type patchSummary struct {
	Free   int32  `json:"free"`
	Leases string `json:"leases"`
	Pins   string `json:"pins"`
}

func patchSpecOf(s v1alpha1.IPBlockSpec) patchSpec {
	return patchSpec{CIDR: s.CIDR, Leases: s.Leases, Pins: s.Pins, Summary: patchSummary(s.Summary)}
}

// ranges returns the addresses of the set, adjacent ones as "first-last".
func ranges(b *lease.Block, set lease.Set, text func(netip.Addr) string) []string {
	var all []string
	for from := 0; from < lease.Size; from++ {
		if !set.Has(from) {
			continue
		}
		to := from
		for to+1 < lease.Size && set.Has(to+1) {
			to++
		}
		r := text(b.Addr(from))
		if to > from {
			r += "-" + text(b.Addr(to))
		}
		all = append(all, r)
		from = to
	}
	return all
}

// lastPart returns the last byte or group of an address, as people write it.
func lastPart(addr netip.Addr) string {
	if addr.Is4() {
		return strconv.Itoa(int(addr.As4()[3]))
	}
	b := addr.As16()
	return strconv.FormatUint(uint64(b[14])<<8|uint64(b[15]), 16)
}

// decodeBlock returns what an IPBlock says, or why it cannot be.
func decodeBlock(stored *v1alpha1.IPBlock) (lease.Block, error) {
	prefix, err := lease.ParseName(stored.Name)
	if err != nil {
		return lease.Block{}, err
	}
	if stored.Spec.CIDR != prefix.String() {
		return lease.Block{}, fmt.Errorf("spec.cidr is %q, and the name says %s", stored.Spec.CIDR, prefix)
	}
	b, err := lease.NewBlock(prefix)
	if err != nil {
		return lease.Block{}, err
	}
	b.Version = stored.ResourceVersion
	for _, l := range stored.Spec.Leases {
		set, err := decodeSet(prefix, l.Addresses)
		if err != nil {
			return lease.Block{}, fmt.Errorf("lease of node %s: %w", l.Node, err)
		}
		b.Leases = append(b.Leases, lease.Lease{Node: lease.Node{Name: l.Node, UID: l.NodeUID}, Addrs: set})
	}
	for _, p := range stored.Spec.Pins {
		pin, err := decodePin(p)
		if err != nil {
			return lease.Block{}, fmt.Errorf("pin of %q: %w", p.Address, err)
		}
		b.Pins = append(b.Pins, pin)
	}
	slices.SortFunc(b.Leases, func(x, y lease.Lease) int { return strings.Compare(x.Node.UID, y.Node.UID) })
	slices.SortFunc(b.Pins, func(x, y lease.Pin) int { return x.Addr.Compare(y.Addr) })
	return b, b.Validate()
}

func decodePin(p v1alpha1.Pin) (lease.Pin, error) {
	addr, err := parseAddr(p.Address)
	if err != nil {
		return lease.Pin{}, err
	}
	namespace, pod, ok := strings.Cut(p.Pod, "/")
	if !ok || namespace == "" || pod == "" || p.Interface == "" {
		return lease.Pin{}, fmt.Errorf("pod %q, interface %q: want namespace/name and an interface", p.Pod, p.Interface)
	}
	return lease.Pin{
		Addr:      addr,
		Identity:  lease.Identity{Namespace: namespace, Pod: pod, Interface: p.Interface, Kind: p.Kind},
		Releasing: p.Releasing,
	}, nil
}

// decodeSet returns the set of addresses and ranges, none of them twice.
func decodeSet(prefix netip.Prefix, texts []string) (lease.Set, error) {
	var set lease.Set
	for _, text := range texts {
		first, last, isRange := strings.Cut(text, "-")
		if !isRange {
			last = first
		}
		from, err := parseAddr(first)
		if err != nil {
			return 0, err
		}
		to, err := parseAddr(last)
		if err != nil {
			return 0, err
		}
		if !prefix.Contains(from) || !prefix.Contains(to) || to.Less(from) {
			return 0, fmt.Errorf("%q is no range in %s", text, prefix)
		}
		for o := lease.Offset(from); o <= lease.Offset(to); o++ {
			if set.Has(o) {
				return 0, fmt.Errorf("%q names an address a second time", text)
			}
			set |= 1 << o
		}
	}
	return set, nil
}

var errZone = errors.New("an address has no zone here")

func parseAddr(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err == nil && addr.Zone() != "" {
		err = fmt.Errorf("%q: %w", text, errZone)
	}
	return addr, err
}
