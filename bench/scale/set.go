package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
)

// setName is the StatefulSet's.
const setName = "set"

// set scales a StatefulSet from nothing to all its replicas and to nothing
// again, all pods at once (podManagementPolicy Parallel), until nothing is held
// for them.
func (r *run) set(ctx context.Context) error {
	uid, err := r.lab.createSet(ctx)
	if err != nil {
		return err
	}
	pods := newPods(setName, uid, r.lab.nodes, r.options.replicas)
	var there atomic.Int64
	err = r.measure(ctx, setUp, len(pods), func(ctx context.Context) error {
		return r.scale(ctx, &there, len(pods), func(ctx context.Context) error {
			return r.paced(ctx, pods, func(ctx context.Context, p *pod) error {
				err := r.start(ctx, p)
				there.Add(1)
				return err
			})
		})
	})
	if err != nil {
		return err
	}
	return r.measure(ctx, setDown, len(pods), func(ctx context.Context) error {
		err := r.scale(ctx, &there, 0, func(ctx context.Context) error {
			return r.paced(ctx, pods, func(ctx context.Context, p *pod) error {
				err := r.end(ctx, p)
				there.Add(-1)
				return err
			})
		})
		if err == nil {
			err = r.awaitNone(ctx, "a pin did not come back", r.lab.pins)
		}
		if err == nil {
			err = r.awaitNone(ctx, "an endpoint is left", r.lab.pointers)
		}
		return err
	})
}

// createSet makes the StatefulSet's object, without replicas.
func (l *lab) createSet(ctx context.Context) (uid string, err error) {
	none, labels := int32(0), map[string]string{"app": setName}
	made, err := l.kube.AppsV1().StatefulSets(namespace).Create(ctx, &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: setName},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &none, Selector: &metav1.LabelSelector{MatchLabels: labels},
			PodManagementPolicy: appsv1.ParallelPodManagement,
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "none"}}},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("create the StatefulSet: %w", err)
	}
	return string(made.UID), nil
}

// statusStep is how often the StatefulSet's status is written while pods come
// and go. Its controller writes it as often as it gets to it.
const statusStep = time.Second

// scale sets the replicas, then does what that means for pods, and meanwhile
// keeps the status as the controller does.
func (r *run) scale(ctx context.Context, there *atomic.Int64, replicas int, do func(context.Context) error) error {
	if err := r.lab.patchSet(ctx, fmt.Sprintf(`{"spec":{"replicas":%d}}`, replicas)); err != nil {
		return err
	}
	status := func(ctx context.Context) error {
		return r.lab.patchSet(ctx, fmt.Sprintf(`{"status":{"replicas":%d}}`, there.Load()), "status")
	}
	keeping, stop := context.WithCancel(ctx)
	var keeper errgroup.Group
	keeper.Go(func() error {
		for apitest.Pause(keeping, statusStep) {
			if err := status(keeping); err != nil && keeping.Err() == nil {
				return err
			}
		}
		return nil
	})
	err := do(ctx)
	stop()
	return errors.Join(err, keeper.Wait(), status(ctx))
}

func (l *lab) patchSet(ctx context.Context, patch string, subresource ...string) error {
	_, err := l.kube.AppsV1().StatefulSets(namespace).Patch(ctx, setName, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, subresource...)
	if err != nil {
		return fmt.Errorf("patch the StatefulSet: %w", err)
	}
	return nil
}

// pins counts the pins of all blocks.
func (l *lab) pins(ctx context.Context) (int, error) {
	blocks, err := l.kinds.IPBlocks().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return 0, fmt.Errorf("list blocks: %w", err)
	}
	n := 0
	for _, b := range blocks.Items {
		n += len(b.Spec.Pins)
	}
	return n, nil
}

// pointers counts the endpoints that have no owner, which are the StatefulSet's.
func (l *lab) pointers(ctx context.Context) (int, error) {
	all, err := l.kinds.Endpoints(namespace).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return 0, fmt.Errorf("list endpoints: %w", err)
	}
	n := 0
	for _, e := range all.Items {
		if len(e.OwnerReferences) == 0 {
			n++
		}
	}
	return n, nil
}
