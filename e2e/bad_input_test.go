//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// badInput is a pod that cannot get an address, and what its event must say.
type badInput struct {
	name       string
	annotation func(s *scenario) string
	says       []string
}

func badInputs() []badInput {
	return []badInput{
		{"malformed", func(*scenario) string { return `{"ipv4": ["p"` }, []string{poolAnnotation, "JSON"}},
		{"absent", func(*scenario) string { return use("no-such-pool") }, []string{"no-such-pool", "does not exist"}},
		{"disabled", func(s *scenario) string {
			return use(s.poolWith("disabled", v2beta1.IPPoolSpec{Subnet: "10.6.0.0/16", IPs: []string{"10.6.16.1-10.6.16.4"}, Disable: true}))
		}, []string{"e2e-bad-input-disabled", "disabled"}},
		{"terminating", func(s *scenario) string { return use(s.terminatingPool()) }, []string{"e2e-bad-input-terminating", "being deleted"}},
		{"family", func(s *scenario) string {
			return use(s.poolWith("family", v2beta1.IPPoolSpec{Subnet: "fd00:6::/64", IPs: []string{"fd00:6::1-fd00:6::4"}}))
		}, []string{"e2e-bad-input-family", "IPv6"}},
		{"empty", func(s *scenario) string { return use(s.pool("empty")) }, []string{"e2e-bad-input-empty"}},
	}
}

func TestBadInputIsSaidInThePodsEventAndCostsNothing(t *testing.T) {
	s := begin(t, "bad-input")
	pods := map[string]*corev1.Pod{}
	for _, c := range badInputs() {
		tmpl := template(c.name, "")
		tmpl.Annotations[poolAnnotation] = c.annotation(s)
		pods[c.name] = s.bare(c.name, tmpl)
	}
	for _, c := range badInputs() {
		s.complains(pods[c.name], append(c.says, "spiderpool IP allocation error")...)
	}
	for _, pool := range s.pools {
		s.counts(grace, pool, 0)
	}
	list, err := s.cluster.CRDs.Endpoints(s.namespace).List(s.ctx, metav1.ListOptions{})
	s.must(err)
	for _, e := range list.Items {
		t.Errorf("%s has an endpoint: %+v", e.Name, e.Status)
	}
	// The mistake mended, the same pod starts.
	s.must(s.kubectl("", "annotate", "pod", "malformed", "--overwrite", poolAnnotation+"="+use(s.pool("good", "10.6.16.8-10.6.16.9"))))
	s.ready("malformed", 1)
}

// terminatingPool is a pool that somebody has deleted and a finalizer keeps
// until the scenario ends.
func (s *scenario) terminatingPool() string {
	s.Helper()
	const finalizer = "e2e.holdfast.dev/keep"
	name := s.pool("terminating", "10.6.16.5-10.6.16.7")
	s.must(s.kubectl("", "patch", "spiderippool", name, "--type", "merge", "-p", `{"metadata": {"finalizers": ["`+finalizer+`"]}}`))
	s.must(s.cluster.CRDs.IPPools().Delete(s.ctx, name, metav1.DeleteOptions{}))
	s.Cleanup(func() {
		if err := s.kubectl("", "patch", "spiderippool", name, "--type", "merge", "-p", `{"metadata": {"finalizers": null}}`); err != nil {
			s.Error(err)
		}
	})
	return name
}

func TestImpossiblePoolIsRefusedWithAReason(t *testing.T) {
	s := begin(t, "refused")
	for _, c := range []struct{ name, spec, says string }{
		{"subnet", `subnet: 10.6.0.0`, "subnet"},
		{"host-bits", `subnet: 10.6.0.1/16`, "subnet"},
		{"ip", `{subnet: 10.6.0.0/16, ips: [10.6.16.300]}`, "ips"},
		{"range", `{subnet: 10.6.0.0/16, ips: [10.6.16.20-10.6.16.10]}`, "ips"},
		{"outside", `{subnet: 10.6.0.0/16, ips: [10.7.0.1-10.7.0.9]}`, "subnet"},
		{"exclude-outside", `{subnet: 10.6.0.0/16, excludeIPs: [10.7.0.1]}`, "subnet"},
		{"gateway", `{subnet: 10.6.0.0/16, gateway: 10.7.0.1}`, "gateway"},
		{"gateway-taken", `{subnet: 10.6.0.0/16, gateway: 10.6.16.1, ips: [10.6.16.1-10.6.16.4]}`, "gateway"},
		{"version", `{subnet: 10.6.0.0/16, ipVersion: 6}`, "ipVersion"},
		{"route", `{subnet: 10.6.0.0/16, routes: [{dst: 10.9.0.0/16, gw: 10.7.0.1}]}`, "gw"},
		{"selector", `{subnet: 10.6.0.0/16, podAffinity: {}}`, "podAffinity"},
	} {
		err := s.applyPool("e2e-refused-"+c.name, c.spec)
		switch {
		case err == nil:
			t.Errorf("%s: a pool with %s was taken", c.name, c.spec)
		case !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "is invalid"):
			t.Errorf("%s: it was refused, and %q is not said: %v", c.name, c.says, err)
		default:
			t.Logf("%s\n%v", c.spec, err)
		}
		if err := s.absent("e2e-refused-" + c.name); err != nil {
			t.Error(err)
		}
	}
	name := s.pool("p", "10.6.16.16-10.6.16.20")
	if err := s.applyPool(name, `subnet: 10.7.0.0/16`); err == nil || !strings.Contains(err.Error(), "subnet") {
		t.Errorf("the subnet of a pool was changed: %v", err)
	}
}

func (s *scenario) applyPool(name, spec string) error {
	return s.kubectl(fmt.Sprintf(`
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata: {name: %s, labels: {%s: ""}}
spec: {%s}
`, name, scenarioLabel, strings.TrimSuffix(strings.TrimPrefix(spec, "{"), "}")), "apply", "-f", "-")
}

func (s *scenario) absent(pool string) error {
	err := s.cluster.CRDs.IPPools().Delete(s.ctx, pool, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return errors.Join(fmt.Errorf("pool %s exists", pool), err)
}
