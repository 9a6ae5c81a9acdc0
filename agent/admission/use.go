package admission

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/holdfast-ipam/holdfast/crds"
	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

const (
	// maxGets is up to how many blocks are read one by one; a pool that loses
	// more has all blocks listed.
	maxGets = 64
	// maxNodes is up to how many nodes have their endpoints listed node by
	// node; beyond, all endpoints are.
	maxNodes = 16
	// page is how many objects a list brings at a time, and poolPage how many
	// pools: the status of each may be a megabyte.
	page     = 500
	poolPage = 50
)

// records is what is written in the API server about who has which address.
// All reads are quorum reads.
type records struct{ kinds *crds.Clients }

// users returns the pods with an address among dropped from the pool, by
// address. An address is in use while
//
//   - a pin holds it for a StatefulSet's pod, running or not, or
//   - it is leased to a node, and the endpoint of a pod of this node names it
//     and the pool.
//
// Both are there before the pod has the address, or within a second of it.
// Where the chart's value ipam.endpoints is statefulset, other pods have no
// endpoint and their addresses do not count. The status of the pool is not
// looked at: it is late.
//
// elsewhere is what other pools have too: a pin there counts unless the pod's
// endpoint says that the address is from another pool, so that an overlap can
// be undone while the other pool is in use.
//
// The cost depends on how much the pool loses, and not on how large it is: the
// blocks of dropped, then for each node with a lease there the endpoints of
// its pods, which the API server selects.
func (r records) users(ctx context.Context, pool string, dropped, elsewhere *netipx.IPSet) (map[netip.Addr]string, error) {
	blocks, err := r.blocks(ctx, dropped)
	if err != nil {
		return nil, err
	}
	users, err := r.holders(ctx, pool, blocks, dropped, elsewhere)
	if err != nil {
		return nil, err
	}
	nodes := map[string]bool{}
	for _, b := range blocks {
		for _, node := range lessees(b, dropped) {
			nodes[node] = true
		}
	}
	err = r.endpoints(ctx, slices.Sorted(maps.Keys(nodes)), func(e *v2beta1.SpiderEndpoint) {
		for addr, from := range addresses(e) {
			if from == pool && dropped.Contains(addr) {
				users[addr] = e.Namespace + "/" + e.Name
			}
		}
	})
	return users, err
}

// holders returns the pods that a pin on one of the addresses is for.
func (r records) holders(ctx context.Context, pool string, blocks []*v1alpha1.IPBlock, addrs, elsewhere *netipx.IPSet) (map[netip.Addr]string, error) {
	users := map[netip.Addr]string{}
	for _, b := range blocks {
		for addr, pin := range pinned(b, addrs) {
			ours := true
			if elsewhere.Contains(addr) {
				var err error
				if ours, err = r.from(ctx, pool, pin.Pod, addr); err != nil {
					return nil, err
				}
			}
			if ours {
				users[addr] = pin.Pod
			}
		}
	}
	return users, nil
}

// Users returns the pods with an address of the pool, by address: those that
// pins hold, and those that any endpoint names. others are the other pools of
// its subnet. It lists all endpoints, and is for once in the life of a pool:
// before it goes.
func Users(ctx context.Context, kinds *crds.Clients, pool *v2beta1.SpiderIPPool, others []v2beta1.SpiderIPPool) (map[netip.Addr]string, error) {
	r, users := records{kinds}, map[netip.Addr]string{}
	if addrs, err := pool.Spec.Addresses(); err == nil {
		blocks, err := r.blocks(ctx, addrs)
		if err != nil {
			return nil, err
		}
		if users, err = r.holders(ctx, pool.Name, blocks, addrs, elsewhere(pool.Name, others)); err != nil {
			return nil, err
		}
	}
	err := r.listEndpoints(ctx, "", func(e *v2beta1.SpiderEndpoint) {
		for addr, from := range addresses(e) {
			if from == pool.Name {
				users[addr] = e.Namespace + "/" + e.Name
			}
		}
	})
	return users, err
}

// inUse returns the error for an update that drops addresses in use, if there
// are any.
func inUse(is *v2beta1.SpiderIPPool, users map[netip.Addr]string) field.ErrorList {
	if len(users) == 0 {
		return nil
	}
	addrs := slices.SortedFunc(maps.Keys(users), netip.Addr.Compare)
	var named []string
	for _, addr := range addrs {
		named = append(named, fmt.Sprintf("%s (pod %s)", addr, users[addr]))
	}
	at := field.NewPath("spec", "ips")
	if still, err := v2beta1.ParseRanges(is.Spec.IPs); err == nil && still.Contains(addrs[0]) {
		at = field.NewPath("spec", "excludeIPs")
	}
	return field.ErrorList{field.Forbidden(at, fmt.Sprintf(
		"pool %q would lose addresses in use: %s: keep them, or delete these pods (scale their StatefulSets down) first; spec.disable stops the pool from giving out more",
		is.Name, few(named)))}
}

// pools returns all pools, without their status.
func (r records) pools(ctx context.Context) ([]v2beta1.SpiderIPPool, error) {
	var pools []v2beta1.SpiderIPPool
	for next := ""; ; {
		list, err := r.kinds.IPPools().List(ctx, metav1.ListOptions{Limit: poolPage, Continue: next})
		if err != nil {
			return nil, fmt.Errorf("list pools: %w", err)
		}
		for _, p := range list.Items {
			p.Status = v2beta1.IPPoolStatus{}
			pools = append(pools, p)
		}
		if next = list.Continue; next == "" {
			return pools, nil
		}
	}
}

// blocks returns the blocks that dropped shares addresses with.
func (r records) blocks(ctx context.Context, dropped *netipx.IPSet) ([]*v1alpha1.IPBlock, error) {
	prefixes, all := blocksOf(dropped, maxGets)
	if !all {
		return r.listBlocks(ctx, dropped)
	}
	var blocks []*v1alpha1.IPBlock
	for _, p := range prefixes {
		b, err := r.kinds.IPBlocks().Get(ctx, lease.Name(p), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue // nobody leases anything there
		}
		if err != nil {
			return nil, fmt.Errorf("read block %s: %w", lease.Name(p), err)
		}
		blocks = append(blocks, b)
	}
	return blocks, nil
}

func (r records) listBlocks(ctx context.Context, dropped *netipx.IPSet) ([]*v1alpha1.IPBlock, error) {
	var blocks []*v1alpha1.IPBlock
	for next := ""; ; {
		list, err := r.kinds.IPBlocks().List(ctx, metav1.ListOptions{Limit: page, Continue: next})
		if err != nil {
			return nil, fmt.Errorf("list blocks: %w", err)
		}
		for i := range list.Items {
			if p, err := lease.ParseName(list.Items[i].Name); err == nil && dropped.OverlapsPrefix(p) {
				blocks = append(blocks, &list.Items[i])
			}
		}
		if next = list.Continue; next == "" {
			return blocks, nil
		}
	}
}

// blocksOf returns the blocks that the addresses lie in, or false if there are
// more than limit.
func blocksOf(set *netipx.IPSet, limit int) ([]netip.Prefix, bool) {
	var blocks []netip.Prefix
	for _, r := range set.Ranges() {
		for addr := r.From(); addr.IsValid() && !r.To().Less(addr); {
			p := lease.BlockOf(addr)
			if len(blocks) == 0 || blocks[len(blocks)-1] != p {
				if len(blocks) == limit {
					return nil, false
				}
				blocks = append(blocks, p)
			}
			addr = netipx.PrefixLastIP(p).Next()
		}
	}
	return blocks, true
}

// pinned returns the pins of a block on addresses in the set.
func pinned(b *v1alpha1.IPBlock, set *netipx.IPSet) map[netip.Addr]v1alpha1.Pin {
	pins := map[netip.Addr]v1alpha1.Pin{}
	for _, p := range b.Spec.Pins {
		if addr, err := netip.ParseAddr(p.Address); err == nil && set.Contains(addr) {
			pins[addr] = p
		}
	}
	return pins
}

// lessees returns the names of the nodes that lease an address in the set.
func lessees(b *v1alpha1.IPBlock, set *netipx.IPSet) []string {
	var nodes []string
	for _, l := range b.Spec.Leases {
		if leased, err := v2beta1.ParseRanges(l.Addresses); err == nil && set.Overlaps(leased) {
			nodes = append(nodes, l.Node)
		}
	}
	return nodes
}

// from reports whether the endpoint of a pinned pod leaves it open that the
// address is from the pool.
func (r records) from(ctx context.Context, pool, pod string, addr netip.Addr) (bool, error) {
	namespace, name, _ := strings.Cut(pod, "/")
	e, err := r.kinds.Endpoints(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read endpoint %s: %w", pod, err)
	}
	its, ok := addresses(e)[addr]
	return !ok || its == pool, nil
}

// endpoints calls f for each endpoint of pods on the nodes, and perhaps for
// others.
func (r records) endpoints(ctx context.Context, nodes []string, f func(*v2beta1.SpiderEndpoint)) error {
	if len(nodes) > maxNodes {
		return r.listEndpoints(ctx, "", f)
	}
	for _, node := range nodes {
		on := fields.OneTermEqualSelector(v2beta1.FieldEndpointNode, node).String()
		if err := r.listEndpoints(ctx, on, f); err != nil {
			return err
		}
	}
	return nil
}

func (r records) listEndpoints(ctx context.Context, selector string, f func(*v2beta1.SpiderEndpoint)) error {
	for next := ""; ; {
		list, err := r.kinds.Endpoints(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: selector, Limit: page, Continue: next})
		if err != nil {
			return fmt.Errorf("list endpoints (%s): %w", selector, err)
		}
		for i := range list.Items {
			f(&list.Items[i])
		}
		if next = list.Continue; next == "" {
			return nil
		}
	}
}

// addresses returns the addresses that an endpoint names, each with its pool.
func addresses(e *v2beta1.SpiderEndpoint) map[netip.Addr]string {
	of := map[netip.Addr]string{}
	for _, i := range e.Status.Current.IPs {
		for text, pool := range map[string]string{i.IPv4: i.IPv4Pool, i.IPv6: i.IPv6Pool} {
			if p, err := netip.ParsePrefix(text); err == nil {
				of[p.Addr()] = pool
			}
		}
	}
	return of
}
