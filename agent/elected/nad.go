package elected

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/utils"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
)

// The annotations of a SpiderMultusConfig that change what is rendered, and
// the one of a NetworkAttachmentDefinition that tells device plugins.
const (
	annotationNADName      = "multus.spidernet.io/cr-name"
	annotationCNIVersion   = "multus.spidernet.io/cni-version"
	annotationNetworkName  = "cni.spidernet.io/cniconfig-name"
	annotationResourceName = "k8s.v1.cni.cncf.io/resourceName"
	defaultCNIVersion      = "0.3.1"
)

// Definition is what the NetworkAttachmentDefinition of a SpiderMultusConfig
// has to be.
type Definition struct {
	Name        string
	Annotations map[string]string
	// Config is spec.config: a CNI configuration list, or empty for a custom
	// network without customCNI, whose configuration lies on the nodes.
	Config string
}

// Render returns the definition of a SpiderMultusConfig. Errors tell which
// field of it to correct.
func Render(smc *v2beta1.SpiderMultusConfig) (Definition, error) {
	d := Definition{Name: nadName(smc), Annotations: maps.Clone(smc.Annotations)}
	// kubectl would take a copy of this for what somebody applied.
	delete(d.Annotations, corev1.LastAppliedConfigAnnotation)
	if wrong := validation.NameIsDNSSubdomain(d.Name, false); len(wrong) > 0 {
		return Definition{}, fmt.Errorf("annotation %s: %q cannot be the name of a NetworkAttachmentDefinition: use lower-case letters, digits, '-' and '.', like macvlan-ens192", annotationNADName, d.Name)
	}
	if err := oneBlock(&smc.Spec); err != nil {
		return Definition{}, err
	}
	list, err := head(smc, d.Name)
	if err != nil {
		return Definition{}, err
	}
	if isCustom(&smc.Spec) {
		d.Config = smc.Spec.CustomCNI
		if err := checkCustom(d.Config); err != nil {
			return Definition{}, err
		}
		return d, nil
	}
	plugins, resource, err := chain(&smc.Spec)
	if err != nil {
		return Definition{}, err
	}
	if resource != "" {
		if d.Annotations == nil {
			d.Annotations = make(map[string]string)
		}
		d.Annotations[annotationResourceName] = resource
	}
	list.Plugins = plugins
	d.Config, err = compact(list)
	return d, err
}

// head returns a configuration list without plugins, by the annotations. What
// they say is judged for a custom network as well, which does not need it.
func head(smc *v2beta1.SpiderMultusConfig, name string) (configList, error) {
	list := configList{CNIVersion: defaultCNIVersion, Name: name}
	switch version := smc.Annotations[annotationCNIVersion]; version {
	case "":
	case "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0":
		list.CNIVersion = version
	default:
		return configList{}, fmt.Errorf("annotation %s: CNI version %q is not known: use 0.3.0, 0.3.1, 0.4.0, 1.0.0 or 1.1.0", annotationCNIVersion, version)
	}
	if name := smc.Annotations[annotationNetworkName]; name != "" {
		if err := checkNetworkName(name); err != nil {
			return configList{}, fmt.Errorf("annotation %s: %w", annotationNetworkName, err)
		}
		list.Name = name
	}
	return list, nil
}

// checkNetworkName refuses what every plugin would refuse as the name of its
// network (CNI spec, section 1).
func checkNetworkName(name string) error {
	if utils.ValidateNetworkName(name) != nil {
		return fmt.Errorf("%q cannot be the name of a CNI network: begin with a letter or digit, and use letters, digits, '_', '.' and '-'", name)
	}
	return nil
}

// nadName is the name of the NetworkAttachmentDefinition of a
// SpiderMultusConfig.
func nadName(smc *v2beta1.SpiderMultusConfig) string {
	if name := smc.Annotations[annotationNADName]; name != "" {
		return name
	}
	return smc.Name
}

func isCustom(spec *v2beta1.MultusConfigSpec) bool {
	return spec.CNIType == v2beta1.CNITypeCustom || spec.CNIType == ""
}

// checkCustom refuses what Multus could not start any plugin from. The empty
// text stands for a configuration that lies on the nodes.
func checkCustom(config string) error {
	if config == "" {
		return nil
	}
	var conf struct {
		Name    string
		Type    string
		Plugins []struct{ Type string }
	}
	if err := json.Unmarshal([]byte(config), &conf); err != nil {
		return fmt.Errorf("spec.customCNI is not a CNI configuration in JSON: correct it: %w", err)
	}
	if conf.Name != "" { // without, it gets the definition's
		if err := checkNetworkName(conf.Name); err != nil {
			return fmt.Errorf("spec.customCNI: name %w", err)
		}
	}
	if conf.Type == "" && len(conf.Plugins) == 0 {
		return errors.New(`spec.customCNI names no plugin: write a configuration like {"type":"bridge"}, or a list like {"plugins":[{"type":"bridge"}]}`)
	}
	for i, plugin := range conf.Plugins {
		if plugin.Type == "" {
			return fmt.Errorf(`spec.customCNI has no type in plugins[%d]: name the plugin, like {"type":"bridge"}`, i)
		}
	}
	return nil
}

// configList is a CNI network configuration list (CNI spec, section 1). The
// order of fields here and below is the order of keys in the text.
type configList struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
	Plugins    []any  `json:"plugins"`
}

func compact(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", fmt.Errorf("render the CNI configuration: %w", err)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// chain returns the plugins of a network that is not custom, in order:
// what prepares the node's interface, the network's own plugin, rdma, further
// plugins, the coordinator, tuning. It returns as well the device plugin
// resource of the network, if it has one.
func chain(spec *v2beta1.MultusConfigSpec) (plugins []any, resource string, err error) {
	plugins, resource, err = network(spec)
	if err != nil {
		return nil, "", err
	}
	if spec.SRIOV != nil && spec.SRIOV.RdmaIsolation {
		plugins = append(plugins, typed{Type: "rdma"})
	}
	for i, text := range spec.ChainCNIJSONData {
		var conf struct{ Type string }
		if err := json.Unmarshal([]byte(text), &conf); err != nil || conf.Type == "" {
			return nil, "", fmt.Errorf("spec.chainCNIJsonData[%d] is not a JSON object with a type: write the configuration of one plugin, like {\"type\":\"tuning\",\"mtu\":8000}", i)
		}
		plugins = append(plugins, json.RawMessage(text))
	}
	if spec.EnableCoordinator == nil || *spec.EnableCoordinator {
		plugins = append(plugins, coordinator(spec.Coordinator))
	}
	if spec.SRIOV != nil && spec.SRIOV.MTU > 0 {
		plugins = append(plugins, tuning{Type: "tuning", MTU: spec.SRIOV.MTU})
	}
	return plugins, resource, nil
}

type typed struct {
	Type string `json:"type"`
}

type tuning struct {
	Type string `json:"type"`
	MTU  int32  `json:"mtu"`
}

// network returns the network's own plugin behind the one that prepares the
// node's interface for it.
func network(spec *v2beta1.MultusConfigSpec) (plugins []any, resource string, err error) {
	switch spec.CNIType {
	case v2beta1.CNITypeMacvlan:
		plugins, err = macvlan(spec)
	case v2beta1.CNITypeIPvlan:
		plugins, err = ipvlan(spec)
	case v2beta1.CNITypeVlan:
		plugins, err = vlan(spec)
	case v2beta1.CNITypeSRIOV:
		return []any{sriov(spec)}, spec.SRIOV.ResourceName, checkSRIOV(spec.SRIOV)
	case v2beta1.CNITypeIBSRIOV:
		return []any{ibsriov(spec)}, spec.IBSRIOV.ResourceName, checkResource("ibsriov", spec.IBSRIOV.ResourceName)
	case v2beta1.CNITypeIPoIB:
		plugins = []any{ipoibPlugin{Type: "ipoib", Master: spec.IPoIB.Master, IPAM: ipam(spec, spec.IPoIB.IPPools)}}
		err = checkMaster("spec.ipoib.master", spec.IPoIB.Master, "ib0")
	case v2beta1.CNITypeOVS:
		if spec.OVS.DeviceID != "" {
			resource = "ovs-cni.network.kubevirt.io/" + spec.OVS.Bridge
		}
		plugins, err = []any{ovs(spec)}, checkOVS(spec.OVS)
	default:
		err = fmt.Errorf("spec.cniType %q is not known: use macvlan, ipvlan, vlan, sriov, ib-sriov, ipoib, ovs or custom", spec.CNIType)
	}
	return plugins, resource, err
}

// oneBlock refuses a spec without the block of its type or with another one.
func oneBlock(spec *v2beta1.MultusConfigSpec) error {
	for _, b := range []struct {
		name, cniType string
		set           bool
	}{
		{"macvlan", v2beta1.CNITypeMacvlan, spec.Macvlan != nil},
		{"ipvlan", v2beta1.CNITypeIPvlan, spec.IPvlan != nil},
		{"vlan", v2beta1.CNITypeVlan, spec.Vlan != nil},
		{"sriov", v2beta1.CNITypeSRIOV, spec.SRIOV != nil},
		{"ibsriov", v2beta1.CNITypeIBSRIOV, spec.IBSRIOV != nil},
		{"ipoib", v2beta1.CNITypeIPoIB, spec.IPoIB != nil},
		{"ovs", v2beta1.CNITypeOVS, spec.OVS != nil},
		{"customCNI", v2beta1.CNITypeCustom, spec.CustomCNI != ""},
	} {
		switch own := spec.CNIType == b.cniType || isCustom(spec) && b.cniType == v2beta1.CNITypeCustom; {
		case own && !b.set && !isCustom(spec): // a custom network may lie on the nodes
			return fmt.Errorf("spec.%s is missing: a network of type %s needs it", b.name, b.cniType)
		case !own && b.set:
			return fmt.Errorf("spec.%s does not belong to a network of type %s: remove it or change spec.cniType", b.name, cmp.Or(spec.CNIType, v2beta1.CNITypeCustom))
		}
	}
	return nil
}

type ipamConf struct {
	Type              string   `json:"type"`
	DefaultIPv4Pools  []string `json:"default_ipv4_ippool,omitempty"`
	DefaultIPv6Pools  []string `json:"default_ipv6_ippool,omitempty"`
	MatchMasterSubnet bool     `json:"match_master_subnet,omitempty"`
}

// ipam returns nil, and with it no key, when the network has no addresses.
func ipam(spec *v2beta1.MultusConfigSpec, pools *v2beta1.NetworkPools) *ipamConf {
	if spec.DisableIPAM {
		return nil
	}
	conf := &ipamConf{Type: "spiderpool"}
	if pools != nil {
		conf.DefaultIPv4Pools, conf.DefaultIPv6Pools = pools.IPv4, pools.IPv6
		conf.MatchMasterSubnet = pools.MatchMasterSubnet && (spec.CNIType == v2beta1.CNITypeSRIOV || spec.CNIType == v2beta1.CNITypeIBSRIOV)
	}
	return conf
}

type coordinatorConf struct {
	TxQueueLen         int64                 `json:"txQueueLen"`
	TunePodRoutes      bool                  `json:"tunePodRoutes"`
	PodDefaultRouteNIC string                `json:"podDefaultRouteNic,omitempty"`
	PodMACPrefix       string                `json:"podMACPrefix,omitempty"`
	HijackCIDR         []string              `json:"hijackCIDR,omitempty"`
	PolicyRoutes       []v2beta1.PolicyRoute `json:"policyRoutes,omitempty"`
	PodRPFilter        *int64                `json:"podRPFilter,omitempty"`
	VethLinkAddress    string                `json:"vethLinkAddress,omitempty"`
	VethMTU            *int64                `json:"vethMTU,omitempty"`
	Mode               string                `json:"mode"`
	Type               string                `json:"type"`
}

// coordinator renders what is said of this network alone; the rest the
// coordinator plugin takes from the SpiderCoordinator. hostRuleTable is one
// for the node and therefore always taken from there. podRPFilter is 0 where
// nobody wrote it: that is taken from there too, unless podCIDRType says that
// the network has settings of its own.
func coordinator(spec *v2beta1.CoordinatorSpec) coordinatorConf {
	conf := coordinatorConf{TunePodRoutes: true, Mode: "auto", Type: "coordinator"}
	if spec == nil {
		return conf
	}
	if spec.Mode != "" {
		conf.Mode = spec.Mode
	}
	if spec.TxQueueLen != nil {
		conf.TxQueueLen = *spec.TxQueueLen
	}
	if spec.TunePodRoutes != nil {
		conf.TunePodRoutes = *spec.TunePodRoutes
	}
	if filter := spec.PodRPFilter; spec.PodCIDRType != "" || filter != nil && *filter != 0 {
		conf.PodRPFilter = spec.PodRPFilter
	}
	conf.PodDefaultRouteNIC = spec.PodDefaultRouteNIC
	conf.PodMACPrefix = spec.PodMACPrefix
	conf.HijackCIDR = networks(spec.HijackCIDR)
	conf.PolicyRoutes = spec.PolicyRoutes
	conf.VethLinkAddress = spec.VethLinkAddress
	conf.VethMTU = spec.VethMTU
	return conf
}

// networks returns addresses among networks as networks of one address.
func networks(texts []string) []string {
	var all []string
	for _, text := range texts {
		if addr, err := netip.ParseAddr(text); err == nil {
			text = netip.PrefixFrom(addr, addr.BitLen()).String()
		}
		all = append(all, text)
	}
	return all
}

type ifacerPlugin struct {
	VlanID     int32     `json:"vlanID,omitempty"`
	Type       string    `json:"type"`
	Interfaces []string  `json:"interfaces"`
	Bond       *bondConf `json:"bond,omitempty"`
}

type bondConf struct {
	Name    string `json:"name"`
	Mode    int32  `json:"mode"`
	Options string `json:"options"`
}

// onNode returns the plugin that makes the bond, and the VLAN interface if
// vlanID is not 0, on the node, and the name of what it makes. A network on
// one interface without a VLAN needs none.
func onNode(block string, sub *v2beta1.SubInterface, vlanID int32) (plugins []any, master string, err error) {
	if err := checkSubInterface(block, sub); err != nil {
		return nil, "", err
	}
	p := ifacerPlugin{VlanID: vlanID, Type: "ifacer", Interfaces: sub.Master}
	master = sub.Master[0]
	if len(sub.Master) > 1 {
		p.Bond = &bondConf{Name: sub.Bond.Name, Mode: sub.Bond.Mode, Options: sub.Bond.Options}
		master = sub.Bond.Name
	}
	if vlanID == 0 && p.Bond == nil {
		return nil, master, nil
	}
	if vlanID > 0 {
		master = fmt.Sprintf("%s.%d", master, vlanID)
	}
	return []any{p}, master, checkOnNode(block, p)
}

func valueOf(id *int32) int32 {
	if id == nil {
		return 0
	}
	return *id
}

type macvlanPlugin struct {
	Type   string    `json:"type"`
	Master string    `json:"master"`
	Mode   string    `json:"mode,omitempty"`
	MTU    int32     `json:"mtu"`
	IPAM   *ipamConf `json:"ipam,omitempty"`
}

func macvlan(spec *v2beta1.MultusConfigSpec) ([]any, error) {
	plugins, master, err := onNode("macvlan", spec.Macvlan, valueOf(spec.Macvlan.VlanID))
	return append(plugins, macvlanPlugin{
		Type: "macvlan", Master: master, Mode: "bridge", MTU: spec.Macvlan.MTU, IPAM: ipam(spec, spec.Macvlan.IPPools),
	}), err
}

func ipvlan(spec *v2beta1.MultusConfigSpec) ([]any, error) {
	plugins, master, err := onNode("ipvlan", spec.IPvlan, valueOf(spec.IPvlan.VlanID))
	return append(plugins, macvlanPlugin{
		Type: "ipvlan", Master: master, MTU: spec.IPvlan.MTU, IPAM: ipam(spec, spec.IPvlan.IPPools),
	}), err
}

type vlanPlugin struct {
	Type     string    `json:"type"`
	Master   string    `json:"master"`
	VlanMode string    `json:"vlanMode"`
	VlanID   *int32    `json:"vlanId,omitempty"`
	MTU      int32     `json:"mtu"`
	IPAM     *ipamConf `json:"ipam,omitempty"`
}

// vlan leaves the VLAN to the network's own plugin and has only a bond made.
func vlan(spec *v2beta1.MultusConfigSpec) ([]any, error) {
	plugins, master, err := onNode("vlan", &spec.Vlan.SubInterface, 0)
	p := vlanPlugin{
		Type: "vlan", Master: master, VlanMode: spec.Vlan.VlanMode, MTU: spec.Vlan.MTU, IPAM: ipam(spec, spec.Vlan.IPPools),
	}
	if p.VlanMode != "auto" {
		id := valueOf(spec.Vlan.VlanID)
		p.VlanMode, p.VlanID = "manual", &id
	}
	return append(plugins, p), err
}

type sriovPlugin struct {
	Vlan      int32     `json:"vlan"`
	MinTxRate int32     `json:"min_tx_rate"`
	MaxTxRate int32     `json:"max_tx_rate"`
	Type      string    `json:"type"`
	IPAM      *ipamConf `json:"ipam,omitempty"`
}

func sriov(spec *v2beta1.MultusConfigSpec) sriovPlugin {
	return sriovPlugin{
		Vlan: valueOf(spec.SRIOV.VlanID), MinTxRate: spec.SRIOV.MinTxRateMbps, MaxTxRate: spec.SRIOV.MaxTxRateMbps,
		Type: "sriov", IPAM: ipam(spec, spec.SRIOV.IPPools),
	}
}

type ibsriovPlugin struct {
	Type          string    `json:"type"`
	Pkey          string    `json:"pkey"`
	LinkState     string    `json:"link_state"`
	RdmaIsolation bool      `json:"rdmaIsolation"`
	IBKubernetes  bool      `json:"ibKubernetesEnabled"`
	IPAM          *ipamConf `json:"ipam,omitempty"`
}

func ibsriov(spec *v2beta1.MultusConfigSpec) ibsriovPlugin {
	p := ibsriovPlugin{
		Type: "ib-sriov", Pkey: spec.IBSRIOV.Pkey, LinkState: spec.IBSRIOV.LinkState, RdmaIsolation: true,
		IBKubernetes: spec.IBSRIOV.EnableIbKubernetes, IPAM: ipam(spec, spec.IBSRIOV.IPPools),
	}
	if p.LinkState == "" {
		p.LinkState = "enable"
	}
	if isolate := spec.IBSRIOV.RdmaIsolation; isolate != nil {
		p.RdmaIsolation = *isolate
	}
	return p
}

type ipoibPlugin struct {
	Type   string    `json:"type"`
	Master string    `json:"master"`
	IPAM   *ipamConf `json:"ipam,omitempty"`
}

type ovsPlugin struct {
	Vlan     int32               `json:"vlan"`
	Type     string              `json:"type"`
	Bridge   string              `json:"bridge"`
	DeviceID string              `json:"deviceID,omitempty"`
	IPAM     *ipamConf           `json:"ipam,omitempty"`
	Trunk    []v2beta1.VLANRange `json:"trunk,omitempty"`
}

func ovs(spec *v2beta1.MultusConfigSpec) ovsPlugin {
	return ovsPlugin{
		Vlan: valueOf(spec.OVS.Vlan), Type: "ovs", Bridge: spec.OVS.Bridge, DeviceID: spec.OVS.DeviceID,
		IPAM: ipam(spec, spec.OVS.IPPools), Trunk: spec.OVS.Trunk,
	}
}
