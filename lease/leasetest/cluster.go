package leasetest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	"github.com/holdfast-ipam/holdfast/lease"
)

// Cluster is a [lease.Cluster] in memory. Versions grow over all objects, as
// an API server's do, and no version is ever used twice. Make one with
// [NewCluster].
type Cluster struct {
	fault func(Call) Fault

	mu        sync.Mutex
	version   uint64
	uids      int
	blocks    map[string]lease.Block
	endpoints map[string]lease.Endpoint
	pods      map[string]lease.PodAt
	calls     []Call
	late      []lateWrite
	changes   []Change
}

var _ lease.Cluster = (*Cluster)(nil)

// lateWrite is a write that is still under way.
type lateWrite struct {
	due  int // the number of calls it waits for, 0 for Land
	land func() error
}

// Change is one change of a block or an endpoint, in the order they took
// effect. It is what a watch would tell, and the caller decides when.
type Change struct {
	Version uint64
	// Block and Endpoint are the object after the change, or before it when
	// it is Deleted. One of them is nil.
	Block    *lease.Block
	Endpoint *lease.Endpoint
	Deleted  bool
}

// NewCluster returns an empty cluster. The fault function, if any, is called
// in every call of a method of [lease.Cluster] before it looks at the state
// and without a lock: so it may call the cluster as well, and is the place
// for what happens between the caller's read and its write. A call made by
// it is a call like any other and goes through it again.
func NewCluster(fault func(Call) Fault) *Cluster {
	return &Cluster{
		fault:     fault,
		blocks:    map[string]lease.Block{},
		endpoints: map[string]lease.Endpoint{},
		pods:      map[string]lease.PodAt{},
	}
}

// Block is a method of [lease.Cluster].
func (c *Cluster) Block(ctx context.Context, name string) (lease.Block, error) {
	var block lease.Block
	err := c.read(ctx, "Block", name, func() (ok bool) {
		block, ok = c.blocks[name]
		block = block.Clone()
		return ok
	})
	return block, err
}

// Roomy is a method of [lease.Cluster].
func (c *Cluster) Roomy(ctx context.Context, regions []netip.Prefix) ([]lease.Block, error) {
	var roomy []lease.Block
	err := c.read(ctx, "Roomy", "", func() bool {
		for _, name := range slices.Sorted(maps.Keys(c.blocks)) {
			b := c.blocks[name]
			if b.Claimable() != 0 && slices.Contains(regions, lease.RegionOf(b.Prefix())) {
				roomy = append(roomy, b.Clone())
			}
		}
		return true
	})
	return roomy, err
}

// Endpoint is a method of [lease.Cluster].
func (c *Cluster) Endpoint(ctx context.Context, namespace, pod string) (lease.Endpoint, error) {
	var endpoint lease.Endpoint
	err := c.read(ctx, "Endpoint", namespace+"/"+pod, func() (ok bool) {
		endpoint, ok = c.endpoints[namespace+"/"+pod]
		endpoint = cloneEndpoint(endpoint)
		return ok
	})
	return endpoint, err
}

// PodAt is a method of [lease.Cluster].
func (c *Cluster) PodAt(ctx context.Context, namespace, pod string) (lease.PodAt, error) {
	var at lease.PodAt
	err := c.read(ctx, "PodAt", namespace+"/"+pod, func() (ok bool) {
		at, ok = c.pods[namespace+"/"+pod]
		return ok
	})
	return at, err
}

// PutBlock is a method of [lease.Cluster].
func (c *Cluster) PutBlock(ctx context.Context, b lease.Block) (lease.Block, error) {
	b = b.Clone()
	err := c.write(ctx, "PutBlock", b.Name(), func() error {
		if err := checkBlock(&b); err != nil {
			return err
		}
		if err := guard(b.Version, c.blocks[b.Name()].Version, true); err != nil {
			return err
		}
		b.Version = c.next()
		c.storeBlock(b)
		return nil
	})
	if err != nil {
		return lease.Block{}, fmt.Errorf("put block %s: %w", b.Name(), err)
	}
	return b.Clone(), nil
}

// DeleteBlock is a method of [lease.Cluster].
func (c *Cluster) DeleteBlock(ctx context.Context, b lease.Block) error {
	b = b.Clone()
	err := c.write(ctx, "DeleteBlock", b.Name(), func() error {
		stored := c.blocks[b.Name()]
		if err := guard(b.Version, stored.Version, false); err != nil {
			return err
		}
		c.next()
		delete(c.blocks, b.Name())
		c.changes = append(c.changes, Change{Version: c.version, Block: &stored, Deleted: true})
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete block %s: %w", b.Name(), err)
	}
	return nil
}

// PutEndpoint is a method of [lease.Cluster].
func (c *Cluster) PutEndpoint(ctx context.Context, e lease.Endpoint) (lease.Endpoint, error) {
	e = cloneEndpoint(e)
	key := e.Namespace + "/" + e.Pod
	err := c.write(ctx, "PutEndpoint", key, func() error {
		if err := guard(e.Version, c.endpoints[key].Version, true); err != nil {
			return err
		}
		e.Version = c.next()
		c.storeEndpoint(e)
		return nil
	})
	if err != nil {
		return lease.Endpoint{}, fmt.Errorf("put endpoint %s: %w", key, err)
	}
	return cloneEndpoint(e), nil
}

// DeleteEndpoint is a method of [lease.Cluster].
func (c *Cluster) DeleteEndpoint(ctx context.Context, e lease.Endpoint) error {
	key := e.Namespace + "/" + e.Pod
	err := c.write(ctx, "DeleteEndpoint", key, func() error {
		stored := c.endpoints[key]
		if err := guard(e.Version, stored.Version, false); err != nil {
			return err
		}
		c.next()
		delete(c.endpoints, key)
		c.changes = append(c.changes, Change{Version: c.version, Endpoint: &stored, Deleted: true})
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete endpoint %s: %w", key, err)
	}
	return nil
}

// checkBlock refuses what an API server's validation would.
func checkBlock(b *lease.Block) error {
	if !b.Prefix().IsValid() {
		return fmt.Errorf("block without a prefix: %w", lease.ErrRefused)
	}
	if err := b.Validate(); err != nil {
		return fmt.Errorf("%w: %w", lease.ErrRefused, err)
	}
	return nil
}

// guard decides whether a write judged on one version may change an object
// that has another; an object without version does not exist.
func guard(judged, stored string, create bool) error {
	switch {
	case judged == "" && !create:
		return fmt.Errorf("%w: a removal must name the version it was judged on", lease.ErrRefused)
	case judged != stored && stored == "":
		return fmt.Errorf("%w: it is gone", lease.ErrConflict)
	case judged != stored && judged == "":
		return fmt.Errorf("%w: it exists", lease.ErrConflict)
	case judged != stored:
		return fmt.Errorf("%w: it has version %s, not %s", lease.ErrConflict, stored, judged)
	}
	return nil
}

// next returns the next version. The caller holds the lock.
func (c *Cluster) next() string {
	c.version++
	return strconv.FormatUint(c.version, 10)
}

func (c *Cluster) storeBlock(b lease.Block) {
	b = b.Clone()
	c.blocks[b.Name()] = b
	c.changes = append(c.changes, Change{Version: c.version, Block: &b})
}

func (c *Cluster) storeEndpoint(e lease.Endpoint) {
	e = cloneEndpoint(e)
	c.endpoints[e.Namespace+"/"+e.Pod] = e
	c.changes = append(c.changes, Change{Version: c.version, Endpoint: &e})
}

// touch moves the version of the object a write is about, as another
// writer's change would.
func (c *Cluster) touch(call Call) {
	if b, ok := c.blocks[call.Object]; ok {
		b.Version = c.next()
		c.storeBlock(b)
	}
	if e, ok := c.endpoints[call.Object]; ok {
		e.Version = c.next()
		c.storeEndpoint(e)
	}
}

func cloneEndpoint(e lease.Endpoint) lease.Endpoint {
	e.Addresses = slices.Clone(e.Addresses)
	for i := range e.Addresses {
		e.Addresses[i].Detail = slices.Clone(e.Addresses[i].Detail)
	}
	return e
}
