package selection

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// Master is the interface of the node that the pod's is made of.
type Master struct {
	Name string
	// Addresses are its own.
	Addresses []netip.Prefix
}

// unfitMaster refuses a pool in whose subnet the master has no address: the
// card is on another network, or on another rail of this one.
func (in *Input) unfitMaster(pool *v2beta1.IPPoolSpec) string {
	if in.Master == nil {
		return ""
	}
	subnet, err := pool.Prefix()
	if err != nil {
		return fmt.Sprintf("has no usable subnet (spec.subnet is %q)", pool.Subnet)
	}
	var has []string
	for _, a := range in.Master.Addresses {
		if subnet.Contains(a.Addr()) {
			return ""
		}
		has = append(has, a.String())
	}
	if len(has) == 0 {
		has = []string{"no address"}
	}
	return fmt.Sprintf("is not for master %s, which has %s and nothing in spec.subnet %s (match_master_subnet of the network's configuration)",
		in.Master.Name, strings.Join(has, ", "), subnet)
}
