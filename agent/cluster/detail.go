package cluster

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

// Detail is what an ADD answers with an address beside the address itself. An
// agent gives it to the lease package as [lease.Entry.Detail] and
// [lease.EndpointAddress.Detail], and a SpiderEndpoint keeps it. It is fixed
// when the address is assigned: later changes of the pool do not reach a
// StatefulSet pod that comes back.
type Detail struct {
	// Pool is the name of the SpiderIPPool the address was drawn from.
	Pool string `json:"pool"`
	// Prefix is the address itself with the length of the pool's subnet:
	// 10.6.168.101/16.
	Prefix netip.Prefix `json:"prefix"`
	// Gateway is the pool's gateway, the zero Addr when it has none.
	Gateway netip.Addr `json:"gateway,omitzero"`
	// CleanGateway is set when the interface gets no default route. It is
	// one for all addresses of an interface.
	CleanGateway bool `json:"cleanGateway,omitempty"`
	// Routes are the interface's further routes of the address's family.
	Routes []Route `json:"routes,omitempty"`
}

// Route is a route of an interface.
type Route struct {
	Destination netip.Prefix `json:"destination"`
	Gateway     netip.Addr   `json:"gateway,omitzero"`
}

// Encode returns the detail as JSON, for [DecodeDetail].
func (d Detail) Encode() (json.RawMessage, error) {
	raw, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode the detail of %s: %w", d.Prefix, err)
	}
	return raw, nil
}

// DecodeDetail is the inverse of [Detail.Encode]. Nothing is the zero Detail.
func DecodeDetail(raw json.RawMessage) (Detail, error) {
	var d Detail
	if len(raw) == 0 {
		return d, nil
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return Detail{}, fmt.Errorf("decode the detail of an address: %w", err)
	}
	return d, nil
}
