//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/e2e/cluster"
)

// someReady waits until at least n pods with the label app are ready: the
// middle of a crowd of starts.
func (s *scenario) someReady(app string, n int) {
	s.Helper()
	s.await(patience, fmt.Sprintf("%d pods %s are ready", n, app), func(ctx context.Context) error {
		pods, err := s.cluster.Pods(ctx, s.namespace, "app="+app)
		if err != nil {
			return err
		}
		ready := 0
		for i := range pods {
			if cluster.Ready(&pods[i]) {
				ready++
			}
		}
		if ready < n {
			return fmt.Errorf("%d of %d are", ready, len(pods))
		}
		return nil
	})
}

func TestAgentsKilledAmidStartsAndStopsLoseNothing(t *testing.T) {
	s := begin(t, "killed")
	s.watchAddresses()
	pool := s.pool("p", "10.6.14.1-10.6.14.40")
	s.statefulSet("web", 6, template("web", pool, spread))
	before := s.ready("web", 6)
	s.deployment("front", 12, template("front", pool, spread))
	s.someReady("front", 3)
	s.killAgents()
	s.deletePods(before...)
	s.someReady("front", 8)
	s.scale("deployment/front", 4)
	s.killAgents()
	s.keeps(before, s.ready("web", 6, before...))
	s.scale("deployment/front", 10)
	s.someReady("front", 5)
	s.killAgents()
	s.ready("front", 10)
	s.must(s.cluster.AwaitAgents(s.ctx))
}

// killAgents kills every agent with signal 9. Kubelet waits longer each time
// before it starts them again, which would make this a test of its patience.
func (s *scenario) killAgents() {
	s.Helper()
	nodes, err := s.cluster.Kube.CoreV1().Nodes().List(s.ctx, metav1.ListOptions{})
	s.must(err)
	for _, n := range nodes.Items {
		s.await(patience, "the agent on "+n.Name+" is killed", func(ctx context.Context) error {
			return s.cluster.KillAgent(ctx, n.Name)
		})
	}
	s.must(s.cluster.RestartKubelets(s.ctx))
}

func TestUpgradeWhilePodsStartLosesNothing(t *testing.T) {
	s := begin(t, "upgrade")
	s.watchAddresses()
	pool := s.pool("p", "10.6.14.48-10.6.14.80")
	s.statefulSet("web", 4, template("web", pool, spread))
	before := s.ready("web", 4)
	s.deployment("front", 9, template("front", pool, spread))
	var rollout sync.WaitGroup
	rollout.Go(func() {
		if err := s.cluster.RestartAgents(s.ctx); err != nil {
			t.Error(err)
		}
	})
	s.Cleanup(rollout.Wait)
	s.deletePods(before...)
	s.keeps(before, s.ready("web", 4, before...))
	s.ready("front", 9)
}

func TestKilledElectedAgentIsReplaced(t *testing.T) {
	s := begin(t, "elected")
	pool := s.pool("p", "10.6.14.81-10.6.14.88")
	s.statefulSet("web", 3, template("web", pool))
	before := s.ready("web", 3)
	elected := s.elected()
	t.Logf("%s on %s is elected", elected.Name, elected.Spec.NodeName)
	s.must(s.cluster.KillAgent(s.ctx, elected.Spec.NodeName))
	// Nothing on the way of a pod waits for it.
	s.deletePods(before...)
	after := s.ready("web", 3, before...)
	s.keeps(before, after)
	// Its duties are taken up again, by whomever.
	s.scale("statefulset/web", 1)
	s.counts(time.Minute, pool, 1)
}

// elected returns the pod of the agent that holds the Lease.
func (s *scenario) elected() *corev1.Pod {
	s.Helper()
	var pod *corev1.Pod
	s.await(time.Minute, "an agent is elected", func(ctx context.Context) error {
		lease, err := s.cluster.Kube.CoordinationV1().Leases(cluster.Namespace).Get(ctx, "holdfast", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if lease.Spec.HolderIdentity == nil {
			return errors.New("the Lease has no holder")
		}
		pods, err := s.cluster.Agents(ctx)
		if err != nil {
			return err
		}
		for i := range pods {
			if holds(*lease.Spec.HolderIdentity, &pods[i]) {
				pod = &pods[i]
				return nil
			}
		}
		return fmt.Errorf("the holder %q is none of the agents", *lease.Spec.HolderIdentity)
	})
	return pod
}

// holds tells whether a Lease's holder is the pod.
func holds(holder string, pod *corev1.Pod) bool {
	return holder == pod.Name || holder == pod.Spec.NodeName
}
