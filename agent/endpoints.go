package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/holdfast-ipam/holdfast/agent/watch"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// The pauses between two tries to write an endpoint, doubled from the first
// up to the second: soon after the API server is back, all are written.
const (
	endpointFirstPause = 50 * time.Millisecond
	endpointLongPause  = 30 * time.Second
)

// endpoints writes the SpiderEndpoint of each pod after its ADD was answered:
// nothing waits for it. A StatefulSet pod's first endpoint is the exception;
// it is written by the placement itself, and only refreshed here.
type endpoints struct {
	agent *Agent
	queue workqueue.TypedRateLimitingInterface[string]
	// informer is the endpoints that name this node. Nothing waits for it.
	informer watch.Informer[*v2beta1.SpiderEndpoint]
}

func newEndpoints(a *Agent) *endpoints {
	mine := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(v2beta1.FieldEndpointNode, a.options.NodeName).String()
	}
	w := &endpoints{agent: a, queue: workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](endpointFirstPause, endpointLongPause))}
	if a.clients != nil {
		w.informer = watch.New(a.clients.Endpoints(metav1.NamespaceAll), &v2beta1.SpiderEndpoint{},
			watch.Options[*v2beta1.SpiderEndpoint]{Narrow: mine})
	}
	return w
}

func (w *endpoints) enqueue(namespace, pod string) {
	w.queue.Add(namespace + "/" + pod)
}

// run writes until ctx ends.
func (w *endpoints) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, w.queue.ShutDown)
	defer stop()
	for {
		key, shutdown := w.queue.Get()
		if shutdown {
			return nil
		}
		err := w.write(ctx, key)
		switch {
		case err == nil:
			w.queue.Forget(key)
		case ctx.Err() == nil:
			w.agent.log.Debug("endpoint", "outcome", "retry", "pod", key, "err", err)
			w.queue.AddRateLimited(key)
		}
		w.queue.Done(key)
	}
}

// write makes the endpoint say what the journal says of the pod's sandbox.
func (w *endpoints) write(ctx context.Context, key string) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return err
	}
	pod, entries := w.find(namespace, name)
	if len(entries) == 0 { // the watch may still show an earlier pod of the name, or none yet
		if err := w.unseen(namespace, name); err != nil {
			return err
		}
		return w.mend(ctx, namespace, name, pod)
	}
	if !entries[0].Sticky && w.agent.config.Endpoints == endpointsStatefulSet {
		return nil
	}
	return w.put(ctx, pod, entries)
}

// find returns the pod of a name on this node, which may be that of a virtual
// machine, nil for none, and what the journal has for its sandbox.
func (w *endpoints) find(namespace, name string) (*corev1.Pod, []lease.Entry) {
	if pod, ok := w.agent.pods.cached(namespace, name); ok {
		return pod, w.assigned(uidOf(pod))
	}
	for _, e := range w.agent.lessee.Entries() {
		if e.State != lease.Assigned || e.Kind == "" || e.Namespace != namespace || e.Pod != name {
			continue
		}
		if pod, ok := w.agent.pods.cached(namespace, e.Bearer); ok && uidOf(pod) == e.Owner.PodUID {
			return pod, w.assigned(e.Owner.PodUID)
		}
	}
	return nil, nil
}

// put writes the endpoint of a pod that has these entries, if it says anything
// else.
func (w *endpoints) put(ctx context.Context, pod *corev1.Pod, entries []lease.Entry) error {
	if w.fresh(pod, entries) {
		err := w.store(ctx, pod, w.desired(lease.Endpoint{}, pod, entries))
		if !errors.Is(err, lease.ErrConflict) { // else there is one after all
			return err
		}
	}
	c := w.agent.cluster
	old, err := c.Endpoint(ctx, pod.Namespace, entries[0].Pod)
	if err != nil && !errors.Is(err, lease.ErrNotFound) {
		return fmt.Errorf("read the endpoint: %w", err)
	}
	next := w.desired(old, pod, entries)
	if err == nil && sameEndpoint(&old, &next) {
		return nil
	}
	if err == nil && old.PodUID != next.PodUID {
		// The name may have a later pod on another node by now, whose
		// endpoint is not ours to write.
		at, err := c.PodAt(ctx, pod.Namespace, pod.Name)
		if err != nil || at.UID != string(pod.UID) {
			return ignoreNotFound(err)
		}
		// Of the two pods of a virtual machine that moves, the one whose node
		// has the lease is the later.
		if entries[0].Kind != "" {
			if held, err := w.holds(ctx, &entries[0]); err != nil || !held {
				return err
			}
		}
	}
	return w.store(ctx, pod, next)
}

// fresh reports whether a pod has most likely no endpoint yet, so that none need
// be read: the endpoint of a pod without a claim to its name is this node's, or
// an earlier pod's whose name is seldom given again.
func (w *endpoints) fresh(pod *corev1.Pod, entries []lease.Entry) bool {
	if entries[0].Sticky || !w.informer.HasSynced() {
		return false
	}
	_, known := w.informer.Get(pod.Namespace + "/" + entries[0].Pod)
	return !known
}

// store writes an endpoint as that of a pod.
func (w *endpoints) store(ctx context.Context, pod *corev1.Pod, e lease.Endpoint) error {
	e.OwnerKind, e.OwnerName = topOwner(pod)
	if _, err := w.agent.cluster.PutEndpoint(ctx, e); err != nil {
		return fmt.Errorf("write the endpoint: %w", err)
	}
	return nil
}

func ignoreNotFound(err error) error {
	if errors.Is(err, lease.ErrNotFound) {
		return nil
	}
	return err
}

// errPodNotSeen: the watch has not brought a pod that has addresses already.
var errPodNotSeen = errors.New("the pod has not been seen yet")

// unseen returns errPodNotSeen if the journal has addresses for a pod of the
// name.
func (w *endpoints) unseen(namespace, name string) error {
	for _, e := range w.agent.lessee.Entries() {
		if e.State == lease.Assigned && e.Namespace == namespace && (e.Pod == name || e.Bearer == name) && e.Detail != nil {
			return errPodNotSeen
		}
	}
	return nil
}

// assigned returns what the journal has for a pod, but for an address of which
// nothing more is known since the journal was lost. What is retained of the same
// pod counts as long as anything is assigned to it: a DEL passes over an address
// that the next pod's ADD is about to get, and has retained the others.
func (w *endpoints) assigned(podUID string) []lease.Entry {
	var entries, retained []lease.Entry
	for _, e := range w.agent.lessee.Entries() {
		switch {
		case e.Owner.PodUID != podUID || e.Detail == nil:
		case e.State == lease.Assigned:
			entries = append(entries, e)
		case e.State == lease.Retained && e.Sticky:
			retained = append(retained, e)
		}
	}
	if len(entries) == 0 {
		return nil
	}
	for _, r := range retained {
		instead := func(e lease.Entry) bool { return e.Owner == r.Owner && e.Addr.Is4() == r.Addr.Is4() }
		if !slices.ContainsFunc(entries, instead) {
			entries = append(entries, r)
		}
	}
	return entries
}

// desired returns the endpoint of a pod with these entries. Of a StatefulSet
// pod stays what was written of interfaces whose ADD is still to come, and, of
// those that only a lost journal's rebuilding knows, of the other family: it may
// be to be taken over from another node yet.
func (w *endpoints) desired(old lease.Endpoint, pod *corev1.Pod, entries []lease.Entry) lease.Endpoint {
	first := entries[0]
	next := old
	next.Namespace, next.Pod = first.Namespace, first.Pod
	// Not the journal's UID: a static pod's object has one of its own.
	next.PodUID = string(pod.UID)
	next.Node, next.Sticky = w.agent.node.Name, first.Sticky
	next.Addresses = nil
	answered := map[string]bool{}
	for _, e := range entries {
		if e.Container != lease.UnknownSandbox {
			answered[e.Owner.Interface] = true
		}
		next.Addresses = append(next.Addresses, lease.EndpointAddress{
			Interface: e.Owner.Interface, Addr: e.Addr, Detail: e.Detail,
		})
	}
	for _, a := range old.Addresses {
		same := func(b lease.EndpointAddress) bool { return b.Interface == a.Interface && b.Addr.Is4() == a.Addr.Is4() }
		if next.Sticky && !answered[a.Interface] && !slices.ContainsFunc(next.Addresses, same) {
			next.Addresses = append(next.Addresses, a)
		}
	}
	return next
}

func sameEndpoint(x, y *lease.Endpoint) bool {
	return x.PodUID == y.PodUID && x.Node == y.Node && x.Sticky == y.Sticky &&
		slices.Equal(addressesOf(x), addressesOf(y))
}

type endpointAddress struct {
	ifname string
	addr   netip.Addr
}

func addressesOf(e *lease.Endpoint) []endpointAddress {
	var of []endpointAddress
	for _, a := range e.Addresses {
		of = append(of, endpointAddress{a.Interface, a.Addr})
	}
	slices.SortFunc(of, func(x, y endpointAddress) int {
		if c := strings.Compare(x.ifname, y.ifname); c != 0 {
			return c
		}
		return x.addr.Compare(y.addr)
	})
	return of
}
