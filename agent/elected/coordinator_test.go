package elected_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/agent/elected"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// Where what a test puts into the cluster goes.
const (
	systemConfigMaps = "/api/v1/namespaces/kube-system/configmaps"
	systemPods       = "/api/v1/namespaces/kube-system/pods"
	calicoPools      = "/apis/crd.projectcalico.org/v1/ippools"
	calicoPools3     = "/apis/projectcalico.org/v3/ippools"
	ciliumPools      = "/apis/cilium.io/v2alpha1/ciliumpodippools"
	serviceCIDRs     = "/apis/networking.k8s.io/v1/servicecidrs"
)

// surveyed is a real API server whose networks an agent finds out all the time.
type surveyed struct {
	*server
	raw      rest.Interface
	services []string // of the API server's own ServiceCIDR
	// The way from the agent to the API server.
	mu      sync.Mutex
	counts  map[string]int
	hidden  string // a path that is answered as by an API server without it
	refused string // a path that is answered with 500
}

// roundTrip counts the requests of the agent, and hides and refuses what a test
// says.
func (s *surveyed) roundTrip(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		s.mu.Lock()
		s.counts[r.Method+" "+r.URL.Path]++
		hidden, refused := s.hidden, s.refused
		s.mu.Unlock()
		status, text := http.StatusNotFound, "404 page not found"
		switch r.URL.Path {
		default:
			return next.RoundTrip(r)
		case hidden:
		case refused:
			status, text = http.StatusInternalServerError, "no leader"
		}
		return &http.Response{
			StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: http.Header{"Content-Type": {"text/plain"}}, Body: io.NopCloser(strings.NewReader(text)), Request: r,
		}, nil
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (s *surveyed) hide(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hidden = path
}

func (s *surveyed) refuse(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = path
}

func (s *surveyed) count(request string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[request]
}

func startSurveyed(t *testing.T, survey time.Duration) *surveyed {
	t.Helper()
	config := cluster.Config(apitest.Start(t), "holdfast-test")
	s := &surveyed{server: &server{rest: rest.CopyConfig(config)}, counts: map[string]int{}}
	httpClient := must[*http.Client](t)(rest.HTTPClientFor(config))
	s.kube = must[kubernetes.Interface](t)(kubernetes.NewForConfigAndClient(config, httpClient))
	s.raw = s.kube.Discovery().RESTClient()
	s.kinds = must[*cluster.Client](t)(cluster.New(config, httpClient)).Kinds()
	eventually(t, func() string {
		own, err := s.kube.NetworkingV1().ServiceCIDRs().Get(t.Context(), "kubernetes", metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		s.services = own.Spec.CIDRs
		return ""
	})

	mine := rest.CopyConfig(config)
	mine.Wrap(s.roundTrip)
	agentClient := must[*http.Client](t)(rest.HTTPClientFor(mine))
	store := must[*cluster.Client](t)(cluster.New(mine, agentClient))
	ctx, resign := context.WithCancel(t.Context())
	only := &contender{resign: resign, done: make(chan error, 1)}
	duties := elected.New(elected.Config{
		Kubernetes: must[*kubernetes.Clientset](t)(kubernetes.NewForConfigAndClient(mine, agentClient)),
		CRDs:       store.Kinds(), Cluster: store, Survey: survey,
		Namespace: "kube-system", Identity: "only", HoldDown: holdDown,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	go func() { only.done <- duties.Run(ctx) }()
	t.Cleanup(func() { only.end(t) })
	return s
}

// put creates objects, by path, given in YAML, and removes them when the test
// ends.
func (s *surveyed) put(t *testing.T, objects map[string][]string) {
	t.Helper()
	for path, manifests := range objects {
		for _, manifest := range manifests {
			body := must[[]byte](t)(yaml.YAMLToJSON([]byte(manifest)))
			var object metav1.PartialObjectMetadata
			if err := json.Unmarshal(body, &object); err != nil {
				t.Fatal(err)
			}
			if answer, err := s.raw.Post().AbsPath(path).SetHeader("Content-Type", "application/json").Body(body).DoRaw(t.Context()); err != nil {
				t.Fatalf("%s: %v: %s", manifest, err, answer)
			}
			t.Cleanup(func() { s.drop(t, path, object.Name) })
		}
	}
}

func (s *surveyed) drop(t *testing.T, path, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), inTime) // the test's has ended
	defer cancel()
	err := s.raw.Delete().AbsPath(path, name).Body([]byte(`{"gracePeriodSeconds":0}`)).SetHeader("Content-Type", "application/json").Do(ctx).Error()
	if err != nil && !apierrors.IsNotFound(err) {
		t.Errorf("remove %s: %v", name, err)
	}
}

func (s *surveyed) coordinator(t *testing.T, name, podCIDRType string) {
	t.Helper()
	must[*v2beta1.SpiderCoordinator](t)(s.kinds.Coordinators().Create(t.Context(), &v2beta1.SpiderCoordinator{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v2beta1.CoordinatorSpec{PodCIDRType: podCIDRType},
	}, metav1.CreateOptions{}))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), inTime)
		defer cancel()
		if err := s.kinds.Coordinators().Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
}

// says returns a problem unless the status is as wanted. Of a reason only a part
// is wanted.
func (s *surveyed) says(t *testing.T, name string, want v2beta1.CoordinatorStatus) string {
	t.Helper()
	sc, err := s.kinds.Coordinators().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return err.Error()
	}
	got := sc.Status
	if want.Reason != "" && strings.Contains(got.Reason, want.Reason) {
		got.Reason = want.Reason
	}
	return cmp.Diff(want, got, cmpopts.EquateEmpty())
}

func (s *surveyed) synced(networks ...string) v2beta1.CoordinatorStatus {
	return v2beta1.CoordinatorStatus{Phase: "Synced", OverlayPodCIDR: networks, ServiceCIDR: s.services}
}

func notReady(reason string) v2beta1.CoordinatorStatus {
	return v2beta1.CoordinatorStatus{Phase: "NotReady", Reason: reason}
}

// The objects from which the networks are told, as their projects write them.
const (
	kubeadm = `{apiVersion: v1, kind: ConfigMap, metadata: {name: kubeadm-config}, data: {ClusterConfiguration: "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nnetworking:\n  dnsDomain: cluster.local\n  podSubnet: 10.244.0.0/16,fd00:10:244::/56\n  serviceSubnet: 10.97.0.0/16\n"}}`

	kubeadmSilent = `{apiVersion: v1, kind: ConfigMap, metadata: {name: kubeadm-config}, data: {ClusterConfiguration: "networking: {dnsDomain: cluster.local}"}}`

	controllerManager = `{apiVersion: v1, kind: Pod, metadata: {name: kube-controller-manager-a, labels: {component: kube-controller-manager}}, spec: {containers: [{name: c, image: i, command: [kube-controller-manager, --allocate-node-cidrs=true, "--cluster-cidr=10.42.0.0/16,fd42::/48", --service-cluster-ip-range, 10.98.0.0/16]}]}}`
)

func cilium(data string) map[string][]string {
	return map[string][]string{systemConfigMaps: {`{apiVersion: v1, kind: ConfigMap, metadata: {name: cilium-config}, data: ` + data + `}`}}
}

func calico(specs ...string) (pools []string) {
	for i, spec := range specs {
		pools = append(pools, fmt.Sprintf(`{apiVersion: crd.projectcalico.org/v1, kind: IPPool, metadata: {name: pool-%d}, spec: %s}`, i, spec))
	}
	return pools
}

// TestCoordinatorStatusOnAnAPIServer has the networks found out of clusters
// of all kinds.
func TestCoordinatorStatusOnAnAPIServer(t *testing.T) {
	s := startSurveyed(t, 50*time.Millisecond)
	t.Run("WithoutAnyNetworkPlugin", func(t *testing.T) {
		s.surveys(t, []survey{{"NothingIsAsked", "none", nil, s.synced()}, {"NobodySaysAnything", "auto", nil, s.synced()}})
	})
	for plural, group := range map[string]string{"ippools": "crd.projectcalico.org/v1", "ciliumpodippools": "cilium.io/v2alpha1"} {
		apitest.InstallKind(t, s.rest, []byte(foreignKind(plural, group)))
	}
	for _, test := range []struct {
		name string
		run  func(*testing.T, *surveyed)
	}{
		{"NetworksAreFoundWhereTheyAreTold", foundNetworks},
		{"WhatCannotBeToldIsSaidAndNothingIsLeftOfBefore", wrongSources},
		{"ServicesAreFoundWithoutServiceCIDRs", servicesOfOldClusters},
		{"NetworksThatChangeAreFollowed", changedNetworks},
		{"CalicosNextVersionIsRead", nextCalico},
		{"FailingReadIsTriedAgainBeforeAnythingIsCleared", failingRead},
		{"EditedStatusIsRepaired", editedStatus},
		{"EachOfSeveralHasItsOwn", severalCoordinators},
		{"DeletedOneGoesAlsoWithSpiderpoolsFinalizer", deletedCoordinator},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s) })
	}
}

func foreignKind(plural, groupVersion string) string {
	group, version, _ := strings.Cut(groupVersion, "/")
	return `{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: ` + plural + `.` + group + `}, spec: {group: ` + group +
		`, scope: Cluster, names: {plural: ` + plural + `, kind: ` + map[string]string{"ippools": "IPPool", "ciliumpodippools": "CiliumPodIPPool"}[plural] +
		`}, versions: [{name: ` + version + `, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}`
}

// survey is a cluster, and what is found out about it.
type survey struct {
	name, podCIDRType string
	objects           map[string][]string
	want              v2beta1.CoordinatorStatus
}

func (s *surveyed) surveys(t *testing.T, of []survey) {
	for _, test := range of {
		t.Run(test.name, func(t *testing.T) {
			s.put(t, test.objects)
			s.coordinator(t, "default", test.podCIDRType)
			eventually(t, func() string { return s.says(t, "default", test.want) })
		})
	}
}

func foundNetworks(t *testing.T, s *surveyed) {
	both := []string{"10.244.0.0/16", "fd00:10:244::/56"}
	s.surveys(t, []survey{
		{"Kubeadm", "cluster", map[string][]string{systemConfigMaps: {kubeadm}, systemPods: {controllerManager}}, s.synced(both...)},
		{"ControllerManager", "cluster", map[string][]string{systemConfigMaps: {kubeadmSilent}, systemPods: {controllerManager}}, s.synced("10.42.0.0/16", "fd42::/48")},
		{"Calico", "calico", map[string][]string{systemConfigMaps: {kubeadm}, calicoPools: calico(
			`{cidr: 10.1.0.0/16}`, `{cidr: "fd01::/48", disabled: true, allowedUses: [Tunnel, Workload]}`, `{cidr: 10.9.0.0/24, allowedUses: [LoadBalancer]}`)},
			s.synced("10.1.0.0/16", "fd01::/48")},
		{"CiliumClusterPool", "cilium", cilium(`{ipam: cluster-pool, enable-ipv4: "true", cluster-pool-ipv4-cidr: 10.2.0.0/16 10.3.0.0/16, enable-ipv6: "false", cluster-pool-ipv6-cidr: "fd00::/104"}`), s.synced("10.2.0.0/16", "10.3.0.0/16")},
		{"CiliumDualStack", "cilium", cilium(`{ipam: cluster-pool, enable-ipv4: "true", cluster-pool-ipv4-cidr: 10.2.0.0/16, enable-ipv6: "true", cluster-pool-ipv6-cidr: "fd00::/104"}`), s.synced("10.2.0.0/16", "fd00::/104")},
		{"CiliumMultiPool", "cilium", with(cilium(`{ipam: multi-pool}`), ciliumPools,
			`{apiVersion: cilium.io/v2alpha1, kind: CiliumPodIPPool, metadata: {name: default}, spec: {ipv4: {cidrs: [10.4.0.0/16, 10.5.0.0/16], maskSize: 24}, ipv6: {cidrs: ["fd04::/104"], maskSize: 120}}}`),
			s.synced("10.4.0.0/16", "10.5.0.0/16", "fd04::/104")},
		{"CiliumOfTheCluster", "cilium", with(cilium(`{ipam: kubernetes}`), systemConfigMaps, kubeadm), s.synced(both...)},
		{"AutoIsCalico", "auto", map[string][]string{systemConfigMaps: {kubeadm}, calicoPools: calico(`{cidr: 10.1.0.0/16}`)}, s.synced("10.1.0.0/16")},
		{"AutoIsCilium", "auto", with(cilium(`{ipam: cluster-pool, cluster-pool-ipv4-cidr: 10.2.0.0/16}`), systemConfigMaps, kubeadm), s.synced("10.2.0.0/16")},
		{"AutoIsBoth", "auto", with(cilium(`{ipam: cluster-pool, cluster-pool-ipv4-cidr: 10.2.0.0/16}`), calicoPools, calico(`{cidr: 10.1.0.0/16}`)...), s.synced("10.1.0.0/16", "10.2.0.0/16")},
		{"AutoIsTheCluster", "auto", map[string][]string{systemConfigMaps: {kubeadm}, calicoPools: calico(`{cidr: 10.9.0.0/24, allowedUses: [Tunnel]}`)}, s.synced(both...)},
		{"AutoIsFlannel", "auto", map[string][]string{systemConfigMaps: {`{apiVersion: v1, kind: ConfigMap, metadata: {name: kube-flannel-cfg}, data: {net-conf.json: '{"Network":"10.6.0.0/16","EnableIPv6":true,"IPv6Network":"fd06::/56"}'}}`}}, s.synced("10.6.0.0/16", "fd06::/56")},
		{"AutoDoesNotPassOverWhatNodesHave", "auto", map[string][]string{"/api/v1/nodes": {`{apiVersion: v1, kind: Node, metadata: {name: k3s}, spec: {podCIDR: 10.42.1.0/24, podCIDRs: [10.42.1.0/24]}}`}}, notReady("(k3s has 10.42.1.0/24), and nothing tells those of the whole cluster: set spec.podCIDRType to none")},
		{"NodesWithoutNetworksHaveNone", "auto", map[string][]string{"/api/v1/nodes": {`{apiVersion: v1, kind: Node, metadata: {name: bare}}`}}, s.synced()},
		{"NoneIsNone", "none", map[string][]string{systemConfigMaps: {kubeadm}}, s.synced()},
	})
}

// with adds objects to others.
func with(objects map[string][]string, path string, more ...string) map[string][]string {
	objects[path] = append(objects[path], more...)
	return objects
}

func wrongSources(t *testing.T, s *surveyed) {
	wrong := func(name, data string) map[string][]string {
		return map[string][]string{systemConfigMaps: {`{apiVersion: v1, kind: ConfigMap, metadata: {name: ` + name + `}, data: ` + data + `}`}}
	}
	s.put(t, map[string][]string{systemPods: {controllerManager}})
	for _, test := range []survey{
		{"kubeadm's is no YAML", "cluster", wrong("kubeadm-config", `{ClusterConfiguration: "networking: [}"}`), notReady("ConfigMap kube-system/kubeadm-config has a ClusterConfiguration that is not YAML: correct it")},
		{"kubeadm's is no network", "cluster", wrong("kubeadm-config", `{ClusterConfiguration: "networking: {podSubnet: '10.0.0.0/8,all'}"}`), notReady(`networking.podSubnet in ConfigMap kube-system/kubeadm-config says "all"`)},
		{"kubeadm's is mapped", "auto", wrong("kubeadm-config", `{ClusterConfiguration: "networking: {podSubnet: '::ffff:10.0.0.0/104'}"}`), notReady(`"::ffff:10.0.0.0/104", which is no network`)},
		{"Calico is not there", "calico", nil, notReady("Calico has no IPPool for pods: create one, or set spec.podCIDRType to auto")},
		{"Calico's is no network", "calico", map[string][]string{calicoPools: calico(`{cidr: 10.1.0.0/33}`)}, notReady(`spec.cidr of Calico's IPPool pool-0 says "10.1.0.0/33"`)},
		{"Cilium is not there", "cilium", nil, notReady("there is no ConfigMap kube-system/cilium-config: set the chart's global.ciliumConfigMap")},
		{"Cilium has a cloud's", "cilium", cilium(`{ipam: eni}`), notReady(`Cilium's IPAM mode "eni" has no networks that could be told: set spec.podCIDRType to none`)},
		{"Cilium has none", "auto", cilium(`{ipam: cluster-pool}`), notReady("Cilium (ConfigMap kube-system/cilium-config) names no network")},
		{"Cilium has no pools", "auto", cilium(`{ipam: multi-pool}`), notReady("names no network")},
		{"Cilium's is no network", "cilium", cilium(`{cluster-pool-ipv4-cidr: "10"}`), notReady(`cluster-pool-ipv4-cidr in ConfigMap kube-system/cilium-config says "10"`)},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.coordinator(t, "default", "cluster")
			eventually(t, func() string { return s.says(t, "default", s.synced("10.42.0.0/16", "fd42::/48")) })
			s.put(t, test.objects)
			patch := []byte(`{"spec":{"podCIDRType":"` + test.podCIDRType + `"}}`)
			must[*v2beta1.SpiderCoordinator](t)(s.kinds.Coordinators().Patch(t.Context(), "default", types.MergePatchType, patch, metav1.PatchOptions{}))
			eventually(t, func() string { return s.says(t, "default", test.want) })
		})
	}
	t.Run("nothing tells", func(t *testing.T) {
		s.drop(t, systemPods, "kube-controller-manager-a")
		s.coordinator(t, "default", "cluster")
		eventually(t, func() string {
			return s.says(t, "default", notReady("Set spec.podCIDRType to none and name the networks in spec.hijackCIDR"))
		})
	})
}

func servicesOfOldClusters(t *testing.T, s *surveyed) {
	s.hide(serviceCIDRs)
	defer s.hide("")
	s.coordinator(t, "default", "none")
	services := func(networks ...string) v2beta1.CoordinatorStatus {
		return v2beta1.CoordinatorStatus{Phase: "Synced", ServiceCIDR: networks}
	}
	eventually(t, func() string { return s.says(t, "default", notReady("nothing tells the networks of services")) })
	s.put(t, map[string][]string{systemPods: {controllerManager}})
	eventually(t, func() string { return s.says(t, "default", services("10.98.0.0/16")) })
	s.put(t, map[string][]string{systemConfigMaps: {kubeadm}})
	eventually(t, func() string { return s.says(t, "default", services("10.97.0.0/16")) })
	s.hide("")
	eventually(t, func() string { return s.says(t, "default", s.synced()) })
}

func changedNetworks(t *testing.T, s *surveyed) {
	s.coordinator(t, "default", "auto")
	s.put(t, map[string][]string{systemConfigMaps: {kubeadm}})
	eventually(t, func() string { return s.says(t, "default", s.synced("10.244.0.0/16", "fd00:10:244::/56")) })
	t.Run("Calico comes", func(t *testing.T) {
		s.put(t, map[string][]string{calicoPools: calico(`{cidr: 10.1.0.0/16}`)})
		eventually(t, func() string { return s.says(t, "default", s.synced("10.1.0.0/16")) })
	})
	eventually(t, func() string { return s.says(t, "default", s.synced("10.244.0.0/16", "fd00:10:244::/56")) })
	more := must[*networkingv1.ServiceCIDR](t)(s.kube.NetworkingV1().ServiceCIDRs().Create(t.Context(), &networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: "more"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.250.0.0/24"}},
	}, metav1.CreateOptions{}))
	want := s.synced("10.244.0.0/16", "fd00:10:244::/56")
	want.ServiceCIDR = slices.Concat(s.services, more.Spec.CIDRs) // by name
	eventually(t, func() string { return s.says(t, "default", want) })
	if err := s.kube.NetworkingV1().ServiceCIDRs().Delete(t.Context(), "more", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string { return s.says(t, "default", s.synced("10.244.0.0/16", "fd00:10:244::/56")) })
}

func nextCalico(t *testing.T, s *surveyed) {
	apitest.InstallKind(t, s.rest, []byte(foreignKind("ippools", "projectcalico.org/v3")))
	s.put(t, map[string][]string{calicoPools3: {`{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: next}, spec: {cidr: 10.7.0.0/16}}`}})
	s.coordinator(t, "default", "auto")
	eventually(t, func() string { return s.says(t, "default", s.synced("10.7.0.0/16")) })
}

func editedStatus(t *testing.T, s *surveyed) {
	s.coordinator(t, "default", "none")
	eventually(t, func() string { return s.says(t, "default", s.synced()) })
	patch := []byte(`{"status":{"phase":"Synced","reason":"mine","serviceCIDR":["10.0.0.0/8"]}}`)
	must[*v2beta1.SpiderCoordinator](t)(s.kinds.Coordinators().Patch(t.Context(), "default", types.MergePatchType, patch, metav1.PatchOptions{}, "status"))
	eventually(t, func() string { return s.says(t, "default", s.synced()) })
}

func severalCoordinators(t *testing.T, s *surveyed) {
	s.put(t, map[string][]string{systemConfigMaps: {kubeadm}})
	s.coordinator(t, "a", "cluster")
	s.coordinator(t, "b", "calico")
	s.coordinator(t, "default", "none")
	for name, want := range map[string]v2beta1.CoordinatorStatus{
		"a": s.synced("10.244.0.0/16", "fd00:10:244::/56"), "b": notReady("Calico has no IPPool"), "default": s.synced(),
	} {
		eventually(t, func() string { return s.says(t, name, want) })
	}
}

func deletedCoordinator(t *testing.T, s *surveyed) {
	const other = "example.org/other"
	for _, test := range []struct{ has, left []string }{
		{nil, nil}, {[]string{v2beta1.Finalizer}, nil}, {[]string{other, v2beta1.Finalizer}, []string{other}},
	} {
		s.coordinator(t, "default", "none")
		eventually(t, func() string { return s.says(t, "default", s.synced()) })
		s.finalizers(t, test.has)
		if err := s.kinds.Coordinators().Delete(t.Context(), "default", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() string {
			sc, err := s.kinds.Coordinators().Get(t.Context(), "default", metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				sc.Finalizers = nil
			} else if err != nil || len(test.left) == 0 {
				return fmt.Sprintf("with finalizers %v it is there (%v)", test.has, err)
			}
			return cmp.Diff(test.left, sc.Finalizers)
		})
		if len(test.left) > 0 { // it is for whoever put it there
			s.finalizers(t, nil)
		}
	}
}

func (s *surveyed) finalizers(t *testing.T, names []string) {
	t.Helper()
	patch := must[[]byte](t)(json.Marshal(map[string]any{"metadata": map[string]any{"finalizers": names}}))
	must[*v2beta1.SpiderCoordinator](t)(s.kinds.Coordinators().Patch(t.Context(), "default", types.MergePatchType, patch, metav1.PatchOptions{}))
}

func failingRead(t *testing.T, s *surveyed) {
	s.put(t, map[string][]string{calicoPools: calico(`{cidr: 10.1.0.0/16}`)})
	s.coordinator(t, "default", "calico")
	eventually(t, func() string { return s.says(t, "default", s.synced("10.1.0.0/16")) })
	s.refuse(calicoPools)
	defer s.refuse("")
	before := s.count("GET " + calicoPools)
	eventually(t, func() string {
		if n := s.count("GET "+calicoPools) - before; n < 5 {
			return fmt.Sprintf("only %d reads have failed", n)
		}
		return ""
	})
	if problem := s.says(t, "default", s.synced("10.1.0.0/16")); problem != "" {
		t.Errorf("it is cleared at once: %s", problem)
	}
	s.put(t, map[string][]string{calicoPools: {`{apiVersion: crd.projectcalico.org/v1, kind: IPPool, metadata: {name: second}, spec: {cidr: 10.2.0.0/16}}`}})
	s.refuse("")
	eventually(t, func() string { return s.says(t, "default", s.synced("10.1.0.0/16", "10.2.0.0/16")) })
}

// TestNetworksAreLookedUpByTheClock: what is edited and how many objects there
// are costs no reads, and without an object nothing is read.
func TestNetworksAreLookedUpByTheClock(t *testing.T) {
	s := startSurveyed(t, time.Hour)
	eventually(t, func() string { return s.holds("only") })
	sources := []string{serviceCIDRs, systemConfigMaps + "/kubeadm-config", systemPods, calicoPools, calicoPools3, systemConfigMaps + "/cilium-config"}
	for _, source := range sources {
		if n := s.count("GET " + source); n > 0 {
			t.Errorf("without a SpiderCoordinator, %s is read %d times", source, n)
		}
	}
	for _, name := range []string{"a", "b", "default"} {
		s.coordinator(t, name, "auto")
	}
	for i := range 20 {
		patch := fmt.Appendf(nil, `{"spec":{"podCIDRType":"auto","vethMTU":%d}}`, 1400+i)
		must[*v2beta1.SpiderCoordinator](t)(s.kinds.Coordinators().Patch(t.Context(), "default", types.MergePatchType, patch, metav1.PatchOptions{}))
	}
	for _, name := range []string{"a", "b", "default"} {
		eventually(t, func() string { return s.says(t, name, s.synced()) })
	}
	for _, source := range sources {
		if n := s.count("GET " + source); n != 1 {
			t.Errorf("%s is read %d times, want once", source, n)
		}
	}
}
