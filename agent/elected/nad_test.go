package elected_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/holdfast-ipam/holdfast/agent/elected"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"sigs.k8s.io/yaml"
)

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

func TestNetworkRendersAs(t *testing.T) {
	for _, test := range []struct {
		name, spec string
		plugins    string
		resource   string
	}{
		{
			name:    "macvlan-ens192", // the one of statefulset.md
			spec:    `{cniType: macvlan, enableCoordinator: true, macvlan: {master: [ens192]}}`,
			plugins: `{"type":"macvlan","master":"ens192","mode":"bridge","mtu":0,"ipam":{"type":"spiderpool"}},` + coordinator,
		}, {
			name: "m100",
			spec: `{cniType: macvlan, enableCoordinator: false, macvlan: {master: [ens192], vlanID: 100, ippools: {ipv4: [p4], ipv6: [p6]}}}`,
			plugins: `{"vlanID":100,"type":"ifacer","interfaces":["ens192"]},` +
				`{"type":"macvlan","master":"ens192.100","mode":"bridge","mtu":0,"ipam":{"type":"spiderpool","default_ipv4_ippool":["p4"],"default_ipv6_ippool":["p6"]}}`,
		}, {
			name: "b",
			spec: `{cniType: macvlan, macvlan: {master: [e1, e2], vlanID: 100, bond: {name: bond0, mode: 1}}}`,
			plugins: `{"vlanID":100,"type":"ifacer","interfaces":["e1","e2"],"bond":{"name":"bond0","mode":1,"options":""}},` +
				`{"type":"macvlan","master":"bond0.100","mode":"bridge","mtu":0,"ipam":{"type":"spiderpool"}},` + coordinator,
		}, {
			name: "bond-only",
			spec: `{cniType: ipvlan, enableCoordinator: false, ipvlan: {master: [e1, e2], mtu: 9000, bond: {name: bond0, mode: 4, options: "miimon=100"}}}`,
			plugins: `{"type":"ifacer","interfaces":["e1","e2"],"bond":{"name":"bond0","mode":4,"options":"miimon=100"}},` +
				`{"type":"ipvlan","master":"bond0","mtu":9000,"ipam":{"type":"spiderpool"}}`,
		}, {
			name:    "i",
			spec:    `{cniType: ipvlan, ipvlan: {master: [ens192]}}`,
			plugins: `{"type":"ipvlan","master":"ens192","mtu":0,"ipam":{"type":"spiderpool"}},` + coordinator,
		}, {
			name:    "without-addresses",
			spec:    `{cniType: macvlan, disableIPAM: true, macvlan: {master: [ens192]}}`,
			plugins: `{"type":"macvlan","master":"ens192","mode":"bridge","mtu":0},` + coordinator,
		}, {
			name: "chained",
			spec: `{cniType: macvlan, chainCNIJsonData: ['{ "type": "sbr" }'], macvlan: {master: [ens192]}}`,
			plugins: `{"type":"macvlan","master":"ens192","mode":"bridge","mtu":0,"ipam":{"type":"spiderpool"}},` +
				`{"type":"sbr"},` + coordinator,
		}, {
			name: "own-coordinator",
			spec: `{cniType: macvlan, macvlan: {master: [ens192]}, coordinator: {mode: underlay, tunePodRoutes: false, txQueueLen: 10,
				hostRuleTable: 600, podRPFilter: 2, hijackCIDR: [169.254.0.0/16], podDefaultRouteNIC: eth0, vethMTU: 1400}}`,
			plugins: `{"type":"macvlan","master":"ens192","mode":"bridge","mtu":0,"ipam":{"type":"spiderpool"}},` +
				`{"txQueueLen":10,"tunePodRoutes":false,"podDefaultRouteNic":"eth0","hijackCIDR":["169.254.0.0/16"],"vethMTU":1400,"mode":"underlay","type":"coordinator"}`,
		}, {
			name: "v",
			spec: `{cniType: vlan, vlan: {master: [ens192], vlanID: 100}}`,
			plugins: `{"type":"vlan","master":"ens192","vlanMode":"manual","vlanId":100,"mtu":0,"ipam":{"type":"spiderpool"}},` +
				coordinator,
		}, {
			name:    "v-auto",
			spec:    `{cniType: vlan, vlan: {master: [ens192], vlanMode: auto}}`,
			plugins: `{"type":"vlan","master":"ens192","vlanMode":"auto","mtu":0,"ipam":{"type":"spiderpool"}},` + coordinator,
		}, {
			name: "s",
			spec: `{cniType: sriov, sriov: {resourceName: spidernet.io/sriov1, vlanID: 100, rdmaIsolation: true, mtu: 8000}}`,
			plugins: `{"vlan":100,"min_tx_rate":0,"max_tx_rate":0,"type":"sriov","ipam":{"type":"spiderpool"}},{"type":"rdma"},` +
				coordinator + `,{"type":"tuning","mtu":8000}`,
			resource: "spidernet.io/sriov1",
		}, {
			name: "ib",
			spec: `{cniType: ib-sriov, ibsriov: {resourceName: spidernet.io/ib1}}`,
			plugins: `{"type":"ib-sriov","pkey":"","link_state":"enable","rdmaIsolation":true,"ibKubernetesEnabled":false,"ipam":{"type":"spiderpool"}},` +
				coordinator,
			resource: "spidernet.io/ib1",
		}, {
			name:    "ipoib",
			spec:    `{cniType: ipoib, enableCoordinator: false, ipoib: {master: ib0}}`,
			plugins: `{"type":"ipoib","master":"ib0","ipam":{"type":"spiderpool"}}`,
		}, {
			name:    "o",
			spec:    `{cniType: ovs, ovs: {bridge: br1, trunk: [{minID: 42, maxID: 50}]}}`,
			plugins: `{"vlan":0,"type":"ovs","bridge":"br1","ipam":{"type":"spiderpool"},"trunk":[{"minID":42,"maxID":50}]},` + coordinator,
		}, {
			name:     "o-device",
			spec:     `{cniType: ovs, enableCoordinator: false, ovs: {bridge: br1, vlan: 7, deviceID: "0000:03:00.0"}}`,
			plugins:  `{"vlan":7,"type":"ovs","bridge":"br1","deviceID":"0000:03:00.0","ipam":{"type":"spiderpool"}}`,
			resource: "ovs-cni.network.kubevirt.io/br1",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := elected.Render(multusConfig(t, test.name, test.spec))
			if err != nil {
				t.Fatal(err)
			}
			want := elected.Definition{
				Name:   test.name,
				Config: `{"cniVersion":"0.3.1","name":"` + test.name + `","plugins":[` + test.plugins + `]}`,
			}
			if test.resource != "" {
				want.Annotations = map[string]string{"k8s.v1.cni.cncf.io/resourceName": test.resource}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("rendered (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCustomNetworkIsTakenVerbatim(t *testing.T) {
	for _, config := range []string{``, `{ "cniVersion": "1.0.0", "name": "x", "type": "bridge" }`} {
		smc := multusConfig(t, "custom", `{cniType: custom, enableCoordinator: true}`)
		smc.Spec.CustomCNI = config
		got, err := elected.Render(smc)
		if err != nil || got.Config != config {
			t.Errorf("config %q, %v, want %q", got.Config, err, config)
		}
	}
}

func TestAnnotationsChangeNamesAndVersion(t *testing.T) {
	smc := multusConfig(t, "smc", `{cniType: macvlan, enableCoordinator: false, macvlan: {master: [ens192]}}`)
	smc.Annotations = map[string]string{
		"multus.spidernet.io/cr-name":                      "nad",
		"multus.spidernet.io/cni-version":                  "1.0.0",
		"cni.spidernet.io/cniconfig-name":                  "net",
		"team":                                             "storage",
		"kubectl.kubernetes.io/last-applied-configuration": "{}",
	}
	got, err := elected.Render(smc)
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "nad" || !strings.HasPrefix(got.Config, `{"cniVersion":"1.0.0","name":"net",`) {
		t.Errorf("name %q, config %s", got.Name, got.Config)
	}
	if got.Annotations["team"] != "storage" || len(got.Annotations) != 4 || len(smc.Annotations) != 5 {
		t.Errorf("annotations %v", got.Annotations)
	}
}

func TestWrongNetworkIsRefusedWithAdvice(t *testing.T) {
	for _, test := range []struct{ spec, advice string }{
		{`{cniType: macvlan}`, "spec.macvlan is missing"},
		{`{cniType: macvlan, macvlan: {master: []}}`, "name the node's interface"},
		{`{cniType: macvlan, macvlan: {master: [a, b]}}`, "name in spec.macvlan.bond"},
		{`{cniType: macvlan, macvlan: {master: [a]}, ipvlan: {master: [a]}}`, "remove it"},
		{`{cniType: macvlan, macvlan: {master: [a]}, chainCNIJsonData: ['{']}`, "spec.chainCNIJsonData[0]"},
		{`{cniType: custom, customCNI: '{'}`, "spec.customCNI"},
	} {
		if _, err := elected.Render(multusConfig(t, "x", test.spec)); err == nil || !strings.Contains(err.Error(), test.advice) {
			t.Errorf("%s: %v, want an error that says %q", test.spec, err, test.advice)
		}
	}
	smc := multusConfig(t, "x", `{cniType: macvlan, macvlan: {master: [a]}}`)
	smc.Annotations = map[string]string{"multus.spidernet.io/cni-version": "2"}
	if _, err := elected.Render(smc); err == nil || !strings.Contains(err.Error(), "use 0.3.0") {
		t.Errorf("unknown version: %v", err)
	}
}
