package v2beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// SpiderReservedIP is a set of addresses that no pod gets from now on,
// whatever pools name them. Pods that have one keep it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=spiderreservedips,singular=spiderreservedip,scope=Cluster,shortName=sr,categories=spiderpool
// +kubebuilder:printcolumn:name="VERSION",type=string,JSONPath=`.spec.ipVersion`,description="The IP version, 4 or 6."
type SpiderReservedIP struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is the reserved addresses.
	// +required
	Spec ReservedIPSpec `json:"spec"`
}

// ReservedIPSpec is addresses of one IP version.
//
// +kubebuilder:validation:XValidation:rule="has(self.ips) && self.ips.size() > 0",fieldPath=".ips",message="ips is empty: name at least one address"
// +kubebuilder:validation:XValidation:rule="!has(self.ips) || self.ips.size() == 0 || !isIP((self.ips[0].contains('-') ? self.ips[0].substring(0, self.ips[0].indexOf('-')) : self.ips[0])) || self.ips.all(r, !isIP((r.contains('-') ? r.substring(0, r.indexOf('-')) : r)) || ip((r.contains('-') ? r.substring(0, r.indexOf('-')) : r)).family() == ip((self.ips[0].contains('-') ? self.ips[0].substring(0, self.ips[0].indexOf('-')) : self.ips[0])).family())",fieldPath=".ips",message="ips has IPv4 and IPv6: create one SpiderReservedIP for each"
// +kubebuilder:validation:XValidation:rule="!has(self.ipVersion) || !has(self.ips) || self.ips.size() == 0 || !isIP((self.ips[0].contains('-') ? self.ips[0].substring(0, self.ips[0].indexOf('-')) : self.ips[0])) || ip((self.ips[0].contains('-') ? self.ips[0].substring(0, self.ips[0].indexOf('-')) : self.ips[0])).family() == self.ipVersion",fieldPath=".ipVersion",message="ipVersion does not match ips: leave ipVersion out, it follows from ips; IPv4 cannot be changed to IPv6"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.ipVersion) || !has(self.ipVersion) || self.ipVersion == oldSelf.ipVersion",fieldPath=".ipVersion",message="ipVersion cannot be changed: create another SpiderReservedIP for the other one"
type ReservedIPSpec struct {
	// IPVersion is the IP version of the addresses, 4 or 6. Leave it out: it
	// follows from ips and is filled in.
	// +optional
	// +kubebuilder:validation:Enum=4;6
	IPVersion *int64 `json:"ipVersion,omitempty"`
	// IPs are the reserved addresses: single ones (10.6.168.101) and ranges
	// with both ends included (10.6.168.101-10.6.168.110), all of one IP
	// version.
	// +optional
	// +listType=atomic
	IPs Ranges `json:"ips,omitempty"`
}

// SpiderReservedIPList is a list of reservations.
//
// +kubebuilder:object:root=true
type SpiderReservedIPList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the reservations.
	Items []SpiderReservedIP `json:"items"`
}
