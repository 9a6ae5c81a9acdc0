//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-ipam/holdfast/e2e/cluster"
)

// withoutMultus makes Holdfast the cluster's only network plugin until the
// test ends.
func withoutMultus(t *testing.T) {
	t.Helper()
	c, err := cluster.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Install(context.Background()); err != nil {
			t.Errorf("install Multus again: %v", err)
		}
		awaitConfiguration(t, c, "multus")
	})
	if err := c.Install(context.Background(), "--set", "multus.multusCNI.install=false"); err != nil {
		t.Fatal(err)
	}
	awaitConfiguration(t, c, "holdfast")
}

// awaitConfiguration waits until the first configuration on every node is of
// the named kind: the runtime looks at nothing else.
func awaitConfiguration(t *testing.T, c *cluster.Cluster, kind string) {
	t.Helper()
	err := cluster.Await(context.Background(), time.Minute, func(ctx context.Context) error {
		pods, err := c.Agents(ctx)
		if err != nil {
			return err
		}
		for _, p := range pods {
			first, err := c.OnNode(ctx, p.Spec.NodeName, "ls /etc/cni/net.d/*.conf /etc/cni/net.d/*.conflist 2>/dev/null | sort | head -n 1")
			if err != nil && first == "" {
				return err
			}
			if !strings.Contains(first, kind) {
				return fmt.Errorf("the first configuration on %s is %q", p.Spec.NodeName, strings.TrimSpace(first))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("the nodes use %s: %v", kind, err)
	}
}

func TestWithoutMultus(t *testing.T) {
	withoutMultus(t)
	t.Run("PodsGetAndKeepTheirAddresses", func(t *testing.T) {
		s := begin(t, "alone")
		s.statefulSet("web", 3, template("web", s.routedPool("p", 1, 16), defaultNetwork, spread))
		before := s.ready("web", 3)
		s.within("10.245.0.1", "10.245.0.16", before)
		s.deletePods(before...)
		s.keeps(before, s.ready("web", 3, before...))
	})
	t.Run("SandboxesAreReplacedWhileTheAPIServerIsAway", apiServerAway)
}

// routedPool creates a pool for point-to-point links, which need a gateway.
func (s *scenario) routedPool(name string, first, last int) string {
	s.Helper()
	return s.poolWith(name, routed(first, last))
}

func apiServerAway(t *testing.T) {
	s := begin(t, "api-away")
	pool := s.routedPool("p", 32, 63)
	node := s.workers()[0]
	s.statefulSet("web", 2, template("web", pool, defaultNetwork, onNode(node)))
	s.deployment("front", 2, template("front", pool, defaultNetwork, onNode(node)))
	web, front := s.ready("web", 2), s.ready("front", 2)
	s.Cleanup(func() {
		if err := s.cluster.StartAPIServer(s.ctx); err != nil {
			s.Error(err)
		}
	})
	s.must(s.cluster.StopAPIServer(s.ctx))
	stopped := time.Now()
	for _, pods := range [][]corev1.Pod{web, front} {
		for i := range pods {
			s.must(s.cluster.StopSandbox(s.ctx, &pods[i]))
		}
	}
	for _, pods := range [][]corev1.Pod{web, front} {
		for i := range pods {
			s.backInPlace(&pods[i])
		}
	}
	t.Logf("all four pods were back %.0f s after the API server had gone", time.Since(stopped).Seconds())
	// The rest of the minute: whoever waits for the API server is to be seen
	// waiting.
	s.await(2*time.Minute, "a minute passes", func(context.Context) error {
		if left := time.Minute - time.Since(stopped); left > 0 {
			return fmt.Errorf("%s are left", left)
		}
		return nil
	})
	s.must(s.cluster.StartAPIServer(s.ctx))
	s.undisturbed(web, s.ready("web", 2))
	s.undisturbed(front, s.ready("front", 2))
}

// backInPlace waits until the runtime has a new sandbox for the pod that has
// the pod's address, with its container running. It asks the node, because
// nobody else could answer.
func (s *scenario) backInPlace(pod *corev1.Pod) {
	s.Helper()
	script := `
uid=` + string(pod.UID) + `
id=$(crictl pods --quiet --no-trunc --state Ready --label io.kubernetes.pod.uid=$uid)
[[ -n $id ]] || { echo "there is no sandbox" >&2; exit 1; }
[[ -n $(crictl ps --quiet --state Running --label io.kubernetes.pod.uid=$uid) ]] || { echo "its container does not run" >&2; exit 1; }
crictl inspectp "$id" | jq -r .status.network.ip`
	s.await(patience, pod.Name+" is back with its address", func(ctx context.Context) error {
		printed, err := s.cluster.OnNode(ctx, pod.Spec.NodeName, script)
		if err != nil {
			return err
		}
		if got := strings.TrimSpace(printed); got != pod.Status.PodIP {
			return fmt.Errorf("its address is %s, and was %s", got, pod.Status.PodIP)
		}
		return nil
	})
}
