package selection

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// stock is the pools of a test, by name. It fails the test if a selection
// that can do without reads all of them.
type stock struct {
	t      *testing.T
	byName map[string]*v2beta1.SpiderIPPool
	noList bool
}

func (s stock) Get(name string) (*v2beta1.SpiderIPPool, bool) {
	pool, ok := s.byName[name]
	return pool, ok
}

func (s stock) List() []*v2beta1.SpiderIPPool {
	if s.noList {
		s.t.Error("all pools were read")
	}
	return slices.Collect(maps.Values(s.byName))
}

// newStock has the pools a and b (IPv4), a6 (IPv6), and those given.
func newStock(t *testing.T, more ...*v2beta1.SpiderIPPool) stock {
	s := stock{t: t, byName: map[string]*v2beta1.SpiderIPPool{}}
	for _, pool := range append(more, pool4("a"), pool4("b"), pool6("a6")) {
		if s.byName[pool.Name] == nil {
			s.byName[pool.Name] = pool
		}
	}
	return s
}

func pool4(name string, change ...func(*v2beta1.SpiderIPPool)) *v2beta1.SpiderIPPool {
	p := &v2beta1.SpiderIPPool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v2beta1.IPPoolSpec{Subnet: "10.6.0.0/16"}}
	for _, c := range change {
		c(p)
	}
	return p
}

func pool6(name string, change ...func(*v2beta1.SpiderIPPool)) *v2beta1.SpiderIPPool {
	p := pool4(name, change...)
	p.Spec.Subnet = "fd00:6::/112"
	return p
}

func isDefault(p *v2beta1.SpiderIPPool) { p.Spec.Default = true }

func matching(key, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

// newInput is eth0 of a pod of namespace shop on worker-1, in a cluster with
// both IP versions.
func newInput(t *testing.T, more ...*v2beta1.SpiderIPPool) Input {
	return Input{
		Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web-0", Labels: map[string]string{"app": "web"}, Annotations: map[string]string{},
		}},
		Namespace: &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Name: "shop", Labels: map[string]string{"team": "sales"}, Annotations: map[string]string{},
		}},
		Node:       &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "worker-1", Labels: map[string]string{"zone": "z1"}}},
		Interface:  "eth0",
		Pools:      newStock(t, more...),
		EnableIPv4: true, EnableIPv6: true,
		InstallNamespace: "holdfast",
	}
}

func poolNames(pools []*v2beta1.SpiderIPPool) string {
	var names []string
	for _, p := range pools {
		names = append(names, p.Name)
	}
	return strings.Join(names, " ")
}

// checkNames compares the names chosen, "IPv4 names/IPv6 names".
func checkNames(t *testing.T, in Input, want string) Selection {
	t.Helper()
	s, err := Select(in)
	if err != nil {
		t.Fatal(err)
	}
	if got := poolNames(s.IPv4) + "/" + poolNames(s.IPv6); got != want {
		t.Errorf("chosen are %q, want %q", got, want)
	}
	return s
}

func TestFirstThatNamesPoolsDecides(t *testing.T) {
	in := newInput(t, pool4("e", isDefault), pool6("e6", isDefault), pool4("c"), pool4("d"))
	checkNames(t, in, "e/e6")
	in.DefaultIPv4 = []string{"d"}
	checkNames(t, in, "d/")
	in.Namespace.Annotations[NamespaceIPv4Annotation] = `["c"]`
	checkNames(t, in, "c/")
	in.Pod.Annotations[PoolAnnotation] = `{"ipv4":["b"]}`
	checkNames(t, in, "b/")
	in.Pod.Annotations[PoolListAnnotation] = `[{"ipv4":["a"],"ipv6":["a6"]}]`
	checkNames(t, in, "a/a6")
}

func TestPoolsThatDoNotFitAreNotReplacedByAnother(t *testing.T) {
	in := newInput(t, pool4("shut", func(p *v2beta1.SpiderIPPool) { p.Spec.Disable = true }), pool4("e", isDefault))
	in.Pod.Annotations[PoolAnnotation] = `{"ipv4":["shut"]}`
	_, err := Select(in)
	var refused *RefusedError
	if !errors.As(err, &refused) {
		t.Fatalf("the error is %v", err)
	}
	want := &RefusedError{Version: 4, From: "annotation ipam.spidernet.io/ippool of the pod", Refused: []Refusal{{Pool: "shut", Reason: "is disabled (spec.disable)"}}}
	if diff := cmp.Diff(want, refused); diff != "" {
		t.Error(diff)
	}
}

func TestOrderIsAsWritten(t *testing.T) {
	in := newInput(t, pool4("close", func(p *v2beta1.SpiderIPPool) { p.Spec.PodAffinity = matching("app", "web") }))
	in.Pod.Annotations[PoolAnnotation] = `{"ipv4":["b","close","a"],"ipv6":["a6"]}`
	checkNames(t, in, "b close a/a6")
}

func TestDefaultPoolsBoundCloserComeFirst(t *testing.T) {
	bound := func(bind func(*v2beta1.IPPoolSpec)) func(*v2beta1.SpiderIPPool) {
		return func(p *v2beta1.SpiderIPPool) { p.Spec.Default = true; bind(&p.Spec) }
	}
	in := newInput(t,
		pool4("a", isDefault), pool4("b", isDefault),
		pool4("c-multus", bound(func(s *v2beta1.IPPoolSpec) { s.MultusName = []string{"kube-system/macvlan"} })),
		pool4("d-namespace-labels", bound(func(s *v2beta1.IPPoolSpec) { s.NamespaceAffinity = matching("team", "sales") })),
		pool4("e-namespace", bound(func(s *v2beta1.IPPoolSpec) { s.NamespaceName = []string{"shop"} })),
		pool4("f-node-labels", bound(func(s *v2beta1.IPPoolSpec) { s.NodeAffinity = matching("zone", "z1") })),
		pool4("g-node", bound(func(s *v2beta1.IPPoolSpec) { s.NodeName = []string{"worker-1"} })),
		pool4("h-pod", bound(func(s *v2beta1.IPPoolSpec) { s.PodAffinity = matching("app", "web") })),
		pool4("i-pod-node", bound(func(s *v2beta1.IPPoolSpec) {
			s.PodAffinity, s.NodeName = matching("app", "web"), []string{"worker-1"}
		})),
		pool4("j-other-node", bound(func(s *v2beta1.IPPoolSpec) { s.NodeName = []string{"worker-2"} })),
	)
	in.ClusterNetwork = "kube-system/macvlan"
	s := checkNames(t, in, "i-pod-node h-pod g-node f-node-labels e-namespace d-namespace-labels c-multus a b/")
	if diff := cmp.Diff([]Refusal{{Pool: "j-other-node", Reason: "is not for node worker-1 (spec.nodeName)"}}, s.Refused); diff != "" {
		t.Error(diff)
	}
}

func TestWildcardStandsForMatchingPoolsOfItsVersionByName(t *testing.T) {
	in := newInput(t, pool4("shop-2"), pool4("shop-1"), pool6("shop-3"), pool4("other"))
	in.Pod.Annotations[PoolAnnotation] = `{"ipv4":["shop-2","shop-*","?"]}`
	checkNames(t, in, "shop-2 shop-1 a b/")
	in.Pod.Annotations[PoolAnnotation] = `{"ipv6":["shop-[0-9]"]}`
	checkNames(t, in, "/shop-3")
}

func TestNamedPoolsAreLookedUpOneByOne(t *testing.T) {
	in := newInput(t)
	in.Pools = stock{t: t, byName: newStock(t).byName, noList: true}
	in.Pod.Annotations[PoolAnnotation] = `{"ipv4":["a"],"ipv6":["a6"]}`
	checkNames(t, in, "a/a6")
}

func TestVersionSwitchedOffIsPassedOver(t *testing.T) {
	in := newInput(t, pool4("e", isDefault), pool6("e6", isDefault))
	in.EnableIPv6 = false
	checkNames(t, in, "e/")
	in.Pod.Annotations[PoolAnnotation] = `{"ipv4":["a"],"ipv6":["no such pool"]}`
	checkNames(t, in, "a/")
	in.Pod.Annotations[PoolAnnotation] = `{"ipv6":["a6"]}`
	if _, err := Select(in); err == nil || !strings.Contains(err.Error(), "switched off") {
		t.Errorf("the error is %v", err)
	}
}

func TestEachVersionNamedMustHaveAPoolThatFits(t *testing.T) {
	in := newInput(t, pool6("shut", func(p *v2beta1.SpiderIPPool) { p.Spec.Disable = true }))
	in.Pod.Annotations[PoolAnnotation] = `{"ipv4":["a"],"ipv6":["shut"]}`
	var refused *RefusedError
	if _, err := Select(in); !errors.As(err, &refused) || refused.Version != 6 {
		t.Errorf("the error is %v", err)
	}
}

func TestPoolIsRefusedWithItsReason(t *testing.T) {
	now := metav1.Now()
	selector := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Near"}}}
	for reason, change := range map[string]func(*v2beta1.SpiderIPPool){
		"is being deleted":                                                        func(p *v2beta1.SpiderIPPool) { p.DeletionTimestamp = &now },
		"is disabled (spec.disable)":                                              func(p *v2beta1.SpiderIPPool) { p.Spec.Disable = true },
		"is an IPv6 pool (spec.subnet is fd00::/64)":                              func(p *v2beta1.SpiderIPPool) { p.Spec.Subnet = "fd00::/64" },
		`has no usable subnet (spec.subnet is "10.6.0.1")`:                        func(p *v2beta1.SpiderIPPool) { p.Spec.Subnet = "10.6.0.1" },
		"is not for node worker-1 (spec.nodeName)":                                func(p *v2beta1.SpiderIPPool) { p.Spec.NodeName = []string{"worker-2"} },
		"is not for node worker-1, whose labels do not match (spec.nodeAffinity)": func(p *v2beta1.SpiderIPPool) { p.Spec.NodeAffinity = matching("zone", "z2") },
		"is not for namespace shop (spec.namespaceName)":                          func(p *v2beta1.SpiderIPPool) { p.Spec.NamespaceName = []string{"bank"} },
		"is not for namespace shop, whose labels do not match (spec.namespaceAffinity)": func(p *v2beta1.SpiderIPPool) {
			p.Spec.NamespaceAffinity = matching("team", "it")
		},
		"is not for pod web-0, whose labels do not match (spec.podAffinity)": func(p *v2beta1.SpiderIPPool) { p.Spec.PodAffinity = matching("app", "db") },
		`has a spec.podAffinity that makes no sense`:                         func(p *v2beta1.SpiderIPPool) { p.Spec.PodAffinity = selector },
		"is not for network kube-system/vlan (spec.multusName)":              func(p *v2beta1.SpiderIPPool) { p.Spec.MultusName = []string{"vlan"} },
	} {
		in := newInput(t, pool4("p", change))
		in.ClusterNetwork = "kube-system/vlan"
		in.Pod.Annotations[PoolAnnotation] = `{"ipv4":["p"]}`
		_, err := Select(in)
		want := "no IPv4 pool fits, of those named by annotation ipam.spidernet.io/ippool of the pod: pool p " + reason
		if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), ": correct what is in the way, or name a pool that fits") {
			t.Errorf("the error is %v\nwant %s", err, want)
		}
	}
}

func TestNamesGoBeforeLabelsInAPool(t *testing.T) {
	in := newInput(t, pool4("p", func(p *v2beta1.SpiderIPPool) {
		p.Spec.NodeName, p.Spec.NodeAffinity = []string{"worker-1"}, matching("zone", "z2")
		p.Spec.NamespaceName, p.Spec.NamespaceAffinity = []string{"shop"}, matching("team", "it")
	}))
	in.Pod.Annotations[PoolAnnotation] = `{"ipv4":["p"]}`
	checkNames(t, in, "p/")
}

func TestNobodyNamesAPool(t *testing.T) {
	_, err := Select(newInput(t))
	if !errors.Is(err, ErrNoRule) || !strings.Contains(err.Error(), "no pool selection rules") {
		t.Errorf("the error is %v", err)
	}
}

func TestPoolOfANetworkIsForItsInterfaces(t *testing.T) {
	only := func(names ...string) func(*v2beta1.SpiderIPPool) {
		return func(p *v2beta1.SpiderIPPool) { p.Spec.MultusName = names }
	}
	for name, test := range map[string]struct {
		multusName       string
		ifname           string
		first, further   string
		cluster, refusal string
	}{
		"the pod names it":                  {multusName: "kube-system/m", ifname: "eth0", first: "kube-system/m"},
		"the pod names it with interface":   {multusName: "kube-system/m", ifname: "eth0", first: "kube-system/m@eth0"},
		"the pod names it in JSON":          {multusName: "kube-system/m", ifname: "eth0", first: `[{"name":"m","namespace":"kube-system"}]`},
		"the pod names it as one object":    {multusName: "kube-system/m", ifname: "eth0", first: `{"name":"m","namespace":"kube-system"}`},
		"Multus's own namespace":            {multusName: "kube-system/m", ifname: "eth0", first: "m"},
		"the cluster's network":             {multusName: "net/m", ifname: "eth0", cluster: "net/m"},
		"the pod goes before the cluster":   {multusName: "net/m", ifname: "eth0", first: "kube-system/m", cluster: "net/m", refusal: "is not for network kube-system/m"},
		"without namespace it is our own":   {multusName: "m", ifname: "eth0", first: "holdfast/m"},
		"the first further one":             {multusName: "shop/m", ifname: "net1", further: "m, n"},
		"the second further one":            {multusName: "shop/n", ifname: "net2", further: "m,n"},
		"a further one with interface":      {multusName: "x/m", ifname: "lan", further: "n,x/m@lan"},
		"a further one in JSON":             {multusName: "x/m", ifname: "lan", further: `[{"name":"n"},{"name":"m","namespace":"x","interface":"lan"}]`},
		"another one":                       {multusName: "shop/n", ifname: "net1", further: "m,n", refusal: "is not for network shop/m"},
		"a network nobody names":            {multusName: "shop/m", ifname: "eth0", refusal: "name it in the pod's annotation v1.multus-cni.io/default-network"},
		"two networks for one interface":    {multusName: "shop/m", ifname: "eth0", first: "m,n", refusal: "names 2 networks: name one"},
		"a further one that is not there":   {multusName: "shop/m", ifname: "net3", further: "m,n", refusal: "has none for it"},
		"an annotation that is no JSON":     {multusName: "shop/m", ifname: "net1", further: "[m", refusal: "has an invalid format"},
		"an annotation with a nameless one": {multusName: "shop/m", ifname: "net1", further: "m,", refusal: "element 2 has no name"},
	} {
		t.Run(name, func(t *testing.T) {
			in := newInput(t, pool4("p", only(test.multusName)))
			in.Interface, in.ClusterNetwork = test.ifname, test.cluster
			in.Pod.Annotations[PoolAnnotation] = `{"ipv4":["p"]}`
			if test.first != "" {
				in.Pod.Annotations[defaultNetworkAnnotation] = test.first
			}
			if test.further != "" {
				in.Pod.Annotations[networksAnnotation] = test.further
			}
			if test.refusal == "" {
				checkNames(t, in, "p/")
				return
			}
			if _, err := Select(in); err == nil || !strings.Contains(err.Error(), test.refusal) {
				t.Errorf("the error is %v, want %q", err, test.refusal)
			}
		})
	}
}

func TestPoolIsOfASubnetOfTheMaster(t *testing.T) {
	in := newInput(t,
		pool4("rail-1", func(p *v2beta1.SpiderIPPool) { p.Spec.Subnet = "10.1.0.0/16" }),
		pool4("rail-2", func(p *v2beta1.SpiderIPPool) { p.Spec.Subnet = "10.2.0.0/16" }),
		pool4("rail-3", func(p *v2beta1.SpiderIPPool) { p.Spec.Subnet = "fd02::/64" }),
	)
	in.DefaultIPv4, in.DefaultIPv6 = []string{"rail-*"}, []string{"rail-*"}
	for name, test := range map[string]struct {
		addrs []netip.Prefix
		want  string
	}{
		"of both families": {[]netip.Prefix{netip.MustParsePrefix("10.2.0.4/16"), netip.MustParsePrefix("fd02::4/64")}, "rail-2/rail-3"},
		"of two subnets":   {[]netip.Prefix{netip.MustParsePrefix("10.2.0.4/24"), netip.MustParsePrefix("10.1.0.4/24"), netip.MustParsePrefix("fd02::4/64")}, "rail-1 rail-2/rail-3"},
		"of IPv4 only":     {[]netip.Prefix{netip.MustParsePrefix("10.2.0.4/16")}, "no IPv6 pool fits, of those named by default_ipv4_ippool, default_ipv6_ippool of the network's configuration: pool rail-3 is not for master ens1f0, which has 10.2.0.4/16 and nothing in spec.subnet fd02::/64 (match_master_subnet"},
		"of another one":   {[]netip.Prefix{netip.MustParsePrefix("10.3.0.4/16")}, "pool rail-1 is not for master ens1f0, which has 10.3.0.4/16 and nothing in spec.subnet 10.1.0.0/16 (match_master_subnet of the network's configuration); pool rail-2 is not"},
		"of none":          {nil, "which has no address and nothing in spec.subnet"},
	} {
		t.Run(name, func(t *testing.T) {
			in.Master = &Master{Name: "ens1f0", Addresses: test.addrs}
			s, err := Select(in)
			got := poolNames(s.IPv4) + "/" + poolNames(s.IPv6)
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, test.want) {
				t.Errorf("got %s\nwant %s", got, test.want)
			}
		})
	}
	in.Master = nil
	checkNames(t, in, "rail-1 rail-2/rail-3")
}

func TestRefusalsOfManyPoolsAreCutShort(t *testing.T) {
	var pools []*v2beta1.SpiderIPPool
	for i := range 5000 {
		pools = append(pools, pool4(fmt.Sprintf("many-%d", i), func(p *v2beta1.SpiderIPPool) { p.Spec.Disable = true }))
	}
	in := newInput(t, pools...)
	in.Pod.Annotations[PoolAnnotation] = `{"ipv4":["many-*"]}`
	_, err := Select(in)
	if err == nil || strings.Count(err.Error(), "is disabled") != 50 || !strings.Contains(err.Error(), "; and 4950 more pools: correct what is in the way") {
		t.Errorf("the error is %.200v", err)
	}
}
