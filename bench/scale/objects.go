package main

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

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
