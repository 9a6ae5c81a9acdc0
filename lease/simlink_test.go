package lease_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing/synctest"

	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// errDead is what a process hears that has crashed.
var errDead = errors.New("this process is no more")

// verdict is how a call goes on.
type verdict struct {
	call leasetest.Fault
	disk leasetest.DiskFault
}

// gate is a call that waits for the director.
type gate struct {
	key  string
	who  *process
	disk bool
	open chan verdict
}

// director lets one call at a time go on, so that a run is the sequence of
// its choices. Every call of the cluster waits twice, before it takes effect
// and before its answer is heard, and every write of a disk once.
type director struct {
	mu    sync.Mutex
	gates []*gate
	next  leasetest.Fault
}

// wait stands at a gate until the director opens it.
func (d *director) wait(key string, who *process, disk bool) verdict {
	g := &gate{key: key, who: who, disk: disk, open: make(chan verdict)}
	d.mu.Lock()
	d.gates = append(d.gates, g)
	d.mu.Unlock()
	return <-g.open
}

// waiting returns the gates at which calls wait, once nothing else moves, in
// an order that depends on the run alone.
func (d *director) waiting() []*gate {
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	slices.SortStableFunc(d.gates, func(x, y *gate) int { return cmp.Compare(x.key, y.key) })
	return slices.Clone(d.gates)
}

// pass opens a gate and waits until nothing moves any more.
func (d *director) pass(g *gate, v verdict) {
	d.mu.Lock()
	d.gates = slices.DeleteFunc(d.gates, func(o *gate) bool { return o == g })
	d.mu.Unlock()
	g.open <- v
	synctest.Wait()
}

// process is something that may crash.
type process struct {
	name string
	dead atomic.Bool
}

// opKey carries the number of the operation that a call belongs to.
type opKey struct{}

// link is a process's way to the cluster, by way of the director.
type link struct {
	director *director
	process  *process
	cluster  *leasetest.Cluster
}

var _ lease.Cluster = (*link)(nil)

func through[T any](ctx context.Context, l *link, what string, call func(context.Context) (T, error)) (T, error) {
	var none T
	if l.process.dead.Load() {
		return none, errDead
	}
	if err := ctx.Err(); err != nil {
		return none, err
	}
	key := fmt.Sprintf("%s #%03d %s", l.process.name, ctx.Value(opKey{}), what)
	v := l.director.wait(key, l.process, false)
	l.director.mu.Lock()
	l.director.next = v.call
	l.director.mu.Unlock()
	// A caller that gives up does not take back what it has sent.
	got, err := call(context.WithoutCancel(ctx))
	l.director.wait(key+" answer", l.process, false)
	if l.process.dead.Load() {
		return none, errDead
	}
	if err := ctx.Err(); err != nil {
		return none, err
	}
	return got, err
}

func (l *link) Block(ctx context.Context, name string) (lease.Block, error) {
	return through(ctx, l, "Block "+name, func(ctx context.Context) (lease.Block, error) { return l.cluster.Block(ctx, name) })
}

func (l *link) PutBlock(ctx context.Context, b lease.Block) (lease.Block, error) {
	return through(ctx, l, fmt.Sprintf("PutBlock %s@%s %v %v", b.Name(), b.Version, b.Leases, b.Pins),
		func(ctx context.Context) (lease.Block, error) { return l.cluster.PutBlock(ctx, b) })
}

func (l *link) DeleteBlock(ctx context.Context, b lease.Block) error {
	_, err := through(ctx, l, "DeleteBlock "+b.Name()+"@"+b.Version, func(ctx context.Context) (bool, error) {
		return false, l.cluster.DeleteBlock(ctx, b)
	})
	return err
}

func (l *link) Endpoint(ctx context.Context, namespace, pod string) (lease.Endpoint, error) {
	return through(ctx, l, "Endpoint "+pod, func(ctx context.Context) (lease.Endpoint, error) {
		return l.cluster.Endpoint(ctx, namespace, pod)
	})
}

func (l *link) PutEndpoint(ctx context.Context, e lease.Endpoint) (lease.Endpoint, error) {
	what := fmt.Sprintf("PutEndpoint %s@%s", e.Pod, e.Version)
	for _, a := range e.Addresses {
		what += " " + a.Addr.String()
	}
	return through(ctx, l, what, func(ctx context.Context) (lease.Endpoint, error) { return l.cluster.PutEndpoint(ctx, e) })
}

func (l *link) DeleteEndpoint(ctx context.Context, e lease.Endpoint) error {
	_, err := through(ctx, l, "DeleteEndpoint "+e.Pod+"@"+e.Version, func(ctx context.Context) (bool, error) {
		return false, l.cluster.DeleteEndpoint(ctx, e)
	})
	return err
}

func (l *link) PodAt(ctx context.Context, namespace, pod string) (lease.PodAt, error) {
	return through(ctx, l, "PodAt "+pod, func(ctx context.Context) (lease.PodAt, error) { return l.cluster.PodAt(ctx, namespace, pod) })
}
