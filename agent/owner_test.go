package agent

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func owned(apiVersion, kind, name string, labels map[string]string) *corev1.Pod {
	yes := true
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-0", Labels: labels}}
	if kind != "" {
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: apiVersion, Kind: kind, Name: name, Controller: &yes}}
	}
	return pod
}

func TestTopOwnerIsWhatPeopleCallTheApplication(t *testing.T) {
	hash := map[string]string{"pod-template-hash": "5d4f"}
	for _, c := range []struct {
		name       string
		pod        *corev1.Pod
		kind, want string
	}{
		{"nobody", owned("", "", "", nil), "Pod", "web-0"},
		{"StatefulSet", owned("apps/v1", "StatefulSet", "web", nil), "StatefulSet", "web"},
		{"Deployment", owned("apps/v1", "ReplicaSet", "web-5d4f", hash), "Deployment", "web"},
		{"ReplicaSet by itself", owned("apps/v1", "ReplicaSet", "web-5d4f", nil), "ReplicaSet", "web-5d4f"},
		{"ReplicaSet with another's hash", owned("apps/v1", "ReplicaSet", "web-77", hash), "ReplicaSet", "web-77"},
		{"Job", owned("batch/v1", "Job", "web-29", nil), "Job", "web-29"},
	} {
		if kind, name := topOwner(c.pod); kind != c.kind || name != c.want {
			t.Errorf("%s: %s %s, want %s %s", c.name, kind, name, c.kind, c.want)
		}
	}
}

func TestOnlyStatefulSetsOfAppsV1AreSticky(t *testing.T) {
	for _, c := range []struct {
		apiVersion, kind string
		want             bool
	}{
		{"apps/v1", "StatefulSet", true},
		{"apps.kruise.io/v1beta1", "StatefulSet", false},
		{"apps/v1", "ReplicaSet", false},
		{"", "", false},
	} {
		if got := ownedByStatefulSet(owned(c.apiVersion, c.kind, "web", nil)); got != c.want {
			t.Errorf("%s %s: %t, want %t", c.apiVersion, c.kind, got, c.want)
		}
	}
}
