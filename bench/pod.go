package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"golang.org/x/sync/errgroup"
)

// pod is a pod bound to a node, and its sandbox.
type pod struct {
	name string
	node int
	// set is the StatefulSet's, or empty, network the addresses' name.
	set, network string
	// six is set where these are IPv6 addresses.
	six bool
	uid string
	// container is the sandbox's ID, another for each try.
	container string
	// address is that of the sandbox, before that of the sandbox before.
	address, before netip.Addr
}

// crew is how many requests to the API server the run makes at a time for its
// own purposes.
const crew = 8

// newPods returns so many pods, spread over the nodes.
func newPods(prefix, set, network string, n int) []*pod {
	var pods []*pod
	for i := range n {
		pods = append(pods, &pod{name: fmt.Sprintf("%s-%d", prefix, i), node: i % nodeCount, set: set, network: network})
	}
	return pods
}

// each calls f for every one, so many at a time, and passes which of these it
// is. They are begun in their order until ctx ends.
func each[T any](ctx context.Context, concurrency int, items []T, f func(slot int, item T) error) error {
	queue := make(chan T)
	var workers errgroup.Group
	for slot := range concurrency {
		workers.Go(func() error {
			var first error
			for item := range queue { // to the end, or nobody takes the others
				if first == nil {
					first = f(slot, item)
				}
			}
			return first
		})
	}
	for _, item := range items {
		if ctx.Err() != nil {
			break
		}
		queue <- item
	}
	close(queue)
	return workers.Wait()
}

// create makes the pod's object. Without a cluster it only gets a UID.
func (l *lab) create(ctx context.Context, p *pod) error {
	if l.kube == nil {
		p.uid = newID()
		return nil
	}
	family := "ipv4"
	if p.six {
		family = "ipv6"
	}
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: p.name, Labels: map[string]string{"app": p.set},
			// Only Holdfast reads it. It knows the pool before the ADD then.
			Annotations: map[string]string{"ipam.spidernet.io/ippool": fmt.Sprintf(`{%q:[%q]}`, family, p.network)},
		},
		Spec: corev1.PodSpec{
			NodeName:   nodeName(p.node),
			Containers: []corev1.Container{{Name: "main", Image: "none"}},
		},
	}
	if p.set != "" {
		yes := true
		object.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "apps/v1", Kind: "StatefulSet", Name: p.set, UID: types.UID(p.set), Controller: &yes,
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
	if l.kube == nil || !p.address.IsValid() {
		return nil
	}
	patch := fmt.Appendf(nil, `{"status":{"phase":"Running","podIP":%q,"podIPs":[{"ip":%[1]q}]}}`, p.address)
	_, err := l.kube.CoreV1().Pods(namespace).Patch(ctx, p.name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("report that pod %s runs: %w", p.name, err)
	}
	return nil
}

// terminate marks the pod as one that is to end, as whoever deletes it does.
func (l *lab) terminate(ctx context.Context, p *pod) error {
	if l.kube == nil {
		return nil
	}
	if err := l.kube.CoreV1().Pods(namespace).Delete(ctx, p.name, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("terminate pod %s: %w", p.name, err)
	}
	return nil
}

// remove deletes the pod's object, as a kubelet does when nothing of the pod is
// left.
func (l *lab) remove(ctx context.Context, p *pod) error {
	if l.kube == nil {
		return nil
	}
	now := int64(0)
	err := l.kube.CoreV1().Pods(namespace).Delete(ctx, p.name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	if err != nil {
		return fmt.Errorf("delete pod %s: %w", p.name, err)
	}
	return nil
}

// all does one of the above for all pods.
func all(ctx context.Context, pods []*pod, f func(context.Context, *pod) error) error {
	return each(ctx, crew, pods, func(_ int, p *pod) error { return f(ctx, p) })
}

// createSet makes a StatefulSet's object. Its pods are the run's to make.
func (l *lab) createSet(ctx context.Context, name string, pods int) error {
	replicas, labels := int32(pods), map[string]string{"app": name}
	_, err := l.kube.AppsV1().StatefulSets(namespace).Create(ctx, &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "none"}}},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create StatefulSet %s: %w", name, err)
	}
	return nil
}

// scale sets the StatefulSet's replicas.
func (l *lab) scale(ctx context.Context, name string, replicas int) error {
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
	_, err := l.kube.AppsV1().StatefulSets(namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("scale StatefulSet %s: %w", name, err)
	}
	return nil
}

// newID returns an ID of 64 hexadecimal digits, as containerd makes them.
func newID() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// living is who has which address.
type living struct {
	mu sync.Mutex
	by map[netip.Addr]*pod
}

// take notes the pod's address and reports whether another pod has it.
func (l *living) take(p *pod) (doubled bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	other := l.by[p.address]
	l.by[p.address] = p
	return other != nil && other != p
}

// leave forgets the pod's address.
func (l *living) leave(p *pod) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by[p.address] == p {
		delete(l.by, p.address)
	}
	p.before, p.address = p.address, netip.Addr{}
}
