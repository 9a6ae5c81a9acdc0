// Package coordinator is the chained CNI plugin "coordinator", which stands
// behind the main plugin in the configurations that SpiderMultusConfig
// renders.
//
// As of now it changes nothing: an ADD hands its prevResult on as its own
// result, and that is all. It does not set up the veth to the host, routes
// between several interfaces, MAC prefixes or reverse path filters. Until it
// does, a pod on a macvlan interface reaches other hosts of its network but
// not the addresses of its own node, and services only as far as the network
// routes them. The plugin exists already so that configurations written for
// Spiderpool, which name it, work unchanged.
package coordinator

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// config is the network configuration of the plugin. All further keys that
// Spiderpool's coordinator has (tunePodRoutes, podDefaultRouteNic,
// podDefaultCniNic, podMACPrefix, overlayPodCIDR, serviceCIDR, hijackCIDR,
// policyRoutes, hostRuleTable, podRPFilter, txQueueLen, vethLinkAddress,
// vethMTU, logOptions, multusNicPrefix, hostRPFilter) are accepted whatever
// they hold, since nothing is done with them yet.
type config struct {
	types.PluginConf
	// Mode is auto, underlay, overlay or disabled; empty means auto.
	Mode string `json:"mode"`
}

// modes are the values of "mode" in a SpiderCoordinator, and "disable", which
// Spiderpool's plugin has in place of "disabled".
func modes() []string {
	return []string{"", "auto", "underlay", "overlay", "disabled", "disable"}
}

// Add prints prevResult as its result, in the configuration's version (CNI
// spec, section 2, ADD). It fails without one: the plugin is of use only
// behind another. The errors of all verbs are *types.Error.
func Add(args *skel.CmdArgs) error {
	conf, err := parseConfig(args.StdinData, "ADD")
	if err != nil {
		return err
	}
	return types.PrintResult(conf.PrevResult, conf.CNIVersion)
}

// Check succeeds for a configuration with a prevResult (CNI spec, section 2,
// CHECK): nothing was set up that could be missing.
func Check(args *skel.CmdArgs) error {
	_, err := parseConfig(args.StdinData, "CHECK")
	return err
}

// Del succeeds: nothing was set up (CNI spec, section 2, DEL).
func Del(*skel.CmdArgs) error { return nil }

// GC succeeds: nothing is held (CNI spec 1.1.0, section 2, GC).
func GC(*skel.CmdArgs) error { return nil }

// Ready is the verb STATUS: an ADD needs nothing that could be missing (CNI
// spec 1.1.0, section 2, STATUS).
func Ready(*skel.CmdArgs) error { return nil }

// parseConfig decodes the network configuration of a verb that needs
// prevResult. Errors are *types.Error.
func parseConfig(stdin []byte, verb string) (*config, error) {
	var conf config
	if err := json.Unmarshal(stdin, &conf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "the network configuration cannot be read", err.Error())
	}
	if !slices.Contains(modes(), conf.Mode) {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("the coordinator has no mode %q", conf.Mode),
			"use auto, underlay, overlay or disabled")
	}
	if conf.RawPrevResult == nil {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, verb+" needs prevResult, and the network configuration has none",
			"the coordinator is a chained plugin: put it behind a main plugin, for example macvlan")
	}
	if err := version.ParsePrevResult(&conf.PluginConf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "prevResult cannot be read", err.Error())
	}
	return &conf, nil
}
