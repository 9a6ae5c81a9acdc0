package elected_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/holdfast-ipam/holdfast/agent/elected"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"sigs.k8s.io/yaml"
)

// What networks are rendered into stands in testdata/nad, and is tried on a
// real API server (multus_test.go): its defaults are part of it.

// coordinator is what a network without coordinator settings chains.
const coordinator = `{"txQueueLen":0,"tunePodRoutes":true,"mode":"auto","type":"coordinator"}`

func multusConfig(t *testing.T, name, spec string) *v2beta1.SpiderMultusConfig {
	t.Helper()
	var smc v2beta1.SpiderMultusConfig
	if err := yaml.UnmarshalStrict([]byte(spec), &smc.Spec); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	smc.Namespace, smc.Name = "kube-system", name
	return &smc
}

// kubectl notes on an object what was applied. On another object, the note
// would be wrong.
func TestKubectlsNoteIsNotCopied(t *testing.T) {
	smc := multusConfig(t, "smc", `{cniType: sriov, sriov: {resourceName: a/b}}`)
	smc.Annotations = map[string]string{"team": "storage", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
	before := maps.Clone(smc.Annotations)
	got, err := elected.Render(smc)
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"team": "storage", "k8s.v1.cni.cncf.io/resourceName": "a/b"}; !maps.Equal(want, got.Annotations) {
		t.Errorf("annotations are %v, want %v", got.Annotations, want)
	}
	if !maps.Equal(before, smc.Annotations) {
		t.Errorf("those of the SpiderMultusConfig are %v now, were %v", smc.Annotations, before)
	}
}

// The schema refuses most of it when it is applied; an object may be older
// than the schema.
func TestWrongNetworkIsRefusedWithTheFieldAndAdvice(t *testing.T) {
	for _, test := range []struct{ spec, field, advice string }{
		{`{cniType: macvlan}`, "spec.macvlan is missing", "a network of type macvlan needs it"},
		{`{cniType: ib-sriov, sriov: {resourceName: a/b}}`, "spec.sriov does not belong to a network of type ib-sriov", "change spec.cniType"},
		{`{cniType: ib-sriov}`, "spec.ibsriov is missing", "needs it"},
		{`{cniType: macvlan, macvlan: {master: [a]}, ipvlan: {master: [a]}}`, "spec.ipvlan does not belong", "remove it"},
		{`{cniType: macvlan, macvlan: {master: [a]}, customCNI: '{"type":"x"}'}`, "spec.customCNI does not belong", "remove it"},
		{`{cniType: custom, ovs: {bridge: a}}`, "spec.ovs does not belong to a network of type custom", "remove it"},
		{`{ipoib: {master: a}}`, "spec.ipoib does not belong to a network of type custom", "change spec.cniType"},
		{`{cniType: bridge}`, `spec.cniType "bridge" is not known`, "use macvlan, ipvlan"},

		{`{cniType: macvlan, macvlan: {master: []}}`, "spec.macvlan.master names no interface", "like ens192"},
		{`{cniType: ipvlan, ipvlan: {master: [a, ""]}}`, "spec.ipvlan.master[1] names no interface", "like ens192"},
		{`{cniType: ipvlan, ipvlan: {master: [a, a], bond: {name: b, mode: 1}}}`, "spec.ipvlan.master[1] names a a second time", "once"},
		{`{cniType: macvlan, macvlan: {master: ["a b"]}}`, `spec.macvlan.master[0] is "a b", which no interface can be called`, "like ens192"},
		{`{cniType: vlan, vlan: {master: [../a]}}`, `spec.vlan.master[0] is "../a"`, "like ens192"},
		{`{cniType: ipoib, ipoib: {master: "ib0\n"}}`, `spec.ipoib.master is "ib0\n"`, "like ib0"},
		{`{cniType: vlan, vlan: {master: [a, b]}}`, "spec.vlan.master names several", "name in spec.vlan.bond the bond"},
		{`{cniType: macvlan, macvlan: {master: [a, b], bond: {name: "", mode: 1}}}`, "spec.macvlan.master names several", "name in spec.macvlan.bond"},
		{`{cniType: macvlan, macvlan: {master: [a], vlanID: 4095}}`, "spec.macvlan.vlanID is 4095", "1 to 4094"},
		{`{cniType: vlan, vlan: {master: [a], vlanID: -1}}`, "spec.vlan.vlanID is -1", "1 to 4094"},
		{`{cniType: macvlan, macvlan: {master: [a], mtu: -1}}`, "spec.macvlan.mtu is -1", "0 to leave it alone"},
		{`{cniType: macvlan, macvlan: {master: [enp130s0f0np0], vlanID: 100}}`, "spec.macvlan cannot be made on a node: the VLAN interface would be enp130s0f0np0.100", "a name of 11 characters"},
		{`{cniType: macvlan, macvlan: {master: [a, b], bond: {name: a-long-bond0, mode: 1}, vlanID: 1000}}`, "would be a-long-bond0.1000", "a name of 10 characters"},
		{`{cniType: macvlan, macvlan: {master: [a, b], bond: {name: b, mode: 1}}}`, "bond.name is b, as is interfaces[1]", "another name"},
		{`{cniType: macvlan, macvlan: {master: [a, b], bond: {name: c, mode: 9}}}`, "spec.macvlan cannot be made on a node: bond.mode is 9", "4 (802.3ad)"},
		{`{cniType: macvlan, macvlan: {master: [a, b], bond: {name: c, mode: 1, options: speed=9}}}`, "bond.options has speed", "known are ad_actor_sys_prio"},
		{`{cniType: vlan, vlan: {master: [a, b], bond: {name: c, mode: 1, options: primary=d}}}`, "spec.vlan cannot be made on a node: bond.options has primary=d", "use one of a, b"},

		{`{cniType: sriov, sriov: {resourceName: ""}}`, "spec.sriov.resourceName is empty", "like spidernet.io/sriov1"},
		{`{cniType: ib-sriov, ibsriov: {resourceName: ""}}`, "spec.ibsriov.resourceName is empty", "like spidernet.io/sriov1"},
		{`{cniType: sriov, sriov: {resourceName: a/b, vlanID: 5000}}`, "spec.sriov.vlanID is 5000", "1 to 4094"},
		{`{cniType: sriov, sriov: {resourceName: a/b, mtu: -1}}`, "spec.sriov.mtu is -1", "0 to leave it alone"},
		{`{cniType: sriov, sriov: {resourceName: a/b, minTxRateMbps: 9, maxTxRateMbps: 8}}`, "spec.sriov.minTxRateMbps is 9, above maxTxRateMbps 8", "lower it"},
		{`{cniType: sriov, sriov: {resourceName: a/b, minTxRateMbps: -1}}`, "spec.sriov.minTxRateMbps", "0 for no bound"},
		{`{cniType: ipoib, ipoib: {master: ""}}`, "spec.ipoib.master names no interface", "like ib0"},
		{`{cniType: ovs, ovs: {bridge: ""}}`, "spec.ovs.bridge is empty", "like br1"},
		{`{cniType: ovs, ovs: {bridge: a, vlan: 4095}}`, "spec.ovs.vlan is 4095", "1 to 4094"},
		{`{cniType: ovs, ovs: {bridge: a, trunk: [{id: 1}, {id: 4095}]}}`, "spec.ovs.trunk[1] has VLAN 4095", "up to 4094"},
		{`{cniType: ovs, ovs: {bridge: a, trunk: [{minID: 9, maxID: 8}]}}`, "spec.ovs.trunk[0].minID is 9, above maxID 8", "lower it"},

		{`{cniType: macvlan, macvlan: {master: [a]}, chainCNIJsonData: ['{']}`, "spec.chainCNIJsonData[0]", `like {"type":"tuning"`},
		{`{cniType: macvlan, macvlan: {master: [a]}, chainCNIJsonData: ['{"type":"sbr"}', '{"mtu":1}']}`, "spec.chainCNIJsonData[1]", `like {"type":"tuning"`},
		{`{cniType: macvlan, macvlan: {master: [a]}, chainCNIJsonData: ['[{"type":"sbr"}]']}`, "spec.chainCNIJsonData[0]", "one plugin"},
		{`{cniType: custom, customCNI: '{'}`, "spec.customCNI is not a CNI configuration in JSON", "correct it"},
		{`{cniType: custom, customCNI: '"macvlan"'}`, "spec.customCNI is not a CNI configuration in JSON", "correct it"},
		{`{cniType: custom, customCNI: '{"name":"x"}'}`, "spec.customCNI names no plugin", `like {"type":"bridge"}`},
		{`{cniType: custom, customCNI: '{"name":"a b","type":"x"}'}`, `spec.customCNI: name "a b" cannot be the name of a CNI network`, "use letters, digits"},
		{`{cniType: custom, customCNI: '{"plugins":[{"type":"a"},{}]}'}`, "spec.customCNI has no type in plugins[1]", `like {"type":"bridge"}`},
	} {
		got, err := elected.Render(multusConfig(t, "x", test.spec))
		if err == nil || !strings.Contains(err.Error(), test.field) || !strings.Contains(err.Error(), test.advice) {
			t.Errorf("%s\nis told %v\nwant %q and the advice %q", test.spec, err, test.field, test.advice)
		}
		if got.Name != "" || got.Config != "" || got.Annotations != nil {
			t.Errorf("%s is refused and rendered into %+v", test.spec, got)
		}
	}
}

func TestWrongAnnotationIsRefusedWithAdvice(t *testing.T) {
	for _, test := range []struct{ key, value, advice string }{
		{"multus.spidernet.io/cni-version", "2", `"2" is not known: use 0.3.0`},
		{"multus.spidernet.io/cni-version", "0.3", "use 0.3.0, 0.3.1"},
		{"multus.spidernet.io/cr-name", "Upper_case", `"Upper_case" cannot be the name`},
		{"multus.spidernet.io/cr-name", "a/b", "use lower-case letters"},
		{"multus.spidernet.io/cr-name", "-", "like macvlan-ens192"},
		{"cni.spidernet.io/cniconfig-name", `a b"c`, `"a b\"c" cannot be the name of a CNI network`},
		{"cni.spidernet.io/cniconfig-name", "-a", "begin with a letter or digit"},
	} {
		for _, spec := range []string{`{cniType: macvlan, macvlan: {master: [a]}}`, `{cniType: custom}`} {
			smc := multusConfig(t, "x", spec)
			smc.Annotations = map[string]string{test.key: test.value}
			_, err := elected.Render(smc)
			if err == nil || !strings.Contains(err.Error(), "annotation "+test.key) || !strings.Contains(err.Error(), test.advice) {
				t.Errorf("%s: %s: %q is told %v, want %q", spec, test.key, test.value, err, test.advice)
			}
		}
	}
}
