//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

func TestTenAddressesServeTenPodsOnThreeNodesAndTheEleventhWaits(t *testing.T) {
	s := begin(t, "ten")
	pool := s.pool("p", "10.6.13.1-10.6.13.10")
	s.deployment("fill", 10, template("fill", pool, spread))
	pods := s.ready("fill", 10)
	s.within("10.6.13.1", "10.6.13.10", pods)
	if nodes := nodesOf(pods); len(nodes) != 3 {
		t.Fatalf("the pods are on %v, want three nodes", nodes)
	}
	eleventh := s.bare("eleventh", template("eleventh", pool, onEveryNode))
	s.complains(eleventh, "spiderpool IP allocation error", "all IP addresses used out")
	s.scale("deployment/fill", 9)
	s.ready("eleventh", 1)
	s.ready("fill", 9)
}

// complains waits until a warning about the pod says all of texts. Thirty
// seconds is what users are promised.
func (s *scenario) complains(pod *corev1.Pod, texts ...string) {
	s.Helper()
	s.await(30*time.Second, fmt.Sprintf("a warning about %s says %q", pod.Name, texts), func(ctx context.Context) error {
		warnings, err := s.cluster.Warnings(ctx, pod)
		if err != nil {
			return err
		}
		for _, w := range warnings {
			if !slices.ContainsFunc(texts, func(t string) bool { return !strings.Contains(w, t) }) {
				s.Log(w)
				return nil
			}
		}
		return fmt.Errorf("the warnings are %q", warnings)
	})
}

func nodesOf(pods []corev1.Pod) []string {
	var names []string
	for i := range pods {
		names = append(names, pods[i].Spec.NodeName)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func TestStoppedAgentWithholdsOnlyWhatItHolds(t *testing.T) {
	s := begin(t, "agent-away")
	const first, last, size = "10.6.13.16", "10.6.13.25", 10
	pool := s.pool("p", first+"-"+last)
	away := s.workers()[1]
	s.deployment("there", 2, template("there", pool, onNode(away)))
	s.ready("there", 2)
	s.Cleanup(func() {
		if err := s.cluster.StartAgent(s.ctx, away); err != nil {
			s.Error(err)
		}
	})
	s.must(s.cluster.StopAgent(s.ctx, away))
	s.cordon(away)
	withheld := s.leased(away, first, last)
	t.Logf("%s holds %d addresses of the pool", away, withheld)
	s.deployment("here", int32(size-withheld), template("here", pool, onEveryNode))
	s.ready("here", size-withheld)
	// The agent comes back and gives up what it does not use.
	s.must(s.cluster.StartAgent(s.ctx, away))
	s.uncordon(away)
	s.scale("deployment/here", size-2)
	s.ready("here", size-2)
}

// leased counts the addresses of a range that a node leases.
func (s *scenario) leased(node, from, to string) (n int) {
	s.Helper()
	pool := netipx.IPRangeFrom(netip.MustParseAddr(from), netip.MustParseAddr(to))
	blocks, err := s.cluster.CRDs.IPBlocks().List(s.ctx, metav1.ListOptions{})
	s.must(err)
	for _, b := range blocks.Items {
		for _, l := range b.Spec.Leases {
			for _, text := range l.Addresses {
				if l.Node == node {
					n += overlap(s, pool, text)
				}
			}
		}
	}
	if n == 0 {
		s.Fatalf("%s leases nothing of %s, where it has two pods", node, pool)
	}
	return n
}

// overlap counts the addresses of "a" or "a-b" in the pool.
func overlap(s *scenario, pool netipx.IPRange, text string) (n int) {
	s.Helper()
	if !strings.Contains(text, "-") {
		text += "-" + text
	}
	r, err := netipx.ParseIPRange(text)
	s.must(err)
	for a := r.From(); a.Compare(r.To()) <= 0; a = a.Next() {
		if pool.Contains(a) {
			n++
		}
	}
	return n
}

// overlappingPool creates a pool although it overlaps another: while no webhook
// judges it, as when no agent can be reached. With one it is refused.
func (s *scenario) overlappingPool(name, with string, ips ...string) string {
	s.Helper()
	full := s.namespace + "-" + name
	create := func(ctx context.Context) error {
		pool := &v2beta1.SpiderIPPool{ObjectMeta: labels(full), Spec: v2beta1.IPPoolSpec{Subnet: "10.6.0.0/16", IPs: ips}}
		_, err := s.cluster.CRDs.IPPools().Create(ctx, pool, metav1.CreateOptions{})
		return err
	}
	if err := create(s.ctx); err == nil || !strings.Contains(err.Error(), "also in pool \""+with+"\"") {
		s.Fatalf("a pool that overlaps pool %s: the error is %v", with, err)
	}
	configurations := s.cluster.Kube.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	was, err := configurations.Get(s.ctx, "holdfast", metav1.GetOptions{})
	s.must(err)
	s.must(configurations.Delete(s.ctx, was.Name, metav1.DeleteOptions{}))
	defer func() {
		was.ResourceVersion, was.UID, was.ManagedFields = "", "", nil
		_, err := configurations.Create(s.ctx, was, metav1.CreateOptions{})
		s.must(err)
	}()
	s.pools = append(s.pools, full)
	s.await(patience, "nobody refuses pool "+full, create)
	return full
}

func TestOverlappingPoolsNeverGiveOneAddressTwice(t *testing.T) {
	s := begin(t, "overlap")
	s.watchAddresses()
	const first, last = "10.6.13.40", "10.6.13.51"
	left := s.pool("left", first+"-"+last)
	right := s.overlappingPool("right", left, first+"-"+last)
	s.deployment("left", 6, template("left", left, spread))
	s.deployment("right", 6, template("right", right, spread))
	pods := append(s.ready("left", 6), s.ready("right", 6)...)
	s.within(first, last, pods)
	s.distinct(pods)
	// Nothing is left for either of them, and both say so.
	for _, pool := range []string{left, right} {
		s.complains(s.bare("one-more-"+pool, template("more", pool)), "all IP addresses used out")
	}
	s.scale("deployment/left", 4)
	more := s.ready("more", 2)
	s.within(first, last, more)
}
