//go:build e2e

package e2e

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/e2e/cluster"
)

func TestPodKeepsItsAddressWhenItsContainerDies(t *testing.T) {
	s := begin(t, "container")
	s.statefulSet("web", 1, template("web", s.pool("p", "10.6.10.1-10.6.10.4")))
	before := s.ready("web", 1)
	s.must(s.kubectl("", "exec", "web-0", "--", "kill", "1"))
	s.undisturbed(before, s.restarted(before))
}

func TestPodKeepsItsAddressWhenItsSandboxIsReplaced(t *testing.T) {
	s := begin(t, "sandbox")
	s.statefulSet("web", 1, template("web", s.pool("p", "10.6.10.5-10.6.10.8")))
	before := s.ready("web", 1)
	s.must(s.cluster.StopSandbox(s.ctx, &before[0]))
	s.undisturbed(before, s.restarted(before))
}

func TestPodOfADeploymentKeepsItsAddressWhenItsSandboxIsReplaced(t *testing.T) {
	s := begin(t, "stateless")
	s.deployment("front", 1, template("front", s.pool("p", "10.6.10.9-10.6.10.12")))
	before := s.ready("front", 1)
	s.must(s.cluster.StopSandbox(s.ctx, &before[0]))
	s.restarted(before)
}

// restarted waits until every container of the pods has been started once
// more than in before, and the pods are ready again.
func (s *scenario) restarted(before []corev1.Pod) []corev1.Pod {
	s.Helper()
	after := make([]corev1.Pod, len(before))
	s.await(patience, "the pods are started again in place", func(ctx context.Context) error {
		for i, b := range before {
			pod, err := s.cluster.Kube.CoreV1().Pods(b.Namespace).Get(ctx, b.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if !cluster.Ready(pod) || restarts(pod) <= restarts(&b) {
				return errors.New(b.Name + " has not been started again")
			}
			after[i] = *pod
		}
		return nil
	})
	return after
}

func restarts(pod *corev1.Pod) (n int32) {
	for _, s := range pod.Status.ContainerStatuses {
		n += s.RestartCount
	}
	return n
}
