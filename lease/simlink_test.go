package lease_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

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

// call is what a call is of.
type call struct {
	who  *process
	disk bool
	// answer is set when it is the answer that waits.
	answer bool
}

// director has every call of the cluster wait twice, before it takes effect and
// before its answer is heard, and every write of a disk once.
type director = leasetest.Director[call, verdict]

type gate = leasetest.Gate[call, verdict]

// process is something that may crash.
type process struct {
	name string
	dead atomic.Bool
}

// opKey carries the number of the operation that a call belongs to.
type opKey struct{}

// link is a process's way to the cluster, by way of the director.
type link struct {
	*wires
	process *process
}

// wires are what all links share.
type wires struct {
	director director
	cluster  *leasetest.Cluster
	// next is what becomes of the next call of the cluster.
	next atomic.Pointer[leasetest.Fault]
}

var _ lease.Cluster = (*link)(nil)

func through[T any](ctx context.Context, l *link, what string, do func(context.Context) (T, error)) (T, error) {
	var none T
	if l.process.dead.Load() {
		return none, errDead
	}
	if err := ctx.Err(); err != nil {
		return none, err
	}
	key := fmt.Sprintf("%s #%03d %s", l.process.name, ctx.Value(opKey{}), what)
	v := l.director.Wait(key, call{who: l.process})
	l.next.Store(&v.call)
	// A caller that gives up does not take back what it has sent.
	got, err := do(context.WithoutCancel(ctx))
	l.director.Wait(key+" answer", call{who: l.process, answer: true})
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

func (l *link) Roomy(ctx context.Context, regions []netip.Prefix) ([]lease.Block, error) {
	return through(ctx, l, "Roomy", func(ctx context.Context) ([]lease.Block, error) { return l.cluster.Roomy(ctx, regions) })
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
