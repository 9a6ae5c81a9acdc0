package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	cnitypes "github.com/containernetworking/cni/pkg/types"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/holdfast-ipam/holdfast/agent/watch"
	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/lease"
)

const (
	// podWait is how long an ADD waits for the watch to bring its pod before
	// it reads the pod itself, and podPoll how often it looks.
	podWait = 500 * time.Millisecond
	podPoll = 10 * time.Millisecond
	// leakPeriod is how often the journal is compared with the node's pods,
	// and leakAge how old an entry without pod must be to be looked up.
	leakPeriod = 30 * time.Second
	leakAge    = 30 * time.Second
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

// slimPod drops what nobody here reads, so that a cached pod costs little.
func slimPod(pod *corev1.Pod) {
	pod.Spec = corev1.PodSpec{NodeName: pod.Spec.NodeName, HostNetwork: pod.Spec.HostNetwork}
	pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses = nil, nil, nil
	pod.Status.Conditions = nil
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
		return pod, nil
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
	return pod, nil
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

// live returns the UIDs of the node's pods, ok only if that is known.
func (p *pods) live() (uids map[string]bool, ok bool) {
	if !p.informer.HasSynced() {
		return nil, false
	}
	uids = map[string]bool{}
	for _, pod := range p.informer.All() {
		uids[uidOf(pod)] = true
	}
	return uids, true
}

// watchPods prepares StatefulSet pods as soon as they are bound to this node,
// and forgets pods that are gone.
func (a *Agent) watchPods(ctx context.Context) error {
	return a.pods.informer.On(
		func(was, pod *corev1.Pod) {
			if was == nil && a.wantsPreparing(pod) {
				a.preparing.Go(func() { a.prepare(ctx, pod) })
			}
		},
		func(pod *corev1.Pod) { a.lessee.Forget(uidOf(pod)) })
}

// wantsPreparing reports whether an ADD of the pod will want to know from the
// cluster where its identity's address is.
func (a *Agent) wantsPreparing(pod *corev1.Pod) bool {
	return a.config.EnableStatefulSet && ownedByStatefulSet(pod) &&
		!pod.Spec.HostNetwork && pod.DeletionTimestamp == nil && pod.Status.PodIP == ""
}

// prepare does what an ADD of the pod's first interface would otherwise wait
// for. A failure costs nothing but that: ADD does it again.
func (a *Agent) prepare(ctx context.Context, pod *corev1.Pod) {
	q := &cni.AddRequest{Attachment: cni.Attachment{
		Interface: "eth0", // what kubelet's runtimes call it, without exception
		Pod:       cni.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: uidOf(pod)},
	}}
	chosen, err := a.choose(pod, q)
	if err != nil {
		return // ADD will say it, where the user looks
	}
	r := a.identify(pod, q)
	if r.Families, err = a.pools.families(chosen); err != nil {
		return
	}
	if err := a.lessee.Prepare(withCause(ctx, "prepare"), r); err != nil {
		a.log.LogAttrs(ctx, slog.LevelInfo, "prepare ahead of ADD", slog.String("outcome", "error"),
			slog.String("pod", pod.Namespace+"/"+pod.Name), slog.Any("err", err))
	}
}

// findLeaks gives back what the journal has for pods that are no more, such
// as those whose DEL never came. Each is looked up by a quorum read first.
func (a *Agent) findLeaks(ctx context.Context) error {
	live, ok := a.pods.live()
	if !ok {
		return nil
	}
	var errs []error
	looked := map[string]bool{}
	for _, e := range a.lessee.Entries() {
		uid := e.Owner.PodUID
		inUse := e.State == lease.Assigned || e.State == lease.Placing
		if inUse && !live[uid] && !looked[uid] && a.now().Sub(e.Since) > leakAge {
			looked[uid] = true
			errs = append(errs, a.releaseLeaked(ctx, uid, e))
		}
	}
	return errors.Join(errs...)
}

func (a *Agent) releaseLeaked(ctx context.Context, uid string, e lease.Entry) error {
	pod, err := a.pods.client.CoreV1().Pods(e.Namespace).Get(ctx, e.Pod, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("look up %s/%s, which may have left an address: %w", e.Namespace, e.Pod, err)
	}
	if err == nil && uidOf(pod) == uid && pod.Spec.NodeName == a.node.Name {
		return nil
	}
	released, err := a.lessee.ReleasePod(uid)
	for _, e := range released {
		a.log.Info("leaked address given back", "address", e.Addr, "pod", e.Namespace+"/"+e.Pod, "podUID", uid)
	}
	return err
}
