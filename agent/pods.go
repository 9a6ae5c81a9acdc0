package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	cnitypes "github.com/containernetworking/cni/pkg/types"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/agent/watch"
	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/lease"
)

const (
	// podWait is how long an ADD waits for the watch to bring its pod before
	// it reads the pod itself, and podPoll how often it looks.
	podWait = 500 * time.Millisecond
	podPoll = 10 * time.Millisecond
	// retryRest is how long a pod that does not come up keeps the addresses of
	// its interfaces between two tries: twice the pause that a kubelet makes
	// (10 s, and half of that by chance).
	retryRest = 30 * time.Second
	// staticUID is where the kubelet puts the UID that it passes to CNI for a
	// pod that it started by itself: the API server's object has another.
	staticUID = corev1.MirrorPodAnnotationKey
)

// pods are the pods of this node, by a watch on spec.nodeName.
type pods struct {
	node     string
	client   kubernetes.Interface
	informer watch.Informer[*corev1.Pod]
}

func newPods(client kubernetes.Interface, node string) *pods {
	mine := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", node).String()
	}
	return &pods{node: node, client: client, informer: watch.New(client.CoreV1().Pods(metav1.NamespaceAll),
		&corev1.Pod{}, watch.Options[*corev1.Pod]{Narrow: mine, Slim: slimPod})}
}

// slimPod drops what nobody here reads, so that a cached pod costs little. Of
// a pod in its last phase it keeps what [cluster.Finished] looks at.
func slimPod(pod *corev1.Pod) {
	spec := corev1.PodSpec{
		NodeName: pod.Spec.NodeName, HostNetwork: pod.Spec.HostNetwork, RestartPolicy: pod.Spec.RestartPolicy,
		TerminationGracePeriodSeconds: pod.Spec.TerminationGracePeriodSeconds,
	}
	if inLastPhase(pod) {
		for _, c := range pod.Spec.Containers {
			spec.Containers = append(spec.Containers, corev1.Container{Name: c.Name})
		}
	} else {
		pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses = nil, nil, nil
	}
	pod.Spec, pod.Status.Conditions = spec, nil
}

// uidOf returns the UID under which the runtime knows the pod.
func uidOf(pod *corev1.Pod) string {
	if uid := pod.Annotations[staticUID]; uid != "" {
		return uid
	}
	return string(pod.UID)
}

// find returns the pod the runtime names. The watch and the kubelet learn of
// a pod at the same time, so it is nearly always there; if not, the API
// server is asked.
func (p *pods) find(ctx context.Context, want cni.Pod) (*corev1.Pod, error) {
	var pod *corev1.Pod
	err := wait.PollUntilContextTimeout(ctx, podPoll, podWait, true, func(context.Context) (bool, error) {
		var ok bool
		pod, ok = p.cached(want.Namespace, want.Name)
		return ok && (want.UID == "" || uidOf(pod) == want.UID), nil
	})
	if err == nil {
		return pod, over(want, pod)
	}
	pod, err = p.client.CoreV1().Pods(want.Namespace).Get(ctx, want.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, podGone(want, "the API server has no such pod")
	case err != nil:
		return nil, fmt.Errorf("read pod %s/%s: %w", want.Namespace, want.Name, err)
	case want.UID != "" && uidOf(pod) != want.UID:
		return nil, podGone(want, fmt.Sprintf("the pod of that name has UID %s now", pod.UID))
	}
	return pod, over(want, pod)
}

func podGone(want cni.Pod, why string) error {
	return &cni.Error{
		Code:    uint(cnitypes.ErrTryAgainLater),
		Message: fmt.Sprintf("%s: pod %s/%s with UID %q is not known", cni.AddFailed, want.Namespace, want.Name, want.UID),
		Details: why,
	}
}

func (p *pods) cached(namespace, name string) (*corev1.Pod, bool) {
	return p.informer.Get(namespace + "/" + name)
}

// starting reports whether the pod has not been up yet, as far as the watch
// tells: a sandbox of it that ends has failed, and the kubelet tries again.
func (p *pods) starting(of cni.Pod) bool {
	pod, ok := p.cached(of.Namespace, of.Name)
	return ok && uidOf(pod) == of.UID && pod.DeletionTimestamp == nil && !inLastPhase(pod) && len(pod.Status.PodIPs) == 0
}

// live returns the node's pods by UID, ok only if they are known.
func (p *pods) live() (pods map[string]*corev1.Pod, ok bool) {
	if !p.informer.HasSynced() {
		return nil, false
	}
	pods = map[string]*corev1.Pod{}
	for _, pod := range p.informer.All() {
		pods[uidOf(pod)] = pod
	}
	return pods, true
}

// watchPods prepares pods as soon as they are bound to this node, has the
// endpoints of finished pods removed, and forgets pods that are gone. The end of
// a virtual machine's pod is told on by its endpoint.
func (a *Agent) watchPods(ctx context.Context) error {
	return a.pods.informer.On(
		func(was, pod *corev1.Pod) {
			if !awaitsAddress(pod) {
				a.pools.met(uidOf(pod))
			}
			switch {
			case was == nil && awaitsAddress(pod):
				a.preparing.Go(func() { a.prepare(ctx, pod) })
			case inLastPhase(pod) && (was == nil || !inLastPhase(was)):
				a.endpoints.enqueue(pod.Namespace, pod.Name)
			}
		},
		func(pod *corev1.Pod) {
			a.pools.met(uidOf(pod))
			a.lessee.Forget(uidOf(pod))
			a.leaks.gone(pod)
			if b := a.bearing(pod); b.kind != "" {
				a.endpoints.enqueue(pod.Namespace, b.name)
			}
		})
}

// awaitsAddress reports whether an ADD of the pod may be about to come.
func awaitsAddress(pod *corev1.Pod) bool {
	return !pod.Spec.HostNetwork && pod.DeletionTimestamp == nil && pod.Status.PodIP == "" && !inLastPhase(pod)
}

// prepare does what an ADD of the pod's first interface would otherwise wait
// for: it has the pools supplied that are named for the pod, and finds out from
// the cluster where an identity's address is. Default pools are not supplied for
// a pod that may never ask for an address. A failure costs nothing but the wait:
// ADD does it again.
func (a *Agent) prepare(ctx context.Context, pod *corev1.Pod) {
	q := &cni.AddRequest{Attachment: cni.Attachment{
		Interface: cluster.FirstInterface, // what kubelet's runtimes call it, without exception
		Pod:       cni.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: uidOf(pod)},
	}}
	chosen, err := a.choose(pod, q)
	if err != nil {
		return // ADD will say it, where the user looks
	}
	r := a.identify(pod, q)
	if chosen.Default && !r.Sticky {
		return
	}
	if r.Families, err = a.pools.families(chosen); err != nil {
		return
	}
	if r.Sticky {
		a.upkeep.supply(r.Families)
		if err := a.lessee.Prepare(withCause(ctx, "prepare"), r); err != nil {
			a.log.LogAttrs(ctx, slog.LevelInfo, "prepare ahead of ADD", slog.String("outcome", "error"),
				slog.String("pod", pod.Namespace+"/"+pod.Name), slog.Any("err", err))
			return
		}
	}
	a.expect(pod, r)
}

// expect has an address at hand for a pod that has none and is about to ask for
// one. What the watch tells of the pod meanwhile is told before or after: either
// it shows here, or the pod is [pools.met] then.
func (a *Agent) expect(pod *corev1.Pod, r lease.Request) {
	uid := r.Owner.PodUID
	if slices.ContainsFunc(a.lessee.Entries(), func(e lease.Entry) bool { return e.Owner == r.Owner }) {
		return
	}
	a.pools.expect(uid, r.Families)
	if now, ok := a.pods.cached(pod.Namespace, pod.Name); !ok || uidOf(now) != uid || !awaitsAddress(now) {
		a.pools.met(uid)
	}
	a.upkeep.supply(r.Families)
}
