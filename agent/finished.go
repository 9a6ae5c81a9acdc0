package agent

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-ipam/holdfast/cni"
)

// inLastPhase reports whether the pod's phase is one that it never leaves.
// That is not yet to say that nothing of it runs: the pod garbage collector
// gives it to pods of nodes that do not answer. See [cluster.Finished].
func inLastPhase(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// evicted is the status.reason of a pod that the kubelet has evicted.
const evicted = "Evicted"

// over returns why a pod gets no addresses any more, or nil: it is told to
// end, or it has ended and its restart policy lets it begin no more. An ADD
// for such a pod comes late, and nobody would give back what it got.
func over(want cni.Pod, pod *corev1.Pod) error {
	policy := pod.Spec.RestartPolicy
	switch {
	case pod.DeletionTimestamp != nil:
		return podGone(want, "it is being deleted")
	case pod.Status.Phase == corev1.PodSucceeded && policy != corev1.RestartPolicyAlways,
		pod.Status.Phase == corev1.PodFailed && policy == corev1.RestartPolicyNever,
		pod.Status.Phase == corev1.PodFailed && pod.Status.Reason == evicted:
		return podGone(want, fmt.Sprintf("it has ended (%s, restart policy %s)", pod.Status.Phase, policy))
	}
	return nil
}
