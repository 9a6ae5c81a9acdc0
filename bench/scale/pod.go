package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-ipam/holdfast/cni"
)

// pod is a pod bound to a node, and its sandbox.
type pod struct {
	name string
	node *node
	// set is the StatefulSet's UID, or empty.
	set       string
	uid       string
	container string
	address   netip.Prefix
}

// newPods returns so many pods, spread over the nodes.
func newPods(prefix, set string, nodes []*node, n int) []*pod {
	var pods []*pod
	for i := range n {
		pods = append(pods, &pod{name: fmt.Sprintf("%s-%d", prefix, i), node: nodes[i%len(nodes)], set: set})
	}
	return pods
}

const (
	// sandboxPause is between the binding of a pod and its first ADD. A kubelet
	// has to see the pod, and its runtime to make a sandbox, before.
	sandboxPause = 500 * time.Millisecond
	// underWay is how many pods start or end at a time at most. When the
	// machine cannot keep up with the rate, it is this many at a time.
	underWay = 512
	// tries is how many sandboxes a kubelet makes for a pod here before the
	// pod counts as one that never starts, retryPause the time between them.
	tries      = 5
	retryPause = time.Second
)

// paced does something for each pod, so many a second, and returns when it is
// done for all of them.
func paced(ctx context.Context, rate int, pods []*pod, f func(context.Context, *pod) error) error {
	group, going := errgroup.WithContext(ctx) // the first error ends it
	group.SetLimit(underWay)
	began := time.Now()
	for i, p := range pods {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(rate))
		if !pause(going, time.Until(due)) {
			break
		}
		group.Go(func() error { return f(going, p) })
	}
	return errors.Join(group.Wait(), ctx.Err())
}

// paced is the function of that name at the rate of the run. It notes the rate
// that came about.
func (r *run) paced(ctx context.Context, pods []*pod, f func(context.Context, *pod) error) error {
	began := time.Now()
	err := paced(ctx, r.options.rate, pods, f)
	r.achieved = float64(len(pods)) / time.Since(began).Seconds()
	return err
}

// start starts the pod as scheduler, runtime and kubelet do together: object, ADD,
// status.
func (r *run) start(ctx context.Context, p *pod) error {
	if err := r.lab.create(ctx, p); err != nil {
		return err
	}
	for try := range tries {
		wait := sandboxPause
		if try > 0 {
			wait = retryPause
		}
		if !pause(ctx, wait) {
			return ctx.Err()
		}
		if r.add(ctx, p) {
			return r.lab.report(ctx, p)
		}
	}
	return ctx.Err() // it is among the failures
}

// add makes a sandbox and reports whether it got an address.
func (r *run) add(ctx context.Context, p *pod) bool {
	p.container = rand.Text()
	limited, cancel := context.WithTimeout(ctx, cni.AddTimeout)
	defer cancel()
	began := time.Now()
	client := cni.Client{Socket: p.node.socket, Patience: cni.AddPatience}
	result, err := client.Add(limited, cni.AddRequest{Attachment: p.attachment(), Network: pool})
	switch {
	case ctx.Err() != nil:
		return false
	case err == nil && len(result.Addresses) != 1:
		err = fmt.Errorf("%d addresses were given, and 1 was asked for", len(result.Addresses))
	}
	if err != nil {
		r.trouble.note("an ADD failed", err)
		return false
	}
	r.adds.note(time.Since(began))
	p.address = result.Addresses[0].Prefix
	if other := r.living.take(p); other != nil {
		r.trouble.note("two pods have one address", fmt.Errorf("%s has %s of %s", p.name, p.address, other.name))
	}
	return true
}

func (p *pod) attachment() cni.Attachment {
	return cni.Attachment{
		ContainerID: p.container, Interface: "eth0",
		Pod: cni.Pod{Namespace: namespace, Name: p.name, UID: p.uid},
	}
}

// end ends the pod as whoever deletes it, the runtime, the kubelet and the
// garbage collector do together.
func (r *run) end(ctx context.Context, p *pod) error {
	if err := r.lab.remove(ctx, p, nil); err != nil {
		return err
	}
	r.living.leave(p)
	limited, cancel := context.WithTimeout(ctx, cni.DelTimeout)
	defer cancel()
	client := cni.Client{Socket: p.node.socket, Patience: cni.DelPatience}
	if err := client.Del(limited, cni.DelRequest{Attachment: p.attachment()}); err != nil && ctx.Err() == nil {
		r.trouble.note("a DEL failed", err)
	}
	return r.vanish(ctx, p)
}

// vanish has the pod's object removed, and what it owns.
func (r *run) vanish(ctx context.Context, p *pod) error {
	now := int64(0)
	if err := r.lab.remove(ctx, p, &now); err != nil {
		return err
	}
	r.gone.note(p)
	if p.set != "" {
		return nil // its endpoint is no pod's
	}
	_, err := r.lab.dispose(ctx, p.name)
	return err
}

// create makes the pod's object, bound.
func (l *lab) create(ctx context.Context, p *pod) error {
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:        p.name,
			Annotations: map[string]string{"ipam.spidernet.io/ippool": fmt.Sprintf(`{"ipv4":[%q]}`, pool)},
		},
		Spec: corev1.PodSpec{NodeName: p.node.name, Containers: []corev1.Container{{Name: "main", Image: "none"}}},
	}
	if p.set != "" {
		yes := true
		object.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "apps/v1", Kind: "StatefulSet", Name: setName, UID: types.UID(p.set), Controller: &yes,
		}}
	}
	made, err := l.kube.CoreV1().Pods(namespace).Create(ctx, object, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create pod %s: %w", p.name, err)
	}
	p.uid = string(made.UID)
	return nil
}

// report says in the pod's object that it runs, as a kubelet does.
func (l *lab) report(ctx context.Context, p *pod) error {
	patch := fmt.Appendf(nil, `{"status":{"phase":"Running","podIP":%q,"podIPs":[{"ip":%[1]q}]}}`, p.address.Addr())
	_, err := l.kube.CoreV1().Pods(namespace).Patch(ctx, p.name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("report that pod %s runs: %w", p.name, err)
	}
	return nil
}

// remove deletes the pod's object: without a grace period of its own the pod is
// only marked, with none left (0) it is gone.
func (l *lab) remove(ctx context.Context, p *pod, grace *int64) error {
	err := l.kube.CoreV1().Pods(namespace).Delete(ctx, p.name, metav1.DeleteOptions{GracePeriodSeconds: grace})
	if err != nil {
		return fmt.Errorf("delete pod %s: %w", p.name, err)
	}
	return nil
}

// dispose deletes an endpoint, if there is one.
func (l *lab) dispose(ctx context.Context, endpoint string) (was bool, err error) {
	err = l.kinds.Endpoints(namespace).Delete(ctx, endpoint, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("delete endpoint %s: %w", endpoint, err)
	}
	return true, nil
}

// collect disposes of endpoints whose pods are gone: those that were written
// after their pod's end. An endpoint without an owner is for others to remove.
func (r *run) collect(ctx context.Context) error {
	all, err := r.lab.kinds.Endpoints(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list endpoints: %w", err)
	}
	for _, e := range all.Items {
		if len(e.OwnerReferences) == 1 && r.gone.has(string(e.OwnerReferences[0].UID)) {
			if _, err := r.lab.dispose(ctx, e.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// living is who has which address.
type living struct {
	mu sync.Mutex
	by map[netip.Addr]*pod
}

// take notes the pod's address and returns another pod that has it, if any.
func (l *living) take(p *pod) (other *pod) {
	l.mu.Lock()
	defer l.mu.Unlock()
	other = l.by[p.address.Addr()]
	l.by[p.address.Addr()] = p
	if other == p {
		return nil
	}
	return other
}

// leave forgets the pod's address.
func (l *living) leave(p *pod) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by[p.address.Addr()] == p {
		delete(l.by, p.address.Addr())
	}
}

// departed are the UIDs of pods that are gone.
type departed struct {
	mu   sync.Mutex
	uids map[string]bool
}

func (d *departed) note(p *pod) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.uids[p.uid] = true
}

func (d *departed) has(uid string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.uids[uid]
}

// times are how long calls took.
type times struct {
	mu  sync.Mutex
	all []time.Duration
}

func (t *times) note(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, d)
}

// take returns all of them and forgets them.
func (t *times) take() []time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.all
	t.all = nil
	return all
}

// trouble is what went wrong that must not.
type trouble struct {
	mu sync.Mutex
	// Counts is how often, Said what the first of a kind said.
	counts map[string]int
	said   map[string]string
}

func (t *trouble) note(what string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts[what]++; t.counts[what] == 1 {
		t.said[what] = err.Error()
	}
}

// read returns a copy.
func (t *trouble) read() (counts map[string]int, said map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	counts, said = map[string]int{}, map[string]string{}
	for what, n := range t.counts {
		counts[what], said[what] = n, t.said[what]
	}
	return counts, said
}
