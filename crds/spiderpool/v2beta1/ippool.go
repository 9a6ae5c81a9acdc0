package v2beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Conditions of a SpiderIPPool.
const (
	// ConditionScarce is True while no address of the pool is left that no
	// node leases. Agents then yield every address they do not use.
	ConditionScarce = "Scarce"
	// ConditionUsable is False, with the reason in its message, while the
	// spec cannot be understood. The schema refuses most such specs.
	ConditionUsable = "Usable"
)

// SpiderIPPool is a set of addresses of one subnet that pods may get, and the
// rules which pods may.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=spiderippools,singular=spiderippool,scope=Cluster,shortName=sp,categories=spiderpool
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="VERSION",type=string,JSONPath=`.spec.ipVersion`,description="The IP version, 4 or 6."
// +kubebuilder:printcolumn:name="SUBNET",type=string,JSONPath=`.spec.subnet`,description="The subnet of the addresses."
// +kubebuilder:printcolumn:name="ALLOCATED-IP-COUNT",type=integer,JSONPath=`.status.allocatedIPCount`,description="How many addresses pods have."
// +kubebuilder:printcolumn:name="TOTAL-IP-COUNT",type=integer,JSONPath=`.status.totalIPCount`,description="How many addresses the pool has."
// +kubebuilder:printcolumn:name="DEFAULT",type=boolean,JSONPath=`.spec.default`,description="Whether pods that name no pool may use it."
// +kubebuilder:printcolumn:name="DISABLE",type=boolean,JSONPath=`.spec.disable`,priority=10,description="Whether the pool gives out no more addresses."
// +kubebuilder:printcolumn:name="NodeName",type=string,JSONPath=`.spec.nodeName`,priority=10,description="The nodes whose pods may use the pool."
// +kubebuilder:printcolumn:name="MultusName",type=string,JSONPath=`.spec.multusName`,priority=10,description="The networks whose interfaces may use the pool."
// +kubebuilder:printcolumn:name="APP-NAMESPACE",type=string,JSONPath=`.spec.podAffinity.matchLabels['ipam\.spidernet\.io/app\-namespace']`,priority=10,description="The namespace of the application the pool was made for."
type SpiderIPPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what the administrator wants.
	// +required
	Spec IPPoolSpec `json:"spec"`
	// Status is what became of it. It is refreshed within seconds and decides
	// nothing: who holds which address is in the IPBlocks.
	// +optional
	Status IPPoolStatus `json:"status,omitempty"`
}

// IPPoolSpec is the addresses of a pool and who may use them.
//
// +kubebuilder:validation:XValidation:rule="!has(self.ipVersion) || !isCIDR(self.subnet) || self.ipVersion == cidr(self.subnet).ip().family()",fieldPath=".ipVersion",message="ipVersion does not match subnet: remove ipVersion, it follows from subnet"
type IPPoolSpec struct {
	// IPVersion is the IP version of the pool, 4 or 6. Leave it out: it
	// follows from subnet and is filled in.
	// +optional
	// +kubebuilder:validation:Enum=4;6
	IPVersion *int64 `json:"ipVersion,omitempty"`

	// Subnet is the network the addresses belong to, such as 10.6.0.0/16 or
	// fd00:6::/112. A pod's interface gets its prefix length from here. It
	// cannot be changed: create another pool for another subnet.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=43
	Subnet string `json:"subnet"`

	// IPs are the addresses of the pool: single ones (10.6.168.101) and ranges
	// with both ends included (10.6.168.101-10.6.168.110), all in subnet.
	// Without any the pool is empty.
	// +optional
	// +listType=atomic
	IPs []string `json:"ips,omitempty"`

	// ExcludeIPs are addresses that no pod gets although ips names them,
	// written like ips.
	// +optional
	// +listType=atomic
	ExcludeIPs []string `json:"excludeIPs,omitempty"`

	// Gateway is the address of the subnet's router. With it, pods get a
	// default route, unless their network asks for none. It must be in subnet
	// and not among the addresses for pods.
	// +optional
	Gateway string `json:"gateway,omitempty"`

	// Routes are further routes for the interface, besides the default route
	// through gateway.
	// +optional
	// +listType=atomic
	Routes []Route `json:"routes,omitempty"`

	// PodAffinity selects by their labels the pods that may use the pool.
	// Without it all may.
	// +optional
	PodAffinity *metav1.LabelSelector `json:"podAffinity,omitempty"`

	// NamespaceAffinity selects by their labels the namespaces whose pods may
	// use the pool. It is not looked at if namespaceName names any.
	// +optional
	NamespaceAffinity *metav1.LabelSelector `json:"namespaceAffinity,omitempty"`

	// NamespaceName names the namespaces whose pods may use the pool.
	// +optional
	// +listType=atomic
	NamespaceName []string `json:"namespaceName,omitempty"`

	// NodeAffinity selects by their labels the nodes whose pods may use the
	// pool. It is not looked at if nodeName names any.
	// +optional
	NodeAffinity *metav1.LabelSelector `json:"nodeAffinity,omitempty"`

	// NodeName names the nodes whose pods may use the pool.
	// +optional
	// +listType=atomic
	NodeName []string `json:"nodeName,omitempty"`

	// MultusName names the Multus networks whose interfaces may use the pool,
	// as namespace/name, or as name for one in Holdfast's own namespace.
	// +optional
	// +listType=atomic
	MultusName []string `json:"multusName,omitempty"`

	// Default lets pods use the pool that name none and whose namespace and
	// network name none either.
	// +optional
	// +kubebuilder:default=false
	Default bool `json:"default,omitempty"`

	// Disable stops the pool from giving out more addresses. Pods keep what
	// they have, and a StatefulSet's pods what is held for them.
	// +optional
	// +kubebuilder:default=false
	Disable bool `json:"disable,omitempty"`
}

// Route is a route of a pod's interface.
type Route struct {
	// Dst is the destination network, such as 10.7.0.0/16.
	// +required
	Dst string `json:"dst"`
	// Gw is the address of the router, such as 10.6.0.2.
	// +required
	Gw string `json:"gw"`
}

// IPPoolStatus is what people look at. It follows the truth by seconds.
type IPPoolStatus struct {
	// AllocatedIPs is a JSON object as text that tells which pod has which
	// address: {"10.6.168.101":{"pod":"namespace/name","podUid":"uid"}}. It
	// is absent while there is none.
	// +optional
	AllocatedIPs *string `json:"allocatedIPs,omitempty"`

	// TotalIPCount is the number of addresses in ips and not in excludeIPs.
	// Reserved addresses count. It ends at 9223372036854775807.
	// +optional
	// +kubebuilder:validation:Minimum=0
	TotalIPCount *int64 `json:"totalIPCount,omitempty"`

	// AllocatedIPCount is the number of addresses in allocatedIPs.
	// +optional
	// +kubebuilder:validation:Minimum=0
	AllocatedIPCount *int64 `json:"allocatedIPCount,omitempty"`

	// Conditions tell in which state the pool is: Scarce while every address
	// is leased by some node, Usable false while the spec makes no sense.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// SpiderIPPoolList is a list of pools.
//
// +kubebuilder:object:root=true
type SpiderIPPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the pools.
	Items []SpiderIPPool `json:"items"`
}
