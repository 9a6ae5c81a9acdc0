package cluster

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	nadutils "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/utils"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/holdfast-ipam/holdfast/lease"
)

// PodsOn returns the pods bound to the node of a name by a quorum read, whatever
// their phase and their namespace. The error is the API server's.
func PodsOn(ctx context.Context, client typedcorev1.PodsGetter, node string) ([]corev1.Pod, error) {
	pods, err := client.Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String(),
	})
	if err != nil {
		return nil, err
	}
	return pods.Items, nil
}

// FirstInterface is the one whose addresses a pod's status tells.
const FirstInterface = "eth0"

// Told returns the addresses of a pod's last sandbox by its status and by what
// Multus has written on it (multi-network specification 1.3, section 5), with
// the name of their interface and without detail. They may be another pod's by
// now, see [WithoutSandbox].
func Told(pod *corev1.Pod) []lease.EndpointAddress {
	var told []lease.EndpointAddress
	tell := func(ifname, ip string) {
		addr, err := netip.ParseAddr(ip)
		if err == nil && !slices.ContainsFunc(told, func(a lease.EndpointAddress) bool { return a.Addr == addr }) {
			told = append(told, lease.EndpointAddress{Interface: ifname, Addr: addr})
		}
	}
	for _, ip := range pod.Status.PodIPs {
		tell(FirstInterface, ip.IP)
	}
	// Without the annotation, or with one that cannot be read, it tells nothing.
	statuses, _ := nadutils.GetNetworkStatus(pod)
	for _, s := range statuses {
		for _, ip := range s.IPs {
			tell(cmp.Or(s.Interface, FirstInterface), ip)
		}
	}
	return told
}

// WithoutSandbox reports whether the pod's kubelet says that it has no sandbox
// (KEP-3085), and since when, by that kubelet's clock. Its status goes on to
// name the addresses of the last one.
func WithoutSandbox(pod *corev1.Pod) (since metav1.Time, without bool) {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReadyToStartContainers {
			return c.LastTransitionTime, c.Status == corev1.ConditionFalse
		}
	}
	return metav1.Time{}, false
}

// Finished reports whether no container of the pod runs or ever will. The
// phase alone does not tell: the pod garbage collector sets it to Failed on
// pods whose node is unreachable, where containers may still run. So each
// container must be known to have ended as well; a pod that says nothing of a
// container counts as running.
func Finished(pod *corev1.Pod) bool {
	if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
		return false
	}
	ended := map[string]bool{}
	for _, s := range pod.Status.ContainerStatuses {
		ended[s.Name] = s.State.Terminated != nil
	}
	for _, container := range pod.Spec.Containers {
		if !ended[container.Name] {
			return false
		}
	}
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses) {
		if s.State.Running != nil {
			return false
		}
	}
	return true
}
