//go:build e2e

package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/e2e/checker"
	"github.com/holdfast-ipam/holdfast/e2e/cluster"
)

// How long things may take on two cores: pods to start, and status to follow.
const (
	patience = 2 * time.Minute
	grace    = 30 * time.Second
)

// scenario is a test with a cluster, a namespace and pools of its own.
type scenario struct {
	*testing.T
	ctx       context.Context
	cluster   *cluster.Cluster
	namespace string
	pools     []string
	// grace is how long the checker waits for status to follow.
	grace time.Duration
}

// begin starts a scenario; its end is the end of the test. The namespace must
// be short and nobody else's.
func begin(t *testing.T, namespace string) *scenario {
	started := time.Now()
	t.Cleanup(func() { record(t, started) })
	c, err := cluster.Open()
	if err != nil {
		t.Fatal(err)
	}
	s := &scenario{T: t, ctx: context.Background(), cluster: c, namespace: "e2e-" + namespace, grace: grace}
	meta := labels(s.namespace)
	if _, err := c.Kube.CoreV1().Namespaces().Create(s.ctx, &corev1.Namespace{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil {
		t.Fatalf("create the namespace: %v", err)
	}
	t.Cleanup(s.end)
	return s
}

// end holds the cluster against its promises while the scenario's pods run,
// removes them, and does it again: then nothing may be left of them.
func (s *scenario) end() {
	s.check("with its pods")
	if s.Failed() {
		s.diagnose()
	}
	s.removeWorkloads()
	s.check("without its pods")
	s.removePools()
	if err := s.cluster.Kube.CoreV1().Namespaces().Delete(s.ctx, s.namespace, metav1.DeleteOptions{}); err != nil {
		s.Errorf("delete the namespace: %v", err)
	}
}

func (s *scenario) check(when string) {
	s.Helper()
	started := time.Now()
	violations := checker.Settle(s.ctx, s.grace, func(ctx context.Context) checker.Snapshot {
		return checker.Gather(ctx, s.cluster)
	})
	for _, v := range violations {
		s.Errorf("%s: %s", when, v)
	}
	s.Logf("the checker looked at the cluster %s for %.1f s", when, time.Since(started).Seconds())
}

func (s *scenario) removeWorkloads() {
	s.Helper()
	s.must(s.kubectl("", "delete", "deployments,statefulsets,pods", "--all", "--timeout", "2m"))
	s.await(patience, "every pod is gone", func(ctx context.Context) error {
		pods, err := s.cluster.Pods(ctx, s.namespace, "")
		if err == nil && len(pods) > 0 {
			err = fmt.Errorf("%d pods are left, %s among them", len(pods), pods[0].Name)
		}
		return err
	})
}

// removePools removes the scenario's pools. Before that each of them must say
// that it is unused.
func (s *scenario) removePools() {
	s.Helper()
	for _, name := range s.pools {
		pool, err := s.cluster.CRDs.IPPools().Get(s.ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			s.Errorf("read pool %s: %v", name, err)
			continue
		}
		if pool.Status.AllocatedIPs != nil {
			s.Errorf("all pods are gone, and pool %s says %s", name, *pool.Status.AllocatedIPs)
		}
		if err := s.cluster.CRDs.IPPools().Delete(s.ctx, name, metav1.DeleteOptions{}); err != nil {
			s.Errorf("delete pool %s: %v", name, err)
		}
		// The elected agent looks once more before it lets a pool go, and
		// until then nobody else may have its addresses.
		s.await(patience, "pool "+name+" is gone", func(ctx context.Context) error {
			_, err := s.cluster.CRDs.IPPools().Get(ctx, name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return cmp.Or(err, fmt.Errorf("pool %s is still there", name))
		})
	}
}

// diagnose logs what one wants to see of a cluster that is not in order.
func (s *scenario) diagnose() {
	for _, command := range []string{
		"kubectl -n " + s.namespace + " get pods,sts,deploy -o wide",
		"kubectl -n " + s.namespace + " get events --field-selector type=Warning --sort-by .lastTimestamp | tail -n 15",
		"kubectl -n " + s.namespace + " get spiderendpoints",
		"kubectl get spiderippools,ipblocks",
		"kubectl -n kube-system get pods -o wide",
		"kubectl -n kube-system logs ds/holdfast --all-pods --prefix --since 2m | grep -v level=DEBUG | tail -n 40",
	} {
		printed, err := s.cluster.Command(s.ctx, "bash", "-c", command).CombinedOutput()
		s.Logf("# %s\n%s%v", command, printed, errors.Join(err))
	}
}

// must ends the scenario on an error.
func (s *scenario) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// await ends the scenario unless is becomes true in time. What it waits for
// is said as a claim.
func (s *scenario) await(within time.Duration, claim string, is func(context.Context) error) {
	s.Helper()
	if err := cluster.Await(s.ctx, within, is); err != nil {
		s.Fatalf("%s: %v", claim, err)
	}
}

// kubectl runs a command in the scenario's namespace. What it prints goes to
// the log.
func (s *scenario) kubectl(stdin string, args ...string) error {
	s.Helper()
	printed, err := s.cluster.Kubectl(s.ctx, stdin, append([]string{"--namespace", s.namespace}, args...)...)
	if text := strings.TrimSpace(printed); text != "" {
		s.Log(text)
	}
	return err
}

// workers returns the names of the nodes without taints.
func (s *scenario) workers() []string {
	s.Helper()
	var names []string
	list, err := s.cluster.Kube.CoreV1().Nodes().List(s.ctx, metav1.ListOptions{LabelSelector: "!node-role.kubernetes.io/control-plane"})
	s.must(err)
	for _, n := range list.Items {
		names = append(names, n.Name)
	}
	if len(names) < 2 {
		s.Fatalf("the cluster has the workers %v, and scenarios need two", names)
	}
	return names
}

// cordon keeps new pods from a node until the scenario ends.
func (s *scenario) cordon(node string) {
	s.Helper()
	s.must(s.kubectl("", "cordon", node))
	s.Cleanup(func() { s.uncordon(node) })
}

func (s *scenario) uncordon(node string) {
	s.Helper()
	if err := s.kubectl("", "uncordon", node); err != nil {
		s.Error(err)
	}
}
