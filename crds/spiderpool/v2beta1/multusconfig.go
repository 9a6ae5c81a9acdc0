package v2beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// The types of network a SpiderMultusConfig can describe.
const (
	CNITypeMacvlan = "macvlan"  // block macvlan
	CNITypeIPvlan  = "ipvlan"   // block ipvlan
	CNITypeVlan    = "vlan"     // block vlan
	CNITypeSRIOV   = "sriov"    // block sriov
	CNITypeOVS     = "ovs"      // block ovs
	CNITypeIBSRIOV = "ib-sriov" // block ibsriov
	CNITypeIPoIB   = "ipoib"    // block ipoib
	CNITypeCustom  = "custom"   // field customCNI
)

// SpiderMultusConfig describes a network for Multus. From each a
// NetworkAttachmentDefinition of the same namespace and name is made.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=spidermultusconfigs,singular=spidermultusconfig,scope=Namespaced,shortName=smc,categories=spiderpool
type SpiderMultusConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is the network.
	// +optional
	// +kubebuilder:default={cniType: custom}
	Spec MultusConfigSpec `json:"spec,omitempty"`
}

// MultusConfigSpec is a network: its type, the block of that type, and what
// comes before and after the type's own plugin.
//
// +kubebuilder:validation:XValidation:rule="self.cniType != 'macvlan' || has(self.macvlan)",fieldPath=".macvlan",message="cniType is macvlan, but the block macvlan is missing: add it or correct cniType"
// +kubebuilder:validation:XValidation:rule="self.cniType == 'macvlan' || !has(self.macvlan)",fieldPath=".macvlan",message="the block macvlan is for cniType macvlan only: remove it or correct cniType"
// +kubebuilder:validation:XValidation:rule="self.cniType != 'ipvlan' || has(self.ipvlan)",fieldPath=".ipvlan",message="cniType is ipvlan, but the block ipvlan is missing: add it or correct cniType"
// +kubebuilder:validation:XValidation:rule="self.cniType == 'ipvlan' || !has(self.ipvlan)",fieldPath=".ipvlan",message="the block ipvlan is for cniType ipvlan only: remove it or correct cniType"
// +kubebuilder:validation:XValidation:rule="self.cniType != 'vlan' || has(self.vlan)",fieldPath=".vlan",message="cniType is vlan, but the block vlan is missing: add it or correct cniType"
// +kubebuilder:validation:XValidation:rule="self.cniType == 'vlan' || !has(self.vlan)",fieldPath=".vlan",message="the block vlan is for cniType vlan only: remove it or correct cniType"
// +kubebuilder:validation:XValidation:rule="self.cniType != 'sriov' || has(self.sriov)",fieldPath=".sriov",message="cniType is sriov, but the block sriov is missing: add it or correct cniType"
// +kubebuilder:validation:XValidation:rule="self.cniType == 'sriov' || !has(self.sriov)",fieldPath=".sriov",message="the block sriov is for cniType sriov only: remove it or correct cniType"
// +kubebuilder:validation:XValidation:rule="self.cniType != 'ovs' || has(self.ovs)",fieldPath=".ovs",message="cniType is ovs, but the block ovs is missing: add it or correct cniType"
// +kubebuilder:validation:XValidation:rule="self.cniType == 'ovs' || !has(self.ovs)",fieldPath=".ovs",message="the block ovs is for cniType ovs only: remove it or correct cniType"
// +kubebuilder:validation:XValidation:rule="self.cniType != 'ib-sriov' || has(self.ibsriov)",fieldPath=".ibsriov",message="cniType is ib-sriov, but the block ibsriov is missing: add it or correct cniType"
// +kubebuilder:validation:XValidation:rule="self.cniType == 'ib-sriov' || !has(self.ibsriov)",fieldPath=".ibsriov",message="the block ibsriov is for cniType ib-sriov only: remove it or correct cniType"
// +kubebuilder:validation:XValidation:rule="self.cniType != 'ipoib' || has(self.ipoib)",fieldPath=".ipoib",message="cniType is ipoib, but the block ipoib is missing: add it or correct cniType"
// +kubebuilder:validation:XValidation:rule="self.cniType == 'ipoib' || !has(self.ipoib)",fieldPath=".ipoib",message="the block ipoib is for cniType ipoib only: remove it or correct cniType"
// +kubebuilder:validation:XValidation:rule="self.cniType == 'custom' || !has(self.customCNI) || self.customCNI.size() == 0",fieldPath=".customCNI",message="customCNI is for cniType custom only: remove it or correct cniType"
// +kubebuilder:validation:XValidation:rule="!has(self.customCNI) || self.customCNI.trim().size() == 0 || (self.customCNI.trim().startsWith('{') && self.customCNI.trim().endsWith('}'))",fieldPath=".customCNI",message="customCNI must be a CNI configuration, a JSON object as text"
// +kubebuilder:validation:XValidation:rule="!has(self.macvlan) || !has(self.macvlan.ippools) || !has(self.macvlan.ippools.matchMasterSubnet) || !self.macvlan.ippools.matchMasterSubnet",fieldPath=".macvlan.ippools.matchMasterSubnet",message="only sriov and ib-sriov can match the subnet of the master: remove matchMasterSubnet"
// +kubebuilder:validation:XValidation:rule="!has(self.ipvlan) || !has(self.ipvlan.ippools) || !has(self.ipvlan.ippools.matchMasterSubnet) || !self.ipvlan.ippools.matchMasterSubnet",fieldPath=".ipvlan.ippools.matchMasterSubnet",message="only sriov and ib-sriov can match the subnet of the master: remove matchMasterSubnet"
// +kubebuilder:validation:XValidation:rule="!has(self.vlan) || !has(self.vlan.ippools) || !has(self.vlan.ippools.matchMasterSubnet) || !self.vlan.ippools.matchMasterSubnet",fieldPath=".vlan.ippools.matchMasterSubnet",message="only sriov and ib-sriov can match the subnet of the master: remove matchMasterSubnet"
// +kubebuilder:validation:XValidation:rule="!has(self.ipoib) || !has(self.ipoib.ippools) || !has(self.ipoib.ippools.matchMasterSubnet) || !self.ipoib.ippools.matchMasterSubnet",fieldPath=".ipoib.ippools.matchMasterSubnet",message="only sriov and ib-sriov can match the subnet of the master: remove matchMasterSubnet"
// +kubebuilder:validation:XValidation:rule="!has(self.ovs) || !has(self.ovs.ippools) || !has(self.ovs.ippools.matchMasterSubnet) || !self.ovs.ippools.matchMasterSubnet",fieldPath=".ovs.ippools.matchMasterSubnet",message="only sriov and ib-sriov can match the subnet of the master: remove matchMasterSubnet"
type MultusConfigSpec struct {
	// CNIType is the type of the network. The block of the same name must be
	// there (ibsriov for ib-sriov) and no other.
	// +optional
	// +kubebuilder:validation:Enum=macvlan;ipvlan;vlan;sriov;ovs;ib-sriov;ipoib;custom
	// +kubebuilder:default=custom
	CNIType string `json:"cniType,omitempty"`

	// Macvlan is a network of macvlan interfaces.
	// +optional
	Macvlan *SubInterface `json:"macvlan,omitempty"`
	// IPvlan is a network of ipvlan interfaces.
	// +optional
	IPvlan *SubInterface `json:"ipvlan,omitempty"`
	// Vlan is a network of VLAN interfaces.
	// +optional
	Vlan *VlanNetwork `json:"vlan,omitempty"`
	// SRIOV is a network of SR-IOV virtual functions.
	// +optional
	SRIOV *SRIOVNetwork `json:"sriov,omitempty"`
	// IBSRIOV is a network of InfiniBand SR-IOV virtual functions.
	// +optional
	IBSRIOV *IBSRIOVNetwork `json:"ibsriov,omitempty"`
	// IPoIB is a network of IP over InfiniBand interfaces.
	// +optional
	IPoIB *IPoIBNetwork `json:"ipoib,omitempty"`
	// OVS is a network of Open vSwitch ports.
	// +optional
	OVS *OVSNetwork `json:"ovs,omitempty"`

	// EnableCoordinator puts the coordinator plugin behind the network's own.
	// It counts as false for the type custom.
	// +optional
	// +kubebuilder:default=true
	EnableCoordinator *bool `json:"enableCoordinator,omitempty"`

	// DisableIPAM gives the network's interfaces no addresses. For the type
	// custom, customCNI alone says whether they have any.
	// +optional
	// +kubebuilder:default=false
	DisableIPAM bool `json:"disableIPAM,omitempty"`

	// Coordinator is the coordinator's settings for this network. What is left
	// out is taken from the SpiderCoordinator.
	// +optional
	Coordinator *CoordinatorSpec `json:"coordinator,omitempty"`

	// ChainCNIJSONData are further plugins at the end of the chain, each a
	// JSON object as text, such as {"type":"tuning","mtu":8000}. For the type
	// custom they are left out: write them into customCNI.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=16384
	// +kubebuilder:validation:items:XValidation:rule="self.trim().startsWith('{') && self.trim().endsWith('}')",message="want the configuration of one CNI plugin, a JSON object as text"
	ChainCNIJSONData []string `json:"chainCNIJsonData,omitempty"`

	// CustomCNI is the whole CNI configuration of a network of type
	// custom, a JSON object as text.
	// +optional
	// +kubebuilder:validation:MaxLength=65536
	CustomCNI string `json:"customCNI,omitempty"`
}

// SubInterface is a network of interfaces below which lies one of the node's.
//
// +kubebuilder:validation:XValidation:rule="self.master.size() > 0",fieldPath=".master",message="master is empty: name an interface of the nodes, like ens192"
// +kubebuilder:validation:XValidation:rule="self.master.size() < 2 || has(self.bond)",fieldPath=".bond",message="several masters need a bond: say with name and mode how they are bonded"
type SubInterface struct {
	// Master is the node's interface below the pods' ones, such as ens192.
	// Several are bonded; bond then says how.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=15
	Master []string `json:"master"`
	// MTU is the MTU in bytes, 0 for that of master.
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	MTU int32 `json:"mtu,omitempty"`
	// VlanID puts the pods into this VLAN of master, 0 into none.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4094
	VlanID *int32 `json:"vlanID,omitempty"`
	// Bond is how several masters are bonded.
	// +optional
	Bond *Bond `json:"bond,omitempty"`
	// RdmaResourceName is the resource of an RDMA device plugin that pods of
	// the network ask for by themselves: nothing adds it to them.
	// +optional
	RdmaResourceName string `json:"rdmaResourceName,omitempty"`
	// IPPools are the pools of pods that name none.
	// +optional
	IPPools *NetworkPools `json:"ippools,omitempty"`
}

// VlanNetwork is a network of VLAN interfaces.
//
// +kubebuilder:validation:XValidation:rule="self.vlanMode != 'auto' || !has(self.vlanID)",fieldPath=".vlanID",message="vlanID is for vlanMode manual: remove it, or set vlanMode to manual"
type VlanNetwork struct {
	SubInterface `json:",inline"`

	// VlanMode is manual for the one VLAN of vlanID. With auto the plugin is
	// given none, vlanID must be left out, and nothing here supplies one: it is
	// for plugins that get it from elsewhere.
	// +optional
	// +kubebuilder:validation:Enum=manual;auto
	// +kubebuilder:default=manual
	VlanMode string `json:"vlanMode,omitempty"`
}

// SRIOVNetwork is a network of SR-IOV virtual functions.
//
// +kubebuilder:validation:XValidation:rule="!has(self.minTxRateMbps) || !has(self.maxTxRateMbps) || self.maxTxRateMbps == 0 || self.minTxRateMbps <= self.maxTxRateMbps",fieldPath=".minTxRateMbps",message="minTxRateMbps is above maxTxRateMbps: lower it"
type SRIOVNetwork struct {
	// ResourceName is the resource of the SR-IOV device plugin that has the
	// virtual functions.
	// +required
	// +kubebuilder:validation:MinLength=1
	ResourceName string `json:"resourceName"`
	// VlanID puts the pods into this VLAN, 0 into none.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4094
	VlanID *int32 `json:"vlanID,omitempty"`
	// MTU is the MTU in bytes, 0 to leave it alone.
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	MTU int32 `json:"mtu,omitempty"`
	// MinTxRateMbps is the lower bound of the transmit rate in Mbit/s, 0 for
	// none.
	// +optional
	// +kubebuilder:validation:Minimum=0
	MinTxRateMbps int32 `json:"minTxRateMbps,omitempty"`
	// MaxTxRateMbps is the upper bound of the transmit rate in Mbit/s, 0 for
	// none.
	// +optional
	// +kubebuilder:validation:Minimum=0
	MaxTxRateMbps int32 `json:"maxTxRateMbps,omitempty"`
	// RdmaIsolation moves the function's RDMA device into the pod.
	// +optional
	// +kubebuilder:default=false
	RdmaIsolation bool `json:"rdmaIsolation,omitempty"`
	// IPPools are the pools of pods that name none.
	// +optional
	IPPools *NetworkPools `json:"ippools,omitempty"`
}

// IBSRIOVNetwork is a network of InfiniBand SR-IOV virtual functions.
type IBSRIOVNetwork struct {
	// ResourceName is the resource of the SR-IOV device plugin that has the
	// virtual functions.
	// +required
	// +kubebuilder:validation:MinLength=1
	ResourceName string `json:"resourceName"`
	// Pkey is the InfiniBand partition key, such as 0x8001.
	// +optional
	Pkey string `json:"pkey,omitempty"`
	// LinkState is the link state of the virtual function.
	// +optional
	// +kubebuilder:validation:Enum=auto;enable;disable
	// +kubebuilder:default=enable
	LinkState string `json:"linkState,omitempty"`
	// RdmaIsolation moves the function's RDMA device into the pod.
	// +optional
	// +kubebuilder:default=true
	RdmaIsolation *bool `json:"rdmaIsolation,omitempty"`
	// EnableIbKubernetes leaves the GUID to ib-kubernetes.
	// +optional
	// +kubebuilder:default=false
	EnableIbKubernetes bool `json:"enableIbKubernetes,omitempty"`
	// IPPools are the pools of pods that name none.
	// +optional
	IPPools *NetworkPools `json:"ippools,omitempty"`
}

// IPoIBNetwork is a network of IP over InfiniBand interfaces.
type IPoIBNetwork struct {
	// Master is the node's InfiniBand interface below the pods' ones.
	// +required
	// +kubebuilder:validation:MinLength=1
	Master string `json:"master"`
	// IPPools are the pools of pods that name none.
	// +optional
	IPPools *NetworkPools `json:"ippools,omitempty"`
}

// OVSNetwork is a network of Open vSwitch ports.
type OVSNetwork struct {
	// Bridge is the node's Open vSwitch bridge.
	// +required
	// +kubebuilder:validation:MinLength=1
	Bridge string `json:"bridge"`
	// Vlan puts the pods into this VLAN.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4094
	Vlan *int32 `json:"vlan,omitempty"`
	// Trunk are the VLANs that the pods' ports carry tagged.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Trunk []VLANRange `json:"trunk,omitempty"`
	// DeviceID is the PCI address of the device of an offloaded port.
	// +optional
	DeviceID string `json:"deviceID,omitempty"`
	// IPPools are the pools of pods that name none.
	// +optional
	IPPools *NetworkPools `json:"ippools,omitempty"`
}

// VLANRange is one VLAN (id) or a range of them (minID to maxID).
//
// +kubebuilder:validation:XValidation:rule="has(self.id) || has(self.minID)",message="an element of trunk is empty: give it an id, or a minID and a maxID"
// +kubebuilder:validation:XValidation:rule="has(self.minID) == has(self.maxID)",message="minID and maxID go together: set both or none"
// +kubebuilder:validation:XValidation:rule="!has(self.minID) || !has(self.maxID) || self.minID <= self.maxID",fieldPath=".minID",message="minID is above maxID: lower it"
type VLANRange struct {
	// MinID is the first VLAN of a range.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4094
	MinID *int64 `json:"minID,omitempty"`
	// MaxID is the last VLAN of a range.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4094
	MaxID *int64 `json:"maxID,omitempty"`
	// ID is a single VLAN.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4094
	ID *int64 `json:"id,omitempty"`
}

// Bond is how several of a node's interfaces are bonded.
type Bond struct {
	// Name is the name of the bond interface, such as bond0.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=15
	Name string `json:"name"`
	// Mode is the bonding mode of the Linux bonding driver.
	// +required
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=6
	Mode int32 `json:"mode"`
	// Options are further options of the bonding driver, as in
	// "primary=ens192;miimon=100".
	// +optional
	Options string `json:"options,omitempty"`
}

// NetworkPools are the pools of a network's pods that name none and whose
// namespace names none.
type NetworkPools struct {
	// IPv4 are names of IPv4 pools, the first to be used first. They may
	// have wildcards (*, ?, [a-z]).
	// +optional
	// +listType=atomic
	IPv4 []string `json:"ipv4,omitempty"`
	// IPv6 are names of IPv6 pools, written like ipv4.
	// +optional
	// +listType=atomic
	IPv6 []string `json:"ipv6,omitempty"`
	// MatchMasterSubnet takes only pools in whose subnet the interface of the
	// card, the virtual function's physical one, has an address. Only sriov
	// and ib-sriov can do that.
	// +optional
	// +kubebuilder:default=false
	MatchMasterSubnet bool `json:"matchMasterSubnet,omitempty"`
}

// SpiderMultusConfigList is a list of networks.
//
// +kubebuilder:object:root=true
type SpiderMultusConfigList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the networks.
	Items []SpiderMultusConfig `json:"items"`
}
