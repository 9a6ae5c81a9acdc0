//go:build e2e

package e2e

import (
	"context"
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/holdfast-ipam/holdfast/e2e/cluster"
)

// watchAddresses looks at every change of every pod of the scenario until the
// scenario ends, so that two pods with one address are noticed also when they
// have it for a moment only.
func (s *scenario) watchAddresses() {
	s.Helper()
	ctx, stop := context.WithCancel(s.ctx)
	stream, err := s.cluster.Kube.CoreV1().Pods(s.namespace).Watch(ctx, metav1.ListOptions{})
	s.must(err)
	var ended sync.WaitGroup
	ended.Go(func() { s.follow(ctx, stream) })
	s.Cleanup(func() {
		stop()
		stream.Stop()
		ended.Wait()
	})
}

func (s *scenario) follow(ctx context.Context, stream watch.Interface) {
	running := map[types.UID]*corev1.Pod{}
	seen := 0
	for event := range stream.ResultChan() {
		pod, ok := event.Object.(*corev1.Pod)
		if !ok {
			break
		}
		seen++
		delete(running, pod.UID)
		// A pod that is being deleted has given its address back before its
		// object goes away.
		if event.Type == watch.Deleted || pod.DeletionTimestamp != nil || pod.Status.Phase != corev1.PodRunning {
			continue
		}
		for _, other := range running {
			if addr := cluster.Address(pod); addr == cluster.Address(other) && addr != (netip.Addr{}) {
				s.Errorf("%s (%s) and %s (%s) have %s at the same moment", pod.Name, pod.UID, other.Name, other.UID, addr)
			}
		}
		running[pod.UID] = pod
	}
	if ctx.Err() == nil || seen == 0 {
		s.Errorf("the watch of the pods broke after %d events, so two pods with one address would not be noticed", seen)
	}
}
