package main

import (
	"context"
	"fmt"
	"net/netip"

	"go4.org/netipx"
)

// system is an IPAM under measurement. A system is opened once, on a lab of
// its own.
type system interface {
	// open starts what the system needs beside its plugin.
	open(ctx context.Context, l *lab) error
	// offer makes addresses available under a name.
	offer(ctx context.Context, name string, r addresses) error
	// plugin returns how the runtime of a node calls the plugin for addresses
	// that were offered.
	plugin(node int, name string) (call, error)
	// traffic returns the requests to the API server so far.
	traffic(ctx context.Context) (tally, error)
	// held returns how many of the pods still keep an address from others.
	held(ctx context.Context, pods []*pod) (int, error)
	// processes are those that run beside the plugin, agents or controllers.
	processes() []int
	close()
}

// The systems there are.
const (
	holdfastName    = "holdfast"
	hostLocalName   = "host-local"
	whereaboutsName = "whereabouts"
	slicesName      = "whereabouts-slices"
)

func names() []string {
	return []string{holdfastName, hostLocalName, whereaboutsName, slicesName}
}

// newSystem returns the system of that name.
func newSystem(name string) (system, error) {
	switch name {
	case holdfastName:
		return &holdfast{}, nil
	case hostLocalName:
		return &hostLocal{}, nil
	case whereaboutsName:
		return &whereabouts{}, nil
	case slicesName:
		return &whereabouts{sliced: true}, nil
	}
	return nil, fmt.Errorf("there is no system %q", name)
}

// programsOf lists the programs of a system.
func programsOf(name string) []string {
	switch name {
	case holdfastName:
		return []string{"holdfast", "holdfast-cni"}
	case hostLocalName:
		return []string{"host-local"}
	}
	return []string{"whereabouts", "whereabouts-crds"}
}

// lacks says why a scenario is not measured with a system, or is empty. It is
// a part of the report.
func lacks(name, scenario string) string {
	switch {
	case scenario == unasked && (name == hostLocalName || name == whereaboutsName):
		return "nothing of it runs while no pod starts"
	case scenario == inScarcity && name == slicesName:
		return "a slice belongs to its node: the last addresses do not serve every node"
	case scenario == withIdentity && name == hostLocalName:
		return "its addresses are those of one node, and nobody's by name"
	case scenario == ofSizes && name == slicesName:
		return "the size of a slice is the same for all, and more than a /28"
	case scenario == inCrowd && name != holdfastName:
		return "it has no pools that wait for pods: a range is written where it is used"
	}
	return ""
}

// once says why one round of a scenario is enough for a system, or is empty. It
// is a part of the report.
func once(name, scenario string) string {
	switch {
	case scenario == unasked:
		return "it is compared with nothing"
	case scenario == withIdentity && name != holdfastName:
		return "to it these pods are like any others"
	}
	return ""
}

// onOneNode reports whether the system knows no cluster. Its pods are no
// objects and are all on the first node.
func onOneNode(name string) bool { return name == hostLocalName }

// warms reports whether the system's nodes have something from earlier pods
// that serves the next ones, or are the measure for those that do. To the
// others a second start is as the first.
func warms(name string) bool { return name == holdfastName || name == hostLocalName }

// call is what a runtime executes, apart from what the CNI specification says
// of every plugin.
type call struct {
	program string
	env     []string
	network []byte
}

// addresses is a range in a subnet of its own.
type addresses struct {
	subnet      netip.Prefix
	first, last netip.Addr
}

// maxPods is what the addresses of a scenario suffice for.
const maxPods = 4000

// plenty is how many times more addresses there are than pods where they are
// plenty.
const plenty = 8

// newAddresses returns the n-th range, for so many pods. Each is in a /16 of
// its own and begins at a block's first address. An exact one has no more
// addresses than there are pods.
func newAddresses(n, pods int, exact bool) addresses {
	r := addresses{
		subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(64 + n%128), 0, 0}), 16),
		first:  netip.AddrFrom4([4]byte{10, byte(64 + n%128), 0, 16}),
	}
	count := pods
	if !exact {
		count = plenty * pods
	}
	b := r.first.As4()
	last := int(b[2])<<8 + int(b[3]) + count - 1
	b[2], b[3] = byte(last>>8), byte(last)
	r.last = netip.AddrFrom4(b)
	return r
}

// allOf returns all addresses of a subnet but the first and the last one.
func allOf(subnet netip.Prefix) addresses {
	return addresses{subnet: subnet, first: subnet.Addr().Next(), last: netipx.PrefixLastIP(subnet).Prev()}
}
