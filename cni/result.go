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
		if !address.Prefix.IsValid() {
			return fmt.Errorf("it answers with an address of pool %q that is none", address.Pool)
		}
	}
	for _, route := range r.Routes {
		if !route.Destination.IsValid() {
			return errors.New("it answers with a route to nowhere")
		}
	}
	return nil
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
