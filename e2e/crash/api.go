package main

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/cenkalti/backoff/v4"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/crds"
)

// attemptLimit is how long one request may take before it counts as lost.
const attemptLimit = 3 * time.Second

// api is how the controllers of the run talk to the API server, which is away
// every now and then.
type api struct {
	kube *kubernetes.Clientset
	crds *crds.Clients
}

// insist repeats f until it succeeds or ctx ends, as controllers do. A
// creation that finds its object there has succeeded before, with the answer
// lost.
func (a *api) insist(ctx context.Context, f func(context.Context) error) error {
	err := backoff.Retry(func() error {
		attempt, cancel := context.WithTimeout(ctx, attemptLimit)
		defer cancel()
		err := f(attempt)
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
			return backoff.Permanent(err)
		}
		return err
	}, backoff.WithContext(backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(50*time.Millisecond),
		backoff.WithMaxInterval(time.Second),
		backoff.WithMaxElapsedTime(0)), ctx))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// remove deletes an object and returns when the API server says that the one
// with the UID is gone.
func (a *api) remove(ctx context.Context, remove func(context.Context, metav1.DeleteOptions) error, uid string) error {
	own := metav1.NewUIDPreconditions(uid)
	now := int64(0)
	return a.insist(ctx, func(ctx context.Context) error {
		err := remove(ctx, metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: own})
		switch {
		case apierrors.IsNotFound(err), apierrors.IsConflict(err): // gone, or another by now
			return nil
		case err != nil:
			return err
		}
		// Deleted at once: nothing here has a finalizer or a grace period.
		return nil
	})
}

// collectGarbage plays the garbage collector of Kubernetes: an endpoint whose
// owning pod is gone goes too.
func (w *world) collectGarbage(ctx context.Context) {
	dice := w.dice("garbage collector")
	for apitest.Pause(ctx, between(dice, 200*time.Millisecond, 3*time.Second)) {
		// An error is no evidence of anything: the next round looks again.
		_ = w.collectOnce(ctx)
	}
}

func (w *world) collectOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	endpoints, err := w.api.crds.Endpoints(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	pods, err := w.api.kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	exists := map[string]bool{}
	for _, p := range pods.Items {
		exists[string(p.UID)] = true
	}
	for _, e := range endpoints.Items {
		if len(e.OwnerReferences) == 0 || exists[string(e.OwnerReferences[0].UID)] {
			continue
		}
		uid, version := e.UID, e.ResourceVersion
		err := w.api.crds.Endpoints(namespace).Delete(ctx, e.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version},
		})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("delete endpoint %s: %w", e.Name, err)
		}
	}
	return nil
}
