package checker

import (
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"strings"

	"go4.org/netipx"
)

// parseRange parses "10.6.0.1-10.6.0.9" and the single "10.6.0.1".
func parseRange(s string) (netipx.IPRange, error) {
	if !strings.Contains(s, "-") {
		s += "-" + s
	}
	return netipx.ParseIPRange(s)
}

// offer returns the addresses of ips without those of exclude.
func offer(ips, exclude []string) (*netipx.IPSet, error) {
	var b netipx.IPSetBuilder
	for _, s := range ips {
		r, err := parseRange(s)
		if err != nil {
			return nil, fmt.Errorf("ips: %w", err)
		}
		b.AddRange(r)
	}
	for _, s := range exclude {
		r, err := parseRange(s)
		if err != nil {
			return nil, fmt.Errorf("excludeIPs: %w", err)
		}
		b.RemoveRange(r)
	}
	return b.IPSet()
}

// addresses lists every address of the ranges, which must be short: those of
// a lease are.
func addresses(ranges []string) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, s := range ranges {
		r, err := parseRange(s)
		if err != nil {
			return nil, err
		}
		for a := r.From(); a.IsValid() && a.Compare(r.To()) <= 0; a = a.Next() {
			all = append(all, a)
		}
	}
	return all, nil
}

// size returns the number of addresses in the set, and the largest int64 for
// more than that, which is what a status counts then.
func size(set *netipx.IPSet) int64 {
	total := new(big.Int)
	for _, r := range set.Ranges() {
		from, to := new(big.Int).SetBytes(r.From().AsSlice()), new(big.Int).SetBytes(r.To().AsSlice())
		total.Add(total, to.Sub(to, from).Add(to, big.NewInt(1)))
	}
	if !total.IsInt64() {
		return math.MaxInt64
	}
	return total.Int64()
}
