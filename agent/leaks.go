package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/lease"
)

// What gives an address back is a DEL, or CNI GC: the runtime knows whether a
// sandbox is there, and nobody else. A kubelet asks for a DEL as soon as the
// last container of a pod has ended (SyncTerminatingPod stops the containers
// and then the sandboxes, also of a Job's pod whose object stays), asks again
// until it has succeeded, and removes the object of a deleted pod only after
// that. So a pod that vanished as pods do has no sandbox any more, and a
// finished one without DEL may have: nothing runs in it, but its network
// answers for the address.
//
// What is left for a search are addresses whose DEL has come before a late
// ADD, those of unknown sandboxes, and pods deleted by force. The object of
// the latter goes at once, and the kubelet, which then ends the containers
// within their grace period, may still be at it. Hence the wait.
const (
	// leakPeriod is how often the journal is compared with the node's pods,
	// and leakAge how old an entry without pod must be to be looked up.
	leakPeriod = 30 * time.Second
	leakAge    = 30 * time.Second
	// usualGrace is the grace period of a pod that says nothing of it (the
	// API's default), and tearDown how long a kubelet gets beyond it.
	usualGrace = 30 * time.Second
	tearDown   = 30 * time.Second
)

// leaks remembers when what pods left behind may be given back.
type leaks struct {
	now func() time.Time
	// delay is a wait beyond all others.
	delay time.Duration

	mu sync.Mutex
	// due is by pod UID, for pods that are gone or finished.
	due map[string]time.Time
}

func newLeaks(now func() time.Time, delay time.Duration) *leaks {
	return &leaks{now: now, delay: delay, due: map[string]time.Time{}}
}

// gone notes the end of a pod's object. One that was finished by then was
// removed by its kubelet, or could have been.
func (l *leaks) gone(pod *corev1.Pod) {
	due := l.now().Add(l.delay)
	if !cluster.Finished(pod) {
		due = due.Add(grace(pod) + tearDown)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.due[uidOf(pod)] = due
}

// grace is how long the pod's containers may take to end.
func grace(pod *corev1.Pod) time.Duration {
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return usualGrace
}

// isDue reports whether what the pod has left may be given back, and notes it
// as left from now on if that was not known: of what went before this agent
// began, nothing tells for how long it has been gone.
func (l *leaks) isDue(uid string, wait time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.due[uid]; !known {
		l.due[uid] = l.now().Add(wait + l.delay)
	}
	return !l.now().Before(l.due[uid])
}

// forget drops what is known of a pod that turns out to be there.
func (l *leaks) forget(uid string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.due, uid)
}

// only drops what is known of other pods than those that left something.
func (l *leaks) only(left map[string]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.due, func(uid string, _ time.Time) bool { return !left[uid] })
}

// findLeaks gives back what the journal has for pods that are no more, such
// as those whose DEL never came. Each is looked up by a quorum read first.
func (a *Agent) findLeaks(ctx context.Context) error {
	live, ok := a.pods.live()
	if !ok {
		return nil
	}
	var errs []error
	left, looked := map[string]bool{}, map[string]bool{}
	for _, e := range a.lessee.Entries() {
		uid := e.Owner.PodUID
		if e.State != lease.Assigned && e.State != lease.Placing {
			continue
		}
		left[uid] = true
		if looked[uid] || a.now().Sub(e.Since) <= leakAge {
			continue
		}
		looked[uid] = true
		pod := live[uid]
		switch {
		case pod == nil && a.leaks.isDue(uid, usualGrace+tearDown):
			errs = append(errs, a.releaseLeaked(ctx, uid, e))
		case pod != nil && a.isZombie(pod) && a.leaks.isDue(uid, grace(pod)):
			errs = append(errs, a.releaseZombie(ctx, uid, e))
		}
	}
	a.leaks.only(left)
	return errors.Join(errs...)
}

func (a *Agent) releaseLeaked(ctx context.Context, uid string, e lease.Entry) error {
	pod, err := a.lookUp(ctx, e)
	switch {
	case err != nil:
		return err
	case pod != nil && uidOf(pod) == uid && pod.Spec.NodeName == a.node.Name:
		a.leaks.forget(uid)
		return nil
	}
	return a.giveBack(uid)
}

// isZombie reports whether a pod is one whose addresses are taken back without
// a DEL, which they are only where the administrator has asked for it.
func (a *Agent) isZombie(pod *corev1.Pod) bool {
	return a.config.GC.ZombieOnReadyNode && cluster.Finished(pod)
}

func (a *Agent) releaseZombie(ctx context.Context, uid string, e lease.Entry) error {
	pod, err := a.lookUp(ctx, e)
	if err != nil || pod == nil || uidOf(pod) != uid || !cluster.Finished(pod) {
		return err // what is gone is for the next round
	}
	return a.giveBack(uid)
}

// lookUp is a quorum read of the pod that an entry names, nil if there is none.
func (a *Agent) lookUp(ctx context.Context, e lease.Entry) (*corev1.Pod, error) {
	pod, err := a.pods.client.CoreV1().Pods(e.Namespace).Get(ctx, e.PodName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up %s/%s, which may have left an address: %w", e.Namespace, e.PodName(), err)
	}
	return pod, nil
}

func (a *Agent) giveBack(uid string) error {
	released, err := a.lessee.ReleasePod(uid)
	for _, e := range released {
		a.log.Info("leaked address given back", "address", e.Addr, "pod", e.Namespace+"/"+e.Pod, "podUID", uid)
		a.endpoints.enqueue(e.Namespace, e.Pod)
	}
	return err
}
