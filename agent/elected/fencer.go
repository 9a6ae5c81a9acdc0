package elected

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	nadv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	nadutils "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/utils"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/lease"
)

// Fencer ends the leases of nodes that are gone: there is no Node of the name,
// or another one, or an administrator has declared it out of service
// (KEP-2268). A node that only does not answer is never fenced: its pods may
// run on.
//
// It remembers nothing but since when nodes have been seen gone. A Fencer that
// has forgotten, because another agent was elected, makes them wait for the
// hold-down anew. What it ends is judged by quorum reads and ended by guarded
// updates; after any error the caller calls again. Its methods may be called
// at the same time.
type Fencer struct {
	// Cluster is the shared state.
	Cluster lease.Cluster
	// HoldDown is how long a node must have been seen gone without a break.
	HoldDown time.Duration
	// Now tells the time that hold-downs are measured in. It must not go
	// back.
	Now func() time.Time
	// Node returns the Node of a name by a quorum read ([lease.ErrNotFound]).
	Node func(ctx context.Context, name string) (*corev1.Node, error)
	// Pods returns the pods bound to the node of a name by a quorum read,
	// whatever their phase and their namespace.
	Pods func(ctx context.Context, node string) ([]corev1.Pod, error)

	mu sync.Mutex
	// gone is since when a node has been seen gone, by UID.
	gone map[string]time.Time
}

// Fenced is what a call of [Fencer.Fence] did.
type Fenced struct {
	// Ended are the blocks in which the node has no lease any more.
	Ended []string
	// Waiting are the blocks in which it keeps the addresses that pods bound
	// to it have.
	Waiting []string
	// Rest is what is left of the hold-down. Until then nothing is looked at.
	Rest time.Duration
}

// Glance tells what a cache knows of a node: node bears its name now, nil when
// none does. Each change is to be told, because a node that comes back and
// goes begins a new hold-down. It reports whether the node is gone and was not
// known to be: then [Fencer.Fence] is to be called after the hold-down.
func (f *Fencer) Glance(lessee lease.Node, node *corev1.Node) (news bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !isGone(node, lessee.UID) {
		delete(f.gone, lessee.UID)
		return false
	}
	if _, known := f.gone[lessee.UID]; known {
		return false
	}
	if f.gone == nil {
		f.gone = make(map[string]time.Time)
	}
	f.gone[lessee.UID] = f.Now()
	return true
}

// isGone reports whether the node with the UID is gone, given the Node that
// bears its name now, nil if there is none: no Node, another Node, or one
// that an administrator has declared out of service.
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

// Fence ends the leases of a node in the named blocks, if it has been seen
// gone for the hold-down and is gone by a quorum read, but for the addresses
// that pods bound to it have. Pins stay. Where an error keeps a lease from being
// judged it stays, and the error is returned beside what became of the others.
//
// When nothing is left to wait for, the node is forgotten, so that a lease
// that comes to light later gets a hold-down of its own.
func (f *Fencer) Fence(ctx context.Context, lessee lease.Node, blocks []string) (Fenced, error) {
	since, gone := f.since(lessee)
	if !gone {
		return Fenced{}, nil
	}
	if rest := f.HoldDown - f.Now().Sub(since); rest > 0 {
		return Fenced{Rest: rest}, nil
	}
	if len(blocks) == 0 {
		f.forget(lessee)
		return Fenced{}, nil
	}
	return f.fence(ctx, lessee, blocks)
}

// fence reads the blocks before it looks at the node, and ends leases on the
// versions it read. A node that is back writes each of its blocks between
// finding itself in order and its first assignment: it is either seen back
// here, or that write makes this one lose.
func (f *Fencer) fence(ctx context.Context, lessee lease.Node, blocks []string) (Fenced, error) {
	var done Fenced
	var errs []error
	var read []lease.Block
	for _, name := range blocks {
		b, err := f.Cluster.Block(ctx, name)
		switch {
		case errors.Is(err, lease.ErrNotFound):
			done.Ended = append(done.Ended, name)
		case err != nil:
			errs = append(errs, fmt.Errorf("read block %s: %w", name, err))
		default:
			read = append(read, b)
		}
	}
	held, gone, err := f.look(ctx, lessee)
	if err != nil {
		return Fenced{}, errors.Join(append(errs, err)...)
	}
	if !gone {
		f.forget(lessee)
		return Fenced{}, nil
	}
	for _, b := range read {
		left, err := endLease(ctx, f.Cluster, b, lessee.UID, held)
		switch {
		case err != nil:
			errs = append(errs, err)
		case left > 0:
			done.Waiting = append(done.Waiting, b.Name())
		default:
			done.Ended = append(done.Ended, b.Name())
		}
	}
	if len(done.Ended) == len(blocks) {
		f.forget(lessee)
	}
	return done, errors.Join(errs...)
}

func (f *Fencer) since(lessee lease.Node) (since time.Time, gone bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	since, gone = f.gone[lessee.UID]
	return since, gone
}

func (f *Fencer) forget(lessee lease.Node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.gone, lessee.UID)
}

// inUse are the addresses that pods may have, and whose pin they need for it: an
// address that only the endpoint of an identity names is in use with its pin
// and not without. The zero Identity needs none.
type inUse map[netip.Addr]lease.Identity

// of returns those of a block.
func (u inUse) of(b *lease.Block) map[netip.Addr]bool {
	used := map[netip.Addr]bool{}
	for addr, id := range u {
		if lease.BlockOf(addr) != b.Prefix() {
			continue
		}
		pin, pinned := b.PinAt(addr)
		used[addr] = id == lease.Identity{} || pinned && pin.Identity == id
	}
	return used
}

// look is the quorum reads right before a fencing. It returns false if the
// node is back, and otherwise the addresses that pods bound to it have.
func (f *Fencer) look(ctx context.Context, lessee lease.Node) (held inUse, gone bool, err error) {
	node, err := f.Node(ctx, lessee.Name)
	switch {
	case errors.Is(err, lease.ErrNotFound):
		node = nil
	case err != nil:
		return nil, true, fmt.Errorf("read node %s: %w", lessee.Name, err)
	}
	if !isGone(node, lessee.UID) {
		return nil, false, nil
	}
	pods, err := f.Pods(ctx, lessee.Name)
	if err != nil {
		return nil, true, fmt.Errorf("list the pods of node %s: %w", lessee.Name, err)
	}
	successor := node
	if node != nil && string(node.UID) == lessee.UID {
		successor = nil // it is this very node, out of service
	}
	held = inUse{}
	for i := range pods {
		if err := f.holdings(ctx, &pods[i], successor, held); err != nil {
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
// pod whose addresses are not known may have any. One that was bound to the
// successor may have any too once it runs: an agent that has not noticed that
// its Node is another one serves the pods of that one, for half a hold-down at
// most, and a kubelet says within seconds that a pod runs. A pod that does not
// run may be waiting for the very addresses that are to come free here, and so
// may one that has lost its sandbox since: what its status and its endpoint
// tell is what that sandbox had.
func (f *Fencer) holdings(ctx context.Context, pod *corev1.Pod, successor *corev1.Node, held inUse) error {
	if pod.Spec.HostNetwork || cluster.Finished(pod) {
		return nil
	}
	if since, lost := cluster.WithoutSandbox(pod); lost && successor != nil && !since.Before(&successor.CreationTimestamp) {
		return nil
	}
	e, err := f.Cluster.Endpoint(ctx, pod.Namespace, pod.Name)
	if err != nil && !errors.Is(err, lease.ErrNotFound) {
		return fmt.Errorf("read endpoint %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	known := tellsAll(pod, told(pod, &e, held))
	since := boundSince(pod)
	bound := successor != nil && !since.Before(&successor.CreationTimestamp)
	if known || bound && !hasSandbox(pod) {
		return nil
	}
	return fmt.Errorf("pod %s/%s: %w", pod.Namespace, pod.Name, errUnknownAddresses)
}

// told adds to held the addresses that the pod's endpoint, its status and what
// Multus has written on it (multi-network specification 1.3, section 5) tell,
// and returns of how many interfaces the one that tells the most does.
func told(pod *corev1.Pod, e *lease.Endpoint, held inUse) (interfaces int) {
	if e.PodUID == string(pod.UID) {
		named := map[string]bool{}
		for _, a := range e.Addresses {
			named[a.Interface] = true
			if _, known := held[a.Addr]; known {
				continue
			}
			var needs lease.Identity
			if e.Sticky {
				needs = lease.Identity{Namespace: e.Namespace, Pod: e.Pod, Interface: a.Interface, Kind: kindOf(e)}
			}
			held[a.Addr] = needs
		}
		interfaces = len(named)
	}
	for _, a := range cluster.Told(pod) {
		held[a.Addr] = lease.Identity{}
		interfaces = max(interfaces, 1)
	}
	// Without the annotation, or with one that cannot be read, it tells nothing.
	statuses, _ := nadutils.GetNetworkStatus(pod)
	return max(interfaces, len(statuses))
}

// tellsAll reports whether as many interfaces as told are all that the pod has.
func tellsAll(pod *corev1.Pod, told int) bool {
	if pod.Annotations[nadv1.NetworkAttachmentAnnot] == "" {
		return told > 0
	}
	further, err := nadutils.ParsePodNetworkAnnotation(pod)
	return err == nil && told > len(further)
}

// boundSince returns since when the pod is bound to its node: the API server
// says so as it binds the pod. Of one that was created bound it is the kubelet
// that says so, by its own clock.
func boundSince(pod *corev1.Pod) metav1.Time {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionTrue && !c.LastTransitionTime.IsZero() {
			return c.LastTransitionTime
		}
	}
	return pod.CreationTimestamp
}

// hasSandbox reports whether the pod's status says that it has a sandbox, or
// had one (KEP-3085).
func hasSandbox(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReadyToStartContainers && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return len(pod.Status.PodIPs) > 0 || pod.Status.Phase != "" && pod.Status.Phase != corev1.PodPending
}

// endLease ends the lease that the node with the UID has in a block as read, but
// for the addresses that are held, and returns how many those are. Pins stay.
func endLease(ctx context.Context, c lease.Cluster, b lease.Block, uid string, held inUse) (left int, err error) {
	ended := b.Fence(uid, held.of(&b))
	left = b.LeasedTo(uid).Len()
	if ended == 0 {
		return left, nil
	}
	if _, err := c.PutBlock(ctx, b); err != nil {
		return left, fmt.Errorf("end a lease in block %s: %w", b.Name(), err)
	}
	return left, nil
}
