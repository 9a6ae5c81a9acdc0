package cni

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/types"
)

// config is a network configuration as a main plugin hands it to its IPAM
// plugin (CNI spec, section 1 and section 4 "Delegated plugins").
type config struct {
	CNIVersion string      `json:"cniVersion"`
	Name       string      `json:"name"`
	IPAM       *ipamConfig `json:"ipam"`
	// DeviceID is the PCI address of the virtual function, which Multus adds
	// for the sriov plugin. It is read for match_master_subnet only.
	DeviceID json.RawMessage `json:"deviceID"`
	// PrevResult is decoded by CHECK only: a DEL must not fail for it.
	PrevResult json.RawMessage `json:"prevResult"`
	// ValidAttachments is nil when the runtime gave no list (absent or null),
	// which is not the same as an empty one.
	ValidAttachments *[]types.GCAttachment `json:"cni.dev/valid-attachments"`
}

// ipamConfig has the keys of "ipam" that mean something here. The keys for a
// log file (log_level, log_file_path, log_file_max_size, log_file_max_age,
// log_file_max_count) are accepted whatever they hold, and ignored: the agent
// logs every request, and what goes wrong before it is asked stands in the
// pod's event.
type ipamConfig struct {
	DefaultIPv4Pools  []string `json:"default_ipv4_ippool"`
	DefaultIPv6Pools  []string `json:"default_ipv6_ippool"`
	CleanGateway      bool     `json:"clean_gateway"`
	MatchMasterSubnet bool     `json:"match_master_subnet"`
	// Socket is DefaultSocket when the configuration names none.
	Socket string `json:"ipam_unix_socket_path"`
}

// parseConfig decodes a network configuration. Errors are *types.Error with
// ErrDecodingFailure or ErrInvalidNetworkConfig.
func parseConfig(stdin []byte) (*config, error) {
	var conf config
	if err := json.Unmarshal(stdin, &conf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "the network configuration cannot be read", err.Error())
	}
	if conf.IPAM == nil {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, `the network configuration has no "ipam"`,
			`spiderpool is an IPAM plugin: name it as {"ipam":{"type":"spiderpool"}} in the configuration of a main plugin, for example macvlan`)
	}
	if conf.IPAM.Socket == "" {
		conf.IPAM.Socket = DefaultSocket
	}
	if !filepath.IsAbs(conf.IPAM.Socket) {
		return nil, types.NewError(types.ErrInvalidNetworkConfig,
			fmt.Sprintf("ipam_unix_socket_path %q is not an absolute path", conf.IPAM.Socket),
			"give the path where the agent listens, or leave the key out for "+DefaultSocket)
	}
	return &conf, nil
}

// prevResult is what CHECK reads of a result. The members are the same in all
// versions since 0.3.0, so it needs no conversion.
type prevResult struct {
	Interfaces []struct {
		Name string `json:"name"`
	} `json:"interfaces"`
	IPs []struct {
		Address netip.Prefix `json:"address"`
		// Interface is an index into Interfaces; nil names none.
		Interface *int `json:"interface"`
	} `json:"ips"`
}

// addresses returns the addresses that prevResult gives to the interface:
// those that name no interface (an IPAM plugin's own result) and those that
// name this one. An index that points nowhere is left to the main plugin's
// CHECK. Errors are *types.Error.
func (c *config) addresses(ifName string) ([]netip.Prefix, error) {
	if len(c.PrevResult) == 0 {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "CHECK needs prevResult, and the network configuration has none", "")
	}
	var result prevResult
	if err := json.Unmarshal(c.PrevResult, &result); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "prevResult cannot be read", err.Error())
	}
	prefixes := []netip.Prefix{}
	for _, ip := range result.IPs {
		if i := ip.Interface; i != nil && (*i < 0 || *i >= len(result.Interfaces) || result.Interfaces[*i].Name != ifName) {
			continue
		}
		if !ip.Address.IsValid() {
			return nil, types.NewError(types.ErrDecodingFailure, "prevResult cannot be read", "it has an element of ips without an address")
		}
		prefixes = append(prefixes, ip.Address)
	}
	return prefixes, nil
}
