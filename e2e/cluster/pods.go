package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Pods returns the pods with the labels, by name.
func (c *Cluster) Pods(ctx context.Context, namespace, selector string) ([]corev1.Pod, error) {
	list, err := c.Kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("list pods %s: %w", selector, err)
	}
	slices.SortFunc(list.Items, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return list.Items, nil
}

// AwaitPods waits until exactly n pods have the labels, all of them ready and
// none of them one of old, and returns them by name.
func (c *Cluster) AwaitPods(ctx context.Context, within time.Duration, namespace, selector string, n int, old ...corev1.Pod) ([]corev1.Pod, error) {
	var pods []corev1.Pod
	err := Await(ctx, within, func(ctx context.Context) error {
		var err error
		if pods, err = c.Pods(ctx, namespace, selector); err != nil {
			return err
		}
		return settled(pods, n, old)
	})
	if err != nil {
		return nil, fmt.Errorf("%d pods %s in %s: %w%s", n, selector, namespace, err, c.complaints(ctx, pods))
	}
	return pods, nil
}

func settled(pods []corev1.Pod, n int, old []corev1.Pod) error {
	if len(pods) != n {
		return fmt.Errorf("there are %d pods, want %d", len(pods), n)
	}
	for i := range pods {
		if slices.ContainsFunc(old, func(o corev1.Pod) bool { return o.UID == pods[i].UID }) {
			return fmt.Errorf("%s is still the pod it was", pods[i].Name)
		}
		if !Ready(&pods[i]) {
			return fmt.Errorf("%s is not ready on node %q", pods[i].Name, pods[i].Spec.NodeName)
		}
	}
	return nil
}

// Ready tells whether a pod is ready, has an address, and nobody has asked
// for its deletion.
func Ready(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && pod.Status.PodIP != "" &&
		slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		})
}

// complaints returns the last warning about each pod that is not ready, one
// on each line. It works with a context that has ended, too.
func (c *Cluster) complaints(ctx context.Context, pods []corev1.Pod) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	var all strings.Builder
	for i := range pods {
		if Ready(&pods[i]) {
			continue
		}
		if w, err := c.Warnings(ctx, &pods[i]); err == nil && len(w) > 0 {
			fmt.Fprintf(&all, "\n\t%s: %s", pods[i].Name, w[len(w)-1])
		}
	}
	return all.String()
}

// Warnings returns the texts of the warning events about a pod, the newest
// last.
func (c *Cluster) Warnings(ctx context.Context, pod *corev1.Pod) ([]string, error) {
	list, err := c.Kube.CoreV1().Events(pod.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "type=Warning,involvedObject.uid=" + string(pod.UID),
	})
	if err != nil {
		return nil, fmt.Errorf("list events of %s: %w", pod.Name, err)
	}
	slices.SortStableFunc(list.Items, func(a, b corev1.Event) int { return a.LastTimestamp.Compare(b.LastTimestamp.Time) })
	var texts []string
	for _, e := range list.Items {
		texts = append(texts, e.Message)
	}
	return texts, nil
}

// Address returns the pod's first address, the zero Addr if it has none yet.
func Address(pod *corev1.Pod) netip.Addr {
	addr, err := netip.ParseAddr(pod.Status.PodIP)
	if err != nil {
		return netip.Addr{}
	}
	return addr
}
