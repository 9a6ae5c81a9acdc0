package elected

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// complain tells the user what keeps a SpiderMultusConfig from being rendered,
// as an event of it. The same complaint is the same event, which is then only
// brought up to date. Nothing is tried again: only another edit helps, and
// that comes by itself.
func (m *multus) complain(ctx context.Context, smc *v2beta1.SpiderMultusConfig, message string) error {
	m.log.Warn("cannot render a network", "network", smc.Namespace+"/"+smc.Name, "reason", message)
	event := complaint(smc, message)
	_, err := m.events.Events(smc.Namespace).Create(ctx, event, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		var again []byte
		again, err = json.Marshal(map[string]metav1.Time{"lastTimestamp": event.LastTimestamp})
		if err == nil {
			_, err = m.events.Events(smc.Namespace).Patch(ctx, event.Name, types.MergePatchType, again, metav1.PatchOptions{})
		}
	}
	if err != nil {
		return fmt.Errorf("write an event of SpiderMultusConfig %s/%s: %w", smc.Namespace, smc.Name, err)
	}
	return nil
}

// complaint is the event of a message, with a name that is its own.
func complaint(smc *v2beta1.SpiderMultusConfig, message string) *corev1.Event {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %s", smc.UID, message) // a hash takes everything
	now := metav1.Now()
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: smc.Namespace,
			Name:      fmt.Sprintf("%s.%016x", strings.TrimRight(smc.Name[:min(len(smc.Name), 200)], ".-"), h.Sum64()),
		},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: v2beta1.GroupVersion().String(), Kind: kindMultusConfig,
			Namespace: smc.Namespace, Name: smc.Name, UID: smc.UID, ResourceVersion: smc.ResourceVersion,
		},
		Type: corev1.EventTypeWarning, Reason: "NotRendered", Message: message,
		Source:         corev1.EventSource{Component: "holdfast"},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
}
