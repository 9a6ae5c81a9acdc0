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

func createdAt(pod *corev1.Pod, seconds int64) *corev1.Pod {
	pod.CreationTimestamp = metav1.Unix(seconds, 0)
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
		{"CronJob", createdAt(owned("batch/v1", "Job", "web-29696970", nil), 29696970*60+90), "CronJob", "web"},
		{"CronJob whose pod began late", createdAt(owned("batch/v1", "Job", "a-b-29696970", nil), 29696970*60+86400), "CronJob", "a-b"},
		{"Job of another time's name", createdAt(owned("batch/v1", "Job", "web-29696970", nil), 29796970*60), "Job", "web-29696970"},
		{"Job of a time to come", createdAt(owned("batch/v1", "Job", "web-29696970", nil), 29696960*60), "Job", "web-29696970"},
		{"virtual machine", owned("kubevirt.io/v1", "VirtualMachineInstance", "vm", nil), "VirtualMachineInstance", "vm"},
	} {
		if kind, name := topOwner(c.pod); kind != c.kind || name != c.want {
			t.Errorf("%s: %s %s, want %s %s", c.name, kind, name, c.kind, c.want)
		}
	}
}

func TestIdentityIsThatOfThePodsNameOrItsMachine(t *testing.T) {
	launcher := map[string]string{"kubevirt.io": "virt-launcher"}
	off := DefaultConfig()
	off.EnableStatefulSet, off.EnableKubevirtStaticIP = false, false
	for _, c := range []struct {
		claim  string
		pod    *corev1.Pod
		config Config
		want   bearing
	}{
		{"a StatefulSet's pod", owned("apps/v1", "StatefulSet", "web", nil), DefaultConfig(), bearing{name: "web-0", sticky: true}},
		{"where these are like any other", owned("apps/v1", "StatefulSet", "web", nil), off, bearing{name: "web-0"}},
		{"a machine's pod", owned("kubevirt.io/v1", "VirtualMachineInstance", "vm", launcher), DefaultConfig(),
			bearing{name: "vm", kind: "VirtualMachineInstance", pod: "web-0", sticky: true}},
		{"where these are like any other", owned("kubevirt.io/v1", "VirtualMachineInstance", "vm", launcher), off, bearing{name: "web-0"}},
		{"somebody's pod that says it is of a machine", owned("kubevirt.io/v1", "VirtualMachineInstance", "vm", nil), DefaultConfig(), bearing{name: "web-0"}},
		{"another group's machine", owned("example.com/v1", "VirtualMachineInstance", "vm", launcher), DefaultConfig(), bearing{name: "web-0"}},
	} {
		a := &Agent{config: c.config}
		if got := a.bearing(c.pod); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.claim, got, c.want)
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
