package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-ipam/holdfast/agent/selection"
	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/lease"
)

// serialLabel tells a pod that was created by a request whose answer was lost
// from another one of the name.
const serialLabel = "holdfast.test/serial"

// pod is a pod object bound to a node, with the kubelet's work for it: see
// kubelet.go.
type pod struct {
	world  *world
	serial int
	name   string
	offer  *offer
	node   *node
	// set is nil for a stateless pod.
	set  *statefulSet
	dice *rand.Rand
	uid  string

	// asked is closed when the pod is to go, gone when its object is gone.
	asked chan struct{}
	ask   func()
	gone  chan struct{}
	// before is its last sandbox that had addresses. It is the ledger's.
	before *sandbox
	// telling is held while the status is written, one address after another.
	telling sync.Mutex
}

// newPod makes a pod on a node, which begins to exist at once. It returns nil
// when the node is gone.
func (w *world) newPod(dice *rand.Rand, name string, o *offer, n *node, set *statefulSet) *pod {
	p := &pod{
		world: w, name: name, offer: o, node: n, set: set,
		dice:  rand.New(rand.NewPCG(dice.Uint64(), dice.Uint64())),
		asked: make(chan struct{}), gone: make(chan struct{}),
	}
	p.ask = sync.OnceFunc(func() { close(p.asked) })
	life, ok := n.admit(p)
	if !ok {
		return nil
	}
	w.mu.Lock()
	w.serial++
	p.serial = w.serial
	w.pods[p.serial] = p
	w.mu.Unlock()
	w.going.Go(func() { p.exist(life) })
	return p
}

func (p *pod) identity() lease.Identity {
	return lease.Identity{Namespace: namespace, Pod: p.name, Interface: ifname}
}

// exist is the pod from its creation to its end.
func (p *pod) exist(life context.Context) {
	defer func() {
		p.node.dismiss(p)
		p.world.mu.Lock()
		delete(p.world.pods, p.serial)
		p.world.mu.Unlock()
		close(p.gone)
	}()
	if err := p.create(p.world.ctx); err != nil {
		if p.world.ctx.Err() == nil {
			p.world.ledger.violate(playable, netip.Addr{}, p.node.name, "the API server refuses pod %s: %v", p.name, err)
		}
		return
	}
	p.world.tally.add("pods created")
	p.run(life)
	// What is left to do needs the world only: where the node is gone, the
	// pod garbage collector of Kubernetes does it.
	if err := p.delete(p.world.ctx); err == nil {
		p.world.tally.add("pods deleted")
	}
}

// terminate asks the pod to go.
func (p *pod) terminate() { p.ask() }

func (p *pod) isAsked() bool {
	select {
	case <-p.asked:
		return true
	default:
		return false
	}
}

func (p *pod) isGone() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

func (p *pod) object() *corev1.Pod {
	made := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: p.name, Namespace: namespace,
			Labels:      map[string]string{serialLabel: fmt.Sprint(p.serial)},
			Annotations: map[string]string{selection.PoolAnnotation: p.offer.annotation()},
		},
		Spec: corev1.PodSpec{
			NodeName:   p.node.name,
			Containers: []corev1.Container{{Name: "main", Image: "none"}},
		},
	}
	if p.set != nil {
		yes := true
		made.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "apps/v1", Kind: "StatefulSet", Name: p.set.name, UID: types.UID(p.set.uid), Controller: &yes,
		}}
	}
	return made
}

// create makes the object. An object of the name that is not this pod's is
// one whose removal has not been seen yet.
func (p *pod) create(ctx context.Context) error {
	pods := p.world.api.kube.CoreV1().Pods(namespace)
	return p.world.api.insist(ctx, func(ctx context.Context) error {
		made, err := pods.Create(ctx, p.object(), metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			if made, err = pods.Get(ctx, p.name, metav1.GetOptions{}); err != nil {
				return err
			}
			if made.Labels[serialLabel] != fmt.Sprint(p.serial) {
				return fmt.Errorf("pod %s is still an earlier one", p.name)
			}
		}
		if err != nil {
			return err
		}
		p.uid = string(made.UID)
		return nil
	})
}

func (p *pod) delete(ctx context.Context) error {
	pods := p.world.api.kube.CoreV1().Pods(namespace)
	return p.world.api.remove(ctx, func(ctx context.Context, o metav1.DeleteOptions) error {
		return pods.Delete(ctx, p.name, o)
	}, p.uid)
}

// tell writes the sandbox's address into the pod's status, as the kubelet does
// some time after the sandbox started. It gives up when the sandbox has ended.
func (p *pod) tell(ctx context.Context, s *sandbox) {
	p.telling.Lock()
	defer p.telling.Unlock()
	var ips []corev1.PodIP
	for _, prefix := range s.prefixes {
		ips = append(ips, corev1.PodIP{IP: prefix.Addr().String()})
	}
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": p.uid},
		"status":   corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ips[0].IP, PodIPs: ips},
	})
	if err != nil {
		return // addresses are always JSON
	}
	pods := p.world.api.kube.CoreV1().Pods(namespace)
	_ = p.world.api.insist(ctx, func(ctx context.Context) error { // ends with ctx
		if !p.world.ledger.lives(s) {
			return nil
		}
		_, err := pods.Patch(ctx, p.name, types.MergePatchType, body, metav1.PatchOptions{}, "status")
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		return err
	})
}

func (p *pod) attachment(container string) cni.Attachment {
	return cni.Attachment{
		ContainerID: container, Interface: ifname,
		Pod: cni.Pod{Namespace: namespace, Name: p.name, UID: p.uid},
	}
}
