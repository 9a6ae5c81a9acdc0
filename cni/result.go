package cni

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"go4.org/netipx"
)

// valid reports what of the result no interface could be given.
func (r *AddResult) valid() error {
	if len(r.Addresses) == 0 {
		return errors.New("it answers without an address")
	}
	for _, address := range r.Addresses {
		if !plain(address.Prefix) {
			return fmt.Errorf("it answers with the address %q of pool %q", address.Prefix, address.Pool)
		}
	}
	for _, route := range r.Routes {
		if !plain(route.Destination) {
			return fmt.Errorf("it answers with a route to %q", route.Destination)
		}
	}
	return nil
}

// plain reports whether the prefix is one of IPv4 or of IPv6. One of IPv4
// mapped into IPv6 (RFC 4291, section 2.5.5.2) is neither: package net takes
// it for IPv4 and would print another length.
func plain(prefix netip.Prefix) bool {
	return prefix.IsValid() && !prefix.Addr().Is4In6()
}

// cniResult returns the result as an IPAM plugin prints it (CNI spec, section
// 5 "Success", "Delegated plugins (IPAM)"): without interfaces. Routes are
// those that the agent chose, the default route among them or not; the
// gateway of an address says nothing about routes.
func (r *AddResult) cniResult() *current.Result {
	result := &current.Result{CNIVersion: current.ImplementedSpecVersion}
	for _, address := range r.Addresses {
		result.IPs = append(result.IPs, &current.IPConfig{
			Address: *netipx.PrefixIPNet(address.Prefix),
			Gateway: stdIP(address.Gateway),
		})
	}
	for _, route := range r.Routes {
		result.Routes = append(result.Routes, &types.Route{
			Dst: *netipx.PrefixIPNet(route.Destination),
			GW:  stdIP(route.Gateway),
		})
	}
	return result
}

// stdIP returns nil for the zero Addr, which the CNI types leave out.
func stdIP(addr netip.Addr) net.IP {
	return addr.AsSlice()
}
