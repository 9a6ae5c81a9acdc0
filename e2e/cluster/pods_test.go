package cluster

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func pod(name string, change ...func(*corev1.Pod)) corev1.Pod {
	p := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name)},
		Status: corev1.PodStatus{
			PodIP:      "10.6.0.1",
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	for _, c := range change {
		c(&p)
	}
	return p
}

func TestPodsAreSettledOnlyWhenAllAreReadyAndNew(t *testing.T) {
	deleted := func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(0, 0)} }
	unready := func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }
	silent := func(p *corev1.Pod) { p.Status.Conditions = nil }
	homeless := func(p *corev1.Pod) { p.Status.PodIP = "" }
	for _, c := range []struct {
		name string
		pods []corev1.Pod
		old  []corev1.Pod
		want string // in the error, empty for none
	}{
		{"all ready", []corev1.Pod{pod("a"), pod("b")}, nil, ""},
		{"all new", []corev1.Pod{pod("a"), pod("b")}, []corev1.Pod{pod("c")}, ""},
		{"too few", []corev1.Pod{pod("a")}, nil, "there are 1 pods, want 2"},
		{"too many", []corev1.Pod{pod("a"), pod("b"), pod("c")}, nil, "there are 3 pods, want 2"},
		{"one not replaced", []corev1.Pod{pod("a"), pod("b")}, []corev1.Pod{pod("b")}, "b is still the pod it was"},
		{"one on its way out", []corev1.Pod{pod("a"), pod("b", deleted)}, nil, "b is not ready"},
		{"one not ready", []corev1.Pod{pod("a"), pod("b", unready)}, nil, "b is not ready"},
		{"one without conditions", []corev1.Pod{pod("a"), pod("b", silent)}, nil, "b is not ready"},
		{"one without address", []corev1.Pod{pod("a"), pod("b", homeless)}, nil, "b is not ready"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := settled(c.pods, 2, c.old)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestAwaitReturnsTheLastReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		err := Await(t.Context(), 3*time.Second, func(context.Context) error {
			if time.Since(start) < time.Second {
				return errors.New("the first reason")
			}
			return errors.New("the last reason")
		})
		if err == nil || !strings.Contains(err.Error(), "the last reason") || !strings.Contains(err.Error(), "3s") {
			t.Errorf("got %v", err)
		}
	})
}

func TestAwaitReturnsAsSoonAsItIsTrue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		err := Await(t.Context(), time.Minute, func(context.Context) error {
			if time.Since(start) < 2*time.Second {
				return errors.New("not yet")
			}
			return nil
		})
		if spent := time.Since(start); err != nil || spent > 3*time.Second {
			t.Errorf("got %v after %s", err, spent)
		}
	})
}
