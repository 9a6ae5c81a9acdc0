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
	// ConditionConflicting is True, with the rule and the other object in its
	// message, while the pool breaks a rule that is checked at apply and was
	// not, because nobody was there to check it: it overlaps another pool, for
	// example. Pods are given addresses all the same, each to one of them.
	ConditionConflicting = "Conflicting"
)

const (
	// Finalizer keeps a pool that is deleted until no pod has an address of
	// it any more. The elected agent takes it off.
	Finalizer = "spiderpool.spidernet.io"
	// LabelSubnet finds pools by subnet, with every . : / as a dash.
	LabelSubnet = "ipam.spidernet.io/ippool-cidr"
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
// Each rule judges what the others let pass, so that one mistake gives one
// message. That an IPv6 gateway is among ips the webhook finds.
//
// +kubebuilder:validation:XValidation:rule="!has(self.ipVersion) || !isCIDR(self.subnet) || self.ipVersion == cidr(self.subnet).ip().family()",fieldPath=".ipVersion",message="ipVersion does not match subnet: leave ipVersion out, it follows from subnet"
// +kubebuilder:validation:XValidation:rule="!has(self.ips) || !isCIDR(self.subnet) || !self.ips.exists(r, (isIP((r.contains('-') ? r.substring(0, r.indexOf('-')) : r)) && !cidr(self.subnet).containsIP((r.contains('-') ? r.substring(0, r.indexOf('-')) : r)) || isIP((r.contains('-') ? r.substring(r.indexOf('-') + 1) : r)) && !cidr(self.subnet).containsIP((r.contains('-') ? r.substring(r.indexOf('-') + 1) : r))))",fieldPath=".ips",message="an item of ips is not in subnet: every address must lie in subnet",messageExpression="self.ips.filter(r, (isIP((r.contains('-') ? r.substring(0, r.indexOf('-')) : r)) && !cidr(self.subnet).containsIP((r.contains('-') ? r.substring(0, r.indexOf('-')) : r)) || isIP((r.contains('-') ? r.substring(r.indexOf('-') + 1) : r)) && !cidr(self.subnet).containsIP((r.contains('-') ? r.substring(r.indexOf('-') + 1) : r))))[0] + ' is not in subnet ' + self.subnet + ': every address of ips must lie in subnet'"
// +kubebuilder:validation:XValidation:rule="!has(self.excludeIPs) || !isCIDR(self.subnet) || !self.excludeIPs.exists(r, (isIP((r.contains('-') ? r.substring(0, r.indexOf('-')) : r)) && !cidr(self.subnet).containsIP((r.contains('-') ? r.substring(0, r.indexOf('-')) : r)) || isIP((r.contains('-') ? r.substring(r.indexOf('-') + 1) : r)) && !cidr(self.subnet).containsIP((r.contains('-') ? r.substring(r.indexOf('-') + 1) : r))))",fieldPath=".excludeIPs",message="an item of excludeIPs is not in subnet: every address must lie in subnet",messageExpression="self.excludeIPs.filter(r, (isIP((r.contains('-') ? r.substring(0, r.indexOf('-')) : r)) && !cidr(self.subnet).containsIP((r.contains('-') ? r.substring(0, r.indexOf('-')) : r)) || isIP((r.contains('-') ? r.substring(r.indexOf('-') + 1) : r)) && !cidr(self.subnet).containsIP((r.contains('-') ? r.substring(r.indexOf('-') + 1) : r))))[0] + ' is not in subnet ' + self.subnet + ': every address of excludeIPs must lie in subnet'"
// +kubebuilder:validation:XValidation:rule="!has(self.gateway) || self.gateway.size() == 0 || !isCIDR(self.subnet) || (isIP(self.gateway) && cidr(self.subnet).containsIP(self.gateway))",fieldPath=".gateway",message="gateway must be an address in subnet, like 10.6.0.1 for the subnet 10.6.0.0/16"
// +kubebuilder:validation:XValidation:rule="!has(self.gateway) || !isIP(self.gateway) || self.gateway.contains(':') || !has(self.ips) || [[self.gateway.split('.')].map(o, int(o[0]) * 16777216 + int(o[1]) * 65536 + int(o[2]) * 256 + int(o[3]))[0]].all(g, !self.ips.exists(r, (isIP((r.contains('-') ? r.substring(0, r.indexOf('-')) : r)) && isIP((r.contains('-') ? r.substring(r.indexOf('-') + 1) : r)) && [(r.contains('-') ? r.substring(0, r.indexOf('-')) : r).split('.')].map(o, int(o[0]) * 16777216 + int(o[1]) * 65536 + int(o[2]) * 256 + int(o[3]))[0] <= g && g <= [(r.contains('-') ? r.substring(r.indexOf('-') + 1) : r).split('.')].map(o, int(o[0]) * 16777216 + int(o[1]) * 65536 + int(o[2]) * 256 + int(o[3]))[0])) || (has(self.excludeIPs) && self.excludeIPs.exists(r, (isIP((r.contains('-') ? r.substring(0, r.indexOf('-')) : r)) && isIP((r.contains('-') ? r.substring(r.indexOf('-') + 1) : r)) && [(r.contains('-') ? r.substring(0, r.indexOf('-')) : r).split('.')].map(o, int(o[0]) * 16777216 + int(o[1]) * 65536 + int(o[2]) * 256 + int(o[3]))[0] <= g && g <= [(r.contains('-') ? r.substring(r.indexOf('-') + 1) : r).split('.')].map(o, int(o[0]) * 16777216 + int(o[1]) * 65536 + int(o[2]) * 256 + int(o[3]))[0]))))",fieldPath=".gateway",message="gateway is among ips, so that a pod could get the router's address: take it out of ips or put it into excludeIPs"
// +kubebuilder:validation:XValidation:rule="!has(self.routes) || !isCIDR(self.subnet) || self.routes.all(r, isCIDR(r.dst) && cidr(r.dst).ip().family() == cidr(self.subnet).ip().family())",fieldPath=".routes",message="the dst of each route must be a network of the IP version of subnet, like 10.7.0.0/16"
// +kubebuilder:validation:XValidation:rule="!has(self.routes) || self.routes.all(r, !isCIDR(r.dst) || cidr(r.dst).prefixLength() > 0)",fieldPath=".routes",message="the default route is not written as a route: set gateway"
// +kubebuilder:validation:XValidation:rule="!has(self.routes) || !isCIDR(self.subnet) || self.routes.all(r, isIP(r.gw) && cidr(self.subnet).containsIP(r.gw))",fieldPath=".routes",message="the gw of each route must be an address in subnet"
// +kubebuilder:validation:XValidation:rule="!has(self.routes) || self.routes.all(r, self.routes.exists_one(q, q.dst == r.dst))",fieldPath=".routes",message="two routes have the same dst: keep one"
// +kubebuilder:validation:XValidation:rule="!has(self.podAffinity) || (has(self.podAffinity.matchLabels) && self.podAffinity.matchLabels.size() > 0) || (has(self.podAffinity.matchExpressions) && self.podAffinity.matchExpressions.size() > 0)",fieldPath=".podAffinity",message="podAffinity selects nothing: give it a matchLabels or a matchExpressions, or leave it out for all pods"
// +kubebuilder:validation:XValidation:rule="!has(self.podAffinity) || !has(self.podAffinity.matchExpressions) || self.podAffinity.matchExpressions.all(e, e.operator in ['In', 'NotIn'] ? has(e.values) && e.values.size() > 0 : e.operator in ['Exists', 'DoesNotExist'] && (!has(e.values) || e.values.size() == 0))",fieldPath=".podAffinity.matchExpressions",message="the operator of each of matchExpressions must be In or NotIn with values, or Exists or DoesNotExist without"
// +kubebuilder:validation:XValidation:rule="!has(self.namespaceAffinity) || !has(self.namespaceAffinity.matchExpressions) || self.namespaceAffinity.matchExpressions.all(e, e.operator in ['In', 'NotIn'] ? has(e.values) && e.values.size() > 0 : e.operator in ['Exists', 'DoesNotExist'] && (!has(e.values) || e.values.size() == 0))",fieldPath=".namespaceAffinity.matchExpressions",message="the operator of each of matchExpressions must be In or NotIn with values, or Exists or DoesNotExist without"
// +kubebuilder:validation:XValidation:rule="!has(self.nodeAffinity) || !has(self.nodeAffinity.matchExpressions) || self.nodeAffinity.matchExpressions.all(e, e.operator in ['In', 'NotIn'] ? has(e.values) && e.values.size() > 0 : e.operator in ['Exists', 'DoesNotExist'] && (!has(e.values) || e.values.size() == 0))",fieldPath=".nodeAffinity.matchExpressions",message="the operator of each of matchExpressions must be In or NotIn with values, or Exists or DoesNotExist without"
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
	// +kubebuilder:validation:MaxLength=43
	// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="want a network like 10.6.0.0/16 or fd00:6::/112"
	// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || (cidr(self) == cidr(self).masked() && string(cidr(self)) == self)",message="write the subnet with its first address and in the usual form, like 10.6.0.0/16 and not 10.6.0.1/16, fd00:6::/112 and not FD00:6:0::/112"
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="subnet cannot be changed: create another pool for another subnet"
	Subnet string `json:"subnet"`

	// IPs are the addresses of the pool: single ones (10.6.168.101) and ranges
	// with both ends included (10.6.168.101-10.6.168.110), all in subnet.
	// Without any the pool is empty.
	// +optional
	// +listType=atomic
	IPs Ranges `json:"ips,omitempty"`

	// ExcludeIPs are addresses that no pod gets although ips names them,
	// written like ips.
	// +optional
	// +listType=atomic
	ExcludeIPs Ranges `json:"excludeIPs,omitempty"`

	// Gateway is the address of the subnet's router. With it, pods get a
	// default route, unless their network asks for none. It must be in subnet
	// and not among the addresses for pods.
	// +optional
	// +kubebuilder:validation:MaxLength=39
	Gateway string `json:"gateway,omitempty"`

	// Routes are further routes for the interface, besides the default route
	// through gateway.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
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
	// +kubebuilder:validation:MaxItems=1024
	// +kubebuilder:validation:items:MaxLength=317
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="want the name of a network, as namespace/name or name"
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

// Ranges are addresses as users write them: each item one address, or a range
// with both ends included, START-END.
//
// The schema looks at each item: at most two addresses, of one family, in
// ascending order. Its language cannot compare addresses, so the rules compare
// IPv4 as one number and IPv6 as eight. [ParseRanges] takes the same items and
// refuses the same.
//
// +kubebuilder:validation:MaxItems=2048
// +kubebuilder:validation:items:MaxLength=79
// +kubebuilder:validation:items:XValidation:rule="self.contains('-') ? isIP(self.substring(0, self.indexOf('-'))) && isIP(self.substring(self.indexOf('-') + 1)) : isIP(self)",message="want an address like 10.6.168.101, or a range like 10.6.168.101-10.6.168.110, without blanks and prefix length"
// +kubebuilder:validation:items:XValidation:rule="!self.contains('-') || !isIP(self.substring(0, self.indexOf('-')).lowerAscii()) || !isIP(self.substring(self.indexOf('-') + 1).lowerAscii()) || ip(self.substring(0, self.indexOf('-')).lowerAscii()).family() == ip(self.substring(self.indexOf('-') + 1).lowerAscii()).family()",message="the two ends of the range must both be IPv4 or both be IPv6"
// +kubebuilder:validation:items:XValidation:rule="!self.contains('-') || !isIP(self.substring(0, self.indexOf('-')).lowerAscii()) || !isIP(self.substring(self.indexOf('-') + 1).lowerAscii()) || self.contains(':') || [self.substring(0, self.indexOf('-')).lowerAscii().split('.')].map(o, int(o[0]) * 16777216 + int(o[1]) * 65536 + int(o[2]) * 256 + int(o[3]))[0] <= [self.substring(self.indexOf('-') + 1).lowerAscii().split('.')].map(o, int(o[0]) * 16777216 + int(o[1]) * 65536 + int(o[2]) * 256 + int(o[3]))[0]",message="the range ends before it starts: write the lower address first"
// +kubebuilder:validation:items:XValidation:rule="self.contains('.') || !self.contains('-') || !isIP(self.substring(0, self.indexOf('-')).lowerAscii()) || !isIP(self.substring(self.indexOf('-') + 1).lowerAscii()) || [[(self.substring(0, self.indexOf('-')).lowerAscii().contains('::') ? self.substring(0, self.indexOf('-')).lowerAscii().substring(0, self.substring(0, self.indexOf('-')).lowerAscii().indexOf('::')) : self.substring(0, self.indexOf('-')).lowerAscii()).split(':'), (self.substring(0, self.indexOf('-')).lowerAscii().contains('::') ? self.substring(0, self.indexOf('-')).lowerAscii().substring(self.substring(0, self.indexOf('-')).lowerAscii().indexOf('::') + 2) : self.substring(0, self.indexOf('-')).lowerAscii()).split(':'), (self.substring(self.indexOf('-') + 1).lowerAscii().contains('::') ? self.substring(self.indexOf('-') + 1).lowerAscii().substring(0, self.substring(self.indexOf('-') + 1).lowerAscii().indexOf('::')) : self.substring(self.indexOf('-') + 1).lowerAscii()).split(':'), (self.substring(self.indexOf('-') + 1).lowerAscii().contains('::') ? self.substring(self.indexOf('-') + 1).lowerAscii().substring(self.substring(self.indexOf('-') + 1).lowerAscii().indexOf('::') + 2) : self.substring(self.indexOf('-') + 1).lowerAscii()).split(':')]].all(p, [[0, 1, 2, 3, 4, 5, 6, 7].map(i, [(i < p[0].size() ? p[0][i] : i >= 8 - p[1].size() ? p[1][i - 8 + p[1].size()] : '0'), (i < p[2].size() ? p[2][i] : i >= 8 - p[3].size() ? p[3][i - 8 + p[3].size()] : '0')].map(g, (g.size() > 3 ? '0123456789abcdef'.indexOf(g.charAt(g.size() - 4)) : 0) * 4096 + (g.size() > 2 ? '0123456789abcdef'.indexOf(g.charAt(g.size() - 3)) : 0) * 256 + (g.size() > 1 ? '0123456789abcdef'.indexOf(g.charAt(g.size() - 2)) : 0) * 16 + (g.size() > 0 ? '0123456789abcdef'.indexOf(g.charAt(g.size() - 1)) : 0))).map(d, d[0] - d[1]).filter(d, d != 0)].all(d, d.size() == 0 || d[0] < 0))",message="the range ends before it starts: write the lower address first"
type Ranges []string

// Route is a route of a pod's interface.
type Route struct {
	// Dst is the destination network, such as 10.7.0.0/16.
	// +required
	// +kubebuilder:validation:MaxLength=43
	Dst string `json:"dst"`
	// Gw is the address of the router, such as 10.6.0.2.
	// +required
	// +kubebuilder:validation:MaxLength=39
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
	// is leased by some node, Usable false while the spec makes no sense,
	// Conflicting while it breaks a rule, such as by overlapping another pool.
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
