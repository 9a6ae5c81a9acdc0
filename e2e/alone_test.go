//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

func TestWithoutMultus(t *testing.T) {
	installed(t, "--set", noMultus)
	t.Run("PodsGetAndKeepTheirAddresses", func(t *testing.T) {
		s := begin(t, "alone")
		s.statefulSet("web", 3, template("web", s.routedPool("p", 1, 16), defaultNetwork, spread))
		before := s.ready("web", 3)
		s.within("10.245.0.1", "10.245.0.16", before)
		s.deletePods(before...)
		s.keeps(before, s.ready("web", 3, before...))
	})
	t.Run("SandboxesAreReplacedWhileTheAPIServerIsAway", apiServerAway)
	t.Run("PodsOnMacvlanReachEachOther", func(t *testing.T) {
		upgrade(t, "--set", noMultus+",cni.type=macvlan,cni.master=ens192")
		s := begin(t, "alone-macvlan")
		s.statefulSet("web", 2, template("web", s.pool("p", "10.6.17.1-10.6.17.4"), defaultNetwork))
		pods := s.ready("web", 2)
		s.within("10.6.17.1", "10.6.17.4", pods)
		s.must(s.kubectl("", "exec", "web-0", "--", "ping", "-c", "1", "-w", "20", pods[1].Status.PodIP))
	})
}

// routedPool creates a pool for point-to-point links, which need a gateway.
// Their pods talk to their node only.
func (s *scenario) routedPool(name string, first, last int) string {
	s.Helper()
	return s.poolWith(name, v2beta1.IPPoolSpec{
		Subnet:  "10.245.0.0/16",
		IPs:     []string{fmt.Sprintf("10.245.0.%d-10.245.0.%d", first, last)},
		Gateway: "10.245.255.1",
	})
}

func apiServerAway(t *testing.T) {
	s := begin(t, "api-away")
	// A watch (client-go's reflector) that found no API server looks again
	// after pauses of up to a minute. Data path and safety have none; what
	// follows, follows when the elected agent's watches are back.
	s.grace = 90 * time.Second
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
	s.replaceSandboxes(append(web, front...))
	t.Logf("all four pods were back %.0f s after the API server had gone", time.Since(stopped).Seconds())
	s.must(s.cluster.KillAgent(s.ctx, node))
	s.replaceSandboxes(web)
	t.Logf("the StatefulSet's pods were back %.0f s after it had gone, with an agent that never saw it", time.Since(stopped).Seconds())
	// The rest of the minute: whoever waits for the API server is to be seen
	// waiting.
	s.await(2*time.Minute, "a minute passes", func(context.Context) error {
		if left := time.Minute - time.Since(stopped); left > 0 {
			return fmt.Errorf("%s are left", left)
		}
		return nil
	})
	s.must(s.cluster.StartAPIServer(s.ctx))
	t.Logf("the API server answered again after %.0f s", time.Since(stopped).Seconds())
	s.undisturbed(web, s.ready("web", 2))
	s.undisturbed(front, s.ready("front", 2))
	t.Logf("every pod was ready again after %.0f s", time.Since(stopped).Seconds())
}

// replaceSandboxes stops the pods' sandboxes and waits until each pod has
// another one and its address.
func (s *scenario) replaceSandboxes(pods []corev1.Pod) {
	s.Helper()
	for i := range pods {
		// It asks the agent to take the address back, so it waits for one.
		s.await(patience, pods[i].Name+" loses its sandbox", func(ctx context.Context) error {
			return s.cluster.StopSandbox(ctx, &pods[i])
		})
	}
	for i := range pods {
		s.backInPlace(&pods[i])
	}
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
