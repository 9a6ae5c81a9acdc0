package elected

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go4.org/netipx"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-ipam/holdfast/agent/admission"
	"github.com/holdfast-ipam/holdfast/agent/watch"
	"github.com/holdfast-ipam/holdfast/crds"
	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

const (
	// gathering is how long changes gather before a pool is counted, and
	// statusPeriod the shortest time between two writes of one pool: a
	// thousand pods starting at once cost a handful of writes.
	gathering    = 50 * time.Millisecond
	statusPeriod = time.Second
	// toldBytes is what one pool's status may cost in a second, in bytes of
	// status.allocatedIPs to the agents of all nodes, which read the conditions
	// and the counts beside it; and toldAtMost bounds the time between two
	// writes. So the cost does not grow with the nodes, but the age of what
	// people see does: with a thousand nodes and three thousand pods in one
	// pool it is a minute.
	toldBytes  = 4 << 20
	toldAtMost = 5 * time.Minute
	// allocatedLimit is the greatest length of status.allocatedIPs in bytes.
	// An API server refuses objects above one and a half MiB, and a pool that
	// cannot be written would show old counts for good; so a pool of some
	// ten thousand pods shows counts alone.
	allocatedLimit = 1 << 20
)

// poolStatus keeps the status of pools. Its cost follows what changes: an
// endpoint or a block that changes has the pools counted that it touches,
// and counting a pool looks at this pool's endpoints and blocks.
type poolStatus struct {
	*watches
	kinds    *crds.Clients
	client   *crds.IPPools
	rules    admission.Rules
	pools    watch.Informer[*v2beta1.SpiderIPPool]
	reserved watch.Informer[*v2beta1.SpiderReservedIP]
	queue    queue[string]
	log      *slog.Logger
	space    *space

	// reservations has the SpiderReservedIPs to complete.
	reservations     queue[string]
	completePool     *completer[*v2beta1.SpiderIPPool]
	completeReserved *completer[*v2beta1.SpiderReservedIP]

	// known is how many blocks there are.
	known atomic.Int64

	mu sync.Mutex
	// wrote is when the status of a pool was last written.
	wrote map[string]time.Time
	// parsed are the addresses of pools, and conflicts the rules they break.
	parsed    map[string]parsedPool
	conflicts map[string]conflicts
}

// parsedPool is the addresses of a pool at one generation of its spec, or
// what is wrong with them.
type parsedPool struct {
	uid        types.UID
	generation int64
	addrs      *netipx.IPSet
	err        error
}

// keepPoolStatus is the duty of telling people how full their pools are, and
// agents when to yield what they do not use.
func (d *Duties) keepPoolStatus(ctx context.Context, w *watches, log *slog.Logger) {
	s := &poolStatus{
		watches:  w,
		kinds:    d.config.CRDs,
		client:   d.config.CRDs.IPPools(),
		rules:    d.config.Rules,
		pools:    newCache(d.config.CRDs.IPPools(), &v2beta1.SpiderIPPool{}, nil),
		reserved: newCache(d.config.CRDs.ReservedIPs(), &v2beta1.SpiderReservedIP{}, nil),
		queue:    newQueue[string]("pools"),
		log:      log,
		space:    newSpace(),

		reservations:     newQueue[string]("reservations"),
		completePool:     newCompleter(d.config.CRDs.IPPools(), admission.DefaultPool),
		completeReserved: newCompleter(d.config.CRDs.ReservedIPs(), admission.DefaultReservedIP),

		wrote:  make(map[string]time.Time),
		parsed: make(map[string]parsedPool),

		conflicts: make(map[string]conflicts),
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.pools.RunWithContext(ctx) })
	wg.Go(func() { s.reserved.RunWithContext(ctx) })
	if !watch.Synced(ctx, w.blocks, w.endpoints, w.nodes, s.pools, s.reserved) {
		return
	}
	if err := s.watch(); err != nil {
		log.Error("cannot begin", "err", err)
		return
	}
	wg.Go(func() { s.reservations.work(ctx, 1, log, s.doReserved) })
	s.queue.work(ctx, 2, log, s.do)
}

func (s *poolStatus) watch() error {
	if err := s.pools.On(s.poolChanged, s.poolGone); err != nil {
		return err
	}
	if err := s.reserved.On(s.reservedChanged, s.reservedGone); err != nil {
		return err
	}
	err := s.endpoints.On(
		func(was, is *v2beta1.SpiderEndpoint) { s.endpointChanged(was, is) },
		func(was *v2beta1.SpiderEndpoint) { s.endpointChanged(was) })
	if err != nil {
		return err
	}
	return s.blocks.On(s.blockChanged, func(was *v1alpha1.IPBlock) { s.blockChanged(was, nil) })
}

// later has a pool counted soon, but not too soon after the last time.
func (s *poolStatus) later(pool string) {
	s.mu.Lock()
	rest := statusPeriod - time.Since(s.wrote[pool])
	s.mu.Unlock()
	s.queue.AddAfter(pool, max(rest, gathering))
}

func (s *poolStatus) allLater() {
	for _, name := range s.pools.GetStore().ListKeys() {
		s.later(name)
	}
}

func (s *poolStatus) endpointChanged(states ...*v2beta1.SpiderEndpoint) {
	for _, e := range states {
		if e == nil {
			continue
		}
		pools, _ := poolsOf(e)
		for _, pool := range pools {
			s.later(pool)
		}
	}
}

// blockChanged has the pools counted that a block shares addresses with.
func (s *poolStatus) blockChanged(was, is *v1alpha1.IPBlock) {
	b := is
	switch {
	case was == nil:
		s.known.Add(1)
	case is == nil:
		s.known.Add(-1)
		b = was
	}
	if was != nil && is != nil && equality.Semantic.DeepEqual(was.Spec, is.Spec) {
		return
	}
	prefix, err := lease.ParseName(b.Name)
	if err != nil {
		return
	}
	for _, name := range s.space.near(prefix) {
		pool, ok := s.pools.Get(name)
		if !ok {
			continue
		}
		if addrs, err := s.addresses(pool); err == nil && addrs.OverlapsPrefix(prefix) {
			s.later(pool.Name)
		}
	}
}

// addresses returns the addresses of a pool, reserved ones among them.
func (s *poolStatus) addresses(pool *v2beta1.SpiderIPPool) (*netipx.IPSet, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.parsed[pool.Name]
	if p.addrs == nil && p.err == nil || p.uid != pool.UID || p.generation != pool.Generation {
		p = parsedPool{uid: pool.UID, generation: pool.Generation}
		p.addrs, p.err = pool.Spec.Addresses()
		s.parsed[pool.Name] = p
	}
	return p.addrs, p.err
}

// do brings one pool up to date. One that cannot be completed is counted all
// the same.
func (s *poolStatus) do(ctx context.Context, name string) (again bool, err error) {
	pool, ok := s.pools.Get(name)
	if !ok {
		return false, nil
	}
	if pool.DeletionTimestamp != nil {
		if gone, err := s.finish(ctx, pool); gone || err != nil {
			return err != nil, err
		}
		return false, s.write(ctx, pool)
	}
	pool, err = s.completePool.complete(ctx, pool)
	return false, errors.Join(err, s.write(ctx, pool))
}

// write counts a pool and writes its status if it has changed.
func (s *poolStatus) write(ctx context.Context, pool *v2beta1.SpiderIPPool) error {
	next := pool.DeepCopy()
	if err := s.count(next); err != nil {
		return err
	}
	if equality.Semantic.DeepEqual(pool.Status, next.Status) {
		return nil
	}
	agents := len(s.nodes.GetStore().ListKeys())
	s.mu.Lock()
	rest := restOf(&pool.Status, &next.Status, agents) - time.Since(s.wrote[pool.Name])
	s.mu.Unlock()
	if rest > 0 {
		s.queue.AddAfter(pool.Name, rest)
		return nil
	}
	if _, err := s.client.UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("write the status of pool %s: %w", pool.Name, guarded(err))
	}
	s.mu.Lock()
	s.wrote[pool.Name] = time.Now()
	s.mu.Unlock()
	return nil
}

// restOf returns how long after the last write of a pool's status another one
// is due: at once for a condition, which agents go by, and the later the longer
// the list is that goes with the counts, and the more agents it goes to.
func restOf(was, is *v2beta1.IPPoolStatus, agents int) time.Duration {
	if !equality.Semantic.DeepEqual(was.Conditions, is.Conditions) {
		return 0
	}
	length := 0
	for _, list := range []*string{was.AllocatedIPs, is.AllocatedIPs} {
		if list != nil {
			length = max(length, len(*list))
		}
	}
	seconds := float64(length) * float64(agents) / toldBytes
	return min(time.Duration(seconds*float64(time.Second)), toldAtMost)
}

// count sets the status of a pool from the caches.
func (s *poolStatus) count(pool *v2beta1.SpiderIPPool) error {
	addrs, unusable := s.addresses(pool)
	t := s.tally(pool)
	if unusable == nil {
		total := v2beta1.Count(addrs)
		pool.Status.TotalIPCount = &total
	}
	text, err := v2beta1.EncodeAllocations(t.has)
	if err != nil {
		return fmt.Errorf("pool %s: %w", pool.Name, err)
	}
	if text != nil && len(*text) > allocatedLimit {
		text = nil
	}
	allocated := int64(len(t.has))
	pool.Status.AllocatedIPs, pool.Status.AllocatedIPCount = text, &allocated
	s.judge(pool, addrs, unusable)
	s.judgeConflicts(pool, unusable)
	return nil
}

// tally returns who has which address of the pool, by the caches.
func (s *poolStatus) tally(pool *v2beta1.SpiderIPPool) *tally {
	t := newTally(pool.Name)
	for _, e := range s.endpoints.By(indexPool, pool.Name) {
		t.endpoint(e)
	}
	if addrs, err := s.addresses(pool); err == nil {
		s.countPins(t, addrs)
	}
	return t
}

// countPins counts the pins of the pool's addresses that no endpoint accounts
// for, be it in this pool or in one that overlaps it.
func (s *poolStatus) countPins(t *tally, addrs *netipx.IPSet) {
	count := func(b *v1alpha1.IPBlock) {
		for _, p := range b.Spec.Pins {
			addr, err := netip.ParseAddr(p.Address)
			if err != nil || !addrs.Contains(addr) {
				continue
			}
			if e, ok := s.endpoints.Get(p.Pod); !ok || !names(e, p.Interface, addr) {
				t.pin(p)
			}
		}
	}
	if !few(addrs, int(s.known.Load())) {
		for _, key := range s.blocks.GetStore().ListKeys() {
			if b, ok := s.blocks.Get(key); ok {
				count(b)
			}
		}
		return
	}
	for prefix := range prefixesOf(addrs) {
		if b, ok := s.blocks.Get(lease.Name(prefix)); ok {
			count(b)
		}
	}
}

// judge sets the pool's conditions. One that never held is not mentioned.
func (s *poolStatus) judge(pool *v2beta1.SpiderIPPool, addrs *netipx.IPSet, unusable error) {
	usable := metav1.Condition{
		Type: v2beta1.ConditionUsable, Status: metav1.ConditionTrue, ObservedGeneration: pool.Generation,
		Reason: "SpecUnderstood", Message: "the spec can be understood",
	}
	if unusable != nil {
		usable.Status, usable.Reason, usable.Message = metav1.ConditionFalse, "SpecRefused", unusable.Error()
	}
	if unusable != nil || meta.FindStatusCondition(pool.Status.Conditions, usable.Type) != nil {
		meta.SetStatusCondition(&pool.Status.Conditions, usable)
	}
	isScarce := unusable == nil && scarce(s.unreserved(addrs), int(s.known.Load()), s.taken)
	condition := metav1.Condition{
		Type: v2beta1.ConditionScarce, Status: metav1.ConditionFalse, ObservedGeneration: pool.Generation,
		Reason: "AddressesLeft", Message: "there are addresses that no node leases",
	}
	if isScarce {
		condition.Status, condition.Reason = metav1.ConditionTrue, "EverythingLeased"
		condition.Message = "every address is leased by a node or held for a StatefulSet's pod: agents yield what they do not use"
	}
	if isScarce || meta.FindStatusCondition(pool.Status.Conditions, condition.Type) != nil {
		meta.SetStatusCondition(&pool.Status.Conditions, condition)
	}
}

// unreserved returns the addresses without those that a SpiderReservedIP
// keeps from pods. One on its way out keeps nothing.
func (s *poolStatus) unreserved(addrs *netipx.IPSet) *netipx.IPSet {
	var b netipx.IPSetBuilder
	b.AddSet(addrs)
	for _, key := range s.reserved.GetStore().ListKeys() {
		r, ok := s.reserved.Get(key)
		if !ok || r.DeletionTimestamp != nil {
			continue
		}
		// What cannot be understood reserves nothing; the agents say so.
		if set, _ := r.Spec.Addresses(); set != nil {
			b.RemoveSet(set)
		}
	}
	left, err := b.IPSet()
	if err != nil {
		return addrs
	}
	return left
}

// taken returns what is leased or pinned of the block at the prefix.
func (s *poolStatus) taken(prefix netip.Prefix) lease.Set {
	b, ok := s.blocks.Get(lease.Name(prefix))
	if !ok {
		return 0
	}
	return takenOf(prefix, b)
}

// poolsOf indexes an endpoint by the pools of its addresses.
func poolsOf(e *v2beta1.SpiderEndpoint) ([]string, error) {
	var pools []string
	for _, i := range e.Status.Current.IPs {
		for _, pool := range []string{i.IPv4Pool, i.IPv6Pool} {
			if pool != "" {
				pools = append(pools, pool)
			}
		}
	}
	return pools, nil
}
