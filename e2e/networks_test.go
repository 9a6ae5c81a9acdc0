//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// The annotations of pods with several interfaces.
const (
	poolsAnnotation    = "ipam.spidernet.io/ippools"
	routesAnnotation   = "ipam.spidernet.io/routes"
	networksAnnotation = "k8s.v1.cni.cncf.io/networks"
)

// forInterface is an element of the annotation ippools.
type forInterface struct {
	Interface    string   `json:"interface,omitempty"`
	IPv4         []string `json:"ipv4,omitempty"`
	IPv6         []string `json:"ipv6,omitempty"`
	CleanGateway bool     `json:"cleangateway,omitempty"`
}

// attached gives pods further interfaces, one for each network, and pools by
// interface.
func attached(networks []string, pools ...forInterface) option {
	list, err := json.Marshal(pools)
	if err != nil {
		panic(err) // strings are always JSON
	}
	return func(t *corev1.PodTemplateSpec) {
		delete(t.Annotations, poolAnnotation)
		t.Annotations[poolsAnnotation] = string(list)
		t.Annotations[networksAnnotation] = strings.Join(networks, ",")
	}
}

// annotated adds an annotation.
func annotated(key, value string) option {
	return func(t *corev1.PodTemplateSpec) { t.Annotations[key] = value }
}

// lan makes a macvlan network in the scenario's namespace and returns its
// name. No coordinator changes the routes that its pods get.
func (s *scenario) lan() string {
	s.Helper()
	s.must(s.kubectl(`
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderMultusConfig
metadata: {name: lan}
spec: {cniType: macvlan, enableCoordinator: false, macvlan: {master: [ens192]}}
`, "apply", "-f", "-"))
	s.await(grace, "the network lan is rendered", func(context.Context) error {
		return s.kubectl("", "get", "network-attachment-definitions", "lan", "-o", "name")
	})
	return s.namespace + "/lan"
}

// poolIn creates a pool in another network than the underlay's.
func (s *scenario) poolIn(name, subnet, gateway string, ips ...string) string {
	s.Helper()
	return s.poolWith(name, v2beta1.IPPoolSpec{Subnet: subnet, IPs: v2beta1.Ranges(ips), Gateway: gateway})
}

// interfaces returns what a pod's own kernel says of its addresses: prefixes
// by interface and IP version, as in "net1 IPv6". One interface has one of
// each at most.
func (s *scenario) interfaces(pod *corev1.Pod) map[string]netip.Prefix {
	s.Helper()
	var links []struct {
		Name  string `json:"ifname"`
		Addrs []struct {
			Local netip.Addr `json:"local"`
			Bits  int        `json:"prefixlen"`
			Scope string     `json:"scope"`
		} `json:"addr_info"`
	}
	s.must(json.Unmarshal([]byte(s.inPod(pod, "ip", "-j", "addr")), &links))
	all := map[string]netip.Prefix{}
	for _, l := range links {
		for _, a := range l.Addrs {
			if a.Scope != "global" {
				continue
			}
			key := l.Name + " IPv4"
			if a.Local.Is6() {
				key = l.Name + " IPv6"
			}
			if other, twice := all[key]; twice {
				s.Errorf("%s has %s and %s on %s", pod.Name, other, a.Local, key)
			}
			all[key] = netip.PrefixFrom(a.Local, a.Bits)
		}
	}
	return all
}

// inPod runs a command in the pod and returns what it prints.
func (s *scenario) inPod(pod *corev1.Pod, command ...string) string {
	s.Helper()
	printed, err := s.cluster.Kubectl(s.ctx, "", append([]string{"--namespace", s.namespace, "exec", pod.Name, "--"}, command...)...)
	s.must(err)
	return printed
}

// allInterfaces returns interfaces of each pod, by name.
func (s *scenario) allInterfaces(pods []corev1.Pod) map[string]map[string]netip.Prefix {
	s.Helper()
	all := map[string]map[string]netip.Prefix{}
	for i := range pods {
		all[pods[i].Name] = s.interfaces(&pods[i])
	}
	return all
}

// sameInterfaces fails the scenario unless every pod of before has exactly
// the addresses it had, on the same interfaces.
func (s *scenario) sameInterfaces(before, after map[string]map[string]netip.Prefix) {
	s.Helper()
	for _, pod := range slices.Sorted(maps.Keys(before)) {
		if !maps.Equal(before[pod], after[pod]) {
			s.Errorf("the addresses of %s changed: they were %v and are %v", pod, before[pod], after[pod])
		}
	}
}

// drawn fails the scenario unless the pod has exactly one address for each
// key of want ("net1 IPv6"), out of the range there, and all of them differ.
func (s *scenario) drawn(pod string, has map[string]netip.Prefix, want map[string]string) {
	s.Helper()
	if got, keys := slices.Sorted(maps.Keys(has)), slices.Sorted(maps.Keys(want)); !slices.Equal(got, keys) {
		s.Errorf("%s has addresses on %q, want %q", pod, got, keys)
	}
	taken := map[netip.Addr]string{}
	for key, prefix := range has {
		if other, twice := taken[prefix.Addr()]; twice {
			s.Errorf("%s has %s on %s and on %s", pod, prefix.Addr(), other, key)
		}
		taken[prefix.Addr()] = key
		if from, to, _ := strings.Cut(want[key], "-"); want[key] != "" && !between(prefix.Addr(), from, to) {
			s.Errorf("%s has %s on %s, which is not one of %s", pod, prefix, key, want[key])
		}
	}
}

func between(addr netip.Addr, from, to string) bool {
	return !addr.Less(netip.MustParseAddr(from)) && !netip.MustParseAddr(to).Less(addr)
}

// journaled returns what the journal of the pod's node says of the pod's
// addresses, as in "net1 10.66.0.1 assigned", in order.
func (s *scenario) journaled(pod *corev1.Pod) ([]string, error) {
	live, err := s.cluster.Kube.CoreV1().Pods(s.namespace).Get(s.ctx, pod.Name, metav1.GetOptions{})
	if err != nil || live.Spec.NodeName == "" {
		return nil, err
	}
	printed, err := s.cluster.OnNode(s.ctx, live.Spec.NodeName,
		"curl -sS --fail --max-time 5 --unix-socket "+cni.DefaultSocket+" http://holdfast/v1/journal")
	if err != nil {
		return nil, err
	}
	var entries []lease.Entry
	if err := json.Unmarshal([]byte(printed), &entries); err != nil {
		return nil, err
	}
	var lines []string
	for _, e := range entries {
		if e.Owner.PodUID == string(live.UID) {
			lines = append(lines, fmt.Sprintf("%s %s %s", e.Owner.Interface, e.Addr, e.State))
		}
	}
	slices.Sort(lines)
	return lines, nil
}
