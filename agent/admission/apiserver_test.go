package admission_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/holdfast-ipam/holdfast/agent/admission"
	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/agent/elected"
	"github.com/holdfast-ipam/holdfast/crds"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// inTime is how long a test waits for what happens within a second.
const inTime = time.Minute

// server is a real API server that asks a real webhook.
type server struct {
	rest  *rest.Config
	kube  kubernetes.Interface
	kinds *crds.Clients
	store *cluster.Client
	https *httptest.Server
	node  lease.Node
	// failing makes the webhook answer nothing but errors.
	failing atomic.Bool
}

// TestAPIServer has objects applied to a real API server.
func TestAPIServer(t *testing.T) {
	s := start(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *server)
	}{
		{"NetworkIsJudgedWhereThereIsNoMultus", s.networkWithoutMultus},
		{"DefaultsAreFilledIn", s.defaults},
		{"RefusedWithFieldOtherObjectAndRemedy", s.refused},
		{"OverlapIsFoundAmongManyPools", s.many},
		{"AddressInUseStaysInItsPool", s.inUse},
		{"UsersOfAPoolAreThoseOfPinsAndEndpoints", s.users},
		{"LossOfAHugePoolCostsWhatIsInUse", s.huge},
		{"PoolThatBreaksARuleCanBeRepairedAndDeleted", s.repair},
		{"PoolOnItsWayOutKeepsItsSpec", s.terminating},
		{"NetworkKeepsItsName", s.networkName},
		{"EverythingPassesWhileNoAgentAnswers", s.away},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s) })
	}
}

func start(t *testing.T) *server {
	s := &server{rest: cluster.Config(apitest.Start(t), "holdfast-test"), node: lease.Node{Name: "worker-1", UID: "n1"}}
	httpClient := must[*http.Client](t)(rest.HTTPClientFor(s.rest))
	s.kube = must[kubernetes.Interface](t)(kubernetes.NewForConfigAndClient(s.rest, httpClient))
	s.store = must[*cluster.Client](t)(cluster.New(s.rest, httpClient))
	s.kinds = s.store.Kinds()
	handler := admission.NewHandler(admission.Config{
		CRDs: s.kinds, Metadata: must[metadata.Interface](t)(metadata.NewForConfigAndClient(s.rest, httpClient)),
		Rules: admission.Rules{}, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Render: func(smc *v2beta1.SpiderMultusConfig) error { _, err := elected.Render(smc); return err },
	})
	c := must[admission.Certificate](t)(admission.NewCertificate(time.Now(), admission.Certificate{}, "127.0.0.1"))
	pair := must[tls.Certificate](t)(tls.X509KeyPair(c.Certificate, c.Key))
	s.https = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.failing.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	s.https.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	s.https.StartTLS()
	t.Cleanup(s.https.Close)
	s.register(t, c.Authorities)
	eventually(t, func() string {
		if err := s.apply(t, "SpiderIPPool", "probe", `{subnet: "fd00::/64", ips: ["fd00::1"], gateway: "fd00::1"}`, true); err == nil {
			return "nobody asks the webhook"
		}
		return ""
	})
	return s
}

// register has the API server ask, as the chart does but for the address.
func (s *server) register(t *testing.T, authorities []byte) {
	t.Helper()
	client := func(path string) admissionregistrationv1.WebhookClientConfig {
		url := s.https.URL + path
		return admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: authorities}
	}
	rule := func(resource string) []admissionregistrationv1.RuleWithOperations {
		return []admissionregistrationv1.RuleWithOperations{{
			Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
			Rule:       admissionregistrationv1.Rule{APIGroups: []string{"spiderpool.spidernet.io"}, APIVersions: []string{"v2beta1"}, Resources: []string{resource}},
		}}
	}
	ignore, none, seconds := admissionregistrationv1.Ignore, admissionregistrationv1.SideEffectClassNone, int32(5)
	validating := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "holdfast"}}
	for _, r := range []string{"spiderippools", "spiderreservedips", "spidermultusconfigs"} {
		validating.Webhooks = append(validating.Webhooks, admissionregistrationv1.ValidatingWebhook{
			Name: r + ".holdfast.dev", ClientConfig: client(admission.PathValidate), Rules: rule(r),
			FailurePolicy: &ignore, SideEffects: &none, TimeoutSeconds: &seconds, AdmissionReviewVersions: []string{"v1"},
		})
	}
	mutating := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "holdfast"}}
	for _, r := range []string{"spiderippools", "spiderreservedips"} {
		mutating.Webhooks = append(mutating.Webhooks, admissionregistrationv1.MutatingWebhook{
			Name: r + ".holdfast.dev", ClientConfig: client(admission.PathMutate), Rules: rule(r),
			FailurePolicy: &ignore, SideEffects: &none, TimeoutSeconds: &seconds, AdmissionReviewVersions: []string{"v1"},
		})
	}
	registration := s.kube.AdmissionregistrationV1()
	must[*admissionregistrationv1.MutatingWebhookConfiguration](t)(registration.MutatingWebhookConfigurations().Create(t.Context(), mutating, metav1.CreateOptions{}))
	must[*admissionregistrationv1.ValidatingWebhookConfiguration](t)(registration.ValidatingWebhookConfigurations().Create(t.Context(), validating, metav1.CreateOptions{}))
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func eventually(t *testing.T, check func() string) {
	t.Helper()
	deadline := time.Now().Add(inTime)
	for {
		problem := check()
		if problem == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(problem)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func (s *server) client(kind string) (client rest.Interface, namespace, plural string) {
	switch plural = strings.ToLower(kind) + "s"; kind {
	case "SpiderMultusConfig":
		return s.kinds.MultusConfigs("default").GetClient(), "default", plural
	case "SpiderReservedIP":
		return s.kinds.ReservedIPs().GetClient(), "", plural
	}
	return s.kinds.IPPools().GetClient(), "", plural
}

// apply creates an object or replaces its spec and annotations, as YAML.
func (s *server) apply(t *testing.T, kind, name, spec string, dryRun bool, annotations ...string) error {
	t.Helper()
	var fields map[string]any
	if err := yaml.Unmarshal([]byte(spec), &fields); err != nil {
		t.Fatal(err)
	}
	meta := map[string]any{"name": name}
	if len(annotations) > 0 {
		meta["annotations"] = map[string]string{annotations[0]: annotations[1]}
	}
	body := must[[]byte](t)(json.Marshal(map[string]any{"apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": kind, "metadata": meta, "spec": fields}))
	client, namespace, plural := s.client(kind)
	request := client.Patch(types.ApplyPatchType).NamespaceIfScoped(namespace, namespace != "").Resource(plural).Name(name).
		Param("fieldManager", "test").Param("force", "true").Body(body)
	if dryRun {
		request = request.Param("dryRun", metav1.DryRunAll)
	}
	return request.Do(t.Context()).Error()
}

// taken applies what must be taken.
func (s *server) taken(t *testing.T, kind, name, spec string) {
	t.Helper()
	if err := s.apply(t, kind, name, spec, false); err != nil {
		t.Fatalf("%s %s %s: %v", kind, name, spec, err)
	}
}

// refuses applies what must be refused, in these words, and looks whether
// anything changed.
func (s *server) refuses(t *testing.T, kind, name, spec string, want ...string) {
	t.Helper()
	client, namespace, plural := s.client(kind)
	stored := func() string {
		raw, err := client.Get().NamespaceIfScoped(namespace, namespace != "").Resource(plural).Name(name).Do(t.Context()).Raw()
		if err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		return string(raw)
	}
	before := stored()
	err := s.apply(t, kind, name, spec, false)
	if !apierrors.IsInvalid(err) {
		t.Errorf("%s %s %s: the error is %v, want one that says Invalid", kind, name, spec, err)
		return
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s %s %s: the user is told\n%s\nwant\n%s", kind, name, spec, err, w)
		}
	}
	if diff := cmp.Diff(before, stored()); diff != "" {
		t.Error(diff)
	}
}

func (s *server) pool(t *testing.T, name string) *v2beta1.SpiderIPPool {
	t.Helper()
	return must[*v2beta1.SpiderIPPool](t)(s.kinds.IPPools().Get(t.Context(), name, metav1.GetOptions{}))
}

// lease leases addresses of a block to a node, and pins some for a pod.
func (s *server) lease(t *testing.T, first string, set lease.Set, pins ...lease.Pin) {
	t.Helper()
	b := must[lease.Block](t)(lease.NewBlock(lease.BlockOf(netip.MustParseAddr(first))))
	b.Claim(s.node, set)
	b.Pins = pins
	must[lease.Block](t)(s.store.PutBlock(t.Context(), b))
}

func (s *server) endpoint(t *testing.T, name, node, pool, address string) {
	t.Helper()
	i := v2beta1.EndpointInterface{Interface: "eth0", IPv4: address + "/16", IPv4Pool: pool}
	if strings.Contains(address, ":") {
		i = v2beta1.EndpointInterface{Interface: "eth0", IPv6: address + "/64", IPv6Pool: pool}
	}
	must[*v2beta1.SpiderEndpoint](t)(s.kinds.Endpoints("default").Create(t.Context(), &v2beta1.SpiderEndpoint{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: v2beta1.EndpointStatus{OwnerControllerType: "Pod", OwnerControllerName: name,
			Current: v2beta1.EndpointPod{UID: "u-" + name, Node: node, IPs: []v2beta1.EndpointInterface{i}}},
	}, metav1.CreateOptions{}))
}

func (s *server) defaults(t *testing.T, _ *server) {
	s.taken(t, "SpiderIPPool", "filled", `{subnet: 10.1.0.0/16, ips: [10.1.0.9, 10.1.0.1-10.1.0.5, 10.1.0.3-10.1.0.8], excludeIPs: [10.1.0.4, 10.1.0.2]}`)
	p := s.pool(t, "filled")
	four := int64(4)
	want := v2beta1.IPPoolSpec{IPVersion: &four, Subnet: "10.1.0.0/16", IPs: []string{"10.1.0.1-10.1.0.9"}, ExcludeIPs: []string{"10.1.0.2", "10.1.0.4"}}
	if diff := cmp.Diff(want, p.Spec); diff != "" {
		t.Error(diff)
	}
	if p.Labels[v2beta1.LabelSubnet] != "10-1-0-0-16" || !cmp.Equal(p.Finalizers, []string{v2beta1.Finalizer}) {
		t.Errorf("labels %v, finalizers %v", p.Labels, p.Finalizers)
	}
	s.taken(t, "SpiderIPPool", "filled", `{subnet: 10.1.0.0/16, ips: [10.1.0.9, 10.1.0.1-10.1.0.8], excludeIPs: [10.1.0.4, 10.1.0.2], disable: true}`)
	if p = s.pool(t, "filled"); !p.Spec.Disable || !cmp.Equal(p.Spec.IPs, v2beta1.Ranges{"10.1.0.1-10.1.0.9"}) {
		t.Errorf("applied again, the pool is %+v", p.Spec)
	}
	s.taken(t, "SpiderReservedIP", "filled", `{ips: ["fd01::9", "fd01::1-fd01::8"]}`)
	r := must[*v2beta1.SpiderReservedIP](t)(s.kinds.ReservedIPs().Get(t.Context(), "filled", metav1.GetOptions{}))
	if r.Spec.IPVersion == nil || *r.Spec.IPVersion != 6 || !cmp.Equal(r.Spec.IPs, v2beta1.Ranges{"fd01::1-fd01::9"}) {
		t.Errorf("the reservation is %+v", r.Spec)
	}
}

func (s *server) refused(t *testing.T, _ *server) {
	s.taken(t, "SpiderIPPool", "first", `{subnet: 10.2.0.0/16, ips: [10.2.0.10-10.2.0.20]}`)
	s.taken(t, "SpiderIPPool", "beside", `{subnet: 10.2.0.0/16, ips: [10.2.0.30]}`)
	s.taken(t, "SpiderReservedIP", "four", `{ips: [10.2.0.1]}`)
	s.whileAway(t, func() { s.taken(t, "SpiderReservedIP", "old", `{ips: [10.2.0.2]}`) })
	s.taken(t, "SpiderMultusConfig", "taken", `{}`)
	for _, test := range []struct {
		kind, name, spec string
		want             string
	}{
		{"SpiderIPPool", "second", `{subnet: 10.2.0.0/16, ips: [10.2.0.20-10.2.0.29]}`, `admission webhook "spiderippools.holdfast.dev" denied the request: SpiderIPPool.spiderpool.spidernet.io "second" is invalid: spec.ips: Invalid value: "10.2.0.20": is also in pool "first": take it out`},
		{"SpiderIPPool", "beside", `{subnet: 10.2.0.0/16, ips: [10.2.0.19-10.2.0.30]}`, `spec.ips: Invalid value: "10.2.0.19-10.2.0.20": are also in pool "first"`},
		{"SpiderIPPool", "second", `{subnet: 10.2.0.0/24, ips: [10.2.0.1]}`, `spec.subnet: Invalid value: "10.2.0.0/24": overlaps subnet 10.2.0.0/16 of pool`},
		{"SpiderIPPool", "second", `{subnet: "fd02::/64", ips: ["fd02::1-fd02::9"], gateway: "fd02::5"}`, `spec.gateway: Invalid value: "fd02::5": gateway is among ips`},
		{"SpiderIPPool", "second", `{subnet: 10.3.0.0/16, routes: [{dst: 10.9.0.0/16, gw: 10.3.0.1}, {dst: 10.9.1.0/16, gw: 10.3.0.2}]}`, `spec.routes[1].dst: Duplicate value`},
		{"SpiderIPPool", "second", `{subnet: 10.3.0.0/16, podAffinity: {matchLabels: {a: "not a value"}}}`, `spec.podAffinity: Invalid value`},
		{"SpiderIPPool", "second", `{subnet: 10.3.0.0/16, ips: [10.3.0.2-10.3.0.1, 10.3.0.9]}`, `spec.ips[0]: Invalid value: "10.3.0.2-10.3.0.1": the range ends before it starts`},
		{"SpiderReservedIP", "old", `{ips: ["fd02::1"]}`, `spec.ips: Invalid value: "fd02::1": IPv4 cannot be changed to IPv6`},
		{"SpiderReservedIP", "four", `{ips: ["fd02::1"], ipVersion: 6}`, `spec.ipVersion: Invalid value: ipVersion cannot be changed: create another SpiderReservedIP`},
		{"SpiderMultusConfig", "broken", `{customCNI: "{nonsense}"}`, `spec.customCNI`},
		{"SpiderMultusConfig", "broken", `{cniType: macvlan, macvlan: {master: [a]}, chainCNIJsonData: ["{nonsense}"]}`, `spec.chainCNIJsonData[0]`},
	} {
		s.refuses(t, test.kind, test.name, test.spec, test.want)
	}
}

// many are more pools than a list brings at a time.
func (s *server) many(t *testing.T, _ *server) {
	s.whileAway(t, func() {
		for i := range 60 {
			s.taken(t, "SpiderIPPool", fmt.Sprintf("many-%d", i), fmt.Sprintf(`{subnet: 10.9.%d.0/24, ips: [10.9.%[1]d.1]}`, i))
		}
	})
	for _, i := range []int{0, 59} {
		s.refuses(t, "SpiderIPPool", "one-more", fmt.Sprintf(`{subnet: 10.9.%d.0/24, ips: [10.9.%[1]d.1]}`, i), fmt.Sprintf(`"10.9.%d.1": is also in pool "many-%[1]d"`, i))
	}
	const huge = `{subnet: 10.9.0.0/16, ips: [10.9.0.200]}`
	s.refuses(t, "SpiderIPPool", "huge", huge, `overlaps subnet 10.9.0.0/24 of pool "many-0"`, "spec.subnet: Forbidden: and 50 more rules are broken: correct these first")
	if told := strings.Count(s.apply(t, "SpiderIPPool", "huge", huge, true).Error(), "overlaps subnet"); told != 10 {
		t.Errorf("the user is told of %d pools, want 10", told)
	}
}

func (s *server) inUse(t *testing.T, _ *server) {
	s.taken(t, "SpiderIPPool", "used", `{subnet: 10.4.0.0/16, ips: [10.4.0.1-10.4.0.15]}`)
	// .1 is pinned; .2 is a running pod's; .3 is leased and nobody's; .4 is
	// named by an endpoint of a node that has no lease on it any more.
	s.lease(t, "10.4.0.0", 0b1110, lease.Pin{Addr: netip.MustParseAddr("10.4.0.1"), Identity: lease.Identity{Namespace: "default", Pod: "db-0", Interface: "eth0"}})
	s.endpoint(t, "web", s.node.Name, "used", "10.4.0.2")
	s.endpoint(t, "stale", "worker-9", "used", "10.4.0.4")
	s.refuses(t, "SpiderIPPool", "used", `{subnet: 10.4.0.0/16, ips: [10.4.0.2-10.4.0.15]}`,
		`spec.ips: Forbidden: pool "used" would lose addresses in use: 10.4.0.1 (pod default/db-0): keep them, or delete these pods`)
	s.refuses(t, "SpiderIPPool", "used", `{subnet: 10.4.0.0/16, ips: [10.4.0.1, 10.4.0.3-10.4.0.15]}`, `10.4.0.2 (pod default/web)`)
	s.refuses(t, "SpiderIPPool", "used", `{subnet: 10.4.0.0/16, ips: [10.4.0.1-10.4.0.15], excludeIPs: [10.4.0.1-10.4.0.3]}`,
		`spec.excludeIPs: Forbidden`, `10.4.0.1 (pod default/db-0), 10.4.0.2 (pod default/web)`)
	s.refuses(t, "SpiderIPPool", "used", `{subnet: 10.4.0.0/16, ips: []}`, `10.4.0.1 (pod default/db-0), 10.4.0.2 (pod default/web)`)
	s.taken(t, "SpiderIPPool", "used", `{subnet: 10.4.0.0/16, ips: [10.4.0.1-10.4.0.2, 10.4.0.5-10.4.0.15]}`)
}

// users asks for those that keep a deleted pool.
func (s *server) users(t *testing.T, _ *server) {
	pinned, elsewhere, plain := netip.MustParseAddr("10.10.0.1"), netip.MustParseAddr("10.10.0.2"), netip.MustParseAddr("10.10.0.99")
	pin := func(addr netip.Addr, pod string) lease.Pin {
		return lease.Pin{Addr: addr, Identity: lease.Identity{Namespace: "default", Pod: pod, Interface: "eth0"}}
	}
	s.lease(t, "10.10.0.0", 0b110, pin(pinned, "pinned-0"), pin(elsewhere, "elsewhere-0"))
	s.endpoint(t, "elsewhere-0", s.node.Name, "other", elsewhere.String())
	s.endpoint(t, "plain", s.node.Name, "deleted", plain.String())
	pool := &v2beta1.SpiderIPPool{ObjectMeta: metav1.ObjectMeta{Name: "deleted"}, Spec: v2beta1.IPPoolSpec{Subnet: "10.10.0.0/16", IPs: []string{"10.10.0.1-10.10.0.2"}}}
	other := v2beta1.SpiderIPPool{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: v2beta1.IPPoolSpec{Subnet: "10.10.0.0/16", IPs: []string{"10.10.0.2"}}}
	got := must[map[netip.Addr]string](t)(admission.Users(t.Context(), s.kinds, pool, []v2beta1.SpiderIPPool{other}))
	// plain is none of its addresses any more, and a pod has it from there.
	want := map[netip.Addr]string{pinned: "default/pinned-0", plain: "default/plain"}
	if diff := cmp.Diff(fmt.Sprint(want), fmt.Sprint(got)); diff != "" {
		t.Error(diff)
	}
}

func (s *server) huge(t *testing.T, _ *server) {
	s.taken(t, "SpiderIPPool", "huge", `{subnet: "fd05::/48", ips: ["fd05::-fd05:0:0:ffff:ffff:ffff:ffff:ffff"]}`)
	s.lease(t, "fd05:0:0:7::10", 0b11)
	s.endpoint(t, "far", s.node.Name, "huge", "fd05:0:0:7::11")
	s.refuses(t, "SpiderIPPool", "huge", `{subnet: "fd05::/48", ips: ["fd05::1"]}`, `fd05:0:0:7::11 (pod default/far)`)
	s.taken(t, "SpiderIPPool", "huge", `{subnet: "fd05::/48", ips: ["fd05:0:0:7::11"]}`)
}

// repair starts from pools that were applied while the webhook failed.
func (s *server) repair(t *testing.T, _ *server) {
	s.whileAway(t, func() {
		s.taken(t, "SpiderIPPool", "x", `{subnet: 10.6.0.0/16, ips: [10.6.0.1-10.6.0.12]}`)
		s.taken(t, "SpiderIPPool", "y", `{subnet: 10.6.0.0/16, ips: [10.6.0.9-10.6.0.20]}`)
	})
	// y's pods use what x has as well.
	s.lease(t, "10.6.0.0", 0b110<<9,
		lease.Pin{Addr: netip.MustParseAddr("10.6.0.10"), Identity: lease.Identity{Namespace: "default", Pod: "y-0", Interface: "eth0"}},
		lease.Pin{Addr: netip.MustParseAddr("10.6.0.11"), Identity: lease.Identity{Namespace: "default", Pod: "y-1", Interface: "eth0"}})
	s.endpoint(t, "y-0", s.node.Name, "y", "10.6.0.10")
	s.endpoint(t, "y-1", s.node.Name, "x", "10.6.0.11")
	s.refuses(t, "SpiderIPPool", "x", `{subnet: 10.6.0.0/16, ips: [10.6.0.1-10.6.0.13]}`, `"10.6.0.13": is also in pool "y"`)
	s.refuses(t, "SpiderIPPool", "x", `{subnet: 10.6.0.0/16, ips: [10.6.0.1-10.6.0.8]}`, `would lose addresses in use: 10.6.0.11 (pod default/y-1): keep`)
	s.taken(t, "SpiderIPPool", "x", `{subnet: 10.6.0.0/16, ips: [10.6.0.1-10.6.0.12], disable: true}`)
	s.taken(t, "SpiderIPPool", "x", `{subnet: 10.6.0.0/16, ips: [10.6.0.1-10.6.0.8, 10.6.0.11], disable: true}`)
	p := s.pool(t, "x")
	allocated := int64(1)
	p.Status.AllocatedIPCount = &allocated
	must[*v2beta1.SpiderIPPool](t)(s.kinds.IPPools().UpdateStatus(t.Context(), p, metav1.UpdateOptions{}))
	if err := s.kinds.IPPools().Delete(t.Context(), "x", metav1.DeleteOptions{}); err != nil {
		t.Errorf("a pool in use is not to be deleted: %v", err)
	}
}

func (s *server) terminating(t *testing.T, _ *server) {
	s.taken(t, "SpiderIPPool", "dying", `{subnet: 10.7.0.0/16, ips: [10.7.0.1]}`)
	if err := s.kinds.IPPools().Delete(t.Context(), "dying", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if s.pool(t, "dying").DeletionTimestamp == nil {
		t.Fatal("the pool has no finalizer")
	}
	s.refuses(t, "SpiderIPPool", "dying", `{subnet: 10.7.0.0/16, ips: [10.7.0.1-10.7.0.2]}`, `spec: Forbidden: pool "dying" is being deleted and gives out no address any more`)
	patch := func(body string) {
		t.Helper()
		must[*v2beta1.SpiderIPPool](t)(s.kinds.IPPools().Patch(t.Context(), "dying", types.MergePatchType, []byte(body), metav1.PatchOptions{}))
	}
	patch(`{"metadata":{"labels":{"a":"b"}}}`)
	patch(`{"metadata":{"finalizers":null}}`)
	if _, err := s.kinds.IPPools().Get(t.Context(), "dying", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("without its finalizer, the pool is still there: %v", err)
	}
}

func (s *server) networkWithoutMultus(t *testing.T, _ *server) {
	s.taken(t, "SpiderMultusConfig", "early", `{cniType: macvlan, macvlan: {master: [ens192]}}`)
	if err := s.apply(t, "SpiderMultusConfig", "late", `{}`, true, "multus.spidernet.io/cr-name", "early"); err == nil {
		t.Error("a name that is taken was taken")
	}
	apitest.InstallNetworks(t, s.rest)
}

func (s *server) networkName(t *testing.T, _ *server) {
	const crName = "multus.spidernet.io/cr-name"
	s.taken(t, "SpiderMultusConfig", "net", `{}`)
	owner := must[*v2beta1.SpiderMultusConfig](t)(s.kinds.MultusConfigs("default").Get(t.Context(), "net", metav1.GetOptions{}))
	nad := fmt.Sprintf(`{"apiVersion":"k8s.cni.cncf.io/v1","kind":"NetworkAttachmentDefinition","metadata":{"name":"rendered","ownerReferences":[
		{"apiVersion":"spiderpool.spidernet.io/v2beta1","kind":"SpiderMultusConfig","name":"net","uid":%q,"controller":true}]}}`, owner.UID)
	path := "/apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions"
	if err := s.kube.Discovery().RESTClient().Post().AbsPath(path).Body([]byte(nad)).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, key, value, want string }{
		{"rendered", "", "", `metadata.name: Duplicate value: "rendered": the NetworkAttachmentDefinition of this name belongs to SpiderMultusConfig "net"`},
		{"other", crName, "net", `metadata.annotations[multus.spidernet.io/cr-name]: Duplicate value: "net"`},
		{"other", crName, "No_Name", `metadata.annotations[multus.spidernet.io/cr-name]: Invalid value: "No_Name"`},
		{"net", crName, "other", `metadata.annotations[multus.spidernet.io/cr-name]: Forbidden: the NetworkAttachmentDefinition of this SpiderMultusConfig is called "net" and keeps the name`},
	} {
		var annotations []string
		if test.key != "" {
			annotations = []string{test.key, test.value}
		}
		err := s.apply(t, "SpiderMultusConfig", test.name, `{}`, false, annotations...)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %v: the error is %v\nwant %s", test.name, annotations, err, test.want)
		}
	}
	err := s.apply(t, "SpiderMultusConfig", "other", `{cniType: macvlan, macvlan: {master: [a]}}`, false, "multus.spidernet.io/cni-version", "9.9.9")
	if want := `metadata.annotations[multus.spidernet.io/cni-version]: Invalid value: "9.9.9"`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %v\nwant %s", err, want)
	}
}

// whileAway runs f while the webhook answers nothing but errors.
func (s *server) whileAway(t *testing.T, f func()) {
	t.Helper()
	s.failing.Store(true)
	defer s.failing.Store(false)
	f()
}

// away ends the webhook for good: it comes last.
func (s *server) away(t *testing.T, _ *server) {
	s.https.Close()
	s.taken(t, "SpiderIPPool", "overlapping", `{subnet: 10.2.0.0/16, ips: [10.2.0.20-10.2.0.29]}`)
	s.taken(t, "SpiderReservedIP", "unread", `{ips: [10.2.0.1]}`)
}

// TestHandlerRefusesWhatIsNoQuestion sends what an API server never would.
func TestHandlerRefusesWhatIsNoQuestion(t *testing.T) {
	h := offline(t)
	for _, test := range []struct {
		name, method, path, body string
		want                     int
	}{
		{"nothing", "POST", "/validate", "", http.StatusBadRequest},
		{"no JSON", "POST", "/mutate", "nonsense", http.StatusBadRequest},
		{"no request", "POST", "/validate", `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`, http.StatusBadRequest},
		{"another version", "POST", "/validate", `{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":{}}`, http.StatusBadRequest},
		{"too long", "POST", "/validate", strings.Repeat(" ", 5<<20), http.StatusBadRequest},
		{"another path", "POST", "/", "{}", http.StatusNotFound},
		{"another method", "GET", "/validate", "", http.StatusMethodNotAllowed},
		{"an object that is none", "POST", "/validate", question("spiderippools", `"x"`, `null`), http.StatusInternalServerError},
		{"an API server that is away", "POST", "/validate", question("spiderippools", `{"spec":{"subnet":"10.6.0.0/16"}}`, `{}`), http.StatusInternalServerError},
		{"an object that is none, to fill in", "POST", "/mutate", question("spiderippools", `"x"`, `null`), http.StatusOK},
		{"a kind that has no rules", "POST", "/validate", question("spidercoordinators", `{}`, `{}`), http.StatusOK},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), test.method, test.path, strings.NewReader(test.body)))
			if w.Code != test.want {
				t.Errorf("the answer is %d %s, want %d", w.Code, w.Body, test.want)
			}
		})
	}
}

// question is an update of an object.
func question(resource, object, old string) string {
	return fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"UPDATE","name":"x",
		"resource":{"group":"spiderpool.spidernet.io","version":"v2beta1","resource":%q},"object":%s,"oldObject":%s}}`, resource, object, old)
}

// offline returns a handler whose API server is away.
func offline(t testing.TB) http.Handler {
	t.Helper()
	nobody := &rest.Config{Host: "https://127.0.0.1:1", QPS: -1, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("there is nobody")
	}}
	httpClient, err := rest.HTTPClientFor(nobody)
	if err != nil {
		t.Fatal(err)
	}
	kinds, err := crds.NewClients(nobody, httpClient)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := metadata.NewForConfigAndClient(nobody, httpClient)
	if err != nil {
		t.Fatal(err)
	}
	return admission.NewHandler(admission.Config{
		CRDs: kinds, Metadata: meta, Log: slog.New(slog.DiscardHandler),
		Render: func(smc *v2beta1.SpiderMultusConfig) error { _, err := elected.Render(smc); return err },
	})
}

// FuzzHandler sends anything. Each answer is an error, or a review of the
// question.
func FuzzHandler(f *testing.F) {
	f.Add("/validate", []byte(question("spiderippools", `{"spec":{"subnet":"10.6.0.0/16","ips":["10.6.0.1"]}}`, `{"spec":{"subnet":"10.6.0.0/16"}}`)))
	f.Add("/mutate", []byte(question("spiderippools", `{"spec":{"subnet":"fd00::/64","ips":["fd00::1","fd00::2-fd00::9"]}}`, `null`)))
	f.Add("/mutate", []byte(question("spiderreservedips", `{"spec":{"ips":["10.6.0.1","::"]}}`, `null`)))
	f.Add("/validate", []byte(question("spiderreservedips", `{"spec":{"ips":[]}}`, `{"spec":{"ips":["::"]}}`)))
	f.Add("/validate", []byte(question("spidermultusconfigs", `{"metadata":{"namespace":"a"},"spec":{"cniType":"macvlan"}}`, `{"spec":{"cniType":"vlan","vlan":{}}}`)))
	f.Add("/validate", []byte(`{"request":null}`))
	h := offline(f)
	f.Fuzz(func(t *testing.T, path string, body []byte) {
		if path != admission.PathMutate {
			path = admission.PathValidate
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, bytes.NewReader(body)))
		if w.Code != http.StatusOK {
			return
		}
		var review struct {
			Response *struct {
				UID   *string
				Patch []byte
			}
		}
		if err := json.Unmarshal(w.Body.Bytes(), &review); err != nil || review.Response == nil || review.Response.UID == nil {
			t.Fatalf("the answer to %q is %s: %v", body, w.Body, err)
		}
		var operations []admission.Operation
		if patch := review.Response.Patch; len(patch) > 0 && json.Unmarshal(patch, &operations) != nil {
			t.Errorf("the patch for %q is %q", body, patch)
		}
	})
}
