//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// seconds is how soon an address that nobody wants any more is the pool's
// again, on two cores.
const seconds = 15 * time.Second

func TestScalingUpLeavesTheOthersAlone(t *testing.T) {
	s := begin(t, "up")
	s.statefulSet("web", 2, template("web", s.pool("p", "10.6.12.1-10.6.12.8")))
	before := s.ready("web", 2)
	s.scale("statefulset/web", 4)
	s.undisturbed(before, s.ready("web", 4))
}

func TestScalingDownGivesAddressesToAnotherWorkload(t *testing.T) {
	s := begin(t, "down")
	pool := s.pool("p", "10.6.12.9-10.6.12.11")
	s.statefulSet("web", 3, template("web", pool))
	before := s.ready("web", 3)
	s.scale("statefulset/web", 1)
	s.counts(seconds+time.Second*time.Duration(*before[0].Spec.TerminationGracePeriodSeconds), pool, 1)
	s.deployment("other", 2, template("other", pool))
	s.within("10.6.12.9", "10.6.12.11", s.ready("other", 2))
	s.undisturbed(before[:1], s.ready("web", 1))
}

func TestScalingDownAndUpAgainGivesEveryPodAnAddress(t *testing.T) {
	s := begin(t, "down-up")
	pool := s.pool("p", "10.6.12.12-10.6.12.15")
	s.statefulSet("web", 4, template("web", pool))
	before := s.ready("web", 4)
	s.scale("statefulset/web", 1)
	s.ready("web", 1)
	s.scale("statefulset/web", 4)
	after := s.ready("web", 4)
	s.undisturbed(before[:1], after)
	s.within("10.6.12.12", "10.6.12.15", after)
	s.deletePods(after...)
	s.keeps(after, s.ready("web", 4, after...))
}

// Up right behind down, without waiting: the garbage collector sees the lower
// count, the pods, and the higher count in any order.
func TestScalingUpRightBehindScalingDownLosesNothing(t *testing.T) {
	s := begin(t, "down-up-fast")
	pool := s.pool("p", "10.6.12.16-10.6.12.19")
	s.statefulSet("web", 4, template("web", pool))
	before := s.ready("web", 4)
	for range 3 {
		s.scale("statefulset/web", 1)
		s.scale("statefulset/web", 4)
	}
	after := s.ready("web", 4)
	s.undisturbed(before[:1], after)
	s.counts(grace, pool, 4)
	s.deletePods(after...)
	s.keeps(after, s.ready("web", 4, after...))
}

func TestOrdinalsCountFromTheirStart(t *testing.T) {
	s := begin(t, "ordinals")
	pool := s.pool("p", "10.6.12.20-10.6.12.24")
	two := int32(2)
	s.statefulSetWith("web", appsv1.StatefulSetSpec{
		Replicas: &two, Ordinals: &appsv1.StatefulSetOrdinals{Start: 5},
		Template: template("web", pool), PodManagementPolicy: appsv1.ParallelPodManagement,
	})
	before := s.ready("web", 2)
	if before[0].Name != "web-5" || before[1].Name != "web-6" {
		t.Fatalf("the pods are %s and %s, want web-5 and web-6", before[0].Name, before[1].Name)
	}
	s.deletePods(before...)
	again := s.ready("web", 2, before...)
	s.keeps(before, again)
	s.must(s.kubectl("", "patch", "statefulset", "web", "-p", `{"spec": {"ordinals": {"start": 6}}}`))
	moved := s.ready("web", 2, again[0])
	s.undisturbed(again[1:], moved)
	s.counts(grace, pool, 2)
}

func TestDeletedStatefulSetGivesItsAddressesBack(t *testing.T) {
	s := begin(t, "deleted")
	for i, cascade := range []string{"background", "foreground"} {
		pool := s.pool(cascade, fmt.Sprintf("10.6.12.%d-10.6.12.%d", 32+2*i, 33+2*i))
		s.statefulSet(cascade, 2, template(cascade, pool))
		s.ready(cascade, 2)
		s.counts(grace, pool, 2)
		s.must(s.kubectl("", "delete", "statefulset", cascade, "--cascade="+cascade, "--wait=false"))
		s.counts(seconds, pool, 0)
		s.await(seconds, "no endpoint of them is left", func(ctx context.Context) error {
			list, err := s.cluster.CRDs.Endpoints(s.namespace).List(ctx, metav1.ListOptions{})
			if err != nil {
				return err
			}
			for _, e := range list.Items {
				if e.Status.OwnerControllerType == "StatefulSet" {
					return fmt.Errorf("%s is left", e.Name)
				}
			}
			return nil
		})
	}
}

func TestDeploymentDrawsFromThePoolAndGivesBack(t *testing.T) {
	s := begin(t, "deployment")
	pool := s.pool("p", "10.6.12.48-10.6.12.55")
	s.deployment("front", 3, template("front", pool))
	before := s.ready("front", 3)
	s.within("10.6.12.48", "10.6.12.55", before)
	s.counts(grace, pool, 3)
	s.deletePods(before...)
	s.within("10.6.12.48", "10.6.12.55", s.ready("front", 3, before...))
	s.counts(grace, pool, 3)
	s.scale("deployment/front", 0)
	s.counts(seconds, pool, 0)
}
