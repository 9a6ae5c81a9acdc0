package v2beta1

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"strings"

	"go4.org/netipx"
)

// Prefix returns the pool's subnet. The error tells the user what to write.
func (s *IPPoolSpec) Prefix() (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(s.Subnet)
	if err != nil || prefix != prefix.Masked() || prefix.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("spec.subnet: %q is no network: want one like 10.6.0.0/16", s.Subnet)
	}
	return prefix, nil
}

// Family returns the pool's IP version, 4 or 6, and 0 if its subnet makes no
// sense. It follows from the subnet alone: spec.ipVersion is there for people
// and may not be filled in yet.
func (s *IPPoolSpec) Family() int64 {
	prefix, err := s.Prefix()
	if err != nil {
		return 0
	}
	return familyOf(prefix.Addr())
}

// Addresses returns what the pool has for pods: spec.ips without
// spec.excludeIPs. Reserved addresses are in it. It is all or nothing: with an
// item left out that makes no sense, a pod could get an address that the
// administrator wanted to exclude.
func (s *IPPoolSpec) Addresses() (*netipx.IPSet, error) {
	subnet, err := s.Prefix()
	if err != nil {
		return nil, err
	}
	ips, errIPs := parseInside("spec.ips", s.IPs, subnet)
	excluded, errExcluded := parseInside("spec.excludeIPs", s.ExcludeIPs, subnet)
	if err := errors.Join(errIPs, errExcluded); err != nil {
		return nil, err
	}
	var b netipx.IPSetBuilder
	b.AddSet(ips)
	b.RemoveSet(excluded)
	return b.IPSet()
}

// Family returns the IP version of the reserved addresses, 4 or 6, and 0 if
// they make no sense. It follows from spec.ips alone, like a pool's from its
// subnet.
func (s *ReservedIPSpec) Family() int64 {
	if len(s.IPs) == 0 {
		return 0
	}
	first, err := parseRange(s.IPs[0])
	if err != nil {
		return 0
	}
	return familyOf(first.From())
}

// Addresses returns the reserved addresses. Unlike a pool's, it returns also
// beside an error those that make sense: reserving some is safer than none.
func (s *ReservedIPSpec) Addresses() (*netipx.IPSet, error) {
	return parseRanges("spec.ips", s.IPs)
}

// ParseRanges returns the addresses of a field spec.ips, whose items are each
// one address or a range START-END with both ends included. Time and memory
// depend on the number of items only, not on that of addresses. Items that
// make no sense are left out of the set, and each gets an error that names
// field, item and remedy; the error returned joins them.
func ParseRanges(items []string) (*netipx.IPSet, error) { return parseRanges("spec.ips", items) }

func parseRanges(field string, items []string) (*netipx.IPSet, error) {
	var b netipx.IPSetBuilder
	var errs []error
	for i, item := range items {
		r, err := parseRange(item)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s[%d]: %q: %w", field, i, item, err))
			continue
		}
		b.AddRange(r)
	}
	set, err := b.IPSet()
	if err != nil { // only for ranges that are not valid; parseRange lets none pass
		errs = append(errs, fmt.Errorf("%s: %w", field, err))
	}
	return set, errors.Join(errs...)
}

func parseInside(field string, items []string, subnet netip.Prefix) (*netipx.IPSet, error) {
	set, err := parseRanges(field, items)
	if err != nil {
		return nil, err
	}
	whole := netipx.RangeOfPrefix(subnet)
	for _, r := range set.Ranges() {
		for _, end := range []netip.Addr{r.From(), r.To()} {
			if !whole.Contains(end) {
				return nil, fmt.Errorf("%s: %s is not in subnet %s: every address of %s must lie in subnet", field, end, subnet, field)
			}
		}
	}
	return set, nil
}

// The faults of an item of ranges. [ParseRanges] tells which item has them.
var (
	errNoRange     = errors.New("want an address like 10.6.168.101, or a range like 10.6.168.101-10.6.168.110, without blanks and prefix length")
	errTwoFamilies = errors.New("the two ends of the range must both be IPv4 or both be IPv6")
	errReversed    = errors.New("the range ends before it starts: write the lower address first")
)

func parseRange(item string) (netipx.IPRange, error) {
	start, end, isRange := strings.Cut(item, "-")
	from, err := parseAddr(start)
	if err != nil {
		return netipx.IPRange{}, err
	}
	if !isRange {
		return netipx.IPRangeFrom(from, from), nil
	}
	to, err := parseAddr(end)
	switch {
	case err != nil:
		return netipx.IPRange{}, err
	case from.Is4() != to.Is4():
		return netipx.IPRange{}, errTwoFamilies
	case to.Less(from):
		return netipx.IPRange{}, errReversed
	}
	return netipx.IPRangeFrom(from, to), nil
}

// parseAddr refuses zones and IPv4 in IPv6 form, as the schema does: one
// address must have one spelling that matters.
func parseAddr(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" || addr.Is4In6() {
		return netip.Addr{}, errNoRange
	}
	return addr, nil
}

// FormatRanges returns the set in the fewest items, in ascending order, IPv4
// before IPv6. It is the inverse of [ParseRanges].
func FormatRanges(set *netipx.IPSet) []string {
	var items []string
	for _, r := range set.Ranges() {
		if r.From() == r.To() {
			items = append(items, r.From().String())
			continue
		}
		items = append(items, r.From().String()+"-"+r.To().String())
	}
	return items
}

// Count returns the number of addresses in the set, and MaxInt64 if
// it is larger than that, as it is for an IPv6 /64.
func Count(set *netipx.IPSet) int64 {
	var total uint64
	for _, r := range set.Ranges() {
		from, to := r.From().As16(), r.To().As16()
		low, borrow := bits.Sub64(binary.BigEndian.Uint64(to[8:]), binary.BigEndian.Uint64(from[8:]), 0)
		high, _ := bits.Sub64(binary.BigEndian.Uint64(to[:8]), binary.BigEndian.Uint64(from[:8]), borrow)
		if high != 0 || low >= math.MaxInt64 || total+low+1 > math.MaxInt64 {
			return math.MaxInt64
		}
		total += low + 1
	}
	return int64(total)
}

func familyOf(addr netip.Addr) int64 {
	if addr.Is4() {
		return 4
	}
	return 6
}
