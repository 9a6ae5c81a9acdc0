package cni

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
)

// CoordinationRequest asks what the coordinator plugin has to know for one
// interface: the settings of the cluster, for every key that the network
// configuration leaves out, what was found out about the cluster's networks,
// and what the pod asks for. Attachment names the pod; the answer is the same
// for all its interfaces.
type CoordinationRequest struct {
	Attachment
	// Mode is the network configuration's mode, empty if it leaves it to the
	// cluster. Where the coordinator is off, by either, the answer waits for
	// nothing to be found out, and may have no networks.
	Mode string `json:"mode,omitempty"`
}

// ModeDisabled is the Mode that switches the coordinator off.
const ModeDisabled = "disabled"

// Coordination is the settings of the cluster's SpiderCoordinator, with the
// CRD's names and defaults, the networks in its status, and the pod's wish. A
// cluster without a SpiderCoordinator is answered with the defaults and no
// networks.
type Coordination struct {
	// Mode is auto, underlay, overlay or disabled. It is never empty.
	Mode string `json:"mode"`
	// HijackCIDR are further networks that pods reach through their node. An
	// address is a network of its full length.
	HijackCIDR []netip.Prefix `json:"hijackCIDR,omitempty"`
	// PolicyRoutes are routes for the interface's own routing table.
	PolicyRoutes []PolicyRoute `json:"policyRoutes,omitempty"`
	// PodMACPrefix is the first two bytes of hardware addresses, as in 0a:1b;
	// empty leaves them alone.
	PodMACPrefix string `json:"podMACPrefix,omitempty"`
	// TunePodRoutes gives further interfaces routing tables of their own. Nil
	// means that nobody said so: true.
	TunePodRoutes *bool `json:"tunePodRoutes,omitempty"`
	// PodDefaultRouteNIC is the interface with the default route of a pod with
	// several; empty means the first. DefaultRouteInterface goes before it.
	PodDefaultRouteNIC string `json:"podDefaultRouteNIC,omitempty"`
	// HostRuleTable is the number of the node's routing table with the routes to
	// pods. Nil means 500.
	HostRuleTable *int64 `json:"hostRuleTable,omitempty"`
	// PodRPFilter is the value of the pod's rp_filter, negative to leave it
	// alone. Nil means 0.
	PodRPFilter *int64 `json:"podRPFilter,omitempty"`
	// TxQueueLen is the interface's transmit queue in packets. Nil and 0 leave
	// it alone.
	TxQueueLen *int64 `json:"txQueueLen,omitempty"`
	// VethLinkAddress is an address for the pod's end of its veth pair, the zero
	// Addr for none.
	VethLinkAddress netip.Addr `json:"vethLinkAddress,omitzero"`
	// VethMTU is the MTU of the veth pair in bytes. Nil means 1500.
	VethMTU *int64 `json:"vethMTU,omitempty"`

	// PodCIDR are the networks of the cluster's pods, ServiceCIDR those of its
	// services: pods reach them through their node too.
	PodCIDR     []netip.Prefix `json:"overlayPodCIDR,omitempty"`
	ServiceCIDR []netip.Prefix `json:"serviceCIDR,omitempty"`

	// DefaultRouteInterface is the pod's own word for PodDefaultRouteNIC, the
	// annotation ipam.spidernet.io/default-route-nic. It goes before the
	// network configuration too; empty means that the pod does not say.
	DefaultRouteInterface string `json:"defaultRouteInterface,omitempty"`
	// Interfaces are all that the pod gets by its annotations, in their order:
	// eth0, then those of k8s.v1.cni.cncf.io/networks. Nil means that it is not
	// known.
	Interfaces []string `json:"interfaces,omitempty"`
}

// PolicyRoute is a route of an interface's own routing table.
type PolicyRoute struct {
	// Destination is a network, an address being one of its full length.
	Destination netip.Prefix `json:"dst"`
	// Gateway is the router, of the same IP version.
	Gateway netip.Addr `json:"gw"`
}

// Coordination asks for the settings of an interface's pod. The result has a
// mode, and every prefix and route in it is valid.
func (c *Client) Coordination(ctx context.Context, request CoordinationRequest) (*Coordination, error) {
	var result Coordination
	if err := c.call(ctx, http.MethodPost, PathCoordination, request, &result); err != nil {
		return nil, err
	}
	if err := result.valid(); err != nil {
		return nil, fmt.Errorf("%w: %s on %s: %w", ErrNotUnderstood, PathCoordination, c.Socket, err)
	}
	return &result, nil
}

// valid reports what of the settings no route could be made from.
func (c *Coordination) valid() error {
	if c.Mode == "" {
		return errors.New("it answers without a mode")
	}
	for _, prefix := range slices.Concat(c.HijackCIDR, c.PodCIDR, c.ServiceCIDR) {
		if !plain(prefix) {
			return fmt.Errorf("it answers with the network %q", prefix)
		}
	}
	for _, route := range c.PolicyRoutes {
		if !plain(route.Destination) || !plainAddr(route.Gateway) || route.Gateway.Is4() != route.Destination.Addr().Is4() {
			return fmt.Errorf("it answers with a route to %q through %q", route.Destination, route.Gateway)
		}
	}
	if link := c.VethLinkAddress; link.IsValid() && !plainAddr(link) {
		return fmt.Errorf("it answers with the address %q for the veth pair", link)
	}
	return nil
}

// plainAddr reports whether the address is one that [plain] prefixes have, and
// is no interface's.
func plainAddr(addr netip.Addr) bool { return addr.IsValid() && !addr.Is4In6() && addr.Zone() == "" }
