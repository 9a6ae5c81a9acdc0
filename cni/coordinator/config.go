package coordinator

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"

	"github.com/holdfast-ipam/holdfast/cni"
)

// config is the network configuration of the plugin. What it leaves out, the
// agent tells for the cluster (cni.Coordination). The keys logOptions,
// multusNicPrefix and hostRPFilter are accepted whatever they hold, and
// ignored: what goes wrong stands in the pod's event, and reverse path filters
// of the node are not for a pod to change.
type config struct {
	types.PluginConf
	// Mode is auto, underlay, overlay or disabled.
	Mode          string `json:"mode"`
	TunePodRoutes *bool  `json:"tunePodRoutes"`
	// PodDefaultRouteNIC is the interface that is to have the default route.
	PodDefaultRouteNIC string `json:"podDefaultRouteNic"`
	// PodDefaultCniNIC is the pod's first interface; empty means eth0.
	PodDefaultCniNIC string `json:"podDefaultCniNic"`
	PodMACPrefix     string `json:"podMACPrefix"`
	// A list that is not there is the agent's to tell; an empty one is empty.
	OverlayPodCIDR *[]string      `json:"overlayPodCIDR"`
	ServiceCIDR    *[]string      `json:"serviceCIDR"`
	HijackCIDR     *[]string      `json:"hijackCIDR"`
	PolicyRoutes   *[]policyRoute `json:"policyRoutes"`
	HostRuleTable  *int64         `json:"hostRuleTable"`
	PodRPFilter    *int64         `json:"podRPFilter"`
	// TxQueueLen 0 is the same as none.
	TxQueueLen      int64  `json:"txQueueLen"`
	VethLinkAddress string `json:"vethLinkAddress"`
	// VethMTU 0 is the same as none.
	VethMTU int64 `json:"vethMTU"`
	// Socket is where the agent listens; empty means cni.DefaultSocket.
	// Spiderpool's plugin has no such key.
	Socket string `json:"ipam_unix_socket_path"`

	ValidAttachments *[]types.GCAttachment `json:"cni.dev/valid-attachments"`
}

type policyRoute struct {
	Destination string `json:"dst"`
	Gateway     string `json:"gw"`
}

// routeAnnotation is with which a pod names the interface that is to have its
// default route. The agent reads it; here it is for messages.
const routeAnnotation = "ipam.spidernet.io/default-route-nic"

// The modes. Off has two words: the CRD's, and that of Spiderpool's plugin.
const (
	modeAuto     = "auto"
	modeUnderlay = "underlay"
	modeOverlay  = "overlay"
	modeDisabled = cni.ModeDisabled
	modeDisable  = "disable"
)

// What holds where neither the network nor the cluster says anything.
const (
	defaultNIC       = "eth0"
	defaultHostTable = 500
	defaultVethMTU   = 1500
)

// Bounds of the settings.
const (
	// minMTU is that of IPv4 (RFC 791, section 3.2), minMTU6 that of IPv6 (RFC
	// 8200, section 5), and maxMTU that of a veth pair in Linux.
	minMTU, minMTU6, maxMTU = 68, 1280, 65535
	maxQueue                = 1<<31 - 1
	maxTable                = 1<<32 - 1
	// maxName is the length of an interface's name in bytes (IFNAMSIZ - 1).
	maxName = 15
)

// parseConfig decodes a network configuration. Errors, here and below, are
// *types.Error with ErrDecodingFailure or ErrInvalidNetworkConfig.
func parseConfig(stdin []byte) (*config, error) {
	var conf config
	if err := json.Unmarshal(stdin, &conf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "the network configuration cannot be read", err.Error())
	}
	var err error
	if conf.Mode, err = parseMode(conf.Mode); err != nil {
		return nil, err
	}
	if conf.Socket == "" {
		conf.Socket = cni.DefaultSocket
	}
	if !filepath.IsAbs(conf.Socket) {
		return nil, wrong(fmt.Sprintf("ipam_unix_socket_path %q is not an absolute path", conf.Socket),
			"give the path where the agent listens, or leave the key out for "+cni.DefaultSocket)
	}
	if conf.PodDefaultCniNIC == "" {
		conf.PodDefaultCniNIC = defaultNIC
	}
	if len(conf.PodDefaultCniNIC) > maxName {
		return nil, wrong(fmt.Sprintf("podDefaultCniNic %q cannot be the name of an interface", conf.PodDefaultCniNIC), "a name has 15 characters at most")
	}
	return &conf, nil
}

// parseMode returns the mode that a word stands for, empty for none.
func parseMode(word string) (string, error) {
	switch word {
	case "", modeAuto, modeUnderlay, modeOverlay, modeDisabled:
		return word, nil
	case modeDisable:
		return modeDisabled, nil
	}
	return "", wrong(fmt.Sprintf("the coordinator has no mode %q", word), "use auto, underlay, overlay or disabled")
}

// parsePrevResult decodes the result of the plugins before this one, for a verb
// that needs it.
func (c *config) parsePrevResult(verb string) error {
	if c.RawPrevResult == nil {
		return wrong(verb+" needs prevResult, and the network configuration has none",
			"the coordinator is a chained plugin: put it behind a main plugin, for example macvlan")
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return types.NewError(types.ErrDecodingFailure, "prevResult cannot be read", err.Error())
	}
	return nil
}

// settings are what one interface is coordinated with: all that network,
// cluster and pod say, checked.
type settings struct {
	mode     string
	tune     bool
	firstNIC string
	// routeNIC is to have the default route; empty means that nobody says. It
	// is the pod's own word if byPod is set, or its network's if byNetwork is,
	// and else the cluster's for all its pods.
	routeNIC         string
	byPod, byNetwork bool
	// interfaces are all that the pod gets, nil if that is not known.
	interfaces []string
	macPrefix  []byte
	// hijack are the networks that the pod reaches through its node, and found
	// those of the cluster's pods that the agent found out about. The latter
	// may be on the link.
	hijack, found []netip.Prefix
	// policyRoutes are the network's, clusterRoutes the cluster's where the
	// network has none. The latter need not fit the interface.
	policyRoutes, clusterRoutes []cni.PolicyRoute
	hostTable                   int
	// rpFilter is negative to leave the pod's as they are.
	rpFilter    int
	queue       int
	vethAddress netip.Addr
	vethMTU     int
}

// settings puts together what the network says and, for the rest, what the
// cluster says.
func (c *config) settings(cluster *cni.Coordination) (*settings, error) {
	mode, err := parseMode(orElse(c.Mode, cluster.Mode))
	if err != nil {
		return nil, err
	}
	s := &settings{
		mode:     mode,
		tune:     *orElse(orElse(c.TunePodRoutes, cluster.TunePodRoutes), new(true)),
		firstNIC: c.PodDefaultCniNIC,
		routeNIC: orElse(cluster.DefaultRouteInterface, orElse(c.PodDefaultRouteNIC, cluster.PodDefaultRouteNIC)),
		byPod:    cluster.DefaultRouteInterface != "", byNetwork: c.PodDefaultRouteNIC != "", interfaces: cluster.Interfaces,
	}
	if s.routeNIC == podVeth || s.routeNIC == "lo" {
		return nil, wrong(fmt.Sprintf("%s is to have the pod's default route, and cannot", s.routeNIC),
			"name an interface of one of the pod's networks, like eth0 or net1, in podDefaultRouteNic or the pod's annotation "+routeAnnotation)
	}
	for _, step := range []func(*config, *cni.Coordination) error{s.setNumbers, s.setVeth, s.setNetworks, s.setRoutes} {
		if err := step(c, cluster); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// orElse returns the first that is not zero.
func orElse[T comparable](a, b T) T {
	var zero T
	if a != zero {
		return a
	}
	return b
}

// setNumbers sets what is a number.
func (s *settings) setNumbers(c *config, cluster *cni.Coordination) error {
	table := *orElse(orElse(c.HostRuleTable, cluster.HostRuleTable), new(int64(defaultHostTable)))
	if table < 1 || table > maxTable || (table >= unix.RT_TABLE_DEFAULT && table <= unix.RT_TABLE_LOCAL) {
		return wrong(fmt.Sprintf("hostRuleTable is %d", table), "use the number of a routing table that nothing else on the nodes uses, like 500; 253 to 255 are the system's")
	}
	filter := *orElse(orElse(c.PodRPFilter, cluster.PodRPFilter), new(int64(0)))
	if filter > 2 {
		return wrong(fmt.Sprintf("podRPFilter is %d", filter), "use 0, 1 or 2 as for the kernel's rp_filter, or -1 to leave it as it is")
	}
	queue := c.TxQueueLen
	if queue == 0 && cluster.TxQueueLen != nil {
		queue = *cluster.TxQueueLen
	}
	if queue < 0 || queue > maxQueue {
		return wrong(fmt.Sprintf("txQueueLen is %d", queue), "use a number of packets, or 0 to leave it as it is")
	}
	s.hostTable, s.rpFilter, s.queue = int(table), int(filter), int(queue)
	return nil
}

// setVeth sets what concerns the links.
func (s *settings) setVeth(c *config, cluster *cni.Coordination) (err error) {
	mtu := orElse(c.VethMTU, *orElse(cluster.VethMTU, new(int64(defaultVethMTU))))
	if mtu < minMTU || mtu > maxMTU {
		return wrong(fmt.Sprintf("vethMTU is %d", mtu), fmt.Sprintf("use a number of bytes from %d to %d, and %d at least for IPv6", minMTU, maxMTU, minMTU6))
	}
	s.vethMTU = int(mtu)
	s.vethAddress = cluster.VethLinkAddress
	if c.VethLinkAddress != "" {
		if s.vethAddress, err = netip.ParseAddr(c.VethLinkAddress); err != nil || s.vethAddress.Zone() != "" {
			return wrong(fmt.Sprintf("vethLinkAddress %q is no IP address", c.VethLinkAddress), "use an address without a length, like 169.254.100.1, or leave it out")
		}
	}
	s.macPrefix, err = parseMACPrefix(orElse(c.PodMACPrefix, cluster.PodMACPrefix))
	return err
}

// parseMACPrefix returns the two bytes of a prefix like 0a:1b, or nil for none.
func parseMACPrefix(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	mac, err := net.ParseMAC(text + ":00:00:00:00")
	if err != nil || len(text) != len("0a:1b") {
		return nil, wrong(fmt.Sprintf("podMACPrefix %q is not two bytes", text), "use two bytes in hexadecimal, like 0a:1b")
	}
	if mac[0]&1 != 0 {
		return nil, wrong(fmt.Sprintf("podMACPrefix %q is one of group addresses", text), "use an even first byte, like 0a:1b")
	}
	return mac[:2], nil
}

// setNetworks sets which networks the pod reaches through its node.
func (s *settings) setNetworks(c *config, cluster *cni.Coordination) error {
	for _, of := range []struct {
		key     string
		network *[]string
		cluster []netip.Prefix
		found   *[]netip.Prefix
	}{
		{"overlayPodCIDR", c.OverlayPodCIDR, cluster.PodCIDR, &s.found},
		{"serviceCIDR", c.ServiceCIDR, cluster.ServiceCIDR, &s.hijack},
		{"hijackCIDR", c.HijackCIDR, cluster.HijackCIDR, &s.hijack},
	} {
		if of.network == nil {
			*of.found = append(*of.found, of.cluster...)
			continue
		}
		for _, text := range *of.network {
			prefix, ok := parseNetwork(text)
			if !ok {
				return wrong(fmt.Sprintf("%s has %q, which is no network", of.key, text), "use networks like 10.96.0.0/12 and addresses like 169.254.20.10")
			}
			s.hijack = append(s.hijack, prefix)
		}
	}
	return nil
}

// parseNetwork reads a network, or an address as the network of it alone.
func parseNetwork(text string) (netip.Prefix, bool) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return whole(addr.Unmap()), true
	}
	prefix, err := netip.ParsePrefix(text)
	return prefix.Masked(), err == nil && !prefix.Addr().Is4In6()
}

// setRoutes sets the policy routes.
func (s *settings) setRoutes(c *config, cluster *cni.Coordination) error {
	if c.PolicyRoutes == nil {
		s.clusterRoutes = cluster.PolicyRoutes
		return nil
	}
	for i, r := range *c.PolicyRoutes {
		destination, ok := parseNetwork(r.Destination)
		if !ok {
			return wrong(fmt.Sprintf("policyRoutes[%d].dst %q is no network", i, r.Destination), "use a network like 10.0.0.0/8 or an address")
		}
		gateway, err := netip.ParseAddr(r.Gateway)
		if err != nil || gateway.Zone() != "" {
			return wrong(fmt.Sprintf("policyRoutes[%d].gw %q is no address", i, r.Gateway), "use the address of a router on the interface's network")
		}
		if gateway = gateway.Unmap(); gateway.Is4() != destination.Addr().Is4() {
			return wrong(fmt.Sprintf("policyRoutes[%d] leads to %s through %s", i, destination, gateway), "use a destination and a gateway of the same IP version")
		}
		s.policyRoutes = append(s.policyRoutes, cni.PolicyRoute{Destination: destination, Gateway: gateway})
	}
	return nil
}

// wrong is the error of a configuration that cannot be.
func wrong(message, advice string) error {
	return types.NewError(types.ErrInvalidNetworkConfig, message, advice)
}
