package elected_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	nadv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/agent/elected"
	"github.com/holdfast-ipam/holdfast/crds"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// inTime is how long a test waits for what a duty does within seconds.
const inTime = time.Minute

// holdDown is short enough to wait for and long enough to see that it is
// waited for.
const holdDown = 2 * time.Second

// server is a real API server with two agents that stand for election.
type server struct {
	kube  kubernetes.Interface
	kinds *crds.Clients
	store *cluster.Client
	rest  *rest.Config
	first *contender
	// worker is a node that is there all along.
	worker lease.Node
}

// contender is an agent that stands for election.
type contender struct {
	resign context.CancelFunc
	done   chan error
}

func (s *server) contend(t *testing.T, name string) *contender {
	t.Helper()
	httpClient, err := rest.HTTPClientFor(s.rest)
	if err != nil {
		t.Fatal(err)
	}
	networks, err := elected.NewNetworks(s.rest, httpClient)
	if err != nil {
		t.Fatal(err)
	}
	ctx, resign := context.WithCancel(t.Context())
	c := &contender{resign: resign, done: make(chan error, 1)}
	duties := elected.New(elected.Config{
		Kubernetes: s.kube, CRDs: s.kinds, Networks: networks, Cluster: s.store,
		Namespace: "kube-system", Identity: name, EnableStatefulSet: true, HoldDown: holdDown, Webhook: true,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)).With("agent", name),
	})
	go func() { c.done <- duties.Run(ctx) }()
	t.Cleanup(func() { c.end(t) })
	return c
}

func (c *contender) end(t *testing.T) {
	c.resign()
	select {
	case err, ok := <-c.done:
		if err != nil {
			t.Errorf("standing for election ended with %v", err)
		}
		if ok {
			close(c.done)
		}
	case <-time.After(inTime):
		t.Error("the duties do not end")
	}
}

// eventually waits until check returns an empty text, and fails with the last
// one otherwise.
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
		select {
		case <-t.Context().Done():
			t.Fatal(problem)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// must returns the value of a call that cannot fail here.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// newServer starts an API server with nothing in it but the kinds.
func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{rest: cluster.Config(apitest.Start(t), "holdfast-test")}
	httpClient := must[*http.Client](t)(rest.HTTPClientFor(s.rest))
	s.kube = must[kubernetes.Interface](t)(kubernetes.NewForConfigAndClient(s.rest, httpClient))
	s.store = must[*cluster.Client](t)(cluster.New(s.rest, httpClient))
	s.kinds = s.store.Kinds()
	return s
}

// TestAPIServer has the duties carried out on a real API server.
func TestAPIServer(t *testing.T) {
	s := newServer(t)
	s.worker = s.realNode(t, worker.Name)
	s.first = s.contend(t, "first")
	eventually(t, func() string { return s.holds("first") })
	s.contend(t, "second")
	for _, test := range []struct {
		name string
		run  func(*testing.T, *server)
	}{
		{"ScaleDownGivesAddressesBack", scaleDown},
		{"DeletedStatefulSetGivesAddressesBack", deletedStatefulSet},
		{"EndpointWithoutPinGoesBehindItsPod", endpointWithoutPin},
		{"EmptyBlockGoes", emptyBlock},
		{"PoolStatusFollowsEndpointsAndPins", poolStatus},
		{"PoolIsScarceWhileEverythingIsLeased", scarcePool},
		{"DeletedPoolGoesWhenItsLastAddressIsBack", deletedPool},
		{"PoolThatSlippedThroughSaysWhatItBreaks", conflictingPools},
		{"WhatSlippedThroughIsFilledInOnce", slippedThrough},
		{"WhatAUserAppliesStaysAsItIsWritten", serverSideApplied},
		{"PoolThatCannotBeFilledInIsCountedAllTheSame", sealedPool},
		{"WebhookIsServedWithACertificateThatIsTrusted", webhookCertificate},
		{"LeaseOfANodeThatIsGoneEndsAfterTheHoldDown", goneNode},
		{"NetworkIsRenderedOnceMultusIsThere", network},
		{"NextAgentGoesOn", succession},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s) })
	}
}

func (s *server) holds(name string) string {
	l, err := s.kube.CoordinationV1().Leases("kube-system").Get(context.Background(), "holdfast", metav1.GetOptions{})
	if err != nil {
		return err.Error()
	}
	if l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity != name {
		return fmt.Sprintf("the Lease is held by %v, want %s", l.Spec.HolderIdentity, name)
	}
	return ""
}

func (s *server) statefulSet(t *testing.T, name string, replicas int32) {
	t.Helper()
	labels := map[string]string{"app": name}
	must[*appsv1.StatefulSet](t)(s.kube.AppsV1().StatefulSets("default").Create(t.Context(), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: podSpec("")},
		},
	}, metav1.CreateOptions{}))
}

func podSpec(node string) corev1.PodSpec {
	return corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "nginx"}}}
}

func (s *server) pod(t *testing.T, name, node string) *corev1.Pod {
	t.Helper()
	return must[*corev1.Pod](t)(s.kube.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: podSpec(node),
	}, metav1.CreateOptions{}))
}

func (s *server) deletePod(t *testing.T, name string) {
	t.Helper()
	zero := int64(0)
	if err := s.kube.CoreV1().Pods("default").Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
}

// change changes a block, again if somebody else was faster.
func (s *server) change(t *testing.T, addr netip.Addr, how func(*lease.Block) error) {
	t.Helper()
	eventually(t, func() string {
		b, err := s.store.Block(t.Context(), lease.Name(lease.BlockOf(addr)))
		if err != nil {
			b, err = lease.NewBlock(lease.BlockOf(addr))
		}
		if err == nil {
			err = how(&b)
		}
		if err == nil {
			_, err = s.store.PutBlock(t.Context(), b)
		}
		if err != nil {
			return err.Error()
		}
		return ""
	})
}

// place does what a node's agent does for a StatefulSet's pod.
func (s *server) place(t *testing.T, pod, uid, pool string, addr netip.Addr) {
	t.Helper()
	s.change(t, addr, func(b *lease.Block) error {
		b.Claim(s.worker, 1<<lease.Offset(addr))
		return b.Pin(s.worker.UID, addr, identity(pod))
	})
	detail := must[json.RawMessage](t)(cluster.Detail{Pool: pool, Prefix: netip.PrefixFrom(addr, 16)}.Encode())
	must[lease.Endpoint](t)(s.store.PutEndpoint(t.Context(), lease.Endpoint{
		Namespace: "default", Pod: pod, PodUID: uid, Node: worker.Name, Sticky: true, OwnerKind: "StatefulSet", OwnerName: "web",
		Addresses: []lease.EndpointAddress{{Interface: "eth0", Addr: addr, Detail: detail}},
	}))
}

// pinned returns a problem unless the address is pinned or not, as wanted.
func (s *server) pinned(t *testing.T, addr netip.Addr, want bool) string {
	b, err := s.store.Block(t.Context(), lease.Name(lease.BlockOf(addr)))
	if err != nil && want {
		return err.Error()
	}
	if p, ok := b.PinAt(addr); ok != want || p.Releasing {
		return fmt.Sprintf("%s: pin %+v, want one: %v", addr, p, want)
	}
	return ""
}

func (s *server) endpointGone(t *testing.T, name string) string {
	_, err := s.kinds.Endpoints("default").Get(t.Context(), name, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return fmt.Sprintf("endpoint %s is there (%v), want it gone", name, err)
	}
	return ""
}

// realNode makes a Node, so that nobody fences its leases.
func (s *server) realNode(t *testing.T, name string) lease.Node {
	t.Helper()
	n := must[*corev1.Node](t)(s.kube.CoreV1().Nodes().Create(t.Context(),
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}))
	return lease.Node{Name: n.Name, UID: string(n.UID)}
}

func scaleDown(t *testing.T, s *server) {
	addrs := []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.0.2")}
	s.statefulSet(t, "web", 2)
	for i, addr := range addrs {
		name := fmt.Sprintf("web-%d", i)
		pod := s.pod(t, name, worker.Name)
		s.place(t, name, string(pod.UID), "p", addr)
	}
	scale := must[*appsv1.StatefulSet](t)(s.kube.AppsV1().StatefulSets("default").Get(t.Context(), "web", metav1.GetOptions{}))
	*scale.Spec.Replicas = 1
	must[*appsv1.StatefulSet](t)(s.kube.AppsV1().StatefulSets("default").Update(t.Context(), scale, metav1.UpdateOptions{}))
	s.deletePod(t, "web-1")
	eventually(t, func() string { return s.pinned(t, addrs[1], false) })
	eventually(t, func() string { return s.endpointGone(t, "web-1") })
	if problem := s.pinned(t, addrs[0], true); problem != "" {
		t.Error(problem)
	}
}

func deletedStatefulSet(t *testing.T, s *server) {
	addr := netip.MustParseAddr("10.1.1.1")
	s.statefulSet(t, "db", 1)
	pod := s.pod(t, "db-0", worker.Name)
	s.place(t, "db-0", string(pod.UID), "p", addr)
	if err := s.kube.AppsV1().StatefulSets("default").Delete(t.Context(), "db", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.deletePod(t, "db-0") // by nobody's event but the pod's own
	eventually(t, func() string { return s.pinned(t, addr, false) })
	eventually(t, func() string { return s.endpointGone(t, "db-0") })
}

// endpointWithoutPin has an elected agent that ended between the two, and a pod
// that waits for addresses.
func endpointWithoutPin(t *testing.T, s *server) {
	point := func(name string) {
		must[lease.Endpoint](t)(s.store.PutEndpoint(t.Context(), lease.Endpoint{
			Namespace: "default", Pod: name, PodUID: "before", Node: worker.Name, Sticky: true,
			Addresses: []lease.EndpointAddress{{Interface: "eth0", Addr: netip.MustParseAddr("10.1.3.1")}},
		}))
	}
	s.pod(t, "waits-0", worker.Name)
	point("waits-0")
	point("nobody-0")
	// It is looked at in its turn.
	eventually(t, func() string { return s.endpointGone(t, "nobody-0") })
	if s.endpointGone(t, "waits-0") == "" {
		t.Error("the endpoint of a pod is gone")
	}
	s.deletePod(t, "waits-0")
	eventually(t, func() string { return s.endpointGone(t, "waits-0") })
}

func emptyBlock(t *testing.T, s *server) {
	addr := netip.MustParseAddr("10.1.2.1")
	s.change(t, addr, func(b *lease.Block) error { b.Claim(s.worker, 1); return nil })
	s.change(t, addr, func(b *lease.Block) error { b.Yield(s.worker.UID, 1); return nil })
	eventually(t, func() string {
		if b, err := s.store.Block(t.Context(), lease.Name(lease.BlockOf(addr))); err == nil {
			return fmt.Sprintf("the block is there: %+v", b)
		}
		return ""
	})
}

func (s *server) pool(t *testing.T, name string, spec v2beta1.IPPoolSpec) {
	t.Helper()
	must[*v2beta1.SpiderIPPool](t)(s.kinds.IPPools().Create(t.Context(),
		&v2beta1.SpiderIPPool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}, metav1.CreateOptions{}))
}

// poolSays waits until the pool's status is as wanted.
func (s *server) poolSays(t *testing.T, name string, total, allocated int64, ips string) *v2beta1.SpiderIPPool {
	t.Helper()
	var p *v2beta1.SpiderIPPool
	eventually(t, func() string {
		var err error
		if p, err = s.kinds.IPPools().Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			return err.Error()
		}
		got := p.Status
		switch {
		case got.TotalIPCount == nil || *got.TotalIPCount != total,
			got.AllocatedIPCount == nil || *got.AllocatedIPCount != allocated,
			(got.AllocatedIPs == nil) != (ips == ""),
			got.AllocatedIPs != nil && *got.AllocatedIPs != ips:
			text, err := json.Marshal(got)
			return fmt.Sprintf("pool %s says %s (%v), want %d of %d and %s", name, text, err, allocated, total, ips)
		}
		return ""
	})
	return p
}

func poolStatus(t *testing.T, s *server) {
	s.pool(t, "counted", v2beta1.IPPoolSpec{
		Subnet: "10.2.0.0/16", IPs: []string{"10.2.0.1-10.2.0.10"}, ExcludeIPs: []string{"10.2.0.3"},
	})
	p := s.poolSays(t, "counted", 9, 0, "")
	if p.Spec.IPVersion == nil || *p.Spec.IPVersion != 4 || p.Labels["ipam.spidernet.io/ippool-cidr"] != "10-2-0-0-16" {
		t.Errorf("version %v, labels %v", p.Spec.IPVersion, p.Labels)
	}
	s.statefulSet(t, "counted", 1)
	s.place(t, "counted-0", "u0", "counted", netip.MustParseAddr("10.2.0.1")) // and its pod is down
	pod := s.pod(t, "single-0", worker.Name)
	s.place(t, "single-0", string(pod.UID), "counted", netip.MustParseAddr("10.2.0.2"))
	s.poolSays(t, "counted", 9, 2, fmt.Sprintf(
		`{"10.2.0.1":{"pod":"default/counted-0","podUid":"u0"},"10.2.0.2":{"pod":"default/single-0","podUid":"%s"}}`, pod.UID))
	s.deletePod(t, "single-0") // no StatefulSet wants it
	s.poolSays(t, "counted", 9, 1, `{"10.2.0.1":{"pod":"default/counted-0","podUid":"u0"}}`)
}

func scarcePool(t *testing.T, s *server) {
	s.pool(t, "small", v2beta1.IPPoolSpec{Subnet: "10.3.0.0/16", IPs: []string{"10.3.0.1-10.3.0.4"}})
	s.poolSays(t, "small", 4, 0, "")
	says := func(want bool) {
		t.Helper()
		eventually(t, func() string {
			p, err := s.kinds.IPPools().Get(t.Context(), "small", metav1.GetOptions{})
			if err != nil {
				return err.Error()
			}
			if meta.IsStatusConditionTrue(p.Status.Conditions, v2beta1.ConditionScarce) != want {
				return fmt.Sprintf("conditions %v, want scarce %v", p.Status.Conditions, want)
			}
			return ""
		})
	}
	addr := netip.MustParseAddr("10.3.0.1")
	s.change(t, addr, func(b *lease.Block) error { b.Claim(s.worker, 0b11110); return nil })
	says(true)
	s.change(t, addr, func(b *lease.Block) error { b.Yield(s.worker.UID, 0b10000); return nil })
	says(false)
	must[*v2beta1.SpiderReservedIP](t)(s.kinds.ReservedIPs().Create(t.Context(), &v2beta1.SpiderReservedIP{
		ObjectMeta: metav1.ObjectMeta{Name: "last"}, Spec: v2beta1.ReservedIPSpec{IPs: []string{"10.3.0.4"}},
	}, metav1.CreateOptions{}))
	says(true)
}

func (s *server) leased(t *testing.T, addr netip.Addr, node lease.Node) int {
	b, err := s.store.Block(t.Context(), lease.Name(lease.BlockOf(addr)))
	if err != nil {
		return 0
	}
	return b.LeasedTo(node.UID).Len()
}

func goneNode(t *testing.T, s *server) {
	addr := netip.MustParseAddr("10.6.0.1")
	node := s.realNode(t, "doomed")
	s.change(t, addr, func(b *lease.Block) error { b.Claim(node, 0b1110); return nil })
	pod := s.pod(t, "on-doomed", node.Name)
	pod.Status.PodIPs = []corev1.PodIP{{IP: addr.String()}}
	pod.Status.PodIP = addr.String()
	must[*corev1.Pod](t)(s.kube.CoreV1().Pods("default").UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}))
	if err := s.kube.CoreV1().Nodes().Delete(t.Context(), node.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	gone := time.Now()
	for n := 3; n > 1 || time.Since(gone) < 2*holdDown; n = s.leased(t, addr, node) {
		if early := time.Since(gone) < holdDown && n < 3; n == 0 || early || time.Since(gone) > time.Minute {
			t.Fatalf("%d addresses leased %s after the node went, want 3 for %s and then the one of the pod that is left", n, time.Since(gone), holdDown)
		}
		<-time.After(20 * time.Millisecond)
	}
	s.deletePod(t, "on-doomed")
	eventually(t, func() string {
		if n := s.leased(t, addr, node); n != 0 {
			return fmt.Sprintf("%d addresses are still leased to a node that is gone", n)
		}
		return ""
	})
}

func network(t *testing.T, s *server) {
	smc := &v2beta1.SpiderMultusConfig{
		ObjectMeta: metav1.ObjectMeta{Name: "macvlan-ens192", Annotations: map[string]string{"team": "net"}},
		Spec:       v2beta1.MultusConfigSpec{CNIType: v2beta1.CNITypeMacvlan, Macvlan: &v2beta1.SubInterface{Master: []string{"ens192"}}},
	}
	smc = must[*v2beta1.SpiderMultusConfig](t)(s.kinds.MultusConfigs("kube-system").Create(t.Context(), smc, metav1.CreateOptions{}))
	apitest.InstallNetworks(t, s.rest)

	client := s.kube.Discovery().RESTClient()
	path := "/apis/k8s.cni.cncf.io/v1/namespaces/kube-system/network-attachment-definitions/macvlan-ens192"
	rendered := func() string {
		raw, err := client.Get().AbsPath(path).DoRaw(t.Context())
		var nad nadv1.NetworkAttachmentDefinition
		if err == nil {
			err = json.Unmarshal(raw, &nad)
		}
		if err != nil {
			return err.Error()
		}
		want := `{"cniVersion":"0.3.1","name":"macvlan-ens192","plugins":[{"type":"macvlan","master":"ens192","mode":"bridge","mtu":0,"ipam":{"type":"spiderpool"}},` + coordinator + `]}`
		owner := metav1.GetControllerOf(&nad)
		if nad.Spec.Config != want || nad.Annotations["team"] != "net" || owner == nil || owner.UID != smc.UID || owner.Name != smc.Name {
			return fmt.Sprintf("rendered %s, want config %s", raw, want)
		}
		return ""
	}
	eventually(t, rendered)
	patch := `{"metadata":{"annotations":{"team":"other"},"ownerReferences":null},"spec":{"config":"{}"}}`
	if err := client.Patch("application/merge-patch+json").AbsPath(path).Body([]byte(patch)).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	eventually(t, rendered)
	if err := client.Delete().AbsPath(path).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	eventually(t, rendered)

	must[*v2beta1.SpiderMultusConfig](t)(s.kinds.MultusConfigs("kube-system").Create(t.Context(), &v2beta1.SpiderMultusConfig{
		ObjectMeta: metav1.ObjectMeta{Name: "rival", Annotations: map[string]string{"multus.spidernet.io/cr-name": smc.Name}}, Spec: smc.Spec,
	}, metav1.CreateOptions{}))
	eventually(t, func() string {
		events, err := s.kube.CoreV1().Events("kube-system").List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=rival"})
		if err != nil || len(events.Items) == 0 {
			return fmt.Sprintf("no event of the rival, %v", err)
		}
		if got := events.Items[0].Message; !strings.Contains(got, "already rendered from SpiderMultusConfig "+smc.Name) {
			return "the rival is told " + got
		}
		return rendered()
	})
}

func succession(t *testing.T, s *server) {
	addr := netip.MustParseAddr("10.1.3.1")
	s.first.end(t)
	if problem := s.holds("first"); !strings.Contains(problem, "held by") {
		t.Errorf("after the first agent has ended: %q, want the Lease given up", problem)
	}
	pod := s.pod(t, "orphan-0", worker.Name)
	s.place(t, "orphan-0", string(pod.UID), "p", addr)
	s.deletePod(t, "orphan-0")
	eventually(t, func() string { return s.holds("second") })
	eventually(t, func() string { return s.pinned(t, addr, false) })
	eventually(t, func() string { return s.endpointGone(t, "orphan-0") })
}
