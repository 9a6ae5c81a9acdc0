package elected

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/holdfast-ipam/holdfast/cni/ifacer"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// What no network can be made of is refused here even where the schema of
// SpiderMultusConfig refuses it too: objects may be older than the schema,
// written when another program served the kind.

// maxVLAN is the last VLAN ID (IEEE 802.1Q, section 9.6: 4095 is reserved).
const maxVLAN = 4094

func checkMaster(field, name, example string) error {
	if name == "" {
		return fmt.Errorf("%s names no interface: name the node's interface, like %s", field, example)
	}
	// The kernel takes none of these (dev_valid_name in net/core/dev.c).
	if strings.ContainsAny(name, "/: \t\n\v\f\r") || name == "." || name == ".." {
		return fmt.Errorf("%s is %q, which no interface can be called: name the node's interface, like %s", field, name, example)
	}
	return nil
}

func checkVLAN(field string, id *int32) error {
	if n := valueOf(id); n < 0 || n > maxVLAN {
		return fmt.Errorf("%s is %d: use a VLAN from 1 to %d, or 0 for none", field, n, maxVLAN)
	}
	return nil
}

func checkMTU(field string, mtu int32) error {
	if mtu < 0 {
		return fmt.Errorf("%s is %d: use the MTU in bytes, or 0 to leave it alone", field, mtu)
	}
	return nil
}

func checkResource(block, name string) error {
	if name == "" {
		return fmt.Errorf("spec.%s.resourceName is empty: name the resource of the device plugin that has the virtual functions, like spidernet.io/sriov1", block)
	}
	return nil
}

// checkSubInterface refuses a block without masters, or with several and no
// bond of them.
func checkSubInterface(block string, sub *v2beta1.SubInterface) error {
	field := "spec." + block + "."
	if len(sub.Master) == 0 {
		return checkMaster(field+"master", "", "ens192")
	}
	for i, name := range sub.Master {
		if err := checkMaster(fmt.Sprintf("%smaster[%d]", field, i), name, "ens192"); err != nil {
			return err
		}
		if slices.Contains(sub.Master[:i], name) {
			return fmt.Errorf("%smaster[%d] names %s a second time: name each interface once", field, i, name)
		}
	}
	if len(sub.Master) > 1 && (sub.Bond == nil || sub.Bond.Name == "") {
		return fmt.Errorf("%smaster names several interfaces: name in %sbond the bond they make", field, field)
	}
	if err := checkVLAN(field+"vlanID", sub.VlanID); err != nil {
		return err
	}
	return checkMTU(field+"mtu", sub.MTU)
}

// checkOnNode refuses what the plugin on the node would refuse for every pod.
func checkOnNode(block string, p ifacerPlugin) error {
	conf, err := json.Marshal(p)
	if err == nil {
		err = ifacer.Validate(conf)
	}
	if said, ok := errors.AsType[*types.Error](err); ok {
		return fmt.Errorf("spec.%s cannot be made on a node: %s: %s", block, said.Msg, said.Details)
	}
	return err
}

func checkSRIOV(spec *v2beta1.SRIOVNetwork) error {
	if err := checkResource("sriov", spec.ResourceName); err != nil {
		return err
	}
	if err := checkVLAN("spec.sriov.vlanID", spec.VlanID); err != nil {
		return err
	}
	if spec.MinTxRateMbps < 0 || spec.MaxTxRateMbps < 0 {
		return errors.New("spec.sriov.minTxRateMbps and spec.sriov.maxTxRateMbps are rates in Mbit/s: use 0 for no bound")
	}
	if spec.MaxTxRateMbps > 0 && spec.MinTxRateMbps > spec.MaxTxRateMbps {
		return fmt.Errorf("spec.sriov.minTxRateMbps is %d, above maxTxRateMbps %d: lower it", spec.MinTxRateMbps, spec.MaxTxRateMbps)
	}
	return checkMTU("spec.sriov.mtu", spec.MTU)
}

func checkOVS(spec *v2beta1.OVSNetwork) error {
	if spec.Bridge == "" {
		return errors.New("spec.ovs.bridge is empty: name the nodes' Open vSwitch bridge, like br1")
	}
	if err := checkVLAN("spec.ovs.vlan", spec.Vlan); err != nil {
		return err
	}
	for i, trunk := range spec.Trunk {
		for _, id := range []*int64{trunk.MinID, trunk.MaxID, trunk.ID} {
			if id != nil && (*id < 0 || *id > maxVLAN) {
				return fmt.Errorf("spec.ovs.trunk[%d] has VLAN %d: use VLANs up to %d", i, *id, maxVLAN)
			}
		}
		if trunk.MinID != nil && trunk.MaxID != nil && *trunk.MinID > *trunk.MaxID {
			return fmt.Errorf("spec.ovs.trunk[%d].minID is %d, above maxID %d: lower it", i, *trunk.MinID, *trunk.MaxID)
		}
	}
	return nil
}
