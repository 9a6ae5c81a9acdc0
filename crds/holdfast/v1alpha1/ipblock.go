package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// LesseeLabelPrefix, followed by the UID of a node, is the label that a block
// carries for each node with a lease in it, so that an agent can watch its own
// blocks alone. The value is empty.
const LesseeLabelPrefix = "lessee.holdfast.dev/"

// IPBlock tells which node may hand out which of sixteen adjacent addresses,
// and which of them are held for a StatefulSet's pod. It is named from its
// address and belongs to no pool: pools that overlap meet in it. Agents write
// it; nobody else should.
//
// +kubebuilder:validation:XValidation:rule="self.spec.cidr.contains(':') ? self.metadata.name.matches('^([0-9a-f]{4}-){8}124$') && cidr(self.metadata.name.substring(0, 39).replace('-', ':') + '/124') == cidr(self.spec.cidr) : self.metadata.name == self.spec.cidr.replace('/', '-')",fieldPath=".spec.cidr",message="the name must be the cidr, as in 10.6.168.96-28; an IPv6 address with all its digits"
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=ipblocks,singular=ipblock,scope=Cluster,shortName=ipb,categories=holdfast
// +kubebuilder:printcolumn:name="FREE",type=integer,JSONPath=`.spec.summary.free`,description="How many addresses no node has and nothing holds."
// +kubebuilder:printcolumn:name="LEASES",type=string,JSONPath=`.spec.summary.leases`,description="The last part of each address that a node has."
// +kubebuilder:printcolumn:name="PINS",type=string,JSONPath=`.spec.summary.pins`,description="The last part of each address held for a StatefulSet's pod."
// +kubebuilder:printcolumn:name="CIDR",type=string,JSONPath=`.spec.cidr`,priority=10,description="The block's addresses."
// +kubebuilder:printcolumn:name="AGE",type=date,JSONPath=`.metadata.creationTimestamp`,priority=10
type IPBlock struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is the state of the block.
	// +required
	Spec IPBlockSpec `json:"spec"`
}

// IPBlockSpec is the state of a block. It is not split into spec and status,
// because a guarded update must cover all of it.
//
// The rules repeat what package lease holds to, so that no writer, whatever its
// version and whoever it is, gives an address to two nodes.
//
// +kubebuilder:validation:XValidation:rule="!has(self.leases) || self.leases.all(l, l.addresses.all(r, [(r.contains('-') ? r.substring(0, r.indexOf('-')) : r), (r.contains('-') ? r.substring(r.indexOf('-') + 1) : r)].all(a, isIP(a) && cidr(self.cidr).containsIP(a) && ip.isCanonical(a))))",fieldPath=".leases",message="an address of a lease is not in cidr or not in its usual form"
// +kubebuilder:validation:XValidation:rule="!has(self.leases) || [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15].all(o, self.leases.filter(l, l.addresses.exists(r, ((r.contains('-') ? r.substring(0, r.indexOf('-')) : r).contains('.') ? int((r.contains('-') ? r.substring(0, r.indexOf('-')) : r).substring((r.contains('-') ? r.substring(0, r.indexOf('-')) : r).lastIndexOf('.') + 1)) % 16 : ':123456789abcdef'.indexOf((r.contains('-') ? r.substring(0, r.indexOf('-')) : r).substring((r.contains('-') ? r.substring(0, r.indexOf('-')) : r).size() - 1).replace('0', ':'))) <= o && o <= ((r.contains('-') ? r.substring(r.indexOf('-') + 1) : r).contains('.') ? int((r.contains('-') ? r.substring(r.indexOf('-') + 1) : r).substring((r.contains('-') ? r.substring(r.indexOf('-') + 1) : r).lastIndexOf('.') + 1)) % 16 : ':123456789abcdef'.indexOf((r.contains('-') ? r.substring(r.indexOf('-') + 1) : r).substring((r.contains('-') ? r.substring(r.indexOf('-') + 1) : r).size() - 1).replace('0', ':'))))).size() <= 1)",fieldPath=".leases",message="an address is in the leases of two nodes"
// +kubebuilder:validation:XValidation:rule="!has(self.pins) || self.pins.all(p, isIP(p.address) && cidr(self.cidr).containsIP(p.address) && ip.isCanonical(p.address))",fieldPath=".pins",message="the address of a pin is not in cidr or not in its usual form"
type IPBlockSpec struct {
	// CIDR is the block's addresses, an aligned IPv4 /28 or IPv6 /124. It does
	// not change and agrees with the name.
	// +required
	// +kubebuilder:validation:MaxLength=43
	// +kubebuilder:validation:XValidation:rule="isCIDR(self) && cidr(self) == cidr(self).masked() && string(cidr(self)) == self && cidr(self).prefixLength() == (cidr(self).ip().family() == 4 ? 28 : 124)",message="want an aligned IPv4 /28 or IPv6 /124, like 10.6.168.96/28"
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="cidr cannot be changed"
	CIDR string `json:"cidr"`

	// Leases are the nodes' rights to hand out addresses of the block. No
	// address is in two of them.
	// +optional
	// +listType=map
	// +listMapKey=nodeUID
	// +kubebuilder:validation:MaxItems=16
	Leases []Lease `json:"leases,omitempty"`

	// Pins are the addresses held for a StatefulSet's pod, whether it runs or
	// not.
	// +optional
	// +listType=map
	// +listMapKey=address
	// +kubebuilder:validation:MaxItems=16
	Pins []Pin `json:"pins,omitempty"`

	// Summary is the same for people to read at a glance. Agents write it
	// along and never read it.
	// +optional
	Summary Summary `json:"summary,omitempty"`
}

// Lease is the right of one node to hand out certain addresses.
type Lease struct {
	// Node is the name of the node, for people.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node"`
	// NodeUID is the UID of the Node object. It decides: a node that was
	// created again under its old name is another.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	NodeUID string `json:"nodeUID"`
	// Addresses are single addresses (10.6.168.101) and ranges with both ends
	// included (10.6.168.101-10.6.168.104).
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=79
	Addresses []string `json:"addresses"`
}

// Pin holds one address for one interface of one StatefulSet's pod.
type Pin struct {
	// Address is the address that is held.
	// +required
	// +kubebuilder:validation:MaxLength=39
	Address string `json:"address"`
	// Pod is the pod it is held for, as namespace/name.
	// +required
	// +kubebuilder:validation:MaxLength=317
	Pod string `json:"pod"`
	// Interface is the interface of the pod, such as eth0.
	// +required
	// +kubebuilder:validation:MaxLength=15
	Interface string `json:"interface"`
	// Kind is VirtualMachineInstance where the address is held for a virtual
	// machine and pod is its name, and empty for a StatefulSet's pod.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind,omitempty"`
	// Releasing is the first of two steps that remove the pin: the pod seems
	// unwanted and is looked up once more before the pin goes.
	// +optional
	Releasing bool `json:"releasing,omitempty"`
}

// Summary is a block for people. Addresses are shortened to their last part.
type Summary struct {
	// Free is the number of addresses that no node leases and no pin holds.
	// +required
	Free int32 `json:"free"`
	// Leases is each node with its addresses: "worker-1:101-104 worker-2:105".
	// +optional
	Leases string `json:"leases,omitempty"`
	// Pins is each pod with its address: "101=default/test-sts-0".
	// +optional
	Pins string `json:"pins,omitempty"`
}

// IPBlockList is a list of blocks.
//
// +kubebuilder:object:root=true
type IPBlockList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the blocks.
	Items []IPBlock `json:"items"`
}
