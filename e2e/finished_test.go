//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/e2e/cluster"
)

// ends is a pod whose only container ends at once, well or badly.
func ends(with string) option {
	return func(t *corev1.PodTemplateSpec) {
		t.Spec.RestartPolicy = corev1.RestartPolicyNever
		t.Spec.Containers[0].Command = []string{"sh", "-c", "exit " + with}
	}
}

func TestFinishedPodsGiveTheirAddressBackWhileTheyAreThere(t *testing.T) {
	s := begin(t, "finished")
	pool := s.pool("p", "10.6.28.1")
	for i, end := range []struct {
		with  string
		phase corev1.PodPhase
	}{{"0", corev1.PodSucceeded}, {"1", corev1.PodFailed}, {"0", corev1.PodSucceeded}} {
		pod := s.bare(fmt.Sprintf("job-%d", i), template("job", pool, ends(end.with)))
		s.await(patience, fmt.Sprintf("%s has %s", pod.Name, end.phase), func(ctx context.Context) error {
			now, err := s.cluster.Kube.CoreV1().Pods(s.namespace).Get(ctx, pod.Name, metav1.GetOptions{})
			if err == nil && now.Status.Phase != end.phase {
				err = fmt.Errorf("its phase is %s", now.Status.Phase)
			}
			return err
		})
		s.counts(grace, pool, 0)
	}
	s.bare("next", template("next", pool))
	s.within("10.6.28.1", "10.6.28.1", s.ready("next", 1))
	left, err := s.cluster.Pods(s.ctx, s.namespace, "app=job")
	s.must(err)
	if len(left) != 3 {
		t.Errorf("%d of the finished pods are left, so this shows nothing", len(left))
	}
}

func TestPodDeletedByForceGivesItsAddressBack(t *testing.T) {
	s := begin(t, "forced")
	pool := s.pool("p", "10.6.28.2")
	s.watchAddresses()
	s.bare("first", template("first", pool))
	s.ready("first", 1)
	s.must(s.kubectl("", "delete", "pod", "first", "--force", "--grace-period=0"))
	s.bare("second", template("second", pool))
	s.within("10.6.28.2", "10.6.28.2", s.ready("second", 1))
}

func TestEndpointDeletedByHandComesBackAndThePodMovesWithItsAddress(t *testing.T) {
	s := begin(t, "by-hand")
	pool := s.pool("p", "10.6.28.16-10.6.28.25")
	s.statefulSet("web", 1, template("web", pool))
	before := s.ready("web", 1)
	s.must(s.kubectl("", "delete", "spiderendpoint", "web-0"))
	s.await(grace, "the endpoint is there again", func(ctx context.Context) error {
		e, err := s.cluster.CRDs.Endpoints(s.namespace).Get(ctx, "web-0", metav1.GetOptions{})
		if err == nil && e.Status.Current.UID != string(before[0].UID) {
			err = fmt.Errorf("it is of pod %s", e.Status.Current.UID)
		}
		return err
	})
	s.cordon(before[0].Spec.NodeName)
	s.deletePods(before...)
	after := s.ready("web", 1, before...)
	s.keeps(before, after)
	if cluster.Address(&after[0]).IsValid() && after[0].Spec.NodeName == before[0].Spec.NodeName {
		t.Errorf("the pod did not move from %s, so this shows nothing", before[0].Spec.NodeName)
	}
}
