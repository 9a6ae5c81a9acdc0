package v2beta1

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

// Allocation tells which pod has an address, in status.allocatedIPs of a pool.
type Allocation struct {
	// Pod is the pod as namespace/name.
	Pod string `json:"pod"`
	// PodUID is the pod's UID.
	PodUID string `json:"podUid"`
}

// EncodeAllocations returns the text for status.allocatedIPs of a pool: a JSON
// object whose keys are addresses in the order of their text, and nil if there
// is none. The same allocations always give the same text.
func EncodeAllocations(allocations map[netip.Addr]Allocation) (*string, error) {
	if len(allocations) == 0 {
		return nil, nil
	}
	raw, err := json.Marshal(allocations)
	if err != nil {
		return nil, fmt.Errorf("encode status.allocatedIPs: %w", err)
	}
	text := string(raw)
	return &text, nil
}

// DecodeAllocations is the inverse of [EncodeAllocations].
func DecodeAllocations(text *string) (map[netip.Addr]Allocation, error) {
	if text == nil {
		return nil, nil
	}
	var allocations map[netip.Addr]Allocation
	if err := json.Unmarshal([]byte(*text), &allocations); err != nil {
		return nil, fmt.Errorf("decode status.allocatedIPs: %w", err)
	}
	return allocations, nil
}
