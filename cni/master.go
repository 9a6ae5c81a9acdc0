package cni

import (
	"encoding/json"
	"errors"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/holdfast-ipam/holdfast/cni/sriov"
)

// master returns the interface whose subnets the pools must be of, or nil if
// the configuration does not ask for that. Errors are *types.Error.
func (c *config) master() (*Master, error) {
	if !c.IPAM.MatchMasterSubnet {
		return nil, nil
	}
	// A key that is of no use here is not judged above, whatever it holds.
	var device string
	if err := json.Unmarshal(c.DeviceID, &device); err != nil || device == "" {
		return nil, types.NewError(types.ErrInvalidNetworkConfig,
			AddFailed+": match_master_subnet is set, and the network configuration has no deviceID to tell the master by",
			"it is for sriov and ib-sriov: name the resource in the SpiderMultusConfig (sriov.resourceName), so that Multus passes the device that the pod has of it, or remove match_master_subnet")
	}
	m, err := sriov.MasterOf(sriov.Devices, device)
	if errors.Is(err, sriov.ErrNoFunction) {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, AddFailed+": match_master_subnet is set, and deviceID is "+err.Error(),
			"see which devices the resource has on this node, and whether their physical function is an interface of it; or remove match_master_subnet")
	}
	if err != nil {
		return nil, types.NewError(types.ErrTryAgainLater, AddFailed+": match_master_subnet: "+err.Error(), "it is tried again by itself")
	}
	return &Master{Name: m.Name, Addresses: m.Addresses}, nil
}
