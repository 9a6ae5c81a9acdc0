package elected

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	nadv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/agent/watch"
	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// fence ends the leases of nodes that are gone. A node that only does not
// answer is never fenced: its pods may run on.
type fence struct {
	blocks   watch.Informer[*v1alpha1.IPBlock]
	nodes    watch.Informer[*corev1.Node]
	cluster  lease.Cluster
	holdDown time.Duration
	// look is [Duties.lookAgain].
	look  func(context.Context, lease.Node) (held map[netip.Addr]bool, gone bool, err error)
	queue queue[lease.Node]
	log   *slog.Logger

	mu sync.Mutex
	// gone is since when this elected agent has seen a node gone without a
	// break, by UID.
	gone map[string]time.Time
}

// fenceNodes is the duty of taking leases from nodes that are gone.
func (d *Duties) fenceNodes(ctx context.Context, w *watches, log *slog.Logger) {
	f := &fence{
		blocks:   w.blocks,
		nodes:    newCache(d.config.Kubernetes.CoreV1().Nodes(), &corev1.Node{}, nil),
		cluster:  d.config.Cluster,
		holdDown: d.config.HoldDown,
		look:     d.lookAgain,
		queue:    newQueue[lease.Node]("fence"),
		log:      log,
		gone:     make(map[string]time.Time),
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { f.nodes.RunWithContext(ctx) })
	if !watch.Synced(ctx, w.blocks, f.nodes) {
		return
	}
	if err := f.watch(); err != nil {
		log.Error("cannot begin", "err", err)
		return
	}
	f.queue.work(ctx, 1, log, f.do)
}

// watch looks at a lessee when a block names it or its Node changes.
func (f *fence) watch() error {
	err := f.blocks.On(func(_, is *v1alpha1.IPBlock) {
		for _, l := range is.Spec.Leases {
			f.glance(lease.Node{Name: l.Node, UID: l.NodeUID})
		}
	}, func(*v1alpha1.IPBlock) {})
	if err != nil {
		return err
	}
	changed := func(n *corev1.Node) { f.glance(lease.Node{Name: n.Name, UID: string(n.UID)}) }
	return f.nodes.On(func(was, is *corev1.Node) {
		if was != nil && was.UID != is.UID {
			changed(was) // deleted and created again between two events
		}
		changed(is)
	}, changed)
}

// glance notes when a lessee is first seen gone, and forgets it when it is
// back.
func (f *fence) glance(lessee lease.Node) {
	var node *corev1.Node
	if n, ok := f.nodes.Get(lessee.Name); ok {
		node = n
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	_, known := f.gone[lessee.UID]
	switch {
	case !isGone(node, lessee.UID):
		delete(f.gone, lessee.UID)
	case !known && len(f.blocks.By(indexLessee, lessee.UID)) > 0:
		f.gone[lessee.UID] = time.Now()
		f.log.Info("a node with leases is gone, its leases end after the hold-down", "node", lessee.Name, "holdDown", f.holdDown)
		f.queue.AddAfter(lessee, f.holdDown)
	}
}

// isGone reports whether the node with the UID is gone, given the Node that
// bears its name now, nil if there is none: no Node, another Node, or one
// that an administrator has declared out of service (KEP-2268).
func isGone(node *corev1.Node, uid string) bool {
	if node == nil || string(node.UID) != uid {
		return true
	}
	for _, t := range node.Spec.Taints {
		if t.Key == corev1.TaintNodeOutOfService {
			return true
		}
	}
	return false
}

// do fences a lessee if it has been gone for the hold-down and no pod bound
// to it is left. It comes again as long as one is.
func (f *fence) do(ctx context.Context, lessee lease.Node) (again bool, err error) {
	f.mu.Lock()
	since, gone := f.gone[lessee.UID]
	f.mu.Unlock()
	blocks := f.blocks.By(indexLessee, lessee.UID)
	if !gone || len(blocks) == 0 {
		f.forget(lessee.UID)
		return false, nil
	}
	if rest := f.holdDown - time.Since(since); rest > 0 {
		f.queue.AddAfter(lessee, rest)
		return false, nil
	}
	held, gone, err := f.look(ctx, lessee)
	if err != nil {
		return true, err
	}
	if !gone {
		f.forget(lessee.UID)
		return false, nil
	}
	var errs []error
	for _, b := range blocks {
		left, err := endLease(ctx, f.cluster, b.Name, lessee.UID, held)
		switch {
		case err != nil:
			errs = append(errs, err)
		case left > 0:
			again = true
		default:
			f.log.Info("ended the lease of a node that is gone", "node", lessee.Name, "block", b.Name)
		}
	}
	return again || len(errs) > 0, errors.Join(errs...)
}

func (f *fence) forget(uid string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.gone, uid)
}

// lookAgain is the quorum reads right before a fencing. It returns false if
// the node is back, and otherwise the addresses that pods bound to it have.
func (d *Duties) lookAgain(ctx context.Context, lessee lease.Node) (held map[netip.Addr]bool, gone bool, err error) {
	node, err := d.config.Kubernetes.CoreV1().Nodes().Get(ctx, lessee.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		node = nil
	case err != nil:
		return nil, true, fmt.Errorf("read node %s: %w", lessee.Name, err)
	}
	if !isGone(node, lessee.UID) {
		return nil, false, nil
	}
	pods, err := d.config.Kubernetes.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.nodeName", lessee.Name).String(),
	})
	if err != nil {
		return nil, true, fmt.Errorf("list the pods of node %s: %w", lessee.Name, err)
	}
	successor := node
	if node != nil && string(node.UID) == lessee.UID {
		successor = nil // it is this very node, out of service
	}
	held = make(map[netip.Addr]bool)
	for i := range pods.Items {
		if err := holdings(ctx, d.config.Cluster, &pods.Items[i], successor, held); err != nil {
			return nil, true, err
		}
	}
	return held, true, nil
}

// errUnknownAddresses says that a pod is bound to a node that is gone, and
// that nothing tells which addresses it has.
var errUnknownAddresses = errors.New("a pod is still bound to the node that is gone and nothing tells its addresses: " +
	"delete the pod if the node will not come back")

// holdings adds the addresses that the pod may have to held. successor is the
// Node that bears the name of the one that is gone, nil if there is none. A
// pod whose addresses are not known may have any, unless it is younger than
// the successor and so was never on the other node.
func holdings(ctx context.Context, c lease.Cluster, pod *corev1.Pod, successor *corev1.Node, held map[netip.Addr]bool) error {
	if pod.Spec.HostNetwork || cluster.Finished(pod) {
		return nil
	}
	e, err := c.Endpoint(ctx, pod.Namespace, pod.Name)
	if err != nil && !errors.Is(err, lease.ErrNotFound) {
		return fmt.Errorf("read endpoint %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	known := err == nil && e.PodUID == string(pod.UID) && len(e.Addresses) > 0
	if known {
		for _, a := range e.Addresses {
			held[a.Addr] = true
		}
	}
	for _, ip := range pod.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil {
			held[addr] = true
			// With further interfaces, a pod has addresses that its status
			// does not tell.
			known = known || pod.Annotations[nadv1.NetworkAttachmentAnnot] == ""
		}
	}
	if known || successor != nil && !pod.CreationTimestamp.Before(&successor.CreationTimestamp) {
		return nil
	}
	return fmt.Errorf("pod %s/%s: %w", pod.Namespace, pod.Name, errUnknownAddresses)
}

// endLease ends the lease that the node with the UID has in a block, unless
// one of its addresses is held, and returns how many it keeps. Pins stay.
func endLease(ctx context.Context, c lease.Cluster, name, uid string, held map[netip.Addr]bool) (left int, err error) {
	b, err := c.Block(ctx, name)
	if errors.Is(err, lease.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read block %s: %w", name, err)
	}
	leased := b.LeasedTo(uid)
	for offset := range leased.Offsets() {
		if held[b.Addr(offset)] {
			return leased.Len(), nil
		}
	}
	if b.Fence(uid) == 0 {
		return 0, nil
	}
	if _, err := c.PutBlock(ctx, b); err != nil {
		return 0, fmt.Errorf("end a lease in block %s: %w", name, err)
	}
	return 0, nil
}

// lessees indexes a block by the UIDs of the nodes with a lease in it.
func lessees(b *v1alpha1.IPBlock) ([]string, error) {
	var uids []string
	for _, l := range b.Spec.Leases {
		uids = append(uids, l.NodeUID)
	}
	return uids, nil
}
