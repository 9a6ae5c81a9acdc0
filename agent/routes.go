package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/agent/selection"
	"github.com/holdfast-ipam/holdfast/lease"
)

// warnTimeout bounds how long an ADD waits for a warning to be written.
const warnTimeout = time.Second

// notTaken returns those routes that no other interface of the pod has taken.
// A route belongs to the first interface whose subnet has its gateway: with
// the same route on two, the later one would win.
func (a *Agent) notTaken(owner lease.Owner, routes []selection.Route) ([]selection.Route, error) {
	if len(routes) == 0 {
		return nil, nil
	}
	others, err := a.details(func(e *lease.Entry) bool {
		return e.Owner.PodUID == owner.PodUID && e.Owner.Interface != owner.Interface
	})
	return outside(others, routes), err
}

// details returns what is stored with the assigned addresses that match.
func (a *Agent) details(match func(*lease.Entry) bool) (all []cluster.Detail, err error) {
	for _, e := range a.lessee.Entries() {
		if e.State != lease.Assigned || !match(&e) {
			continue
		}
		d, wrong := cluster.DecodeDetail(e.Detail)
		err = errors.Join(err, wrong)
		all = append(all, d)
	}
	return all, err
}

// outside returns the routes whose gateways lie in none of the subnets.
func outside(subnets []cluster.Detail, routes []selection.Route) []selection.Route {
	return slices.DeleteFunc(slices.Clone(routes), func(r selection.Route) bool {
		return slices.ContainsFunc(subnets, func(d cluster.Detail) bool { return d.Prefix.Masked().Contains(r.Gateway) })
	})
}

// warnOfRoutes says in an event of the pod which of its routes no interface
// has taken. It is for the pod's last interface; the pod starts all the same,
// as it does with Spiderpool, whether or not the event can be written.
func (a *Agent) warnOfRoutes(ctx context.Context, pod *corev1.Pod, owner lease.Owner, chosen selection.Selection) {
	if !chosen.Last || len(chosen.Routes) == 0 {
		return
	}
	all, err := a.details(func(e *lease.Entry) bool { return e.Owner.PodUID == owner.PodUID })
	dropped := outside(all, chosen.Routes)
	if err == nil && len(dropped) > 0 {
		err = a.warn(ctx, pod, "RouteDropped", droppedText(dropped))
	}
	if err != nil {
		a.log.LogAttrs(ctx, slog.LevelWarn, "routes left out, and no event says so", slog.String("outcome", "error"),
			slog.String("pod", pod.Namespace+"/"+pod.Name), slog.Any("err", err))
	}
}

func droppedText(dropped []selection.Route) string {
	var texts []string
	for _, r := range dropped {
		texts = append(texts, fmt.Sprintf("%s via %s", r.Destination, r.Gateway))
	}
	return fmt.Sprintf("left out of annotation %s: %s: no interface of the pod has an address in the subnet of that gateway. Correct gw, or take the route out, and delete the pod",
		selection.RoutesAnnotation, strings.Join(texts, ", "))
}

// warn writes a warning event about a pod.
func (a *Agent) warn(ctx context.Context, pod *corev1.Pod, reason, text string) error {
	ctx, cancel := context.WithTimeout(ctx, warnTimeout)
	defer cancel()
	now := metav1.NewTime(a.now())
	_, err := a.kube.CoreV1().Events(pod.Namespace).Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: pod.Name + ".", Namespace: pod.Namespace},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
		},
		Type: corev1.EventTypeWarning, Reason: reason, Message: text,
		Source:         corev1.EventSource{Component: "holdfast", Host: a.node.Name},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("write an event of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}
