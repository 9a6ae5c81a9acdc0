package cni

import (
	"net/netip"
	"time"
)

// DefaultSocket is where the agent listens when a network configuration
// names no ipam_unix_socket_path.
const DefaultSocket = "/var/run/spidernet/spiderpool.sock"

// The paths of the agent's HTTP interface on its unix socket. Each speaks
// JSON; a failure is answered with a status of 400 or above and an [Error].
// `curl --unix-socket` is a complete client:
//
//	curl --unix-socket /var/run/spidernet/spiderpool.sock http://holdfast/v1/status
//
// Every request may be sent again, by the plugin or by the runtime, also when
// the answer to the first was lost: the same attachment gets the same answer.
// Status 503 (Service Unavailable) says "not now, but within seconds", from an
// agent that starts or ends: the plugin asks again while its patience lasts
// ([AddPatience], [DelPatience]) and prints the Error, if there is one, only
// after that. With any other status the Error is printed at once.
const (
	PathAdd      = "/v1/add"      // POST AddRequest: 200 AddResult
	PathConflict = "/v1/conflict" // POST ConflictRequest: 200 ConflictResult
	PathDel      = "/v1/del"      // POST DelRequest: 204
	PathCheck    = "/v1/check"    // POST CheckRequest: 204
	PathGC       = "/v1/gc"       // POST GCRequest: 204
	PathStatus   = "/v1/status"   // GET: 200 Status

	PathCoordination = "/v1/coordination" // POST CoordinationRequest: 200 Coordination
)

// How long the plugin waits. The agent's own waits (for an address to be
// claimed, for a pod to be seen) must end well before the timeout, or its
// error is never read. Kubelet gives a whole sandbox with all its interfaces
// two minutes (runtimeRequestTimeout).
const (
	// AddPatience is for how long ADD, CHECK, GC and STATUS ask again, and the
	// report of a conflict is sent again, when no agent answers. It covers the change of an agent's pod in an upgrade, so
	// that pods which start meanwhile do not fail.
	AddPatience = 10 * time.Second
	// AddTimeout bounds them as a whole.
	AddTimeout = 30 * time.Second
	// DelPatience and DelTimeout are the same for DEL. It is shorter because
	// a failed DEL holds nothing up but the end of its own pod.
	DelPatience = 5 * time.Second
	DelTimeout  = 10 * time.Second
)

// AddFailed is how a message begins that says why a pod got no address: what
// users look for in its events. The plugin writes it when no agent answers;
// the agent puts it in front of the Message of its own Error.
const AddFailed = "spiderpool IP allocation error"

// Attachment names one interface of one pod sandbox.
type Attachment struct {
	// ContainerID is CNI_CONTAINERID, the sandbox and not a container in it.
	ContainerID string `json:"containerID"`
	// Interface is CNI_IFNAME, as the pod sees it.
	Interface string `json:"interface"`
	// Pod is what the runtime passed in CNI_ARGS. ADD always names it. For DEL
	// and CHECK container ID and interface are enough, and a runtime that
	// passed no pod gets its DEL all the same: Pod may be the zero value.
	Pod Pod `json:"pod"`
}

// Pod is a pod as the runtime names it in CNI_ARGS (K8S_POD_NAMESPACE,
// K8S_POD_NAME, K8S_POD_UID). UID may be empty with runtimes that do not
// pass it.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"`
}

// AddRequest asks for the addresses of one interface (CNI spec, ADD).
type AddRequest struct {
	Attachment
	// Network is the "name" of the network configuration; GC names it again.
	Network string `json:"network"`
	// DefaultIPv4Pools and DefaultIPv6Pools are the network configuration's
	// default_ipv4_ippool and default_ipv6_ippool: what to use when neither
	// pod nor namespace names a pool.
	DefaultIPv4Pools []string `json:"defaultIPv4Pools,omitempty"`
	DefaultIPv6Pools []string `json:"defaultIPv6Pools,omitempty"`
	// CleanGateway leaves the default route out of the result.
	CleanGateway bool `json:"cleanGateway,omitempty"`
	// Master is there if the configuration has match_master_subnet: the pools
	// must be of a subnet in which it has an address.
	Master *Master `json:"master,omitempty"`
}

// Master is the interface of the node that the pod's is made of: for a virtual
// function of SR-IOV, that of its physical function.
type Master struct {
	Name string `json:"name"`
	// Addresses are its own, without link-local ones.
	Addresses []netip.Prefix `json:"addresses"`
}

// AddResult is what an interface gets. The order of addresses is IPv4, then
// IPv6.
type AddResult struct {
	Addresses []Address `json:"addresses"`
	Routes    []Route   `json:"routes,omitempty"`
}

// Address is one address with its pool.
type Address struct {
	// Prefix is the address with the length of its pool's subnet:
	// 10.6.168.101/16.
	Prefix netip.Prefix `json:"prefix"`
	// Gateway is the pool's gateway, the zero Addr when it has none.
	Gateway netip.Addr `json:"gateway,omitzero"`
	Pool    string     `json:"pool"`
	// ConflictDetection asks the plugin to find out, before it answers the
	// runtime, whether somebody else uses the address, and GatewayDetection
	// whether Gateway is there.
	ConflictDetection bool `json:"enableIPConflictDetection,omitempty"`
	GatewayDetection  bool `json:"enableGatewayDetection,omitempty"`
}

// Route is a route of the interface.
type Route struct {
	Destination netip.Prefix `json:"destination"`
	Gateway     netip.Addr   `json:"gateway,omitzero"`
}

// ConflictRequest reports that addresses which an ADD of this attachment was
// answered with are used by machines outside the cluster. Only the sandbox that
// holds them may say so; any other is refused, and nothing changes.
type ConflictRequest struct {
	Attachment
	Conflicts []Conflict `json:"conflicts"`
}

// Conflict is an address and who uses it.
type Conflict struct {
	Address netip.Addr `json:"address"`
	// MAC is the hardware address of who answered for it.
	MAC string `json:"mac"`
}

// ConflictResult says what becomes of the addresses. SetAside: nobody gets them
// for a while, and another ADD of the attachment is answered with others.
// Otherwise they stay as they are, for the Reason: the ADD has failed.
type ConflictResult struct {
	SetAside bool   `json:"setAside"`
	Reason   string `json:"reason,omitempty"`
}

// DelRequest gives an interface's addresses back (CNI spec, DEL). It succeeds
// for what is not there.
type DelRequest struct {
	Attachment
}

// CheckRequest asks whether the agent still has what an earlier ADD of this
// attachment answered (CNI spec, CHECK).
type CheckRequest struct {
	Attachment
	// Addresses are those of prevResult.
	Addresses []netip.Prefix `json:"addresses"`
}

// GCRequest tells which attachments of a network are still valid (CNI spec,
// GC): whatever else the agent holds for that network on this node is given
// back.
type GCRequest struct {
	Network string            `json:"network"`
	Valid   []ValidAttachment `json:"valid"`
}

// ValidAttachment is an element of cni.dev/valid-attachments.
type ValidAttachment struct {
	ContainerID string `json:"containerID"`
	Interface   string `json:"interface"`
}

// Status is the agent's answer to STATUS. Ready is false with a Reason while
// an ADD would fail.
type Status struct {
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
	// Node is the name of the node the agent works for.
	Node string `json:"node"`
	// Version is the agent's version.
	Version string `json:"version"`
}

// Error is a failure as the agent reports it: the fields of the CNI error
// result (CNI spec, "Error"), which the plugin prints unchanged.
type Error struct {
	Code    uint   `json:"code"`
	Message string `json:"msg"`
	Details string `json:"details,omitempty"`
}

// Error returns message and details on one line.
func (e *Error) Error() string {
	if e.Details == "" {
		return e.Message
	}
	return e.Message + ": " + e.Details
}
