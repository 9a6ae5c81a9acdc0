//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/e2e/cluster"
)

// The annotations of statefulset.md.
const (
	poolAnnotation    = "ipam.spidernet.io/ippool"
	networkAnnotation = "v1.multus-cni.io/default-network"
)

// pool creates a pool in the underlay network with these addresses.
func (s *scenario) pool(name string, ips ...string) string {
	s.Helper()
	return s.poolWith(name, v2beta1.IPPoolSpec{Subnet: "10.6.0.0/16", IPs: ips})
}

// poolWith creates a pool and returns its name in the cluster.
func (s *scenario) poolWith(name string, spec v2beta1.IPPoolSpec) string {
	s.Helper()
	pool := &v2beta1.SpiderIPPool{ObjectMeta: labels(s.namespace + "-" + name), Spec: spec}
	_, err := s.cluster.CRDs.IPPools().Create(s.ctx, pool, metav1.CreateOptions{})
	s.must(err)
	s.pools = append(s.pools, pool.Name)
	return pool.Name
}

// use is the annotation that asks for the IPv4 pool.
func use(pool string) string { return fmt.Sprintf(`{"ipv4": [%q]}`, pool) }

// option changes a pod's template.
type option func(*corev1.PodTemplateSpec)

// onNode puts pods on one node, which may be the control plane.
func onNode(node string) option {
	return func(t *corev1.PodTemplateSpec) {
		t.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node}
		onEveryNode(t)
	}
}

// onEveryNode lets pods onto the control plane, too.
func onEveryNode(t *corev1.PodTemplateSpec) {
	t.Spec.Tolerations = []corev1.Toleration{{Key: "node-role.kubernetes.io/control-plane", Operator: corev1.TolerationOpExists}}
}

// spread distributes pods evenly over all nodes.
func spread(t *corev1.PodTemplateSpec) {
	onEveryNode(t)
	honor := corev1.NodeInclusionPolicyHonor
	t.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
		MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.DoNotSchedule,
		LabelSelector: &metav1.LabelSelector{MatchLabels: t.Labels}, NodeTaintsPolicy: &honor,
	}}
}

// noAnnotations leaves network and pool to the cluster's defaults.
func noAnnotations(t *corev1.PodTemplateSpec) { t.Annotations = nil }

// defaultNetwork leaves the network to the cluster's default.
func defaultNetwork(t *corev1.PodTemplateSpec) { delete(t.Annotations, networkAnnotation) }

// template is a pod with an address of the pool on the underlay network.
func template(app, pool string, options ...option) corev1.PodTemplateSpec {
	second, no := int64(1), false
	t := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{
			Labels: map[string]string{"app": app},
			Annotations: map[string]string{
				poolAnnotation:    use(pool),
				networkAnnotation: "kube-system/macvlan-ens192",
			},
		},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &second,
			AutomountServiceAccountToken:  &no,
			EnableServiceLinks:            &no,
			Containers: []corev1.Container{{
				Name: "nginx", Image: "nginx", ImagePullPolicy: corev1.PullIfNotPresent,
			}},
		},
	}
	for _, o := range options {
		o(&t)
	}
	return t
}

// statefulSet creates a StatefulSet that starts its pods all at once.
func (s *scenario) statefulSet(name string, replicas int32, t corev1.PodTemplateSpec) {
	s.Helper()
	s.statefulSetWith(name, appsv1.StatefulSetSpec{
		Replicas: &replicas, Template: t, PodManagementPolicy: appsv1.ParallelPodManagement,
	})
}

func (s *scenario) statefulSetWith(name string, spec appsv1.StatefulSetSpec) {
	s.Helper()
	spec.Selector = &metav1.LabelSelector{MatchLabels: spec.Template.Labels}
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
	_, err := s.cluster.Kube.AppsV1().StatefulSets(s.namespace).Create(s.ctx, set, metav1.CreateOptions{})
	s.must(err)
}

func (s *scenario) deployment(name string, replicas int32, t corev1.PodTemplateSpec) {
	s.Helper()
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DeploymentSpec{
		Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: t.Labels}, Template: t,
	}}
	_, err := s.cluster.Kube.AppsV1().Deployments(s.namespace).Create(s.ctx, d, metav1.CreateOptions{})
	s.must(err)
}

// bare creates a pod without a controller.
func (s *scenario) bare(name string, t corev1.PodTemplateSpec) *corev1.Pod {
	s.Helper()
	t.ObjectMeta.Name = name
	pod, err := s.cluster.Kube.CoreV1().Pods(s.namespace).Create(s.ctx, &corev1.Pod{ObjectMeta: t.ObjectMeta, Spec: t.Spec}, metav1.CreateOptions{})
	s.must(err)
	return pod
}

// scale is kubectl scale of "statefulset/name" or "deployment/name".
func (s *scenario) scale(what string, replicas int) {
	s.Helper()
	s.must(s.kubectl("", "scale", what, "--replicas", strconv.Itoa(replicas)))
}

// ready waits for exactly n ready pods with the label app, none of them one of
// old.
func (s *scenario) ready(app string, n int, old ...corev1.Pod) []corev1.Pod {
	s.Helper()
	pods, err := s.cluster.AwaitPods(s.ctx, patience, s.namespace, "app="+app, n, old...)
	s.must(err)
	s.distinct(pods)
	return pods
}

func (s *scenario) distinct(pods []corev1.Pod) {
	s.Helper()
	taken := map[netip.Addr]string{}
	for i := range pods {
		addr := cluster.Address(&pods[i])
		if other, twice := taken[addr]; twice {
			s.Errorf("%s and %s both have %s", other, pods[i].Name, addr)
		}
		taken[addr] = pods[i].Name
	}
}

// deletePods deletes the pods and does not wait.
func (s *scenario) deletePods(pods ...corev1.Pod) {
	s.Helper()
	args := []string{"delete", "pod", "--wait=false"}
	for _, p := range pods {
		args = append(args, p.Name)
	}
	s.must(s.kubectl("", args...))
}

// addresses returns the pods' addresses by name.
func addresses(pods []corev1.Pod) map[string]netip.Addr {
	all := map[string]netip.Addr{}
	for i := range pods {
		all[pods[i].Name] = cluster.Address(&pods[i])
	}
	return all
}

// keeps fails the scenario unless every pod of before has its address in
// after.
func (s *scenario) keeps(before, after []corev1.Pod) {
	s.Helper()
	was, is := addresses(before), addresses(after)
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if was[name] != is[name] {
			s.Errorf("the address of %s changed: it was %s and is %s", name, was[name], is[name])
		}
	}
}

// undisturbed fails the scenario unless every pod of before is the same pod
// in after.
func (s *scenario) undisturbed(before, after []corev1.Pod) {
	s.Helper()
	s.keeps(before, after)
	for _, b := range before {
		if !slices.ContainsFunc(after, func(a corev1.Pod) bool { return a.UID == b.UID }) {
			s.Errorf("%s was replaced", b.Name)
		}
	}
}

// within fails the scenario unless all pods have addresses of the range.
func (s *scenario) within(from, to string, pods []corev1.Pod) {
	s.Helper()
	first, last := netip.MustParseAddr(from), netip.MustParseAddr(to)
	for i := range pods {
		if a := cluster.Address(&pods[i]); a.Less(first) || last.Less(a) {
			s.Errorf("%s has %s, which is not one of %s-%s", pods[i].Name, a, from, to)
		}
	}
}

// counts waits until the status of a pool counts n addresses in use.
func (s *scenario) counts(within time.Duration, pool string, n int64) {
	s.Helper()
	s.await(within, fmt.Sprintf("pool %s counts %d addresses in use", pool, n), func(ctx context.Context) error {
		p, err := s.cluster.CRDs.IPPools().Get(ctx, pool, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if p.Status.AllocatedIPCount == nil || *p.Status.AllocatedIPCount != n {
			return fmt.Errorf("its status is %+v", p.Status)
		}
		return nil
	})
}
