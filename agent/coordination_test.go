package agent

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	cnitypes "github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// exact compares addresses and networks by what they are.
var exact = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func synced(spec v2beta1.CoordinatorSpec) *v2beta1.SpiderCoordinator {
	return &v2beta1.SpiderCoordinator{
		ObjectMeta: metav1.ObjectMeta{Name: "default"}, Spec: spec,
		Status: v2beta1.CoordinatorStatus{
			Phase: v2beta1.CoordinatorSynced, OverlayPodCIDR: []string{"10.244.0.0/16", "fd00:244::/56"}, ServiceCIDR: []string{"10.96.0.0/12"},
		},
	}
}

func TestSettingsAreToldAsTheyWereMade(t *testing.T) {
	no, table, mtu := false, int64(600), int64(1400)
	got, err := settings(synced(v2beta1.CoordinatorSpec{
		Mode: "underlay", PodCIDRType: "cluster", TunePodRoutes: &no, HostRuleTable: &table, VethMTU: &mtu,
		HijackCIDR:   []string{"169.254.0.0/16", "10.9.0.1", "fd00::1", "10.6.0.9/16"},
		PolicyRoutes: []v2beta1.PolicyRoute{{Dst: "10.7.0.0/16", Gw: "10.6.0.2"}, {Dst: "fd00:7::5", Gw: "fd00:6::2"}},
		PodMACPrefix: "0a:1b", PodDefaultRouteNIC: "net1", VethLinkAddress: "169.254.100.1",
	}), "")
	want := &cni.Coordination{
		Mode: "underlay", TunePodRoutes: &no, HostRuleTable: &table, VethMTU: &mtu, // the rest is nobody's word
		HijackCIDR: []netip.Prefix{
			netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("10.9.0.1/32"),
			netip.MustParsePrefix("fd00::1/128"), netip.MustParsePrefix("10.6.0.0/16"),
		},
		PolicyRoutes: []cni.PolicyRoute{
			{Destination: netip.MustParsePrefix("10.7.0.0/16"), Gateway: netip.MustParseAddr("10.6.0.2")},
			{Destination: netip.MustParsePrefix("fd00:7::5/128"), Gateway: netip.MustParseAddr("fd00:6::2")},
		},
		PodMACPrefix: "0a:1b", PodDefaultRouteNIC: "net1", VethLinkAddress: netip.MustParseAddr("169.254.100.1"),
		PodCIDR:     []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/56")},
		ServiceCIDR: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")},
	}
	if diff := cmp.Diff(want, got, exact); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// What the schema refuses today may have been stored before.
func TestSettingsThatMakeNoSenseAreToldByField(t *testing.T) {
	for field, sc := range map[string]*v2beta1.SpiderCoordinator{
		`spec.hijackCIDR[1] is "10.0.0.0/33"`:                  synced(v2beta1.CoordinatorSpec{HijackCIDR: []string{"10.0.0.1", "10.0.0.0/33"}}),
		`spec.hijackCIDR[0] is "::ffff:10.0.0.1"`:              synced(v2beta1.CoordinatorSpec{HijackCIDR: []string{"::ffff:10.0.0.1"}}),
		`spec.hijackCIDR[0] is "::ffff:10.0.0.0/104"`:          synced(v2beta1.CoordinatorSpec{HijackCIDR: []string{"::ffff:10.0.0.0/104"}}),
		`spec.hijackCIDR[0] is "fe80::1%eth0"`:                 synced(v2beta1.CoordinatorSpec{HijackCIDR: []string{"fe80::1%eth0"}}),
		`spec.vethLinkAddress is "10.0.0.1/24"`:                synced(v2beta1.CoordinatorSpec{VethLinkAddress: "10.0.0.1/24"}),
		`spec.policyRoutes[0].dst is ""`:                       synced(v2beta1.CoordinatorSpec{PolicyRoutes: []v2beta1.PolicyRoute{{Gw: "10.0.0.1"}}}),
		`spec.policyRoutes[0].gw is "10.0.0.0/8"`:              synced(v2beta1.CoordinatorSpec{PolicyRoutes: []v2beta1.PolicyRoute{{Dst: "10.0.0.1", Gw: "10.0.0.0/8"}}}),
		`spec.policyRoutes[0] leads to 10.0.0.1 through fd::1`: synced(v2beta1.CoordinatorSpec{PolicyRoutes: []v2beta1.PolicyRoute{{Dst: "10.0.0.1", Gw: "fd::1"}}}),
		`status.serviceCIDR[0] is "all"`:                       {Status: v2beta1.CoordinatorStatus{Phase: v2beta1.CoordinatorSynced, ServiceCIDR: []string{"all"}}},
		`status.overlayPodCIDR[0] is ""`:                       {Status: v2beta1.CoordinatorStatus{Phase: v2beta1.CoordinatorSynced, OverlayPodCIDR: []string{""}}},
	} {
		got, err := settings(sc, "")
		e := cniError(err)
		if got != nil || e.Code != uint(cnitypes.ErrInvalidNetworkConfig) || !strings.HasPrefix(e.Details, "correct SpiderCoordinator "+sc.Name+": "+field) {
			t.Errorf("want %s, got %+v, %+v", field, got, e)
		}
	}
}

func TestNoPodStartsWithoutTheClustersNetworks(t *testing.T) {
	unknown := func(mode, phase, reason string) *v2beta1.SpiderCoordinator {
		sc := synced(v2beta1.CoordinatorSpec{Mode: mode})
		sc.Status = v2beta1.CoordinatorStatus{Phase: phase, Reason: reason}
		return sc
	}
	for _, test := range []struct {
		name   string
		sc     *v2beta1.SpiderCoordinator
		mode   string
		status int
		says   string
	}{
		{"nobody has looked yet", unknown("auto", "", ""), "", http.StatusServiceUnavailable, "SpiderCoordinator default yet"},
		{"they are not found", unknown("auto", "NotReady", "Calico has none"), "", http.StatusInternalServerError, "SpiderCoordinator default is NotReady: Calico has none"},
		{"another program's phase", unknown("auto", "Lost", ""), "", http.StatusInternalServerError, "is Lost: its status does not say why"},
		{"the network's mode needs them", unknown("disabled", "NotReady", "why"), "underlay", http.StatusInternalServerError, "why"},
		{"the network's mode needs none", unknown("auto", "NotReady", "why"), "disabled", 0, ""},
		{"no mode needs them", unknown("disabled", "", ""), "", 0, ""},
	} {
		got, err := settings(test.sc, test.mode)
		if test.status == 0 {
			if err != nil || got.Mode != test.sc.Spec.Mode {
				t.Errorf("%s: %+v, %v", test.name, got, err)
			}
			continue
		}
		if e := cniError(err); httpStatus(err, e) != test.status || e.Code != uint(cnitypes.ErrTryAgainLater) || !strings.Contains(e.Details, test.says) {
			t.Errorf("%s: status %d, %+v", test.name, httpStatus(err, e), e)
		}
	}
}

// FuzzSettings: whatever is stored in a SpiderCoordinator, the plugin gets what
// it can use, or an error with the field.
func FuzzSettings(f *testing.F) {
	f.Add("10.0.0.0/8", "10.0.0.1", "::1", "10.6.0.2")
	f.Add("::ffff:1.2.3.4/96", "fe80::1%a", "", "0.0.0.0/0")
	f.Fuzz(func(t *testing.T, network, dst, gw, link string) {
		sc := synced(v2beta1.CoordinatorSpec{HijackCIDR: []string{network}, PolicyRoutes: []v2beta1.PolicyRoute{{Dst: dst, Gw: gw}}, VethLinkAddress: link})
		got, err := settings(sc, "")
		if err != nil {
			if e := cniError(err); !strings.Contains(e.Details, "spec.") {
				t.Errorf("an error without a field: %v", err)
			}
			return
		}
		for _, p := range got.HijackCIDR {
			if p != p.Masked() || p.Addr().Is4In6() {
				t.Errorf("%q became %s", network, p)
			}
		}
		if r := got.PolicyRoutes[0]; r.Destination != r.Destination.Masked() || r.Destination.Addr().Is4() != r.Gateway.Is4() {
			t.Errorf("%q through %q became %v", dst, gw, r)
		}
	})
}

func TestCoordinationBeforeTheCachesAreFullIsAskedForAgain(t *testing.T) {
	w := ask(starting(t), http.MethodPost, cni.PathCoordination, `{"pod":{"namespace":"default","name":"web-0"}}`)
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), coordinationFailed) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestCoordinationOfACluster asks an agent, over its socket's handler, while
// SpiderCoordinators come and go on a real API server.
func TestCoordinationOfACluster(t *testing.T) {
	s := startServer(t)
	a := s.readyAgent(t, "coordinated")
	follow(t, a.coordinators.informer)
	c := &coordinated{s, a, s.podWith(t, "coordinated", "web", map[string]string{
		defaultRouteAnnotation: " net1\n", "k8s.v1.cni.cncf.io/networks": "lan, other/san@storage0",
	})}

	c.answers(t, "auto", "net1", "") // there is none
	for _, name := range []string{"zone-b", "zone-a"} {
		c.create(t, name, "underlay")
	}
	c.refuses(t, http.StatusServiceUnavailable, "zone-a")
	c.status(t, "zone-b", v2beta1.CoordinatorSynced, "10.2.0.0/16")
	c.refuses(t, http.StatusServiceUnavailable, "zone-a") // the first by name counts
	c.status(t, "zone-a", v2beta1.CoordinatorSynced, "10.1.0.0/16")
	c.answers(t, "underlay", "net1", "10.1.0.0/16")
	c.create(t, "default", "overlay")
	c.refuses(t, http.StatusServiceUnavailable, "default")
	c.status(t, "default", v2beta1.CoordinatorNotReady, "")
	c.refuses(t, http.StatusInternalServerError, "default is NotReady: for the test")
	c.status(t, "default", v2beta1.CoordinatorSynced, "10.3.0.0/16")
	c.answers(t, "overlay", "net1", "10.3.0.0/16")
	c.finalizers(t, "default", `["example.org/mine"]`)
	c.remove(t, "default")
	c.answers(t, "underlay", "net1", "10.1.0.0/16") // it counts no more, though it is there
	c.finalizers(t, "default", "null")
	c.remove(t, "zone-a")
	c.remove(t, "zone-b")
	c.answers(t, "auto", "net1", "")

	stranger := cni.Pod{Namespace: "default", Name: "web", UID: "another"}
	if w := c.ask(t, stranger); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body, `pod default/web with UID \"another\"`) {
		t.Errorf("a pod that is not there gets %+v", w)
	}
	c.answersOnItsSocket(t)
	if n := requestsFor(t, a, "coordination"); n > 0 {
		t.Errorf("the answers have cost %v requests", n)
	}
}

type coordinated struct {
	*realServer
	agent *Agent
	pod   *corev1.Pod
}

// interfaces are those of the pod.
func interfaces() []string { return []string{"eth0", "net1", "storage0"} }

type answer struct {
	Code int
	Body string
}

func (c *coordinated) ask(t *testing.T, pod cni.Pod) answer {
	t.Helper()
	body, err := json.Marshal(cni.CoordinationRequest{Attachment: cni.Attachment{ContainerID: "c", Interface: "eth0", Pod: pod}})
	if err != nil {
		t.Fatal(err)
	}
	w := ask(c.agent, http.MethodPost, cni.PathCoordination, string(body))
	return answer{w.Code, w.Body.String()}
}

// answersOnItsSocket asks as the plugin does.
func (c *coordinated) answersOnItsSocket(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hf") // t.TempDir is too long for a socket's address
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "a.sock")
	l, err := listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.agent.serve(ctx, l) }()
	client := &cni.Client{Socket: socket}
	got, err := client.Coordination(t.Context(), cni.CoordinationRequest{Attachment: cni.Attachment{ContainerID: "c", Interface: "eth0", Pod: c.own()}})
	if diff := cmp.Diff(&cni.Coordination{Mode: "auto", DefaultRouteInterface: "net1", Interfaces: interfaces()}, got, exact); diff != "" || err != nil {
		t.Errorf("over the socket: %v (-want +got):\n%s", err, diff)
	}
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func (c *coordinated) own() cni.Pod {
	return cni.Pod{Namespace: c.pod.Namespace, Name: c.pod.Name, UID: string(c.pod.UID)}
}

// answers waits for the answer to have mode, interface and the network of pods.
func (c *coordinated) answers(t *testing.T, mode, ifname, network string) {
	t.Helper()
	want := &cni.Coordination{Mode: mode, DefaultRouteInterface: ifname, Interfaces: interfaces()}
	if network != "" {
		want.PodCIDR = []netip.Prefix{netip.MustParsePrefix(network)}
	}
	var last answer
	eventually(t, func() bool {
		last = c.ask(t, c.own())
		var got cni.Coordination
		if last.Code != http.StatusOK || json.Unmarshal([]byte(last.Body), &got) != nil {
			return false
		}
		// What the schema fills in is its own test's.
		got.TunePodRoutes, got.HostRuleTable, got.PodRPFilter, got.TxQueueLen = nil, nil, nil, nil
		return cmp.Equal(want, &got, exact)
	}, "%s with %s: it is %+v", mode, network, &last)
}

func (c *coordinated) refuses(t *testing.T, status int, says string) {
	t.Helper()
	var last answer
	eventually(t, func() bool {
		last = c.ask(t, c.own())
		return last.Code == status && strings.Contains(last.Body, says)
	}, "refused with %d and %q: it is %+v", status, says, &last)
}

func (c *coordinated) create(t *testing.T, name, mode string) {
	t.Helper()
	_, err := c.agent.clients.Coordinators().Create(t.Context(), &v2beta1.SpiderCoordinator{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v2beta1.CoordinatorSpec{Mode: mode, PodCIDRType: "none"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// status writes what the elected agent would.
func (c *coordinated) status(t *testing.T, name, phase string, networks ...string) {
	t.Helper()
	sc, err := c.agent.clients.Coordinators().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	sc.Status = v2beta1.CoordinatorStatus{Phase: phase, OverlayPodCIDR: slices.DeleteFunc(networks, func(s string) bool { return s == "" })}
	if phase != v2beta1.CoordinatorSynced {
		sc.Status.Reason = "for the test"
	}
	if _, err := c.agent.clients.Coordinators().UpdateStatus(t.Context(), sc, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (c *coordinated) finalizers(t *testing.T, name, list string) {
	t.Helper()
	patch := []byte(`{"metadata":{"finalizers":` + list + `}}`)
	if _, err := c.agent.clients.Coordinators().Patch(t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (c *coordinated) remove(t *testing.T, name string) {
	t.Helper()
	if err := c.agent.clients.Coordinators().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// requestsFor returns how many requests to the API server the agent has made
// for a cause.
func requestsFor(t *testing.T, a *Agent, cause string) (n float64) {
	t.Helper()
	families, err := a.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	total := 0.0
	for _, family := range families {
		if family.GetName() != "holdfast_api_requests_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			total += m.GetCounter().GetValue()
			for _, l := range m.GetLabel() {
				if l.GetName() == "cause" && l.GetValue() == cause {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	if total == 0 {
		t.Fatal("no request was counted at all")
	}
	return n
}
