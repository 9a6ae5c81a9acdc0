package agent

import (
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ownedByStatefulSet reports whether the pod's controller is a StatefulSet of
// apps/v1. Other kinds of that name make no promise about pod names.
func ownedByStatefulSet(pod *corev1.Pod) bool {
	owner := metav1.GetControllerOf(pod)
	return owner != nil && owner.Kind == "StatefulSet" && owner.APIVersion == appsv1.SchemeGroupVersion.String()
}

// topOwner returns kind and name of what people call the pod's application.
// A Deployment is told from its ReplicaSet's name, which is the Deployment's
// and the pod template's hash: that needs no look-up.
func topOwner(pod *corev1.Pod) (kind, name string) {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return "Pod", pod.Name
	}
	hash := pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
	if deployment, ok := strings.CutSuffix(owner.Name, "-"+hash); ok && owner.Kind == "ReplicaSet" && hash != "" {
		return "Deployment", deployment
	}
	return owner.Kind, owner.Name
}
