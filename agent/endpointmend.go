package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/agent/elected"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// mendPeriod is how often the watch's endpoints are held against the journal.
// What changes is mended at once; this is for what the watch never showed.
const mendPeriod = 30 * time.Second

// watchEndpoints has an endpoint written anew that somebody has deleted. One
// whose pod went, or moved to another node, disappears from the watch as well,
// and write finds nothing to do.
func (a *Agent) watchEndpoints() error {
	return a.endpoints.informer.On(
		func(_, _ *v2beta1.SpiderEndpoint) {},
		func(was *v2beta1.SpiderEndpoint) { a.endpoints.enqueue(was.Namespace, was.Name) })
}

// freed has the endpoints removed of pods that have given their addresses back
// and will have none any more.
func (w *endpoints) freed(released []lease.Entry) {
	for _, e := range released {
		pod, ok := w.agent.pods.cached(e.Namespace, e.PodName())
		if ok && uidOf(pod) == e.Owner.PodUID && inLastPhase(pod) {
			w.enqueue(pod.Namespace, pod.Name)
		}
	}
}

// mend puts the endpoint of a name in order for which the journal has no
// sandbox. pod is the one that bears the name on this node, nil for none.
func (w *endpoints) mend(ctx context.Context, namespace, name string, pod *corev1.Pod) error {
	switch {
	case pod == nil || pod.DeletionTimestamp != nil:
		return w.restore(ctx, namespace, name)
	case inLastPhase(pod):
		return errors.Join(w.retire(ctx, pod), w.restore(ctx, namespace, name))
	case w.forgotten(pod):
		return w.adopt(ctx, pod)
	}
	return w.restore(ctx, namespace, name)
}

// retire removes the endpoint of a pod that has ended and given its addresses
// back, so that nobody counts them as its. A StatefulSet pod's stays: it leads
// the next pod of the name to them.
func (w *endpoints) retire(ctx context.Context, pod *corev1.Pod) error {
	old, err := w.agent.cluster.Endpoint(ctx, pod.Namespace, pod.Name)
	if err != nil || old.Sticky || old.PodUID != string(pod.UID) {
		return ignoreNotFound(err)
	}
	if err := w.agent.cluster.DeleteEndpoint(ctx, old); err != nil {
		return fmt.Errorf("remove the endpoint of a pod that has ended: %w", err)
	}
	return nil
}

// restore writes the endpoint of an identity anew that retains addresses here
// and has none: without it no other node could follow, and the collector would
// take the pin for garbage. The pin decides. It is gone when the identity is
// not wanted any more, and one that goes right behind this look leaves an
// endpoint without pin, which counts for nothing and is collected.
func (w *endpoints) restore(ctx context.Context, namespace, name string) error {
	next := lease.Endpoint{Namespace: namespace, Pod: name, Node: w.agent.node.Name, Sticky: true}
	retained := w.retained(namespace, name)
	if len(retained) == 0 {
		return nil
	}
	old, err := w.agent.cluster.Endpoint(ctx, namespace, name)
	if err == nil && retained[0].Kind != "" && old.Node == w.agent.node.Name {
		return w.tellOn(ctx, old)
	}
	if err == nil || !errors.Is(err, lease.ErrNotFound) {
		return err
	}
	for _, e := range retained {
		held, err := w.holds(ctx, &e)
		if err != nil {
			return err
		}
		if held {
			next.PodUID = e.Owner.PodUID
			next.Addresses = append(next.Addresses, lease.EndpointAddress{Interface: e.Owner.Interface, Addr: e.Addr, Detail: e.Detail})
		}
	}
	if len(next.Addresses) == 0 {
		return nil
	}
	next.OwnerKind, next.OwnerName = retained[0].Kind, name
	if next.OwnerKind == "" {
		next.OwnerKind = "StatefulSet"
		next.OwnerName, _, _ = elected.SplitPodName(name)
	}
	if _, err := w.agent.cluster.PutEndpoint(ctx, next); err != nil {
		return fmt.Errorf("write the endpoint of a held address anew: %w", err)
	}
	return nil
}

// tellOn writes the endpoint of a virtual machine as it is, because its pod is
// gone: the elected agent, which watches endpoints and no machines, looks then
// whether the machine still wants its addresses.
func (w *endpoints) tellOn(ctx context.Context, e lease.Endpoint) error {
	if _, err := w.agent.cluster.PutEndpoint(ctx, e); err != nil {
		return fmt.Errorf("tell on that the pod of a virtual machine is gone: %w", err)
	}
	return nil
}

// retained returns what the journal retains for the identities of a name.
func (w *endpoints) retained(namespace, name string) []lease.Entry {
	var entries []lease.Entry
	for _, e := range w.agent.lessee.Entries() {
		if e.State == lease.Retained && e.Sticky && e.Namespace == namespace && e.Pod == name && e.Detail != nil {
			entries = append(entries, e)
		}
	}
	return entries
}

// errReleasing: whether a pin goes or is unmarked is not decided yet.
var errReleasing = errors.New("the pin of the address is being released")

// holds reports, by a quorum read, whether an entry's address is leased to
// this node and pinned to the entry's identity for good (errReleasing).
func (w *endpoints) holds(ctx context.Context, e *lease.Entry) (bool, error) {
	b, err := w.agent.cluster.Block(ctx, lease.Name(lease.BlockOf(e.Addr)))
	if err != nil {
		return false, ignoreNotFound(err)
	}
	return isHeld(e, &b, w.agent.node)
}

// isHeld is what [endpoints.holds] concludes from the block.
func isHeld(e *lease.Entry, b *lease.Block, node lease.Node) (bool, error) {
	pin, ok := b.PinAt(e.Addr)
	if !ok || pin.Identity != e.Identity() || !b.LeasedTo(node.UID).Has(lease.Offset(e.Addr)) {
		return false, nil
	}
	if pin.Releasing {
		return false, fmt.Errorf("%s: %w", e.Addr, errReleasing)
	}
	return true, nil
}

// forgotten reports whether a pod has an address of one of the pools, of
// which neither the journal nor the watch's endpoint knows: an agent placed it
// that had the journal of an earlier Node of this name, and ended before it had
// written the endpoint.
func (w *endpoints) forgotten(pod *corev1.Pod) bool {
	if pod.Spec.HostNetwork || inLastPhase(pod) || pod.DeletionTimestamp != nil || !w.informer.HasSynced() {
		return false
	}
	if e, ok := w.informer.Get(pod.Namespace + "/" + w.agent.bearing(pod).name); ok && e.Status.Current.UID == string(pod.UID) {
		return false
	}
	return slices.ContainsFunc(cluster.Told(pod), func(t lease.EndpointAddress) bool {
		return w.agent.pools.detailOf(t.Addr) != nil
	})
}

// adopt writes the endpoint of a pod that an agent of an earlier Node of this
// name has placed, by its status.
func (w *endpoints) adopt(ctx context.Context, pod *corev1.Pod) error {
	var entries []lease.Entry
	for _, told := range cluster.Told(pod) {
		e := w.agent.recollected(pod, told.Interface, told.Addr)
		if e.Detail = w.agent.pools.detailOf(e.Addr); e.Detail == nil {
			continue
		}
		b, err := w.agent.cluster.Block(ctx, lease.Name(lease.BlockOf(e.Addr)))
		if err != nil {
			if ignoreNotFound(err) == nil {
				continue
			}
			return err
		}
		if adoptable(&e, &b, w.agent.node) {
			entries = append(entries, e)
		}
	}
	if len(entries) == 0 || !entries[0].Sticky && w.agent.config.Endpoints == endpointsStatefulSet {
		return nil
	}
	return w.put(ctx, pod, entries)
}

// adoptable reports whether the block bears out that the entry's pod has its
// address from an earlier Node of this one's name. An address of another network
// may lie in a pool as well, and one that this very Node leases may be another
// pod's by now, unless it is pinned.
func adoptable(e *lease.Entry, b *lease.Block, node lease.Node) bool {
	at, leased := b.LesseeOf(e.Addr)
	return leased && at.Name == node.Name && (at.UID != node.UID || e.Sticky) && fits(e, []lease.Block{*b})
}

// mendEndpoints queues what the watch shows to be amiss: pods with addresses
// and without an endpoint of theirs, and endpoints of pods that have ended. It
// makes no request.
func (a *Agent) mendEndpoints(context.Context) error {
	w := a.endpoints
	pods, known := a.pods.live()
	if !known || !w.informer.HasSynced() {
		return nil
	}
	has := map[string]bool{}
	for _, e := range a.lessee.Entries() {
		if e.State == lease.Assigned && e.Detail != nil {
			has[e.Owner.PodUID] = true
		}
	}
	for _, uid := range slices.Sorted(maps.Keys(pods)) {
		pod := pods[uid]
		b := a.bearing(pod)
		if b.kind != "" {
			continue // the endpoint may be that of a pod to which the machine has moved
		}
		e, ok := w.informer.Get(pod.Namespace + "/" + pod.Name)
		ok = ok && e.Status.Current.UID == string(pod.UID)
		switch {
		case ok && !has[uid] && inLastPhase(pod) && len(e.OwnerReferences) > 0,
			!ok && has[uid] && (a.config.Endpoints != endpointsStatefulSet || b.sticky),
			!ok && !has[uid] && w.forgotten(pod):
			w.enqueue(pod.Namespace, pod.Name)
		}
	}
	return nil
}
