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
// within their grace period, may still be at it. Hence the wait. And it may not
// be there at all: a node whose kubelet does not answer runs what it ran. So
// the Node has to be ready after a wait that is longer than it takes to tell
// that it is not.
const (
	// leakPeriod is how often the journal is compared with the node's pods,
	// and leakAge how old an entry without pod must be to be looked up.
	leakPeriod = 10 * time.Second
	leakAge    = 30 * time.Second
	// usualGrace is the grace period of a pod that says nothing of it (the
	// API's default), and tearDown how long a kubelet gets beyond it: more than
	// the 50 seconds after which a silent one's Node is not ready any more
	// (--node-monitor-grace-period of kube-controller-manager).
	usualGrace = 30 * time.Second
	tearDown   = time.Minute
)

// leaks remembers when what pods left behind may be given back.
type leaks struct {
	now func() time.Time
	// delay is a wait beyond all others.
	delay time.Duration

	mu sync.Mutex
	// left is by pod UID, of pods that are gone or finished.
	left map[string]remains
}

// remains is what is known of what a pod has left.
type remains struct {
	// due is when it may be given back, after a wait.
	due  time.Time
	wait time.Duration
	// ended is set when the pod had ended by what its kubelet said.
	ended bool
}

func newLeaks(now func() time.Time, delay time.Duration) *leaks {
	return &leaks{now: now, delay: delay, left: map[string]remains{}}
}

// gone notes the end of a pod's object. One that was finished by then was
// removed by its kubelet, or could have been.
func (l *leaks) gone(pod *corev1.Pod) {
	r := remains{wait: l.delay, ended: cluster.Finished(pod)}
	if !r.ended {
		r.wait += grace(pod) + tearDown
	}
	l.begin(uidOf(pod), r)
}

// begin has the wait begin now.
func (l *leaks) begin(uid string, r remains) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.due = l.now().Add(r.wait)
	l.left[uid] = r
}

// grace is how long the pod's containers may take to end.
func grace(pod *corev1.Pod) time.Duration {
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return usualGrace
}

// look returns what is known of what the pod has left, and whether it may be
// given back. What was not known is left from now on: of what went before this
// agent began, nothing tells for how long it has been gone.
func (l *leaks) look(uid string, wait time.Duration) (r remains, due bool) {
	l.mu.Lock()
	r, known := l.left[uid]
	l.mu.Unlock()
	if !known {
		r = remains{wait: wait + l.delay}
		l.begin(uid, r)
		return r, r.wait <= 0
	}
	return r, !l.now().Before(r.due)
}

// forget drops what is known of a pod that turns out to be there.
func (l *leaks) forget(uid string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.left, uid)
}

// only drops what is known of other pods than those that left something.
func (l *leaks) only(left map[string]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.left, func(uid string, _ remains) bool { return !left[uid] })
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
		if pod := live[uid]; pod == nil {
			errs = append(errs, a.releaseLeaked(ctx, uid, e))
		} else if a.isZombie(pod) {
			errs = append(errs, a.releaseZombie(ctx, uid, e, grace(pod)))
		}
	}
	a.leaks.only(left)
	return errors.Join(errs...)
}

func (a *Agent) releaseLeaked(ctx context.Context, uid string, e lease.Entry) error {
	r, due := a.leaks.look(uid, usualGrace+tearDown)
	if !due {
		return nil
	}
	pod, err := a.lookUp(ctx, e)
	switch {
	case err != nil:
		return err
	case pod != nil && uidOf(pod) == uid && pod.Spec.NodeName == a.node.Name:
		a.leaks.forget(uid)
		return nil
	}
	if !r.ended {
		if answers, err := a.kubeletAnswers(ctx); err != nil || !answers {
			a.leaks.begin(uid, r) // until it has answered for as long
			return err
		}
	}
	return a.giveBack(uid)
}

// isZombie reports whether a pod is one whose addresses are taken back without
// a DEL, which they are only where the administrator has asked for it.
func (a *Agent) isZombie(pod *corev1.Pod) bool {
	return a.config.GC.ZombieOnReadyNode && cluster.Finished(pod)
}

func (a *Agent) releaseZombie(ctx context.Context, uid string, e lease.Entry, wait time.Duration) error {
	if _, due := a.leaks.look(uid, wait); !due {
		return nil
	}
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
