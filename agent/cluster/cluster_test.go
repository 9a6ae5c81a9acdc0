package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/crds"
	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// TestAPIServer runs all that needs a real API server against one.
func TestAPIServer(t *testing.T) {
	server := newAPI(t, apitest.Start(t))
	t.Run("IsACluster", func(t *testing.T) {
		leasetest.ClusterSuite(t, func(t *testing.T) leasetest.ClusterSubject {
			server.clear(t)
			return leasetest.ClusterSubject{
				Cluster: server.client(t),
				SetPod: func(namespace, name, node string, finished bool) string {
					return server.setPod(t, namespace, name, node, finished)
				},
				DeletePod: func(namespace, name string) { server.deletePod(t, namespace, name) },
				Detail:    func(addr netip.Addr) json.RawMessage { return detail(t, addr) },
			}
		})
	})
	for name, test := range map[string]func(*testing.T, *api){
		"LabelsAndAnnotationsOfOthersSurviveUpdates": foreignMetadata,
		"LesseeLabelsFollowTheLeases":                lesseeLabels,
		"UpdateOfABlockReadElsewhereKnowsItsLabels":  unknownLabels,
		"UpdateOfAStaleBlockReadElsewhereConflicts":  unknownStale,
		"SummaryTellsPeopleWhatTheBlockHolds":        summary,
		"EndpointLooksAsUsersKnowIt":                 endpointShape,
		"StatelessEndpointIsOwnedByItsPod":           endpointOwner,
		"BlockThatIsBeingDeletedIsNotBuiltOn":        deletingBlock,
		"WhatTheServerForbidsIsRefused":              forbidden,
		"KindThatIsNotServedIsNotAMissingBlock":      notServed,
		"LateUpdateDiesWithItsVersion":               lateUpdate,
		"UpdateWithLostAnswerCanBeSettled":           lostAnswer,
		"EachCallIsOneRequest":                       requests,
	} {
		t.Run(name, func(t *testing.T) {
			server.clear(t)
			test(t, server)
		})
	}
}

// api is what a test does to the API server from outside.
type api struct {
	config *rest.Config
	kinds  *crds.Clients
	core   *typedcorev1.CoreV1Client
}

func newAPI(t *testing.T, config *rest.Config) *api {
	t.Helper()
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	kinds, err := crds.NewClients(config, httpClient)
	if err != nil {
		t.Fatal(err)
	}
	core, err := typedcorev1.NewForConfigAndClient(config, httpClient)
	if err != nil {
		t.Fatal(err)
	}
	return &api{config: config, kinds: kinds, core: core}
}

func (a *api) client(t *testing.T) *cluster.Client {
	t.Helper()
	c, err := cluster.New(cluster.Config(a.config, "holdfast-test"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func now() metav1.DeleteOptions {
	zero := int64(0)
	return metav1.DeleteOptions{GracePeriodSeconds: &zero}
}

func (a *api) clear(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	err := errors.Join(
		a.kinds.IPBlocks().DeleteCollection(ctx, now(), metav1.ListOptions{}),
		a.core.Pods("default").DeleteCollection(ctx, now(), metav1.ListOptions{}))
	for _, namespace := range []string{"default", "kube-system"} {
		err = errors.Join(err, a.kinds.Endpoints(namespace).DeleteCollection(ctx, now(), metav1.ListOptions{}))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (a *api) deletePod(t *testing.T, namespace, name string) {
	t.Helper()
	if err := a.core.Pods(namespace).Delete(t.Context(), name, now()); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
}

func (a *api) setPod(t *testing.T, namespace, name, node string, finished bool) string {
	t.Helper()
	a.deletePod(t, namespace, name)
	pod, err := a.core.Pods(namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "nginx"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if finished {
		pod.Status.Phase = corev1.PodSucceeded
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
			Name: "c", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}},
		}}
		if pod, err = a.core.Pods(namespace).UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return string(pod.UID)
}

func detail(t *testing.T, addr netip.Addr) json.RawMessage {
	t.Helper()
	d := cluster.Detail{Pool: "test-pool", Prefix: netip.PrefixFrom(addr, addr.BitLen()-8), CleanGateway: true}
	d.Gateway = d.Prefix.Masked().Addr().Next()
	d.Routes = []cluster.Route{{Destination: netip.PrefixFrom(addr, addr.BitLen()-16).Masked(), Gateway: d.Gateway}}
	raw, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func worker1() lease.Node {
	return lease.Node{Name: "worker-1", UID: "0f2c6b1e-0000-4000-8000-000000000001"}
}

func worker2() lease.Node {
	return lease.Node{Name: "worker-2", UID: "0f2c6b1e-0000-4000-8000-000000000002"}
}

func web0() lease.Identity {
	return lease.Identity{Namespace: "default", Pod: "web-0", Interface: "eth0"}
}

// put stores a block in which both nodes lease addresses.
func put(t *testing.T, c *cluster.Client) lease.Block {
	t.Helper()
	b, err := lease.NewBlock(netip.MustParsePrefix("10.6.168.96/28"))
	if err != nil {
		t.Fatal(err)
	}
	b.Claim(worker1(), 0b1110_0010)
	b.Claim(worker2(), 0b0000_1100)
	if err := b.Pin(worker1().UID, b.Addr(5), web0()); err != nil {
		t.Fatal(err)
	}
	if b, err = c.PutBlock(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return b
}

func (a *api) block(t *testing.T, name string) map[string]string {
	t.Helper()
	stored, err := a.kinds.IPBlocks().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	delete(stored.Annotations, cluster.WriteAnnotation)
	all := map[string]string{}
	for k, v := range stored.Labels {
		all["label "+k] = v
	}
	for k, v := range stored.Annotations {
		all["annotation "+k] = v
	}
	return all
}

func equal(t *testing.T, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func (a *api) patchBlock(t *testing.T, name, patch string) {
	t.Helper()
	if _, err := a.kinds.IPBlocks().Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

const ofOthers = `{"metadata":{"labels":{"team":"net"},"annotations":{"note":"keep me"}}}`

// hasRoom is the label of a block in which something can be claimed.
const hasRoom = "label room.holdfast.dev/region"

func foreignMetadata(t *testing.T, a *api) {
	c := a.client(t)
	b := put(t, c)
	a.patchBlock(t, b.Name(), ofOthers)
	b, err := c.Block(t.Context(), b.Name())
	if err != nil {
		t.Fatal(err)
	}
	b.Fence(worker1().UID, nil)
	if _, err := c.PutBlock(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	equal(t, map[string]string{
		"label team": "net", "annotation note": "keep me", "label lessee.holdfast.dev/" + worker2().UID: "", hasRoom: "10.6.160.0-20",
	}, a.block(t, b.Name()))

	e, err := c.PutEndpoint(t.Context(), lease.Endpoint{Namespace: "default", Pod: "web-0", PodUID: "u", Node: "worker-1", Sticky: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.kinds.Endpoints("default").Patch(t.Context(), "web-0", types.MergePatchType, []byte(ofOthers), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	next, err := c.Endpoint(t.Context(), "default", "web-0")
	if err != nil {
		t.Fatal(err)
	}
	if next.Version == e.Version {
		t.Error("the version did not move with the labels")
	}
	if _, err = c.PutEndpoint(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	stored, err := a.kinds.Endpoints("default").Get(t.Context(), "web-0", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if stored.Labels["team"] != "net" || stored.Annotations["note"] != "keep me" {
		t.Errorf("labels %v, annotations %v", stored.Labels, stored.Annotations)
	}
}

func lesseeLabels(t *testing.T, a *api) {
	c := a.client(t)
	b := put(t, c)
	listed := func(nodeUID string) int {
		all, err := a.kinds.IPBlocks().List(t.Context(), metav1.ListOptions{LabelSelector: cluster.LesseeSelector(nodeUID)})
		if err != nil {
			t.Fatal(err)
		}
		return len(all.Items)
	}
	if listed(worker1().UID) != 1 || listed(worker2().UID) != 1 {
		t.Errorf("the selectors find %d and %d blocks, want one each", listed(worker1().UID), listed(worker2().UID))
	}
	b.Yield(worker2().UID, 0xffff)
	b, err := c.PutBlock(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, map[string]string{"label lessee.holdfast.dev/" + worker1().UID: "", hasRoom: "10.6.160.0-20"}, a.block(t, b.Name()))
	if listed(worker2().UID) != 0 {
		t.Error("the selector finds a block without lease")
	}
}

// unknownLabels is about an agent that was started again, or learned of the
// block from elsewhere.
func unknownLabels(t *testing.T, a *api) {
	b := put(t, a.client(t))
	b.Fence(worker1().UID, nil)
	if _, err := a.client(t).PutBlock(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	equal(t, map[string]string{"label lessee.holdfast.dev/" + worker2().UID: "", hasRoom: "10.6.160.0-20"}, a.block(t, b.Name()))
}

func unknownStale(t *testing.T, a *api) {
	old := put(t, a.client(t))
	next := old.Clone()
	next.Claim(worker1(), 1)
	next, err := a.client(t).PutBlock(t.Context(), next)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.client(t).PutBlock(t.Context(), old); !errors.Is(err, lease.ErrConflict) {
		t.Errorf("error %v, want a conflict", err)
	}
	if err := a.client(t).DeleteBlock(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if _, err := a.client(t).PutBlock(t.Context(), next); !errors.Is(err, lease.ErrConflict) {
		t.Errorf("error %v, want a conflict", err)
	}
}

func summary(t *testing.T, a *api) {
	b := put(t, a.client(t))
	stored, err := a.kinds.IPBlocks().Get(t.Context(), "10.6.168.96-28", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := stored.Spec.Summary
	if s.Free != 10 || s.Leases != "worker-1:97,101-103 worker-2:98-99" || s.Pins != "101=default/web-0" {
		t.Errorf("summary %+v", s)
	}
	equal(t, []string{"10.6.168.97", "10.6.168.101-10.6.168.103"}, stored.Spec.Leases[0].Addresses)

	b.Leases, b.Pins = nil, nil
	if _, err := a.client(t).PutBlock(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if stored, err = a.kinds.IPBlocks().Get(t.Context(), "10.6.168.96-28", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	if s = stored.Spec.Summary; s.Free != 16 || s.Leases != "" || s.Pins != "" {
		t.Errorf("summary of an empty block %+v", s)
	}
}

func endpointShape(t *testing.T, a *api) {
	v4, v6 := netip.MustParseAddr("10.6.168.101"), netip.MustParseAddr("fd00::101")
	_, err := a.client(t).PutEndpoint(t.Context(), lease.Endpoint{
		Namespace: "default", Pod: "web-0", PodUID: "u", Node: "worker-1", Sticky: true,
		OwnerKind: "StatefulSet", OwnerName: "web",
		Addresses: []lease.EndpointAddress{
			{Interface: "eth0", Addr: v4, Detail: json.RawMessage(`{"pool":"p4","prefix":"10.6.168.101/16","gateway":"10.6.0.1","routes":[{"destination":"10.7.0.0/16","gateway":"10.6.0.2"}]}`)},
			{Interface: "eth0", Addr: v6, Detail: json.RawMessage(`{"pool":"p6","prefix":"fd00::101/64"}`)},
			{Interface: "net1", Addr: netip.MustParseAddr("10.9.0.4")},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := a.kinds.Endpoints("default").GetClient().Get().Namespace("default").Resource("spiderendpoints").Name("web-0").Do(t.Context()).Raw()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Metadata struct {
			Finalizers      []string `json:"finalizers"`
			OwnerReferences []any    `json:"ownerReferences"`
		} `json:"metadata"`
		Status any `json:"status"`
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	var want any
	err = json.Unmarshal([]byte(`{
		"current": {"uid": "u", "node": "worker-1", "ips": [
			{"interface": "eth0", "ipv4": "10.6.168.101/16", "ipv4Pool": "p4", "ipv4Gateway": "10.6.0.1",
			 "ipv6": "fd00::101/64", "ipv6Pool": "p6", "cleanGateway": false, "vlan": 0,
			 "routes": [{"dst": "10.7.0.0/16", "gw": "10.6.0.2"}]},
			{"interface": "net1", "ipv4": "10.9.0.4/32", "vlan": 0}]},
		"ownerControllerType": "StatefulSet", "ownerControllerName": "web"}`), &want)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, want, got.Status)
	if len(got.Metadata.Finalizers) != 0 || len(got.Metadata.OwnerReferences) != 0 {
		t.Errorf("a sticky endpoint has finalizers %v and owners %v", got.Metadata.Finalizers, got.Metadata.OwnerReferences)
	}
}

func endpointOwner(t *testing.T, a *api) {
	c := a.client(t)
	uid := a.setPod(t, "default", "web-x", "worker-1", false)
	e, err := c.PutEndpoint(t.Context(), lease.Endpoint{Namespace: "default", Pod: "web-x", PodUID: uid, Node: "worker-1"})
	if err != nil {
		t.Fatal(err)
	}
	stored, err := a.kinds.Endpoints("default").Get(t.Context(), "web-x", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "web-x", UID: types.UID(uid)}}, stored.OwnerReferences)

	e.PodUID = ""
	if _, err := c.PutEndpoint(t.Context(), e); !errors.Is(err, lease.ErrRefused) {
		t.Errorf("error %v, want that an owner without UID is refused", err)
	}
	e.PodUID = uid
	e.Addresses = []lease.EndpointAddress{
		{Interface: "eth0", Addr: netip.MustParseAddr("10.9.0.4")}, {Interface: "eth0", Addr: netip.MustParseAddr("10.9.0.5")},
	}
	if _, err := c.PutEndpoint(t.Context(), e); !errors.Is(err, lease.ErrRefused) {
		t.Errorf("error %v, want that two addresses of one family are refused", err)
	}
}

func deletingBlock(t *testing.T, a *api) {
	c := a.client(t)
	b := put(t, c)
	a.patchBlock(t, b.Name(), `{"metadata":{"finalizers":["example.org/hold"]}}`)
	if err := a.kinds.IPBlocks().Delete(t.Context(), b.Name(), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := c.Block(t.Context(), b.Name())
	if err == nil || errors.Is(err, lease.ErrNotFound) || !strings.Contains(err.Error(), "example.org/hold") {
		t.Errorf("error %v, want one that names the finalizer", err)
	}
	a.patchBlock(t, b.Name(), `{"metadata":{"finalizers":null}}`)
	if _, err := c.Block(t.Context(), b.Name()); !errors.Is(err, lease.ErrNotFound) {
		t.Errorf("error %v, want that it is gone", err)
	}
}

func forbidden(t *testing.T, a *api) {
	config := cluster.Config(a.config, "holdfast-test")
	config.Impersonate = rest.ImpersonationConfig{UserName: "nobody"}
	c, err := cluster.New(config, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := put(t, a.client(t))
	if _, err := c.Block(t.Context(), b.Name()); err == nil || errors.Is(err, lease.ErrNotFound) {
		t.Errorf("read: error %v, want one that says nothing of the block", err)
	}
	if _, err := c.PutBlock(t.Context(), b); !errors.Is(err, lease.ErrRefused) || errors.Is(err, lease.ErrConflict) {
		t.Errorf("update: error %v, want a refusal", err)
	}
	if err := c.DeleteBlock(t.Context(), b); !errors.Is(err, lease.ErrRefused) {
		t.Errorf("delete: error %v, want a refusal", err)
	}
	nowhere := lease.Endpoint{Namespace: "nowhere", Pod: "web-0", PodUID: "u", Node: "n", Sticky: true}
	if _, err := a.client(t).PutEndpoint(t.Context(), nowhere); !errors.Is(err, lease.ErrRefused) {
		t.Errorf("create in a namespace that is not there: error %v, want a refusal", err)
	}
	nowhere.Namespace, nowhere.Pod = "default", "No Name"
	if _, err := a.client(t).PutEndpoint(t.Context(), nowhere); !errors.Is(err, lease.ErrRefused) {
		t.Errorf("create with an impossible name: error %v, want a refusal", err)
	}
}

// elsewhere sends requests for blocks to a path that the server does not know.
func elsewhere(next http.RoundTripper) http.RoundTripper {
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		r.URL.Path = strings.Replace(r.URL.Path, "/ipblocks", "/ipclocks", 1)
		return next.RoundTrip(r)
	})
}

func notServed(t *testing.T, a *api) {
	config := cluster.Config(a.config, "holdfast-test")
	config.Wrap(elsewhere)
	c, err := cluster.New(config, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := put(t, a.client(t))
	if _, err := c.Block(t.Context(), b.Name()); err == nil || errors.Is(err, lease.ErrNotFound) {
		t.Errorf("read: error %v, want one that says nothing of the block", err)
	}
	if err := c.DeleteBlock(t.Context(), b); err == nil || errors.Is(err, lease.ErrConflict) {
		t.Errorf("delete: error %v, want none that says that the block is gone", err)
	}
}

// faulty returns a client whose first PATCH goes through fault.
func (a *api) faulty(t *testing.T, fault func(http.RoundTripper, *http.Request) error) *cluster.Client {
	t.Helper()
	var once sync.Once
	config := cluster.Config(a.config, "holdfast-test")
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			var err error
			if r.Method == http.MethodPatch {
				once.Do(func() { err = fault(next, r) })
			}
			if err != nil {
				return nil, err
			}
			return next.RoundTrip(r)
		})
	})
	c, err := cluster.New(config, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var errLost = errors.New("connection lost")

// lateUpdate sends an update that was given up for lost after the one that
// settles it: the moment on which the protocol's safety rests.
func lateUpdate(t *testing.T, a *api) {
	var late func() (*http.Response, error)
	c := a.faulty(t, func(next http.RoundTripper, r *http.Request) error {
		body, err := r.GetBody()
		if err != nil {
			return err
		}
		held := r.Clone(context.Background()) // r's own ends before it is sent
		held.Body = body
		late = func() (*http.Response, error) { return next.RoundTrip(held) }
		return errLost
	})
	b := put(t, c)
	yielded := b.Clone()
	yielded.Yield(worker1().UID, 0b10)
	_, err := c.PutBlock(t.Context(), yielded)
	check(t, "the update that is late", err, nil)
	settled, err := c.PutBlock(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	response, err := late()
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusConflict {
		t.Errorf("the late update was answered with %s, want a conflict", response.Status)
	}
	if now, err := c.Block(t.Context(), b.Name()); err != nil || now.Version != settled.Version || !now.LeasedTo(worker1().UID).Has(1) {
		t.Errorf("after the late update: %v, %v", now, err)
	}
}

func lostAnswer(t *testing.T, a *api) {
	c := a.faulty(t, func(next http.RoundTripper, r *http.Request) error {
		response, err := next.RoundTrip(r)
		if err == nil {
			err = response.Body.Close()
		}
		return errors.Join(errLost, err)
	})
	b := put(t, c)
	yielded := b.Clone()
	yielded.Yield(worker1().UID, 0b10)
	_, err := c.PutBlock(t.Context(), yielded)
	check(t, "the update without answer", err, nil)
	_, err = c.PutBlock(t.Context(), yielded)
	check(t, "the same once more", err, lease.ErrConflict)
	if now, err := c.Block(t.Context(), b.Name()); err != nil || now.LeasedTo(worker1().UID).Has(1) {
		t.Errorf("after the update: %v, %v", now, err)
	}
}

func requests(t *testing.T, a *api) {
	var mu sync.Mutex
	var seen []string
	config := cluster.Config(a.config, "holdfast-test/1")
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, fmt.Sprint(r.Method, " ", r.URL.RequestURI(), " ", r.UserAgent()))
			return next.RoundTrip(r)
		})
	})
	c, err := cluster.New(config, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := put(t, c)
	b, err = c.PutBlock(t.Context(), b)
	if err == nil {
		b, err = c.Block(t.Context(), b.Name())
	}
	if err == nil {
		err = c.DeleteBlock(t.Context(), b)
	}
	var e lease.Endpoint
	if err == nil {
		e, err = c.PutEndpoint(t.Context(), lease.Endpoint{Namespace: "default", Pod: "web-0", PodUID: "u", Node: "n", Sticky: true})
	}
	if err == nil {
		e, err = c.PutEndpoint(t.Context(), e)
	}
	if err == nil {
		e, err = c.Endpoint(t.Context(), e.Namespace, e.Pod)
	}
	if err == nil {
		err = c.DeleteEndpoint(t.Context(), e)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PodAt(t.Context(), "default", "web-0"); !errors.Is(err, lease.ErrNotFound) {
		t.Errorf("error %v, want that there is no pod", err)
	}
	blocks, endpoints := "/apis/holdfast.dev/v1alpha1/ipblocks", "/apis/spiderpool.spidernet.io/v2beta1/namespaces/default/spiderendpoints"
	var want []string
	for _, r := range []string{
		"POST " + blocks, "PATCH " + blocks + "/10.6.168.96-28", "GET " + blocks + "/10.6.168.96-28", "DELETE " + blocks + "/10.6.168.96-28",
		"POST " + endpoints, "PATCH " + endpoints + "/web-0", "GET " + endpoints + "/web-0", "DELETE " + endpoints + "/web-0",
		"GET /api/v1/namespaces/default/pods/web-0",
	} {
		want = append(want, r+" holdfast-test/1")
	}
	equal(t, want, seen)
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
