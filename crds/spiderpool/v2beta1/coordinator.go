package v2beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// SpiderCoordinator is the settings of the coordinator plugin, which lets a
// pod with interfaces in several networks reach all of them, its node and the
// cluster's services. The one named default counts, or else the first by name;
// what a SpiderMultusConfig says for its own network goes before it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=spidercoordinators,singular=spidercoordinator,scope=Cluster,shortName=scc,categories=spiderpool
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="PHASE",type=string,JSONPath=`.status.phase`,description="Synced, or NotReady while the networks cannot be told."
// +kubebuilder:printcolumn:name="PODS",type=string,JSONPath=`.status.overlayPodCIDR`,description="The networks of the cluster's pods."
// +kubebuilder:printcolumn:name="SERVICES",type=string,JSONPath=`.status.serviceCIDR`,description="The networks of the cluster's services."
// +kubebuilder:printcolumn:name="REASON",type=string,JSONPath=`.status.reason`,description="Why they cannot be told."
type SpiderCoordinator struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what the administrator wants.
	// +required
	// +kubebuilder:validation:XValidation:rule="has(self.podCIDRType)",fieldPath=".podCIDRType",message="podCIDRType is missing: set it to auto, cluster, calico, cilium or none"
	Spec CoordinatorSpec `json:"spec"`
	// Status is what was found out about the cluster.
	// +optional
	Status CoordinatorStatus `json:"status,omitempty"`
}

// CoordinatorSpec is the settings of the coordinator plugin, for a cluster or
// for one network.
//
// +kubebuilder:validation:XValidation:rule="!has(self.podMACPrefix) || self.podMACPrefix.size() == 0 || self.podMACPrefix.matches('^[0-9a-fA-F][02468aceACE]:[0-9a-fA-F]{2}$')",fieldPath=".podMACPrefix",message="podMACPrefix must be two bytes in hexadecimal, the first of them even, like 0a:1b"
// +kubebuilder:validation:XValidation:rule="!has(self.vethLinkAddress) || self.vethLinkAddress.size() == 0 || isIP(self.vethLinkAddress)",fieldPath=".vethLinkAddress",message="vethLinkAddress must be an IP address without prefix length, like 169.254.100.1"
// +kubebuilder:validation:XValidation:rule="!has(self.podDefaultRouteNIC) || self.podDefaultRouteNIC.matches('^[^/[:space:]]*$')",fieldPath=".podDefaultRouteNIC",message="podDefaultRouteNIC must be the name of an interface in the pod, like eth0"
// +kubebuilder:validation:XValidation:rule="!has(self.hostRuleTable) || self.hostRuleTable < 253 || self.hostRuleTable > 255",fieldPath=".hostRuleTable",message="routing tables 253 to 255 are the system's: use one that nothing else on the nodes uses, like 500"
type CoordinatorSpec struct {
	// Mode is how pods reach their node: underlay through a veth pair of their
	// own, overlay through the interface of the cluster's network, disabled
	// not at all, auto underlay or overlay by what the pod's first interface
	// is. A SpiderMultusConfig always has a mode of its own.
	// +optional
	// +kubebuilder:validation:Enum=auto;underlay;overlay;disabled
	// +kubebuilder:default=auto
	Mode string `json:"mode,omitempty"`

	// PodCIDRType is where the addresses of the cluster's pod network are read
	// from: the network plugin named, the cluster's own settings, whichever
	// is found (auto), or nowhere (none). That of the SpiderCoordinator counts.
	// +optional
	// +kubebuilder:validation:Enum=auto;cluster;calico;cilium;none
	PodCIDRType string `json:"podCIDRType,omitempty"`

	// HijackCIDR are further addresses and networks that pods reach through
	// their node, such as 169.254.0.0/16.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1024
	// +kubebuilder:validation:items:MaxLength=43
	// +kubebuilder:validation:items:XValidation:rule="isIP(self) || isCIDR(self)",message="want an address or a network, like 169.254.0.0/16"
	HijackCIDR []string `json:"hijackCIDR,omitempty"`

	// PolicyRoutes are routes for the interface's own routing table.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	PolicyRoutes []PolicyRoute `json:"policyRoutes,omitempty"`

	// PodMACPrefix is the first two bytes of interfaces' hardware addresses,
	// such as 0a:1b; the other four are taken from the IP address. The first
	// byte must be even (no multicast). Empty leaves hardware addresses alone.
	// +optional
	// +kubebuilder:validation:MaxLength=5
	PodMACPrefix string `json:"podMACPrefix,omitempty"`

	// TunePodRoutes lets each interface answer through itself: routes of
	// further interfaces are moved to tables of their own. A SpiderMultusConfig
	// always says so for its own network.
	// +optional
	// +kubebuilder:default=true
	TunePodRoutes *bool `json:"tunePodRoutes,omitempty"`

	// PodDefaultRouteNIC is the interface that keeps the default route of a
	// pod with several, such as eth0. Empty means the first.
	// +optional
	// +kubebuilder:validation:MaxLength=15
	PodDefaultRouteNIC string `json:"podDefaultRouteNIC,omitempty"`

	// HostRuleTable is the number of the node's routing table with the routes
	// to pods, any but 253 to 255, which are the system's. That of the
	// SpiderCoordinator counts: a node has one.
	// +optional
	// +kubebuilder:default=500
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967295
	HostRuleTable *int64 `json:"hostRuleTable,omitempty"`

	// PodRPFilter is the value of the pod's rp_filter sysctl: 0, 1, 2, or any
	// negative number to leave it alone.
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Maximum=2
	PodRPFilter *int64 `json:"podRPFilter,omitempty"`

	// TxQueueLen is the transmit queue length of the interface in packets, 0
	// to leave it alone.
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2147483647
	TxQueueLen *int64 `json:"txQueueLen,omitempty"`

	// VethLinkAddress is an IP address for the pod's end of the veth pair to
	// its node, for programs that need one there. Empty means none.
	// +optional
	// +kubebuilder:validation:MaxLength=39
	VethLinkAddress string `json:"vethLinkAddress,omitempty"`

	// VethMTU is the MTU of the veth pair in bytes, 1500 if left out.
	// +optional
	// +kubebuilder:validation:Minimum=68
	// +kubebuilder:validation:Maximum=65535
	VethMTU *int64 `json:"vethMTU,omitempty"`
}

// PolicyRoute is a route of one interface's routing table.
//
// +kubebuilder:validation:XValidation:rule="isIP(self.dst) || isCIDR(self.dst)",fieldPath=".dst",message="dst must be an address or a network, like 10.7.0.0/16"
// +kubebuilder:validation:XValidation:rule="isIP(self.gw)",fieldPath=".gw",message="gw must be an address, like 10.6.0.2"
// +kubebuilder:validation:XValidation:rule="!isIP(self.gw) || (isIP(self.dst) ? ip(self.dst).family() == ip(self.gw).family() : !isCIDR(self.dst) || cidr(self.dst).ip().family() == ip(self.gw).family())",fieldPath=".gw",message="dst and gw must both be IPv4 or both be IPv6"
type PolicyRoute struct {
	// Dst is the destination, an address or a network.
	// +required
	// +kubebuilder:validation:MaxLength=43
	Dst string `json:"dst"`
	// Gw is the address of the router, of the same IP version.
	// +required
	// +kubebuilder:validation:MaxLength=39
	Gw string `json:"gw"`
}

// Phases of a SpiderCoordinator.
const (
	// CoordinatorSynced means that the networks in the status are current.
	CoordinatorSynced = "Synced"
	// CoordinatorNotReady means that they could not be found out; the reason
	// tells why.
	CoordinatorNotReady = "NotReady"
)

// CoordinatorStatus is what was found out about the cluster.
type CoordinatorStatus struct {
	// Phase is Synced, or NotReady with a reason.
	// +required
	Phase string `json:"phase"`
	// Reason tells why the phase is NotReady.
	// +optional
	Reason string `json:"reason,omitempty"`
	// OverlayPodCIDR are the networks of the cluster's pods.
	// +optional
	// +listType=atomic
	OverlayPodCIDR []string `json:"overlayPodCIDR,omitempty"`
	// ServiceCIDR are the networks of the cluster's services.
	// +optional
	// +listType=atomic
	ServiceCIDR []string `json:"serviceCIDR,omitempty"`
}

// SpiderCoordinatorList is a list of coordinator settings.
//
// +kubebuilder:object:root=true
type SpiderCoordinatorList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the settings.
	Items []SpiderCoordinator `json:"items"`
}
