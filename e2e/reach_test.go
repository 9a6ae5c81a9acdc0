//go:build e2e

package e2e

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// place is where a request comes from.
type place struct {
	name string
	run  func(script string) (string, error)
}

// goal is what a request goes to.
type goal struct{ name, host string }

// With the coordinator a pod on the underlay answers everybody who can have
// business with it, and gets answers: its node above all, which macvlan keeps
// from it, and services, which only its node knows.
func TestPodsOnTheUnderlayReachEverything(t *testing.T) {
	s := begin(t, "reach")
	pool := s.pool("reach", "10.6.30.1-10.6.30.9")
	before := s.traces()
	s.statefulSet("web", 3, template("web", pool, spread, probed))
	web := s.ready("web", 3)
	s.bare("beside", template("beside", pool, probed, onNode(web[0].Spec.NodeName)))
	s.bare("default", template("default", "", noAnnotations, onNode(web[0].Spec.NodeName)))
	beside, other := s.ready("beside", 1)[0], s.ready("default", 1)[0]

	places := []place{
		s.node("its node", web[0].Spec.NodeName), s.node("another node", web[1].Spec.NodeName),
		s.inside("itself", &web[0]), s.inside("a pod on its node", &beside), s.inside("a pod elsewhere", &web[1]),
		s.inside("a pod of the default network", &other),
	}
	service, cluster := s.service("web", corev1.ServiceTypeNodePort, corev1.ServiceExternalTrafficPolicyCluster, map[string]string{"app": "web"})
	_, local := s.service("local", corev1.ServiceTypeNodePort, corev1.ServiceExternalTrafficPolicyLocal, map[string]string{"statefulset.kubernetes.io/pod-name": "web-0"})
	here, there := s.underlayAddress(web[0].Spec.NodeName), s.underlayAddress(web[1].Spec.NodeName)
	goals := []goal{
		{"pod IP", web[0].Status.PodIP}, {"ClusterIP", service},
		{"NodePort, its node", fmt.Sprintf("%s:%d", here, cluster)}, {"NodePort, another", fmt.Sprintf("%s:%d", there, cluster)},
		{"NodePort, Local", fmt.Sprintf("%s:%d", here, local)},
	}
	was := s.kubeProxy("iptables")
	t.Cleanup(func() { s.kubeProxy(was) })
	for _, mode := range []string{"iptables", "nftables"} {
		s.kubeProxy(mode)
		s.await(patience, "the node's kube-proxy knows the services", func(context.Context) error {
			for _, g := range goals[1:] {
				if err := asks(places[0], g); err != nil {
					return err
				}
			}
			return nil
		})
		s.matrix("HTTP to web-0, kube-proxy with "+mode, places, goals)
	}
	s.resolves(web)
	s.removeWorkloads()
	after := s.traces()
	for node, lines := range before {
		if left := without(after[node], lines); len(left) > 0 {
			t.Errorf("on %s is left of pods that are gone:\n%s", node, strings.Join(left, "\n"))
		}
		if lost := without(lines, after[node]); len(lost) > 0 {
			t.Errorf("%s lost with them:\n%s", node, strings.Join(lost, "\n"))
		}
	}
}

// probed lets the kubelet ask for a page: a pod whose node does not reach it
// is never ready.
func probed(t *corev1.PodTemplateSpec) {
	probe := &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(80)}},
		PeriodSeconds: 1, FailureThreshold: 60,
	}
	t.Spec.Containers[0].ReadinessProbe = probe
}

func (s *scenario) node(name, node string) place {
	return place{name, func(script string) (string, error) { return s.cluster.OnNode(s.ctx, node, script) }}
}

func (s *scenario) inside(name string, pod *corev1.Pod) place {
	return place{name, func(script string) (string, error) {
		return s.cluster.Kubectl(s.ctx, "", "--namespace", s.namespace, "exec", pod.Name, "--", "sh", "-c", script)
	}}
}

// service makes a service for port 80 of pods and returns its ClusterIP and its
// node port.
func (s *scenario) service(name string, of corev1.ServiceType, policy corev1.ServiceExternalTrafficPolicy, pods map[string]string) (string, int32) {
	s.Helper()
	made, err := s.cluster.Kube.CoreV1().Services(s.namespace).Create(s.ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Type: of, ExternalTrafficPolicy: policy, Selector: pods, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	s.must(err)
	return made.Spec.ClusterIP, made.Spec.Ports[0].NodePort
}

func (s *scenario) underlayAddress(node string) string {
	s.Helper()
	printed, err := s.cluster.OnNode(s.ctx, node, "ip -json -4 addr show ens192 | jq -r '.[0].addr_info[0].local'")
	s.must(err)
	return strings.TrimSpace(printed)
}

// asks sends one request and does not try again.
func asks(from place, to goal) error {
	printed, err := from.run("curl --silent --show-error --output /dev/null --max-time 5 --write-out '%{http_code}' http://" + to.host + "/")
	if err == nil && strings.TrimSpace(printed) != "200" {
		err = fmt.Errorf("status %s", printed)
	}
	if err != nil {
		return fmt.Errorf("%s to %s (%s): %w", from.name, to.name, to.host, err)
	}
	return nil
}

// matrix asks for every goal from every place, three times each because a
// service has several pods behind it, and prints the table.
func (s *scenario) matrix(title string, places []place, goals []goal) {
	s.Helper()
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "from")
	for _, g := range goals {
		fmt.Fprint(w, "\t", g.name)
	}
	fmt.Fprintln(w)
	for _, p := range places {
		fmt.Fprint(w, p.name)
		for _, g := range goals {
			failed := 0
			for range 3 {
				if err := asks(p, g); err != nil {
					failed++
					s.Errorf("%s: %v", title, err)
				}
			}
			fmt.Fprint(w, "\t", map[bool]string{true: "ok", false: fmt.Sprintf("%d of 3 FAILED", failed)}[failed == 0])
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush() // of a strings.Builder
	fmt.Fprintf(os.Stdout, "\n%s\n%s\n", title, &text)
}

// kubeProxy has the nodes' kube-proxy work in a mode and returns the one it had.
// With nftables it serves node ports on a node's first address only, unless it
// is told of others.
func (s *scenario) kubeProxy(mode string) (was string) {
	s.Helper()
	maps := s.cluster.Kube.CoreV1().ConfigMaps("kube-system")
	conf, err := maps.Get(s.ctx, "kube-proxy", metav1.GetOptions{})
	s.must(err)
	line := regexp.MustCompile(`(?m)^mode: .*$`)
	was = cmp.Or(strings.Trim(strings.TrimPrefix(line.FindString(conf.Data["config.conf"]), "mode: "), `"`), "iptables") // its default
	if was == mode {
		return was
	}
	ports := regexp.MustCompile(`(?m)^nodePortAddresses: .*$`)
	served := map[string]string{"iptables": "null", "nftables": "[10.6.0.0/16]"}[mode]
	conf.Data["config.conf"] = line.ReplaceAllString(
		ports.ReplaceAllString(conf.Data["config.conf"], "nodePortAddresses: "+served), "mode: "+mode)
	_, err = maps.Update(s.ctx, conf, metav1.UpdateOptions{})
	s.must(err)
	for _, step := range [][]string{
		{"rollout", "restart", "daemonset/kube-proxy"}, {"rollout", "status", "daemonset/kube-proxy", "--timeout", "2m"},
	} {
		_, err := s.cluster.Kubectl(s.ctx, "", append([]string{"--namespace", "kube-system"}, step...)...)
		s.must(err)
	}
	return was
}

// resolves looks a service up from the pod that is on the node of the cluster's
// name servers, if they are on one node: the default network of this cluster
// has no routes between nodes.
func (s *scenario) resolves(web []corev1.Pod) {
	s.Helper()
	servers, err := s.cluster.Pods(s.ctx, "kube-system", "k8s-app=kube-dns")
	s.must(err)
	on := map[string]bool{}
	for _, p := range servers {
		on[p.Spec.NodeName] = true
	}
	for i := range web {
		if len(on) == 1 && on[web[i].Spec.NodeName] {
			s.inPod(&web[i], "getent", "hosts", "web."+s.namespace+".svc.cluster.local")
			return
		}
	}
	s.Errorf("no pod of web is where all name servers are (%v), so nothing was looked up", on)
}

// traces returns what pods leave on a node's network: links, routes, rules and
// neighbours that are not learned, and nftables, a line each.
func (s *scenario) traces() map[string][]string {
	s.Helper()
	nodes, err := s.cluster.Kube.CoreV1().Nodes().List(s.ctx, metav1.ListOptions{})
	s.must(err)
	traces := map[string][]string{}
	for _, n := range nodes.Items {
		printed, err := s.cluster.OnNode(s.ctx, n.Name, `
ip -o link show | sed -E 's/^[0-9]+: ([^:]*):.*/link \1/'
for family in -4 -6; do
  ip $family route show table all | grep -v 'proto kernel' | sed -E 's/ expires [0-9]+sec//; s/^/route /'
  ip $family rule show | sed 's/^/rule /'
  ip $family neigh show nud permanent | sed 's/^/neighbour /'
done
nft list tables | grep -v 'kube-proxy\|nat\|filter\|mangle\|raw' || true`)
		s.must(err)
		traces[n.Name] = strings.Split(strings.TrimSpace(printed), "\n")
	}
	return traces
}

func without(all, some []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(line string) bool { return slices.Contains(some, line) })
}
