package agent

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go4.org/netipx"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/agent/selection"
	"github.com/holdfast-ipam/holdfast/agent/watch"
	"github.com/holdfast-ipam/holdfast/crds"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

const (
	// plentyShare: a claim takes at most this share of what is left in its
	// pool, so that a scarce pool is not used up by leases nobody needs.
	plentyShare = 32
	// poolMemory is for how long after its last use a pool is kept supplied
	// on this node.
	poolMemory = time.Hour
	// tightFor is for how long after a pool was used out nothing is taken or
	// kept of it ahead of need: an address that one node gives back and another
	// takes makes it look rich for a moment.
	tightFor = 30 * time.Second
	// expectFor is for how long a pod that was bound to this node is expected to
	// ask for an address. A kubelet's runtime asks within seconds, unless
	// something else keeps the pod, such as a volume.
	expectFor = 30 * time.Second
)

// pools are the pools and reserved addresses, by watches, as the protocol
// wants them. Each is parsed once per version, when it is first used.
type pools struct {
	informer watch.Informer[*v2beta1.SpiderIPPool]
	reserved watch.Informer[*v2beta1.SpiderReservedIP]
	now      func() time.Time

	mu     sync.Mutex
	parsed map[string]parsedPool
	// taken are the reserved addresses, as of the versions in takenOf.
	taken   *netipx.IPSet
	takenOf string
	// used is when a pool was last asked for an address on this node, none when
	// there was none for it, and waiting how many pods are asking.
	used    map[string]time.Time
	none    map[string]time.Time
	waiting map[string]int
	// expected are the pods, by UID, that are about to ask.
	expected map[string]expectation
}

// expectation is what a pod is about to ask for, and since when.
type expectation struct {
	pools []string
	since time.Time
}

// parsedPool is the addresses of a pool without those excluded and reserved.
type parsedPool struct {
	version string
	takenOf string
	ranges  *netipx.IPSet
}

func newPools(clients *crds.Clients, now func() time.Time) *pools {
	return &pools{
		informer: watch.New(clients.IPPools(), &v2beta1.SpiderIPPool{}, watch.Options[*v2beta1.SpiderIPPool]{}),
		reserved: watch.New(clients.ReservedIPs(), &v2beta1.SpiderReservedIP{}, watch.Options[*v2beta1.SpiderReservedIP]{}),
		now:      now,
		parsed:   map[string]parsedPool{},
		used:     map[string]time.Time{},
		none:     map[string]time.Time{},
		waiting:  map[string]int{},
		expected: map[string]expectation{},
	}
}

// Get returns a pool by name.
func (p *pools) Get(name string) (*v2beta1.SpiderIPPool, bool) { return p.informer.Get(name) }

// List returns all pools, in any order.
func (p *pools) List() []*v2beta1.SpiderIPPool { return p.informer.All() }

// families returns the pools that were selected, family by family, and notes
// that they are in use on this node.
func (p *pools) families(s selection.Selection) ([][]lease.Pool, error) {
	var families [][]lease.Pool
	for _, chosen := range [][]*v2beta1.SpiderIPPool{s.IPv4, s.IPv6} {
		if len(chosen) == 0 {
			continue
		}
		var family []lease.Pool
		for _, pool := range chosen {
			lp, err := p.lease(pool)
			if err != nil {
				return nil, err
			}
			d, err := detail(pool, s)
			if err != nil {
				return nil, err
			}
			lp.Detail = d
			family = append(family, lp)
		}
		families = append(families, family)
	}
	return families, nil
}

// lease returns the pool as the protocol knows it.
func (p *pools) lease(pool *v2beta1.SpiderIPPool) (lease.Pool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ranges, err := p.ranges(pool)
	if err != nil {
		return lease.Pool{}, err
	}
	p.used[pool.Name] = p.now()
	return lease.Pool{Name: pool.Name, Ranges: ranges, Plenty: p.plenty(pool, ranges), LeasedOut: scarce(pool)}, nil
}

// ranges returns the addresses that pods may get. The caller holds p.mu.
func (p *pools) ranges(pool *v2beta1.SpiderIPPool) (*netipx.IPSet, error) {
	taken, takenOf, err := p.reservedSet()
	if err != nil {
		return nil, err
	}
	if c, ok := p.parsed[pool.Name]; ok && c.version == pool.ResourceVersion && c.takenOf == takenOf {
		return c.ranges, nil
	}
	ips, err := pool.Spec.Addresses()
	if err != nil {
		return nil, fmt.Errorf("pool %s: %w", pool.Name, err)
	}
	var b netipx.IPSetBuilder
	b.AddSet(ips)
	b.RemoveSet(taken)
	ranges, err := b.IPSet()
	if err != nil {
		return nil, fmt.Errorf("pool %s: %w", pool.Name, err)
	}
	p.parsed[pool.Name] = parsedPool{version: pool.ResourceVersion, takenOf: takenOf, ranges: ranges}
	return ranges, nil
}

// reservedSet returns the reserved addresses and a text that changes with
// them. Objects on their way out reserve nothing. The caller holds p.mu.
func (p *pools) reservedSet() (*netipx.IPSet, string, error) {
	reserved := slices.DeleteFunc(p.reserved.All(), func(r *v2beta1.SpiderReservedIP) bool {
		return r.DeletionTimestamp != nil
	})
	var versions []string
	for _, r := range reserved {
		versions = append(versions, string(r.UID)+r.ResourceVersion)
	}
	slices.Sort(versions)
	takenOf := strings.Join(versions, " ")
	if takenOf == p.takenOf && p.taken != nil {
		return p.taken, takenOf, nil
	}
	var b netipx.IPSetBuilder
	for _, r := range reserved {
		set, err := r.Spec.Addresses()
		if err != nil {
			return nil, "", fmt.Errorf("reserved addresses %s: %w", r.Name, err)
		}
		b.AddSet(set)
	}
	taken, err := b.IPSet()
	if err != nil {
		return nil, "", err
	}
	p.taken, p.takenOf = taken, takenOf
	return taken, takenOf, nil
}

// watchPools has leases looked over when a pool of this node has less to
// spare than before: what was a fair reserve may be surplus now.
func (a *Agent) watchPools() error {
	return a.pools.informer.On(
		func(was, is *v2beta1.SpiderIPPool) {
			if was != nil && a.pools.shrunk(was, is) {
				a.upkeep.kick()
			}
		},
		func(*v2beta1.SpiderIPPool) { a.upkeep.kick() })
}

// shrunk reports whether a pool in use on this node changed so that its
// leases may have become surplus.
func (p *pools) shrunk(was, is *v2beta1.SpiderIPPool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, used := p.used[is.Name]; !used {
		return false
	}
	ranges, err := p.ranges(is)
	return err == nil && (was.Generation != is.Generation || plenty(is, ranges) < plenty(was, ranges) || scarce(is) && !scarce(was))
}

// resume counts the pools that pods of this node have addresses of as used: an
// agent that starts anew goes on with what it had leased ahead of need.
func (p *pools) resume(entries []lease.Entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range entries {
		if d, err := cluster.DecodeDetail(e.Detail); err == nil && d.Pool != "" {
			p.used[d.Pool] = p.now()
		}
	}
}

// recent returns the pools that pods of this node asked for lately. Those
// that are gone meanwhile are forgotten.
func (p *pools) recent() []lease.Pool {
	p.mu.Lock()
	names := maps.Clone(p.used)
	p.mu.Unlock()
	var recent []lease.Pool
	for name, at := range names {
		pool, ok := p.Get(name)
		if !ok || p.now().Sub(at) > poolMemory || pool.DeletionTimestamp != nil || pool.Spec.Disable {
			p.mu.Lock()
			delete(p.used, name)
			delete(p.none, name)
			delete(p.parsed, name)
			p.mu.Unlock()
			continue
		}
		p.mu.Lock()
		if ranges, err := p.ranges(pool); err == nil {
			recent = append(recent, lease.Pool{Name: name, Ranges: ranges, Plenty: p.plenty(pool, ranges)})
		}
		p.mu.Unlock()
	}
	slices.SortFunc(recent, func(x, y lease.Pool) int { return strings.Compare(x.Name, y.Name) })
	return recent
}

// detailOf returns what a pool that has the address would store with it, or
// nothing if no pool has it. It looks at the subnets of all pools.
func (p *pools) detailOf(addr netip.Addr) json.RawMessage {
	for _, pool := range p.List() {
		if subnet, err := pool.Spec.Prefix(); err != nil || !subnet.Contains(addr) {
			continue
		}
		p.mu.Lock()
		ranges, err := p.ranges(pool)
		p.mu.Unlock()
		if err != nil || !ranges.Contains(addr) {
			continue
		}
		if d, err := detail(pool, selection.Selection{}); err == nil {
			return d(addr)
		}
	}
	return nil
}

// wait notes that a pod of this node wants an address of each family, from any
// pool of it, until done is called.
func (p *pools) wait(families [][]lease.Pool) (done func()) {
	count := func(n int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, family := range families {
			for _, pool := range family {
				if p.waiting[pool.Name] += n; p.waiting[pool.Name] == 0 {
					delete(p.waiting, pool.Name)
				}
			}
		}
	}
	count(1)
	return func() { count(-1) }
}

// usedOut notes that no address was found in pools. It reports whether that is
// news of one of them.
func (p *pools) usedOut(names []string) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range names {
		news = news || !p.tight(name)
		p.none[name] = p.now()
	}
	return news
}

// tight reports whether no address of the pool was found here lately. The
// caller holds p.mu.
func (p *pools) tight(name string) bool {
	none, ok := p.none[name]
	return ok && p.now().Sub(none) < tightFor
}

// waitingFor returns how many pods of this node ask for an address of the pool,
// or are about to.
func (p *pools) waitingFor(pool string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting[pool] + p.expecting(pool)
}

// expect notes that a pod is about to ask for an address of each family, and
// gets it from the first pool that is not known to be used out.
func (p *pools) expect(podUID string, families [][]lease.Pool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := expectation{since: p.now()}
	for _, family := range families {
		if i := slices.IndexFunc(family, func(pool lease.Pool) bool { return !pool.LeasedOut }); i >= 0 {
			e.pools = append(e.pools, family[i].Name)
		}
	}
	p.expected[podUID] = e
}

// met notes that a pod has asked, or never will.
func (p *pools) met(podUID string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.expected, podUID)
}

// expecting returns how many pods are about to ask for an address of the pool.
// The caller holds p.mu.
func (p *pools) expecting(pool string) (n int) {
	now := p.now()
	for _, e := range p.expected {
		if now.Sub(e.since) < expectFor && slices.Contains(e.pools, pool) {
			n++
		}
	}
	return n
}

// reserve returns how many addresses of a pool are to be at hand on this node:
// half of what a claim takes ahead of need, and one for each pod that is about to
// ask. There is no reserve of a pool that is used out.
func (p *pools) reserve(pool lease.Pool) int {
	stored, ok := p.Get(pool.Name)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !ok || p.short(stored) {
		return 0
	}
	return pool.Plenty/2 + p.expecting(pool.Name)
}

// short reports whether a pool is used out, or was just now. The caller holds
// p.mu.
func (p *pools) short(pool *v2beta1.SpiderIPPool) bool {
	c := meta.FindStatusCondition(pool.Status.Conditions, v2beta1.ConditionScarce)
	return p.tight(pool.Name) || scarce(pool) ||
		c != nil && c.Status == metav1.ConditionFalse && p.now().Sub(c.LastTransitionTime.Time) < tightFor
}

// plenty returns how many addresses of the pool this node may take ahead of
// need, and none while it is short. The caller holds p.mu.
func (p *pools) plenty(pool *v2beta1.SpiderIPPool, ranges *netipx.IPSet) int {
	if p.short(pool) {
		return 0
	}
	return plenty(pool, ranges)
}

// plenty returns how many addresses of the pool a node may take ahead of
// need: a share of what no pod has, and at most a block.
func plenty(pool *v2beta1.SpiderIPPool, ranges *netipx.IPSet) int {
	if scarce(pool) {
		return 0
	}
	left := v2beta1.Count(ranges)
	if pool.Status.AllocatedIPCount != nil {
		left -= *pool.Status.AllocatedIPCount
	}
	return int(min(max(left/plentyShare, 0), lease.Size))
}

// scarce reports whether every address of the pool is leased by some node.
func scarce(pool *v2beta1.SpiderIPPool) bool {
	return meta.IsStatusConditionTrue(pool.Status.Conditions, v2beta1.ConditionScarce)
}

// detail returns what is stored with an address of the pool: all that an ADD
// answers besides the address itself.
func detail(pool *v2beta1.SpiderIPPool, s selection.Selection) (func(netip.Addr) json.RawMessage, error) {
	subnet, err := netip.ParsePrefix(pool.Spec.Subnet)
	if err != nil {
		return nil, fmt.Errorf("pool %s: spec.subnet: %w", pool.Name, err)
	}
	d := cluster.Detail{Pool: pool.Name, Prefix: subnet, CleanGateway: s.CleanGateway}
	if pool.Spec.Gateway != "" {
		if d.Gateway, err = netip.ParseAddr(pool.Spec.Gateway); err != nil {
			return nil, fmt.Errorf("pool %s: spec.gateway: %w", pool.Name, err)
		}
	}
	for _, r := range pool.Spec.Routes {
		route, err := parseRoute(r)
		if err != nil {
			return nil, fmt.Errorf("pool %s: spec.routes: %w", pool.Name, err)
		}
		d.Routes = append(d.Routes, route)
	}
	for _, r := range s.Routes {
		if subnet.Contains(r.Gateway) {
			d.Routes = append(d.Routes, cluster.Route{Destination: r.Destination, Gateway: r.Gateway})
		}
	}
	return func(addr netip.Addr) json.RawMessage {
		own := d
		own.Prefix = netip.PrefixFrom(addr, subnet.Bits())
		raw, err := own.Encode()
		if err != nil {
			return nil // addresses and names are always JSON
		}
		return raw
	}, nil
}

func parseRoute(r v2beta1.Route) (cluster.Route, error) {
	dst, err := netip.ParsePrefix(r.Dst)
	if err != nil {
		return cluster.Route{}, fmt.Errorf("dst: %w", err)
	}
	gw, err := netip.ParseAddr(r.Gw)
	if err != nil {
		return cluster.Route{}, fmt.Errorf("gw: %w", err)
	}
	return cluster.Route{Destination: dst.Masked(), Gateway: gw}, nil
}
