//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

func TestNamespaceNamesPoolsForItsPods(t *testing.T) {
	s := begin(t, "namespace")
	s.pool("first", "10.6.21.1")
	s.pool("second", "10.6.21.2-10.6.21.4")
	six := s.poolIn("six", "fd00:21::/64", "", "fd00:21::-fd00:21::ffff:ffff:ffff:ffff")
	shut := s.poolWith("shut", v2beta1.IPPoolSpec{Subnet: "10.6.0.0/16", IPs: v2beta1.Ranges{"10.6.21.9"}, Disable: true})
	// A wildcard, over both IPv4 pools by name, and the one that is shut.
	s.must(s.kubectl("", "annotate", "namespace", s.namespace,
		`ipam.spidernet.io/default-ipv4-ippool=["`+shut+`", "e2e-namespace-[fs]*"]`,
		`ipam.spidernet.io/default-ipv6-ippool=["`+six+`"]`))
	unnamed := func(t *corev1.PodTemplateSpec) { delete(t.Annotations, poolAnnotation) }
	one := s.oneOf("one", template("one", "", unnamed))
	s.drawn("one", s.interfaces(one), map[string]string{"eth0 IPv4": "10.6.21.1-10.6.21.1", "eth0 IPv6": "fd00:21::-fd00:21::ffff:ffff:ffff:ffff"})
	two := s.oneOf("two", template("two", "", unnamed))
	s.drawn("two", s.interfaces(two), map[string]string{"eth0 IPv4": "10.6.21.2-10.6.21.4", "eth0 IPv6": "fd00:21::-fd00:21::ffff:ffff:ffff:ffff"})
	// The pod goes before its namespace, and what it names is not replaced.
	s.complains(s.bare("three", template("three", shut)), "spiderpool IP allocation error", shut, "is disabled (spec.disable)", "annotation "+poolAnnotation+" of the pod")
	// From now on one address is left.
	s.reserve("10.6.21.1-10.6.21.3")
	four := s.oneOf("four", template("four", "", unnamed))
	s.drawn("four", s.interfaces(four), map[string]string{"eth0 IPv4": "10.6.21.4-10.6.21.4", "eth0 IPv6": "fd00:21::-fd00:21::ffff:ffff:ffff:ffff"})
	s.complains(s.bare("five", template("five", "", unnamed)), "all IP addresses used out", "pool "+shut+" is disabled (spec.disable)", "namespace "+s.namespace)
}

// oneOf creates a pod without a controller and waits until it is ready.
func (s *scenario) oneOf(name string, t corev1.PodTemplateSpec) *corev1.Pod {
	s.Helper()
	s.bare(name, t)
	return &s.ready(name, 1)[0]
}

// reserve reserves addresses until the scenario ends. Agents hear of it in
// milliseconds, and a pod takes longer to get a node and a sandbox.
func (s *scenario) reserve(ips ...string) {
	s.Helper()
	_, err := s.cluster.CRDs.ReservedIPs().Create(s.ctx, &v2beta1.SpiderReservedIP{
		ObjectMeta: labels(s.namespace), Spec: v2beta1.ReservedIPSpec{IPs: v2beta1.Ranges(ips)},
	}, metav1.CreateOptions{})
	s.must(err)
	s.Cleanup(func() {
		if err := s.cluster.CRDs.ReservedIPs().Delete(s.ctx, s.namespace, metav1.DeleteOptions{}); err != nil {
			s.Error(err)
		}
	})
}

// A range of 2^64 addresses costs what one of sixteen costs.
func TestLargeIPv6PoolCostsWhatASmallOneCosts(t *testing.T) {
	s := begin(t, "large")
	node := s.workers()[0]
	only6 := func(pool string) option { return annotated(poolAnnotation, fmt.Sprintf(`{"ipv6": [%q]}`, pool)) }
	cost := map[string]int{}
	for name, ips := range map[string]string{
		"small": "fd00:22:0:1::10-fd00:22:0:1::1f",
		"large": "fd00:22:0:2::-fd00:22:0:2:ffff:ffff:ffff:ffff",
	} {
		from, to, _ := strings.Cut(ips, "-")
		pool := s.poolIn(name, from[:len("fd00:22:0:1::")]+"/64", "", ips)
		before := s.requestsOfADD(node)
		pod := s.oneOf(name, template(name, "", only6(pool), onNode(node)))
		cost[name] = s.requestsOfADD(node) - before
		s.drawn(name, s.interfaces(pod), map[string]string{"eth0 IPv6": ips})
		s.counts(grace, pool, 1)
		if leased := s.leased(node, from, to); leased > 16 {
			t.Errorf("one pod has made its node lease %d addresses", leased)
		}
	}
	t.Logf("requests that the first ADD waited for: %v", cost)
	if cost["large"] > cost["small"] || cost["large"] > 2 {
		t.Errorf("the first address cost %v requests", cost)
	}
}

// requestsOfADD returns how many requests to the API server ADDs on the node
// have waited for.
func (s *scenario) requestsOfADD(node string) (n int) {
	s.Helper()
	printed, err := s.cluster.OnNode(s.ctx, node, `curl -sS --fail --max-time 5 http://localhost:5710/metrics | grep '^holdfast_api_requests_total{cause="add"' || true`)
	s.must(err)
	for line := range strings.Lines(printed) {
		var count int
		fields := strings.Fields(line)
		if _, err := fmt.Sscan(fields[len(fields)-1], &count); err != nil {
			s.Fatalf("%q: %v", line, err)
		}
		n += count
	}
	return n
}
