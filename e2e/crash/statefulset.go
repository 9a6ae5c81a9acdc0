package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/lease"
)

// maxStart is how far ordinals.start moves.
const maxStart = 2

// statefulSet is a StatefulSet with its controller: one goroutine, which does
// one thing after another.
type statefulSet struct {
	world *world
	dice  *rand.Rand
	name  string
	offer string
	max   int

	uid             string
	start, replicas int
	pods            map[int]*pod
}

func newStatefulSet(w *world, name, offer string, max int) *statefulSet {
	return &statefulSet{world: w, name: name, offer: offer, max: max, dice: w.dice("StatefulSet " + name), pods: map[int]*pod{}}
}

// control does something to the set every now and then until ctx ends. Then
// every pod that the set wants exists, and no other.
func (s *statefulSet) control(ctx context.Context) error {
	err := s.create()
	for err == nil && apitest.Pause(ctx, between(s.dice, 50*time.Millisecond, 6*time.Second)) {
		switch n := s.dice.IntN(20); {
		case n < 8:
			err = s.restart(s.some())
		case n < 10:
			err = s.restart(s.all())
		case n < 15:
			err = s.scale(s.start, s.dice.IntN(s.max+1))
		case n < 17: // down and up within moments
			before := s.replicas
			if err = s.scale(s.start, s.dice.IntN(before+1)); err == nil {
				err = s.scale(s.start, before)
			}
		case n < 19:
			err = s.scale(s.dice.IntN(maxStart+1), s.replicas)
		default:
			err = s.recreate(ctx)
		}
		if err == nil {
			err = s.reconcile()
		}
	}
	if err == nil {
		err = s.reconcile()
	}
	return err
}

// create makes the StatefulSet's object.
func (s *statefulSet) create() error {
	s.start, s.replicas = s.dice.IntN(maxStart+1), 1+s.dice.IntN(s.max)
	sets := s.world.api.kube.AppsV1().StatefulSets(namespace)
	err := s.world.api.insist(s.world.ctx, func(ctx context.Context) error {
		made, err := sets.Create(ctx, s.object(), metav1.CreateOptions{})
		if isThere(err) {
			made, err = sets.Get(ctx, s.name, metav1.GetOptions{})
		}
		if err == nil {
			s.uid = string(made.UID)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("create StatefulSet %s: %w", s.name, err)
	}
	s.world.ledger.want(s.identities(s.start, s.replicas)...)
	return s.reconcile()
}

func (s *statefulSet) object() *appsv1.StatefulSet {
	replicas, labels := int32(s.replicas), map[string]string{"app": s.name}
	return &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: s.name},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas,
			Ordinals: &appsv1.StatefulSetOrdinals{Start: int32(s.start)},
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "none"}}},
			},
		},
	}
}

// identities returns those of a window of ordinals.
func (s *statefulSet) identities(start, replicas int) []lease.Identity {
	var ids []lease.Identity
	for i := start; i < start+replicas; i++ {
		ids = append(ids, lease.Identity{Namespace: namespace, Pod: s.podName(i), Interface: ifname})
	}
	return ids
}

func (s *statefulSet) podName(ordinal int) string { return s.name + "-" + strconv.Itoa(ordinal) }

// scale changes start and replicas. Whoever falls out of the window is no
// longer wanted from before the update is sent, whoever comes in is wanted
// from when it has succeeded.
func (s *statefulSet) scale(start, replicas int) error {
	s.world.tally.add("scalings")
	in := s.identities(start, replicas)
	s.world.ledger.unwant(slices.DeleteFunc(s.identities(s.start, s.replicas), func(id lease.Identity) bool {
		return slices.Contains(in, id)
	})...)
	s.start, s.replicas = start, replicas
	sets := s.world.api.kube.AppsV1().StatefulSets(namespace)
	err := s.world.api.insist(s.world.ctx, func(ctx context.Context) error {
		now, err := sets.Get(ctx, s.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		now.Spec.Replicas, now.Spec.Ordinals = s.object().Spec.Replicas, s.object().Spec.Ordinals
		_, err = sets.Update(ctx, now, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("scale StatefulSet %s: %w", s.name, err)
	}
	s.world.ledger.want(in...)
	if s.dice.IntN(4) == 0 {
		return nil // the controller has not noticed yet
	}
	return s.reconcile()
}

// recreate deletes the set, before or after its pods, and makes one of the
// same name some moments later.
func (s *statefulSet) recreate(ctx context.Context) error {
	s.world.tally.add("StatefulSets recreated")
	s.world.ledger.unwant(s.identities(s.start, s.replicas)...)
	setFirst := s.dice.IntN(2) == 0
	if !setFirst {
		s.terminate(s.all())
	}
	if err := s.delete(); err != nil {
		return err
	}
	if setFirst {
		s.terminate(s.all())
	}
	apitest.Pause(ctx, between(s.dice, 0, 5*time.Second))
	return s.create()
}

func (s *statefulSet) delete() error {
	sets := s.world.api.kube.AppsV1().StatefulSets(namespace)
	err := s.world.api.remove(s.world.ctx, func(ctx context.Context, o metav1.DeleteOptions) error {
		background := metav1.DeletePropagationBackground
		o.PropagationPolicy = &background
		return sets.Delete(ctx, s.name, o)
	}, s.uid)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete StatefulSet %s: %w", s.name, err)
	}
	return nil
}

// end deletes the set and its pods.
func (s *statefulSet) end() error {
	s.world.ledger.unwant(s.identities(s.start, s.replicas)...)
	if err := s.delete(); err != nil {
		return err
	}
	s.terminate(s.all())
	return nil
}

// restart deletes pods, whose successors come at once, on the same node or on
// another one.
func (s *statefulSet) restart(pods []*pod) error {
	s.terminate(pods)
	for range pods {
		s.world.tally.add("StatefulSet pods restarted")
	}
	return s.reconcile()
}

// terminate returns when the pods' objects are gone.
func (s *statefulSet) terminate(pods []*pod) {
	for _, p := range pods {
		p.terminate()
	}
	for _, p := range pods {
		<-p.gone
	}
}

// some returns one of the pods, or none.
func (s *statefulSet) some() []*pod {
	all := s.all()
	if len(all) == 0 {
		return nil
	}
	i := s.dice.IntN(len(all))
	return all[i : i+1]
}

// all returns the pods by ordinal.
func (s *statefulSet) all() []*pod {
	var all []*pod
	for i := range s.max + maxStart {
		if p := s.pods[i]; p != nil {
			all = append(all, p)
		}
	}
	return all
}

// reconcile makes the pods those that the set wants: it takes a pod that is
// gone for gone, ends those out of the window, and creates what is missing, all
// at the same time (podManagementPolicy Parallel).
func (s *statefulSet) reconcile() error {
	var out []*pod
	for i, p := range s.pods {
		if i < s.start || i >= s.start+s.replicas {
			out = append(out, p)
		}
	}
	s.terminate(out)
	for i, p := range s.pods {
		if p.isGone() {
			delete(s.pods, i)
		}
	}
	for i := s.start; i < s.start+s.replicas; i++ {
		if s.pods[i] == nil {
			p, err := s.world.schedule(s.dice, s.podName(i), s.offer, s)
			if err != nil {
				return err
			}
			s.pods[i] = p
		}
	}
	return nil
}
