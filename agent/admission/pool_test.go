package admission

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

func pool(name, subnet string, ips ...string) *v2beta1.SpiderIPPool {
	return &v2beta1.SpiderIPPool{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v2beta1.IPPoolSpec{Subnet: subnet, IPs: ips},
	}
}

func with(p *v2beta1.SpiderIPPool, change func(*v2beta1.SpiderIPPool)) *v2beta1.SpiderIPPool {
	p = p.DeepCopy()
	change(p)
	return p
}

func deleted(p *v2beta1.SpiderIPPool) {
	p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
}

// told compares errors with what each must say, in order.
func told(t *testing.T, got field.ErrorList, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d errors, want %d: %v", len(got), len(want), got)
		return
	}
	for i, err := range got {
		if !strings.Contains(err.Error(), want[i]) {
			t.Errorf("the error is\n%s\nwant\n%s", err, want[i])
		}
	}
}

func others() []v2beta1.SpiderIPPool {
	return []v2beta1.SpiderIPPool{
		*pool("a", "10.6.0.0/16", "10.6.0.10-10.6.0.20"),
		*with(pool("dying", "10.7.0.0/16", "10.7.0.10-10.7.0.20"), deleted),
		*pool("six", "fd00:6::/112", "fd00:6::10-fd00:6::20"),
		*pool("nonsense", "10.6.0.0/16", "10.6.0.20-10.6.0.1"),
		*pool("worse", "network", "10.6.0.1"),
	}
}

func TestPoolIsRefusedForWhatItSharesWithAnother(t *testing.T) {
	for _, test := range []struct {
		name string
		pool *v2beta1.SpiderIPPool
		want []string
	}{
		{"beside", pool("b", "10.6.0.0/16", "10.6.0.1-10.6.0.9", "10.6.0.21"), nil},
		{"no addresses", pool("b", "10.6.0.0/16"), nil},
		{"another subnet", pool("b", "10.8.0.0/16", "10.8.0.1"), nil},
		{"one address", pool("b", "10.6.0.0/16", "10.6.0.20-10.6.0.30"), []string{
			`spec.ips: Invalid value: "10.6.0.20": is also in pool "a": take it out of one of the two pools, or exclude it there with excludeIPs`}},
		{"a range", pool("b", "10.6.0.0/16", "10.6.0.1-10.6.0.12"), []string{`spec.ips: Invalid value: "10.6.0.10-10.6.0.12": are also in pool "a": take them out`}},
		{"excluded here", with(pool("b", "10.6.0.0/16", "10.6.0.1-10.6.0.12"), func(p *v2beta1.SpiderIPPool) {
			p.Spec.ExcludeIPs = []string{"10.6.0.10-10.6.0.12"}
		}), nil},
		{"many ranges", pool("b", "10.6.0.0/16", "10.6.0.10", "10.6.0.12", "10.6.0.14", "10.6.0.16", "10.6.0.18"), []string{
			`"10.6.0.10, 10.6.0.12, 10.6.0.14 and 2 more": are also in pool "a"`}},
		{"one that is being deleted", pool("b", "10.7.0.0/16", "10.7.0.20"), []string{
			`"10.7.0.20": is also in pool "dying", which is being deleted and goes when its last address is back`}},
		{"smaller subnet", pool("b", "10.6.0.0/24", "10.6.0.1"), []string{
			`spec.subnet: Invalid value: "10.6.0.0/24": overlaps subnet 10.6.0.0/16 of pool "a", and is not the same: pools of one network have one subnet, so use 10.6.0.0/16, or a network beside it`,
			`of pool "nonsense"`}},
		{"larger subnet", pool("b", "10.0.0.0/8", "10.1.0.1"), []string{`of pool "a"`, `of pool "dying"`, `of pool "nonsense"`}},
		{"IPv6", pool("b", "fd00:6::/112", "fd00:6::1f-fd00:6::ffff"), []string{`spec.ips: Invalid value: "fd00:6::1f-fd00:6::20": are also in pool "six"`}},
		{"IPv6, all of a /48", pool("b", "fd00:7::/48", "fd00:7::-fd00:7:0:ffff:ffff:ffff:ffff:ffff"), nil},
		{"itself", pool("a", "10.6.0.0/16", "10.6.0.10-10.6.0.20"), nil},
	} {
		t.Run(test.name, func(t *testing.T) { told(t, Pool(test.pool, nil, others(), Rules{}), test.want...) })
	}
}

func TestPoolIsRefusedForWhatTheSchemaCannotSee(t *testing.T) {
	for _, test := range []struct {
		name  string
		rules Rules
		pool  *v2beta1.SpiderIPPool
		want  string
	}{
		{"IPv6 gateway among ips", Rules{}, with(pool("b", "fd00::/64", "fd00::1-fd00::9"), func(p *v2beta1.SpiderIPPool) { p.Spec.Gateway = "fd00::5" }),
			`spec.gateway: Invalid value: "fd00::5": gateway is among ips`},
		{"IPv6 gateway excluded", Rules{}, with(pool("b", "fd00::/64", "fd00::1-fd00::9"), func(p *v2beta1.SpiderIPPool) {
			p.Spec.Gateway, p.Spec.ExcludeIPs = "fd00::5", []string{"fd00::5"}
		}), ""},
		{"two routes to one network", Rules{}, with(pool("b", "10.8.0.0/16"), func(p *v2beta1.SpiderIPPool) {
			p.Spec.Routes = []v2beta1.Route{{Dst: "10.9.0.0/16", Gw: "10.8.0.1"}, {Dst: "10.9.1.0/16", Gw: "10.8.0.2"}}
		}), `spec.routes[1].dst: Duplicate value: "10.9.1.0/16": another route goes to this network: keep one`},
		{"a label value nobody has", Rules{}, with(pool("b", "10.8.0.0/16"), func(p *v2beta1.SpiderIPPool) {
			p.Spec.PodAffinity = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "not a value"}}
		}), `spec.podAffinity: Invalid value: `},
		{"a label key nobody has", Rules{}, with(pool("b", "10.8.0.0/16"), func(p *v2beta1.SpiderIPPool) {
			p.Spec.NodeAffinity = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a key", Operator: metav1.LabelSelectorOpExists}}}
		}), `spec.nodeAffinity: Invalid value: `},
		{"IPv4 is off", Rules{NoIPv4: true}, pool("b", "10.8.0.0/16"), `spec.ipVersion: Forbidden: IPv4 is switched off in this cluster: set the chart's value ipam.enableIPv4 to true`},
		{"IPv6 is off", Rules{NoIPv6: true}, pool("b", "fd00::/64"), `spec.ipVersion: Forbidden: IPv6 is switched off`},
		{"the other family is off", Rules{NoIPv6: true}, pool("b", "10.8.0.0/16"), ""},
		{"no subnet", Rules{}, pool("b", "10.8.0.0"), `spec.subnet: Invalid value: "10.8.0.0": want a network`},
		{"not in subnet", Rules{}, pool("b", "10.8.0.0/16", "10.9.0.1"), `spec.ips: Invalid value: spec.ips: 10.9.0.1 is not in subnet 10.8.0.0/16`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var want []string
			if test.want != "" {
				want = []string{test.want}
			}
			told(t, Pool(test.pool, nil, others(), test.rules), want...)
		})
	}
}

// TestPoolThatBreaksARuleCanBeRepaired starts from pools that slipped through.
func TestPoolThatBreaksARuleCanBeRepaired(t *testing.T) {
	overlapping := pool("b", "10.6.0.0/16", "10.6.0.1-10.6.0.12")
	inside := pool("b", "10.6.0.0/24", "10.6.0.1-10.6.0.5")
	gateway := with(pool("b", "fd00::/64", "fd00::1-fd00::9"), func(p *v2beta1.SpiderIPPool) { p.Spec.Gateway = "fd00::5" })
	reversed := pool("b", "10.8.0.0/16", "10.8.0.9-10.8.0.1")
	ips := func(ips ...string) func(*v2beta1.SpiderIPPool) {
		return func(p *v2beta1.SpiderIPPool) { p.Spec.IPs = ips }
	}
	for _, test := range []struct {
		name   string
		was    *v2beta1.SpiderIPPool
		change func(*v2beta1.SpiderIPPool)
		rules  Rules
		want   []string
	}{
		{"label", overlapping, func(p *v2beta1.SpiderIPPool) { p.Labels = map[string]string{"a": "b"} }, Rules{}, nil},
		{"disable", overlapping, func(p *v2beta1.SpiderIPPool) { p.Spec.Disable = true }, Rules{}, nil},
		{"shrink the overlap", overlapping, ips("10.6.0.1-10.6.0.11"), Rules{}, nil},
		{"leave the overlap", overlapping, ips("10.6.0.1-10.6.0.9"), Rules{}, nil},
		{"grow beside it", overlapping, ips("10.6.0.1-10.6.0.12", "10.6.0.200"), Rules{}, nil},
		{"grow the overlap", overlapping, ips("10.6.0.1-10.6.0.14"), Rules{}, []string{`spec.ips: Invalid value: "10.6.0.13-10.6.0.14": are also in pool "a"`}},
		{"move the overlap", overlapping, ips("10.6.0.20"), Rules{}, []string{`"10.6.0.20": is also in pool "a"`}},
		{"a subnet that overlaps", inside, ips("10.6.0.1-10.6.0.9"), Rules{}, nil},
		{"a gateway among ips", gateway, func(p *v2beta1.SpiderIPPool) { p.Spec.Disable = true }, Rules{}, nil},
		{"a gateway that leaves them", gateway, func(p *v2beta1.SpiderIPPool) { p.Spec.Gateway = "fd00::ff" }, Rules{}, nil},
		{"another gateway among ips", gateway, func(p *v2beta1.SpiderIPPool) { p.Spec.Gateway = "fd00::6" }, Rules{}, []string{`spec.gateway: Invalid value: "fd00::6"`}},
		{"its family is off", pool("b", "10.8.0.0/16", "10.8.0.1"), ips("10.8.0.2"), Rules{NoIPv4: true}, nil},
		{"a range in order again", reversed, ips("10.8.0.1-10.8.0.9"), Rules{}, nil},
		{"a range still out of order", reversed, func(p *v2beta1.SpiderIPPool) { p.Spec.Disable = true }, Rules{}, nil},
		{"deleted, and then a finalizer less", overlapping, func(p *v2beta1.SpiderIPPool) { deleted(p); p.Finalizers = nil }, Rules{}, nil},
		{"deleted, and then grown", pool("b", "10.6.0.0/16", "10.6.0.1"), func(p *v2beta1.SpiderIPPool) { deleted(p); ips("10.6.0.1-10.6.0.2")(p) }, Rules{}, []string{
			`spec: Forbidden: pool "b" is being deleted and gives out no address any more: wait until its last address is back and create it anew`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			told(t, Pool(with(test.was, test.change), test.was, others(), test.rules), test.want...)
		})
	}
}

func TestDroppedIsWhatPodsCannotHaveAnyMore(t *testing.T) {
	was := pool("b", "10.6.0.0/16", "10.6.0.1-10.6.0.9")
	for _, test := range []struct {
		name string
		is   *v2beta1.SpiderIPPool
		want []string
	}{
		{"nothing", was, nil},
		{"more", pool("b", "10.6.0.0/16", "10.6.0.1-10.6.0.99"), nil},
		{"out of ips", pool("b", "10.6.0.0/16", "10.6.0.1", "10.6.0.5-10.6.0.9"), []string{"10.6.0.2-10.6.0.4"}},
		{"into excludeIPs", with(was, func(p *v2beta1.SpiderIPPool) { p.Spec.ExcludeIPs = []string{"10.6.0.9"} }), []string{"10.6.0.9"}},
		{"all", pool("b", "10.6.0.0/16"), []string{"10.6.0.1-10.6.0.9"}},
		{"nonsense", pool("b", "10.6.0.0/16", "x"), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, v2beta1.FormatRanges(Dropped(test.is, was))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAddressesInUseAreNamedWithTheirPods(t *testing.T) {
	users := map[netip.Addr]string{}
	told(t, inUse(pool("b", "10.6.0.0/16"), users))
	for _, addr := range []string{"10.6.0.9", "10.6.0.10", "10.6.0.11", "10.6.0.12"} {
		users[netip.MustParseAddr(addr)] = "default/web-" + addr[7:]
	}
	told(t, inUse(pool("b", "10.6.0.0/16", "10.6.0.1"), users),
		`spec.ips: Forbidden: pool "b" would lose addresses in use: 10.6.0.9 (pod default/web-9), 10.6.0.10 (pod default/web-10), 10.6.0.11 (pod default/web-11) and 1 more: keep them, or delete these pods`)
	told(t, inUse(pool("b", "10.6.0.0/16", "10.6.0.1-10.6.0.99"), users), `spec.excludeIPs: Forbidden: `)
}

func TestReservedIPKeepsItsFamily(t *testing.T) {
	reserved := func(ips ...string) *v2beta1.SpiderReservedIP {
		return &v2beta1.SpiderReservedIP{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: v2beta1.ReservedIPSpec{IPs: ips}}
	}
	dying := reserved("10.6.0.2")
	dying.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	told(t, ReservedIP(reserved("10.6.0.1"), nil))
	told(t, ReservedIP(reserved("10.6.0.2"), reserved("10.6.0.1")))
	told(t, ReservedIP(reserved("10.6.0.2"), reserved("nonsense")))
	told(t, ReservedIP(reserved("fd00::1"), reserved("10.6.0.1")), `spec.ips: Invalid value: "fd00::1": IPv4 cannot be changed to IPv6: create another SpiderReservedIP for IPv6`)
	told(t, ReservedIP(dying, reserved("10.6.0.1")), `spec: Forbidden: SpiderReservedIP "r" is being deleted`)
	told(t, ReservedIP(dying, reserved("10.6.0.2")))
}

// errRender is what the networks of these tests cannot be rendered for.
var errRender = errors.New("spec.customCNI is not JSON: correct it")

// renderCustom renders what is JSON, in a version that is known.
func renderCustom(smc *v2beta1.SpiderMultusConfig) error {
	if version := smc.Annotations["multus.spidernet.io/cni-version"]; version != "" && version != "1.0.0" {
		return errors.New("annotation multus.spidernet.io/cni-version: CNI version " + version + " is not known: use 1.0.0")
	}
	if name := smc.Annotations[annotationNADName]; name == "No_Name" {
		return errors.New("annotation " + annotationNADName + ": " + name + " cannot be a name")
	}
	if smc.Spec.CustomCNI == "{nonsense}" {
		return errRender
	}
	return nil
}

func network(name string, annotations map[string]string, customCNI string) *v2beta1.SpiderMultusConfig {
	return &v2beta1.SpiderMultusConfig{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: "own", Annotations: annotations},
		Spec:       v2beta1.MultusConfigSpec{CNIType: v2beta1.CNITypeCustom, CustomCNI: customCNI},
	}
}

func named(cr string) map[string]string { return map[string]string{annotationNADName: cr} }

func TestNetworkIsRefusedForItsNameAndWhatCannotBeRendered(t *testing.T) {
	owner := network("owner", nil, "")
	owner.UID = "owner"
	list := []v2beta1.SpiderMultusConfig{*owner, *network("renamed", named("net"), "")}
	controller := true
	owned := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{{UID: "owner", Controller: &controller}}}}
	gone := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{{UID: "gone", Controller: &controller}}}}
	for _, test := range []struct {
		name       string
		is, was    *v2beta1.SpiderMultusConfig
		definition *metav1.PartialObjectMetadata
		want       []string
	}{
		{"fine", network("a", nil, "{}"), nil, nil, nil},
		{"a definition of nobody's is adopted", network("a", nil, ""), nil, &metav1.PartialObjectMetadata{}, nil},
		{"the owner of the definition is gone", network("a", nil, ""), nil, gone, nil},
		{"the definition is another's", network("a", nil, ""), nil, owned, []string{`metadata.name: Duplicate value: "a": the NetworkAttachmentDefinition of this name belongs to SpiderMultusConfig "owner": choose another name`}},
		{"the name will be another's", network("net", nil, ""), nil, nil, []string{`metadata.name: Duplicate value: "net": the NetworkAttachmentDefinition of this name belongs to SpiderMultusConfig "renamed"`}},
		{"cr-name is another's name", network("a", named("owner"), ""), nil, nil, []string{`metadata.annotations[multus.spidernet.io/cr-name]: Duplicate value: "owner"`}},
		{"cr-name is no name", network("a", named("No_Name"), ""), nil, nil, []string{`metadata.annotations[multus.spidernet.io/cr-name]: Invalid value: "No_Name": a lowercase RFC 1123 subdomain`}},
		{"cr-name is added", network("a", named("b"), ""), network("a", nil, ""), nil, []string{`metadata.annotations[multus.spidernet.io/cr-name]: Forbidden: the NetworkAttachmentDefinition of this SpiderMultusConfig is called "a" and keeps the name`}},
		{"cr-name is changed", network("a", named("c"), ""), network("a", named("b"), ""), nil, []string{`create another SpiderMultusConfig for the name "c"`}},
		{"cr-name is removed", network("a", nil, ""), network("a", named("b"), ""), nil, []string{`is called "b" and keeps the name`}},
		{"cr-name says what holds anyway", network("a", named("a"), ""), network("a", nil, ""), nil, nil},
		{"cr-name that is no name is repaired", network("a", named("b"), ""), network("a", named("No_Name"), ""), nil, nil},
		{"cr-name that is another's is repaired", network("a", named("b"), ""), network("a", named("owner"), ""), nil, nil},
		{"cr-name that is another's stays", network("a", named("owner"), "{}"), network("a", named("owner"), ""), owned, nil},
		{"CNI version", network("a", map[string]string{"multus.spidernet.io/cni-version": "9"}, ""), nil, nil, []string{`metadata.annotations[multus.spidernet.io/cni-version]: Invalid value: "9": CNI version 9 is not known: use 1.0.0`}},
		{"no JSON", network("a", nil, "{nonsense}"), nil, nil, []string{`spec.customCNI: Invalid value: spec.customCNI is not JSON: correct it`}},
		{"no JSON before either", network("a", map[string]string{"a": "b"}, "{nonsense}"), network("a", nil, "{nonsense}"), nil, nil},
		{"no JSON any more", network("a", nil, "{nonsense}"), network("a", nil, "{}"), nil, []string{`spec.customCNI: Invalid value`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			told(t, Network(test.is, test.was, list, test.definition, renderCustom), test.want...)
		})
	}
}

func TestDefaultsFollowFromTheRest(t *testing.T) {
	p := pool("b", "10.6.0.0/16", "10.6.0.9", "10.6.0.1-10.6.0.5", "10.6.0.3-10.6.0.8")
	p.Spec.ExcludeIPs = []string{"10.6.0.4", "10.6.0.2"}
	p.Labels = map[string]string{"own": "label"}
	p.Finalizers = []string{"other/finalizer"}
	want := []Operation{
		add("/metadata/labels", map[string]string{"own": "label", v2beta1.LabelSubnet: "10-6-0-0-16"}),
		add("/metadata/finalizers", []string{"other/finalizer", v2beta1.Finalizer}),
		add("/spec/ipVersion", int64(4)),
		add("/spec/ips", []string{"10.6.0.1-10.6.0.9"}),
		add("/spec/excludeIPs", []string{"10.6.0.2", "10.6.0.4"}),
	}
	if diff := cmp.Diff(want, DefaultPool(p)); diff != "" {
		t.Error(diff)
	}
	deleted(p)
	if got := DefaultPool(p); got != nil {
		t.Errorf("a pool on its way out gets %v", got)
	}
	six := int64(6)
	complete := pool("b", "fd00:6::/112", "fd00:6::2-fd00:6::9")
	complete.Spec.IPVersion, complete.Finalizers = &six, []string{v2beta1.Finalizer}
	complete.Labels = map[string]string{v2beta1.LabelSubnet: "fd00-6---112"}
	if got := DefaultPool(complete); got != nil {
		t.Errorf("a pool that has everything gets %v", got)
	}
	reserved := &v2beta1.SpiderReservedIP{Spec: v2beta1.ReservedIPSpec{IPs: []string{"fd00::2", "fd00::1"}}}
	if diff := cmp.Diff([]Operation{add("/spec/ipVersion", int64(6)), add("/spec/ips", []string{"fd00::1-fd00::2"})}, DefaultReservedIP(reserved)); diff != "" {
		t.Error(diff)
	}
	nonsense := pool("b", "x", "10.6.0.2", "10.6.0.x")
	if diff := cmp.Diff([]Operation{add("/metadata/finalizers", []string{v2beta1.Finalizer})}, DefaultPool(nonsense)); diff != "" {
		t.Error(diff)
	}
}
