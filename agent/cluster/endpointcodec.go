package cluster

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

var errNoPodUID = errors.New("an endpoint that goes with its pod needs the pod's UID")

// encodeStatus returns the status of an endpoint: one element for each
// interface, in the order of their first address. It is an error if an
// interface has two addresses of one family, or a detail is none of ours.
func encodeStatus(e *lease.Endpoint) (v2beta1.EndpointStatus, error) {
	status := v2beta1.EndpointStatus{
		Current: v2beta1.EndpointPod{
			UID:  e.PodUID,
			Node: e.Node,
			IPs:  []v2beta1.EndpointInterface{}, // null is not allowed
		},
		OwnerControllerType: e.OwnerKind,
		OwnerControllerName: e.OwnerName,
	}
	if !e.Sticky && e.PodUID == "" {
		return status, errNoPodUID
	}
	index := map[string]int{}
	for _, a := range e.Addresses {
		i, ok := index[a.Interface]
		if !ok {
			i = len(status.Current.IPs)
			index[a.Interface] = i
			status.Current.IPs = append(status.Current.IPs, v2beta1.EndpointInterface{Interface: a.Interface})
		}
		if err := encodeAddress(a, &status.Current.IPs[i]); err != nil {
			return status, fmt.Errorf("interface %s: %w", a.Interface, err)
		}
	}
	return status, nil
}

func encodeAddress(a lease.EndpointAddress, into *v2beta1.EndpointInterface) error {
	d, err := DecodeDetail(a.Detail)
	if err != nil {
		return err
	}
	length := a.Addr.BitLen()
	if d.Prefix.IsValid() && d.Prefix.Addr().BitLen() == length {
		length = d.Prefix.Bits()
	}
	prefix, pool, gateway := &into.IPv4, &into.IPv4Pool, &into.IPv4Gateway
	if a.Addr.Is6() {
		prefix, pool, gateway = &into.IPv6, &into.IPv6Pool, &into.IPv6Gateway
	}
	switch {
	case !a.Addr.IsValid():
		return errors.New("an address is missing")
	case *prefix != "":
		return fmt.Errorf("%s and %s are of one family: an endpoint has room for one", *prefix, a.Addr)
	}
	*prefix = netip.PrefixFrom(a.Addr, length).String()
	*pool = d.Pool
	if d.Gateway.IsValid() {
		*gateway = d.Gateway.String()
	}
	if d.CleanGateway || into.CleanGateway == nil && d.Gateway.IsValid() {
		into.CleanGateway = &d.CleanGateway
	}
	for _, r := range d.Routes {
		route := v2beta1.Route{Dst: r.Destination.String()}
		if r.Gateway.IsValid() {
			route.Gw = r.Gateway.String()
		}
		into.Routes = append(into.Routes, route)
	}
	return nil
}

// decodeInterface returns the addresses of one interface, IPv4 before IPv6.
// Routes go with the address of their family.
func decodeInterface(ifc v2beta1.EndpointInterface) ([]lease.EndpointAddress, error) {
	var all []lease.EndpointAddress
	for _, family := range []struct {
		prefix, pool, gateway string
		is6                   bool
	}{
		{ifc.IPv4, ifc.IPv4Pool, ifc.IPv4Gateway, false},
		{ifc.IPv6, ifc.IPv6Pool, ifc.IPv6Gateway, true},
	} {
		if family.prefix == "" {
			continue
		}
		d := Detail{Pool: family.pool, CleanGateway: ifc.CleanGateway != nil && *ifc.CleanGateway}
		var err error
		if d.Prefix, err = netip.ParsePrefix(family.prefix); err != nil {
			return nil, err
		}
		if d.Prefix.Addr().Is6() != family.is6 {
			return nil, fmt.Errorf("%s is of the other IP family", family.prefix)
		}
		if family.gateway != "" {
			if d.Gateway, err = netip.ParseAddr(family.gateway); err != nil {
				return nil, err
			}
		}
		if d.Routes, err = decodeRoutes(ifc.Routes, family.is6); err != nil {
			return nil, err
		}
		raw, err := d.Encode()
		if err != nil {
			return nil, err
		}
		all = append(all, lease.EndpointAddress{Interface: ifc.Interface, Addr: d.Prefix.Addr(), Detail: raw})
	}
	return all, nil
}

// decodeRoutes returns the routes to destinations of one family.
func decodeRoutes(routes []v2beta1.Route, is6 bool) ([]Route, error) {
	var all []Route
	for _, r := range routes {
		var route Route
		var err error
		if route.Destination, err = netip.ParsePrefix(r.Dst); err != nil {
			return nil, fmt.Errorf("route: %w", err)
		}
		if route.Destination.Addr().Is6() != is6 {
			continue
		}
		if r.Gw != "" {
			if route.Gateway, err = netip.ParseAddr(r.Gw); err != nil {
				return nil, fmt.Errorf("route to %s: %w", r.Dst, err)
			}
		}
		all = append(all, route)
	}
	return all, nil
}
