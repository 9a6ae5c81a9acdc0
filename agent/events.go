package agent

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/holdfast-ipam/holdfast/cni"
)

const (
	// reasonConflict is the reason of the event that a pod's address is used
	// by somebody else.
	reasonConflict = "IPConflict"
	// eventWait bounds how long an answer waits for its event.
	eventWait = 2 * time.Second
)

// podEvents writes events of pods. The same one again counts up the one that
// is there, and many of one pod are held back, as client-go's own recorder
// does (25 at once, then one in five minutes); but it writes at once, so that
// nothing runs in the background.
type podEvents struct {
	client     typedcorev1.EventsGetter
	now        eventClock
	correlator *record.EventCorrelator
}

// eventClock is the clock of the correlator.
type eventClock func() time.Time

// Now returns the time.
func (c eventClock) Now() time.Time { return c() }

// Since returns how long t is ago.
func (c eventClock) Since(t time.Time) time.Duration { return c().Sub(t) }

func newPodEvents(client typedcorev1.EventsGetter, now func() time.Time) *podEvents {
	return &podEvents{client: client, now: now, correlator: record.NewEventCorrelator(eventClock(now))}
}

// reference names the pod to the API server, which may know it by another UID
// than the runtime.
func (a *Agent) reference(p cni.Pod) corev1.ObjectReference {
	uid := types.UID(p.UID)
	if pod, ok := a.pods.cached(p.Namespace, p.Name); ok && (p.UID == "" || uidOf(pod) == p.UID) {
		uid = pod.UID
	}
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: uid}
}

// warn writes a warning about a pod.
func (e *podEvents) warn(ctx context.Context, about corev1.ObjectReference, reason, message string) error {
	ctx, cancel := context.WithTimeout(ctx, eventWait)
	defer cancel()
	now := metav1.NewTime(e.now())
	result, err := e.correlator.EventCorrelate(&corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: about.Namespace, GenerateName: about.Name + "."},
		InvolvedObject: about,
		Type:           corev1.EventTypeWarning, Reason: reason, Message: message,
		Source:         corev1.EventSource{Component: "holdfast"},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	})
	if err != nil || result.Skip {
		return err
	}
	stored, err := e.store(ctx, result)
	if err != nil {
		return fmt.Errorf("write an event of pod %s/%s: %w", about.Namespace, about.Name, err)
	}
	e.correlator.UpdateState(stored)
	return nil
}

// store counts up the event that is there, or creates it.
func (e *podEvents) store(ctx context.Context, result *record.EventCorrelateResult) (*corev1.Event, error) {
	events := e.client.Events(result.Event.Namespace)
	if result.Event.Count > 1 {
		stored, err := events.Patch(ctx, result.Event.Name, types.StrategicMergePatchType, result.Patch, metav1.PatchOptions{})
		if !apierrors.IsNotFound(err) {
			return stored, err
		}
	}
	fresh := result.Event.DeepCopy()
	fresh.Name, fresh.ResourceVersion = "", "" // events go after an hour
	return events.Create(ctx, fresh, metav1.CreateOptions{})
}
