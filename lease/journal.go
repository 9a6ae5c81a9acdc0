package lease

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"time"
)

// State is what a journal entry says of its address. A leased address
// without an entry was never used: pinned, it is retained; unpinned, it is
// free.
type State string

const (
	// Assigned: a sandbox has the address, or is about to.
	Assigned State = "assigned"
	// Placing: an identity's pod is getting the address for the first time.
	// Pin and endpoint may be missing or on their way.
	Placing State = "placing"
	// Retained: no sandbox has it, but its identity owns it.
	Retained State = "retained"
	// Cooling: given back at Entry.Since and not to be used again yet.
	Cooling State = "cooling"
	// Yielding: an update that gives up the lease may be under way. Nothing
	// is built on it until it is settled.
	Yielding State = "yielding"
)

// Owner is to whom an address is assigned: one interface of one pod. The
// same owner always gets the same answer.
type Owner struct {
	PodUID    string `json:"podUID"`
	Interface string `json:"interface"`
}

// Entry is what the journal knows about one leased address.
type Entry struct {
	Addr  netip.Addr `json:"addr"`
	State State      `json:"state"`
	// Since is when the state began, by the node's wall clock.
	Since time.Time `json:"since"`
	// Owner, Container (the sandbox), Namespace and Pod tell for whom it is
	// or, when cooling or retained, was. Network is the CNI network's name.
	Owner     Owner  `json:"owner"`
	Container string `json:"container,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Pod       string `json:"pod,omitempty"`
	Network   string `json:"network,omitempty"`
	// Others are sandboxes of the pod that have asked for the address as well,
	// before or late, and have not given it back.
	Others []string `json:"others,omitempty"`
	// Sticky is set when the pod is a StatefulSet's: the address is pinned
	// to the identity {Namespace, Pod, Owner.Interface, Kind}.
	Sticky bool `json:"sticky,omitempty"`
	// Kind is that of the identity. Where it is set, Pod is the identity's
	// name and Bearer the pod's own.
	Kind   string `json:"kind,omitempty"`
	Bearer string `json:"bearer,omitempty"`
	// Detail is the caller's own, returned as it was given: what else an ADD
	// answers with the address.
	Detail json.RawMessage `json:"detail,omitempty"`
}

// Identity returns for whom the address is pinned, if Sticky.
func (e *Entry) Identity() Identity {
	return Identity{Namespace: e.Namespace, Pod: e.Pod, Interface: e.Owner.Interface, Kind: e.Kind}
}

// PodName returns the name of the pod that the address is or was assigned to.
func (e *Entry) PodName() string { return cmp.Or(e.Bearer, e.Pod) }

// UnknownSandbox stands for the sandbox of an address that was in use when the
// journal was lost. It is no container ID (CNI spec, "Parameters").
const UnknownSandbox = "?"

// without returns the sandboxes that have the address but for one.
func (e *Entry) without(container string) []string {
	var others []string
	for _, c := range append([]string{e.Container}, e.Others...) {
		if c != "" && c != container {
			others = append(others, c)
		}
	}
	return others
}

// Disk keeps the journal. The real one is a bbolt file; leasetest has one
// that loses what was not synced.
type Disk interface {
	// Load returns all entries, in any order.
	Load() ([]Entry, error)
	// Write stores puts (by address) and removes the entries at drops, all
	// or nothing, and returns when it is durable. After an error either may
	// be true. It may be called from many goroutines.
	Write(puts []Entry, drops []netip.Addr) error
}
