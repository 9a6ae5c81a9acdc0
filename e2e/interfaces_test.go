//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/e2e/cluster"
)

func TestEveryInterfaceKeepsItsAddressesOfBothFamilies(t *testing.T) {
	s := begin(t, "interfaces")
	lan := s.lan()
	four := s.pool("four", "10.6.18.1-10.6.18.8")
	six := s.poolIn("six", "fd00:18:6::/64", "", "fd00:18:6::1-fd00:18:6::8")
	lan4 := s.poolIn("lan-four", "10.66.0.0/16", "", "10.66.18.1-10.66.18.12")
	lan6 := s.poolIn("lan-six", "fd00:18:66::/64", "", "fd00:18:66::1-fd00:18:66::c")
	s.statefulSet("web", 3, template("web", "", attached([]string{lan, lan},
		forInterface{IPv4: []string{four}, IPv6: []string{six}},
		forInterface{IPv4: []string{lan4}, IPv6: []string{lan6}},
		forInterface{IPv4: []string{lan4}, IPv6: []string{lan6}},
	)))
	pods := s.ready("web", 3)
	before := s.allInterfaces(pods)
	for pod, has := range before {
		s.drawn(pod, has, map[string]string{
			"eth0 IPv4": "10.6.18.1-10.6.18.8", "eth0 IPv6": "fd00:18:6::1-fd00:18:6::8",
			"net1 IPv4": "10.66.18.1-10.66.18.12", "net1 IPv6": "fd00:18:66::1-fd00:18:66::c",
			"net2 IPv4": "10.66.18.1-10.66.18.12", "net2 IPv6": "fd00:18:66::1-fd00:18:66::c",
		})
	}
	s.counts(grace, lan6, 6)

	s.deletePods(pods...)
	again := s.ready("web", 3, pods...)
	s.sameInterfaces(before, s.allInterfaces(again))

	from := again[0].Spec.NodeName
	s.cordon(from)
	s.deletePods(again[0])
	moved := s.ready("web", 3, again[0])
	s.sameInterfaces(before, s.allInterfaces(moved))
	if moved[0].Spec.NodeName == from {
		t.Errorf("web-0 is still on %s", from)
	}
	s.inPod(&moved[1], "ping", "-c", "1", "-w", "20", before["web-0"]["eth0 IPv6"].Addr().String())
	s.uncordon(from)

	s.scale("statefulset/web", 1)
	s.counts(grace, lan4, 2)
	s.scale("statefulset/web", 3)
	after := s.allInterfaces(s.ready("web", 3))
	s.sameInterfaces(map[string]map[string]netip.Prefix{"web-0": before["web-0"]}, after)
}

func TestPoolsAreNamedByInterfaceOrByPlace(t *testing.T) {
	s := begin(t, "by-interface")
	lan := s.lan()
	first := s.poolIn("first", "10.6.0.0/16", "10.6.19.254", "10.6.19.1-10.6.19.8")
	shared := s.poolIn("shared", "10.67.0.0/16", "10.67.255.254", "10.67.19.1-10.67.19.8")
	third := s.poolIn("third", "fd00:19::/64", "fd00:19::ffff", "fd00:19::1-fd00:19::8")
	networks := []string{lan, lan, lan}
	routes := annotated(routesAnnotation, `[{"dst": "10.77.0.0/16", "gw": "10.67.0.2"}, {"dst": "10.78.0.0/16", "gw": "192.0.2.1"}]`)
	named := s.bare("named", template("named", "", routes, attached(networks,
		forInterface{Interface: "net3", IPv6: []string{third}},
		forInterface{Interface: "net2", IPv4: []string{shared}, CleanGateway: true},
		forInterface{Interface: "eth0", IPv4: []string{first}},
		forInterface{Interface: "net1", IPv4: []string{shared}, CleanGateway: true},
	)))
	s.bare("by-place", template("by-place", "", attached(networks,
		forInterface{IPv4: []string{first}, CleanGateway: true},
		forInterface{IPv4: []string{shared}},
		forInterface{IPv4: []string{shared}, CleanGateway: true},
		forInterface{IPv6: []string{third}, CleanGateway: true},
	)))
	for app, routes := range map[string]struct {
		four, six string
	}{
		"named":    {"default via 10.6.19.254 dev eth0", "default via fd00:19::ffff dev net3"},
		"by-place": {"default via 10.67.255.254 dev net1", ""},
	} {
		pod := s.ready(app, 1)[0]
		s.drawn(app, s.interfaces(&pod), map[string]string{
			"eth0 IPv4": "10.6.19.1-10.6.19.8", "net1 IPv4": "10.67.19.1-10.67.19.8",
			"net2 IPv4": "10.67.19.1-10.67.19.8", "net3 IPv6": "fd00:19::1-fd00:19::8",
		})
		s.oneRoute(&pod, "default", routes.four)
		s.oneRoute(&pod, "-6 default", routes.six)
	}
	// Two interfaces have its gateway in their subnet, and none that of the
	// other.
	s.oneRoute(named, "10.77.0.0/16", "10.77.0.0/16 via 10.67.0.2 dev net1")
	s.oneRoute(named, "10.78.0.0/16", "")
	s.complains(named, "10.78.0.0/16", "192.0.2.1", routesAnnotation)
}

// oneRoute fails the scenario unless the pod's kernel has exactly this route,
// or none, to a destination. Neither metric nor protocol matters.
func (s *scenario) oneRoute(pod *corev1.Pod, to, want string) {
	s.Helper()
	args, version := []string{"ip"}, "-4"
	if rest, six := strings.CutPrefix(to, "-6 "); six {
		to, version = rest, "-6"
	}
	got := strings.TrimSpace(s.inPod(pod, append(args, version, "route", "show", to)...))
	if (want == "") != (got == "") || !strings.HasPrefix(got, want) || strings.Contains(got, "\n") {
		s.Errorf("the routes of %s to %s are %q, want %q", pod.Name, to, got, want)
	}
}

func TestInterfaceWhosePoolIsFullHoldsUpItsPodAndWastesNothing(t *testing.T) {
	s := begin(t, "full")
	lan := s.lan()
	roomy := s.pool("roomy", "10.6.20.1-10.6.20.8")
	tight := s.poolIn("tight", "10.68.0.0/16", "", "10.68.20.1")
	both := attached([]string{lan}, forInterface{IPv4: []string{roomy}}, forInterface{IPv4: []string{tight}})
	node := s.workers()[0]
	onOne := onNode(node)
	s.statefulSet("first", 1, template("first", "", both, onOne))
	s.ready("first", 1)
	s.bare("waiting", template("waiting", "", both, onOne))
	s.statefulSet("kept", 1, template("kept", "", both, onOne))
	pods := []*corev1.Pod{s.podOf("waiting"), s.podOf("kept")}
	kept := map[string]string{}
	for _, pod := range pods {
		s.complains(pod, "spiderpool IP allocation error", "all IP addresses used out", tight)
		kept[pod.Name] = s.retries(pod, 3)
	}
	if leased := s.leased(node, "10.6.20.1", "10.6.20.8"); leased > 3 {
		t.Errorf("three pods have made their node lease %d addresses", leased)
	}
	// Room appears.
	s.must(s.kubectl("", "patch", "spiderippool", tight, "--type", "merge", "-p", `{"spec": {"ips": ["10.68.20.1-10.68.20.3"]}}`))
	for _, app := range []string{"waiting", "kept"} {
		pod := s.ready(app, 1)[0]
		if addr := cluster.Address(&pod).String(); addr != kept[pod.Name] {
			t.Errorf("%s has %s on eth0, and had %s while it waited for net1", pod.Name, addr, kept[pod.Name])
		}
		s.drawn(pod.Name, s.interfaces(&pod), map[string]string{"eth0 IPv4": "10.6.20.1-10.6.20.8", "net1 IPv4": "10.68.20.2-10.68.20.3"})
	}
	s.counts(grace, roomy, 3)
}

// podOf waits for the only pod with the label app, in whatever state.
func (s *scenario) podOf(app string) (pod *corev1.Pod) {
	s.Helper()
	s.await(grace, "there is a pod of "+app, func(ctx context.Context) error {
		pods, err := s.cluster.Pods(ctx, s.namespace, "app="+app)
		if err == nil && len(pods) != 1 {
			err = fmt.Errorf("there are %d", len(pods))
		}
		if err == nil {
			pod = &pods[0]
		}
		return err
	})
	return pod
}

// retries waits until the runtime has tried to start the pod in n sandboxes.
// All the while the journal must have one address of it for eth0, always the
// same, and none for another interface. It returns that address.
func (s *scenario) retries(pod *corev1.Pod, n int32) (addr string) {
	s.Helper()
	s.await(patience, fmt.Sprintf("%s is tried in %d sandboxes", pod.Name, n), func(ctx context.Context) error {
		lines, err := s.journaled(pod)
		if err != nil {
			return err
		}
		for _, line := range lines {
			fields := strings.Fields(line)
			if addr == "" {
				addr = fields[1]
			}
			if fields[0] != "eth0" || fields[1] != addr {
				s.Fatalf("the journal has %q for %s, want only %s for eth0", lines, pod.Name, addr)
			}
		}
		failed, err := s.failedSandboxes(ctx, pod)
		if err == nil && failed < n {
			err = fmt.Errorf("%d failed so far", failed)
		}
		return err
	})
	return addr
}

// failedSandboxes counts the sandboxes of a pod that could not be made.
func (s *scenario) failedSandboxes(ctx context.Context, pod *corev1.Pod) (n int32, err error) {
	events, err := s.cluster.Kube.CoreV1().Events(s.namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "reason=FailedCreatePodSandBox,involvedObject.uid=" + string(pod.UID),
	})
	if err != nil {
		return 0, err
	}
	for _, e := range events.Items {
		n += max(e.Count, 1)
	}
	return n, nil
}
