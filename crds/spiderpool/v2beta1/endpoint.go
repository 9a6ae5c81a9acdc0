package v2beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// FieldEndpointNode is the field of a SpiderEndpoint that lists select by.
const FieldEndpointNode = "status.current.node"

// SpiderEndpoint tells which addresses the pod of the same namespace and name
// has. For a pod of a StatefulSet it outlives the pod and leads from the name
// to the addresses held for it. Agents write it; nobody else should.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=spiderendpoints,singular=spiderendpoint,scope=Namespaced,shortName=se,categories=spiderpool
// +kubebuilder:selectablefield:JSONPath=`.status.current.node`
// +kubebuilder:printcolumn:name="INTERFACE",type=string,JSONPath=`.status.current.ips[0].interface`,description="The first interface."
// +kubebuilder:printcolumn:name="IPV4POOL",type=string,JSONPath=`.status.current.ips[0].ipv4Pool`,description="The pool of its IPv4 address."
// +kubebuilder:printcolumn:name="IPV4",type=string,JSONPath=`.status.current.ips[0].ipv4`,description="Its IPv4 address."
// +kubebuilder:printcolumn:name="IPV6POOL",type=string,JSONPath=`.status.current.ips[0].ipv6Pool`,description="The pool of its IPv6 address."
// +kubebuilder:printcolumn:name="IPV6",type=string,JSONPath=`.status.current.ips[0].ipv6`,description="Its IPv6 address."
// +kubebuilder:printcolumn:name="NODE",type=string,JSONPath=`.status.current.node`,description="The node of the pod."
type SpiderEndpoint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Status is the addresses and whose they are. It is no subresource: it is
	// created and updated with the object.
	// +optional
	Status EndpointStatus `json:"status,omitempty"`
}

// EndpointStatus is the addresses of a pod and its top owner.
type EndpointStatus struct {
	// Current is the pod that last had the name, and its addresses.
	// +required
	Current EndpointPod `json:"current"`
	// OwnerControllerType is the kind of the pod's top owner, such as
	// StatefulSet or Deployment, or Pod for a pod without one.
	// +required
	OwnerControllerType string `json:"ownerControllerType"`
	// OwnerControllerName is the name of the pod's top owner, or its own.
	// +required
	OwnerControllerName string `json:"ownerControllerName"`
}

// EndpointPod is the addresses of one pod.
type EndpointPod struct {
	// UID is the pod's UID.
	// +required
	UID string `json:"uid"`
	// Node is the name of the pod's node.
	// +required
	Node string `json:"node"`
	// IPs is one element for each interface.
	// +required
	// +listType=atomic
	IPs []EndpointInterface `json:"ips"`
}

// EndpointInterface is the addresses of one interface.
type EndpointInterface struct {
	// Interface is the interface's name in the pod, such as eth0.
	// +required
	Interface string `json:"interface"`
	// IPv4 is the IPv4 address with the prefix length of its subnet, such as
	// 10.6.168.101/16.
	// +optional
	// +kubebuilder:validation:Format=cidr
	IPv4 string `json:"ipv4,omitempty"`
	// IPv6 is the IPv6 address with the prefix length of its subnet.
	// +optional
	// +kubebuilder:validation:Format=cidr
	IPv6 string `json:"ipv6,omitempty"`
	// IPv4Pool is the name of the pool of the IPv4 address.
	// +optional
	IPv4Pool string `json:"ipv4Pool,omitempty"`
	// IPv6Pool is the name of the pool of the IPv6 address.
	// +optional
	IPv6Pool string `json:"ipv6Pool,omitempty"`
	// Vlan is the VLAN ID of the interface, 0 for none.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4094
	// +kubebuilder:default=0
	Vlan int64 `json:"vlan"`
	// IPv4Gateway is the IPv4 router of the subnet, if the pool names one.
	// +optional
	// +kubebuilder:validation:Format=ipv4
	IPv4Gateway string `json:"ipv4Gateway,omitempty"`
	// IPv6Gateway is the IPv6 router of the subnet, if the pool names one.
	// +optional
	// +kubebuilder:validation:Format=ipv6
	IPv6Gateway string `json:"ipv6Gateway,omitempty"`
	// CleanGateway is true if the interface has no default route although
	// there is a gateway.
	// +optional
	CleanGateway *bool `json:"cleanGateway,omitempty"`
	// Routes are the interface's further routes, without the default route.
	// +optional
	// +listType=atomic
	Routes []Route `json:"routes,omitempty"`
	// Mac is the interface's hardware address, where it was given one.
	// +optional
	Mac string `json:"mac,omitempty"`
}

// SpiderEndpointList is a list of endpoints.
//
// +kubebuilder:object:root=true
type SpiderEndpointList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the endpoints.
	Items []SpiderEndpoint `json:"items"`
}
