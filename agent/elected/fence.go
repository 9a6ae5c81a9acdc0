package elected

import (
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/agent/watch"
	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// fence is the loop that tells a [Fencer] what caches know of nodes, and calls
// it when a hold-down has passed.
type fence struct {
	blocks watch.Informer[*v1alpha1.IPBlock]
	nodes  watch.Informer[*corev1.Node]
	fencer Fencer
	queue  queue[lease.Node]
	log    *slog.Logger
}

// fenceNodes is the duty of taking leases from nodes that are gone.
func (d *Duties) fenceNodes(ctx context.Context, w *watches, log *slog.Logger) {
	f := &fence{
		blocks: w.blocks,
		nodes:  w.nodes,
		fencer: Fencer{
			Cluster:  d.config.Cluster,
			HoldDown: d.config.HoldDown,
			Now:      time.Now,
			Node:     d.node,
			Pods: func(ctx context.Context, node string) ([]corev1.Pod, error) {
				return cluster.PodsOn(ctx, d.config.Kubernetes.CoreV1(), node)
			},
		},
		queue: newQueue[lease.Node]("fence"),
		log:   log,
	}
	if !watch.Synced(ctx, w.blocks, f.nodes) {
		return
	}
	if err := f.watch(); err != nil {
		log.Error("cannot begin", "err", err)
		return
	}
	f.queue.work(ctx, 1, log, f.do)
}

// node is the quorum read of a Node.
func (d *Duties) node(ctx context.Context, name string) (*corev1.Node, error) {
	node, err := d.config.Kubernetes.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, lease.ErrNotFound
	}
	return node, err
}

// watch looks at a lessee when a block names it or its Node changes.
func (f *fence) watch() error {
	err := f.blocks.On(func(_, is *v1alpha1.IPBlock) {
		for _, l := range is.Spec.Leases {
			node, _ := f.nodes.Get(l.Node) // nil if there is none
			f.glance(lease.Node{Name: l.Node, UID: l.NodeUID}, node)
		}
	}, func(*v1alpha1.IPBlock) {})
	if err != nil {
		return err
	}
	return f.nodes.On(f.changed, func(was *corev1.Node) {
		f.glance(lease.Node{Name: was.Name, UID: string(was.UID)}, nil)
	})
}

// changed goes by what the event shows and not by the cache, which may be
// ahead of it: a node that comes back and goes would not be seen back.
func (f *fence) changed(was, is *corev1.Node) {
	if was != nil && was.UID != is.UID { // deleted and created again between two events
		f.glance(lease.Node{Name: was.Name, UID: string(was.UID)}, is)
	}
	f.glance(lease.Node{Name: is.Name, UID: string(is.UID)}, is)
}

// glance tells the Fencer what is known of a lessee. A node that is gone
// without a known lease is told as well, and forgotten after the hold-down:
// its lease may come to light until then.
func (f *fence) glance(lessee lease.Node, node *corev1.Node) {
	if !f.fencer.Glance(lessee, node) {
		return
	}
	if len(f.blocks.By(indexLessee, lessee.UID)) > 0 {
		f.log.Info("a node with leases is gone, its leases end after the hold-down", "node", lessee.Name, "holdDown", f.fencer.HoldDown)
	}
	f.queue.AddAfter(lessee, f.fencer.HoldDown)
}

func (f *fence) do(ctx context.Context, lessee lease.Node) (again bool, err error) {
	var blocks []string
	for _, b := range f.blocks.By(indexLessee, lessee.UID) {
		blocks = append(blocks, b.Name)
	}
	done, err := f.fencer.Fence(ctx, lessee, blocks)
	if done.Rest > 0 {
		f.queue.AddAfter(lessee, done.Rest)
	}
	for _, name := range done.Ended {
		f.log.Info("ended the lease of a node that is gone", "node", lessee.Name, "block", name)
	}
	return len(done.Waiting) > 0, err
}

// lessees indexes a block by the UIDs of the nodes with a lease in it.
func lessees(b *v1alpha1.IPBlock) ([]string, error) {
	var uids []string
	for _, l := range b.Spec.Leases {
		uids = append(uids, l.NodeUID)
	}
	return uids, nil
}
