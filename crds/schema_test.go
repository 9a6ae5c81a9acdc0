package crds_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/crds"
)

// TestAPIServer shows the definitions to a real API server, which alone knows
// what it takes of them: the rules in its expression language, their cost,
// the columns.
func TestAPIServer(t *testing.T) {
	config := apitest.Start(t)
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	clients, err := crds.NewClients(config, httpClient)
	if err != nil {
		t.Fatal(err)
	}
	server := server{
		kinds: map[string]rest.Interface{
			"SpiderIPPool": clients.IPPools().GetClient(), "SpiderReservedIP": clients.ReservedIPs().GetClient(),
			"SpiderMultusConfig": clients.MultusConfigs("default").GetClient(), "SpiderCoordinator": clients.Coordinators().GetClient(),
			"IPBlock": clients.IPBlocks().GetClient(),
		},
	}
	t.Run("TakesWhatIsRight", func(t *testing.T) { takesWhatIsRight(t, server) })
	t.Run("RefusesWithFieldAndRemedy", func(t *testing.T) { refuses(t, server) })
	t.Run("RefusesChanges", func(t *testing.T) { refusesChanges(t, server) })
	t.Run("OrdersIPv6Ranges", func(t *testing.T) { ordersIPv6(t, server) })
	t.Run("TakesTheLongestLists", func(t *testing.T) { takesLongLists(t, server) })
	t.Run("PrintsTheColumnsUsersKnow", func(t *testing.T) { printsColumns(t, server) })
	t.Run("RefusesEndpointsThatNobodyCouldRead", func(t *testing.T) { refusesEndpoints(t, clients) })
	t.Run("FillsDefaultsIn", func(t *testing.T) { fillsDefaults(t, clients) })
}

type server struct{ kinds map[string]rest.Interface }

// request is an object as a user writes it.
type request struct {
	kind, name string
	spec       string // YAML
}

func (r request) path() (group, namespace, plural string) {
	switch plural = strings.ToLower(r.kind) + "s"; r.kind {
	case "IPBlock":
		return "holdfast.dev/v1alpha1", "", plural
	case "SpiderMultusConfig":
		return "spiderpool.spidernet.io/v2beta1", "default", plural
	default:
		return "spiderpool.spidernet.io/v2beta1", "", plural
	}
}

// create sends the object; in a dry run nothing is stored.
func (s server) create(t *testing.T, r request, dryRun bool) error {
	t.Helper()
	var spec map[string]any
	if err := yaml.Unmarshal([]byte(r.spec), &spec); err != nil {
		t.Fatal(err)
	}
	group, namespace, plural := r.path()
	body, err := json.Marshal(map[string]any{
		"apiVersion": group, "kind": r.kind, "metadata": map[string]any{"name": r.name}, "spec": spec,
	})
	if err != nil {
		t.Fatal(err)
	}
	post := s.kinds[r.kind].Post().NamespaceIfScoped(namespace, namespace != "").Resource(plural).Body(body)
	if dryRun {
		post = post.Param("dryRun", metav1.DryRunAll)
	}
	return post.Do(t.Context()).Error()
}

func (s server) patch(t *testing.T, r request, subresource, patch string) error {
	t.Helper()
	_, namespace, plural := r.path()
	return s.kinds[r.kind].Patch(types.MergePatchType).NamespaceIfScoped(namespace, namespace != "").Resource(plural).
		Name(r.name).SubResource(strings.Fields(subresource)...).Body([]byte(patch)).Do(t.Context()).Error()
}

func takesWhatIsRight(t *testing.T, s server) {
	for _, r := range []request{
		{"SpiderIPPool", "a", `{subnet: 10.6.0.0/16}`},
		{"SpiderIPPool", "a", `{subnet: 10.6.0.0/16, ips: [10.6.168.101-10.6.168.110, 10.6.1.1], excludeIPs: [10.6.168.105], gateway: 10.6.0.1, routes: [{dst: 10.7.0.0/16, gw: 10.6.0.2}]}`},
		{"SpiderIPPool", "a", `{subnet: 10.6.0.0/16, ips: [10.6.0.1-10.6.0.9], excludeIPs: [10.6.0.5], gateway: 10.6.0.5}`},
		{"SpiderIPPool", "a", `{subnet: 10.6.0.0/16, gateway: ""}`},
		{"SpiderIPPool", "a", `{subnet: "fd00:6::/112", ipVersion: 6, ips: ["fd00:6::10-fd00:6::20"], gateway: "fd00:6::1"}`},
		{"SpiderIPPool", "a", `{subnet: 10.6.0.0/16, podAffinity: {matchLabels: {a: b}}, nodeAffinity: {matchExpressions: [{key: a, operator: In, values: [b]}, {key: c, operator: Exists}]}, multusName: [kube-system/macvlan-ens192, c]}`},
		{"SpiderReservedIP", "a", `{ips: [10.6.0.1, 10.6.0.3-10.6.0.9]}`},
		{"SpiderCoordinator", "a", `{podCIDRType: auto, hijackCIDR: [169.254.0.0/16, 10.0.0.1], podMACPrefix: "0a:1b", policyRoutes: [{dst: 10.0.0.1, gw: 10.0.0.2}], podRPFilter: -1}`},
		{"SpiderMultusConfig", "a", `{}`},
		{"SpiderMultusConfig", "a", `{cniType: macvlan, enableCoordinator: true, macvlan: {master: [ens192]}}`},
		{"SpiderMultusConfig", "a", `{cniType: macvlan, macvlan: {master: [a, b], bond: {name: bond0, mode: 1}}, customCNI: ""}`},
		{"SpiderMultusConfig", "a", `{cniType: ib-sriov, ibsriov: {resourceName: x}, chainCNIJsonData: [' {"type":"tuning"}']}`},
		{"SpiderMultusConfig", "a", `{cniType: sriov, sriov: {resourceName: x, minTxRateMbps: 3, ippools: {matchMasterSubnet: true}}}`},
		{"SpiderMultusConfig", "a", `{cniType: ib-sriov, ibsriov: {resourceName: x, ippools: {matchMasterSubnet: true}}}`},
		{"IPBlock", "10.6.168.96-28", `{cidr: 10.6.168.96/28, leases: [{node: a, nodeUID: u, addresses: [10.6.168.101]}]}`},
		{"IPBlock", "10.6.168.96-28", `{cidr: 10.6.168.96/28, leases: [{node: a, nodeUID: u, addresses: [10.6.168.96-10.6.168.99, 10.6.168.111]}, {node: b, nodeUID: v, addresses: [10.6.168.100-10.6.168.110]}], pins: [{address: 10.6.168.96, pod: a/b, interface: eth0}]}`},
		{"IPBlock", "fd00-0000-0000-0000-0000-0000-0000-0000-124", `{cidr: "fd00::/124", leases: [{node: a, nodeUID: u, addresses: ["fd00::-fd00::9"]}, {node: b, nodeUID: v, addresses: ["fd00::a-fd00::f"]}]}`},
		{"IPBlock", "fd00-0000-0000-0000-0000-0000-0000-0010-124", `{cidr: "fd00::10/124", leases: [{node: a, nodeUID: u, addresses: ["fd00::10"]}, {node: b, nodeUID: v, addresses: ["fd00::1f"]}]}`},
	} {
		if err := s.create(t, r, true); err != nil {
			t.Errorf("%s %s: %v", r.kind, r.spec, err)
		}
	}
}

func refuses(t *testing.T, s server) {
	for kind, objects := range wrongObjects() {
		for _, o := range objects {
			err := s.create(t, request{kind, o.name, o.spec}, true)
			if err == nil || !strings.Contains(err.Error(), o.want) {
				t.Errorf("%s %s: the error is %v\nwant %s", kind, o.spec, err, o.want)
			}
		}
	}
}

// refusesEndpoints writes SpiderEndpoints by hand. One that agents could not
// read would keep the StatefulSet pod of its name from starting.
func refusesEndpoints(t *testing.T, clients *crds.Clients) {
	const right = `{interface: eth0, ipv4: 10.6.0.1/16, ipv6: "fd00::1/64", ipv4Gateway: 10.6.0.254, ipv6Gateway: "fd00::fe", ipv4Pool: a, ipv6Pool: b}`
	for ip, want := range map[string]string{
		right:                                                      "",
		`{interface: eth0}`:                                        "",
		`{ipv4: 10.6.0.1/16}`:                                      "status.current.ips[0].interface: Required value",
		`{interface: eth0, ipv4: garbage}`:                         `status.current.ips[0].ipv4: Invalid value: "garbage"`,
		`{interface: eth0, ipv4: 10.6.0.1}`:                        `status.current.ips[0].ipv4: Invalid value: "10.6.0.1"`,
		`{interface: eth0, ipv4: 10.6.0.1/33}`:                     `status.current.ips[0].ipv4: Invalid value`,
		`{interface: eth0, ipv6: "fd00::1"}`:                       `status.current.ips[0].ipv6: Invalid value: "fd00::1"`,
		`{interface: eth0, ipv6: "fe80::1%eth0/64"}`:               `status.current.ips[0].ipv6: Invalid value`,
		`{interface: eth0, ipv4: 10.6.0.1/16, ipv4Gateway: gate}`:  `status.current.ips[0].ipv4Gateway: Invalid value: "gate"`,
		`{interface: eth0, ipv6: "fd00::1/64", ipv6Gateway: gate}`: `status.current.ips[0].ipv6Gateway: Invalid value: "gate"`,
		`{interface: eth0, vlan: 4095}`:                            `status.current.ips[0].vlan: Invalid value: 4095`,
	} {
		body, err := yaml.YAMLToJSON([]byte(`{apiVersion: spiderpool.spidernet.io/v2beta1, kind: SpiderEndpoint, metadata: {name: a}, status: {current: {uid: u, node: worker, ips: [` + ip + `]}, ownerControllerType: Pod, ownerControllerName: a}}`))
		if err != nil {
			t.Fatal(err)
		}
		err = clients.Endpoints("default").GetClient().Post().Namespace("default").Resource("spiderendpoints").Param("dryRun", metav1.DryRunAll).Body(body).Do(t.Context()).Error()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v\nwant %q", ip, err, want)
		}
	}
}

func refusesChanges(t *testing.T, s server) {
	for _, test := range []struct {
		request
		patch, want string
	}{
		{request{"SpiderIPPool", "changes", `{subnet: 10.6.0.0/16}`}, `{"spec":{"subnet":"10.7.0.0/16"}}`, "spec.subnet: Invalid value: \"10.7.0.0/16\": subnet cannot be changed: create another pool"},
		{request{"SpiderIPPool", "filled-in", `{subnet: 10.6.0.0/16}`}, `{"spec":{"ipVersion":4}}`, ""},
		{request{"SpiderReservedIP", "changes", `{ips: [10.6.0.1], ipVersion: 4}`}, `{"spec":{"ips":["fd00::1"]}}`, "IPv4 cannot be changed to IPv6"},
		{request{"SpiderReservedIP", "changes-both", `{ips: [10.6.0.1], ipVersion: 4}`}, `{"spec":{"ips":["fd00::1"],"ipVersion":6}}`, "spec.ipVersion: Invalid value: ipVersion cannot be changed: create another"},
		{request{"IPBlock", "10.6.0.0-28", `{cidr: 10.6.0.0/28}`}, `{"spec":{"cidr":"10.6.0.16/28"}}`, "cidr cannot be changed"},
	} {
		if err := s.create(t, test.request, false); err != nil {
			t.Fatal(err)
		}
		err := s.patch(t, test.request, "", test.patch)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %s: the error is %v\nwant %q", test.kind, test.patch, err, test.want)
		}
	}
}

// ordersIPv6 tries the forms an IPv6 address can be written in.
func ordersIPv6(t *testing.T, s server) {
	ascending := []string{
		"fd00::", "FD00:0:0:0:0:0:0:1", "fd00::0009", "fd00::a", "fd00::B", "fd00::10", "fd00::ff", "fd00::ffff", "fd00::1:0",
		"fd00::1:2:3", "fd00:0:0:0:0:1:2:4", "fd00::1:0:0:0", "fd00:0:0:1::", "fd00:0:1:0:0:0:0:0", "fd00:0:ffff:ffff:ffff:ffff:ffff:ffff",
	}
	for i, from := range ascending {
		for j, to := range ascending {
			err := s.create(t, request{"SpiderIPPool", "a", fmt.Sprintf("{subnet: 'fd00::/32', ips: ['%s-%s']}", from, to)}, true)
			if (err == nil) != (i <= j) {
				t.Errorf("%s-%s: the error is %v", from, to, err)
			}
		}
	}
}

// takesLongLists shows that the rules stay within what the API server allows
// them to cost, for every address of its own as well as for ranges.
func takesLongLists(t *testing.T, s server) {
	for subnet, item := range map[string]string{"10.0.0.0/8": "10.%d.%d.1-10.%[1]d.%[2]d.9", "fd00::/32": "fd00::%x:%x:0-fd00::%[1]x:%[2]x:9"} {
		var items []string
		for i := range 2048 {
			items = append(items, fmt.Sprintf("'"+item+"'", i/256, i%256))
		}
		list := "[" + strings.Join(items, ", ") + "]"
		if err := s.create(t, request{"SpiderIPPool", "long", fmt.Sprintf("{subnet: '%s', ips: %s, excludeIPs: %s}", subnet, list, list)}, true); err != nil {
			t.Errorf("%s: %.500s", subnet, err)
		}
	}
}

// table is what the API server gives kubectl to print.
func (s server) table(t *testing.T, kind, namespace string) (columns []string, rows map[string]string) {
	t.Helper()
	_, _, plural := request{kind: kind}.path()
	raw, err := s.kinds[kind].Get().NamespaceIfScoped(namespace, namespace != "").Resource(plural).
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").Do(t.Context()).Raw()
	if err != nil {
		t.Fatal(err)
	}
	var table metav1.Table
	if err := json.Unmarshal(raw, &table); err != nil {
		t.Fatal(err)
	}
	rows = map[string]string{}
	for _, c := range table.ColumnDefinitions {
		if c.Priority == 0 {
			columns = append(columns, strings.ToUpper(c.Name))
		}
	}
	for _, row := range table.Rows {
		var cells []string
		for i, c := range table.ColumnDefinitions {
			if c.Priority == 0 {
				cells = append(cells, fmt.Sprint(row.Cells[i]))
			}
		}
		rows[cells[0]] = strings.Join(cells[1:], " ")
	}
	return columns, rows
}

func printsColumns(t *testing.T, s server) {
	pool := request{"SpiderIPPool", "test-ippool", `{subnet: 10.6.0.0/16, ips: [10.6.168.101-10.6.168.110]}`}
	if err := s.create(t, pool, false); err != nil {
		t.Fatal(err)
	}
	if err := s.patch(t, pool, "", `{"spec":{"ipVersion":4}}`); err != nil {
		t.Fatal(err)
	}
	if err := s.patch(t, pool, "status", `{"status":{"totalIPCount":10,"allocatedIPCount":2}}`); err != nil {
		t.Fatal(err)
	}
	columns, rows := s.table(t, "SpiderIPPool", "")
	if diff := cmp.Diff([]string{"NAME", "VERSION", "SUBNET", "ALLOCATED-IP-COUNT", "TOTAL-IP-COUNT", "DEFAULT"}, columns); diff != "" {
		t.Error(diff)
	}
	if got, want := rows["test-ippool"], "4 10.6.0.0/16 2 10 false"; got != want {
		t.Errorf("the pool prints as %q, want %q", got, want)
	}

	block := request{"IPBlock", "10.6.168.96-28", `{cidr: 10.6.168.96/28, summary: {free: 12, leases: "worker-1:101-104", pins: "101=default/test-sts-0"}}`}
	if err := s.create(t, block, false); err != nil {
		t.Fatal(err)
	}
	columns, rows = s.table(t, "IPBlock", "")
	if diff := cmp.Diff([]string{"NAME", "FREE", "LEASES", "PINS"}, columns); diff != "" {
		t.Error(diff)
	}
	if got, want := rows["10.6.168.96-28"], "12 worker-1:101-104 101=default/test-sts-0"; got != want {
		t.Errorf("the block prints as %q, want %q", got, want)
	}

	coordinator := request{"SpiderCoordinator", "default", `{podCIDRType: auto}`}
	if err := s.create(t, coordinator, false); err != nil {
		t.Fatal(err)
	}
	if err := s.patch(t, coordinator, "status", `{"status":{"phase":"Synced","overlayPodCIDR":["10.244.0.0/16"],"serviceCIDR":["10.96.0.0/12","fd00::/112"]}}`); err != nil {
		t.Fatal(err)
	}
	columns, rows = s.table(t, "SpiderCoordinator", "")
	if diff := cmp.Diff([]string{"NAME", "PHASE", "PODS", "SERVICES", "REASON"}, columns); diff != "" {
		t.Error(diff)
	}
	if got, want := strings.TrimSpace(rows["default"]), `Synced ["10.244.0.0/16"] ["10.96.0.0/12","fd00::/112"]`; !strings.HasPrefix(got, want) {
		t.Errorf("the coordinator prints as %q, want %q", got, want)
	}

	network := request{"SpiderMultusConfig", "macvlan-ens192", `{cniType: macvlan, macvlan: {master: [ens192]}}`}
	if err := s.create(t, network, false); err != nil {
		t.Fatal(err)
	}
	columns, _ = s.table(t, "SpiderMultusConfig", "default")
	if diff := cmp.Diff([]string{"NAME", "AGE"}, columns); diff != "" {
		t.Error(diff)
	}
}

func fillsDefaults(t *testing.T, clients *crds.Clients) {
	pool, err := clients.IPPools().Get(t.Context(), "test-ippool", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if pool.Spec.Default || pool.Spec.Disable || *pool.Status.TotalIPCount != 10 {
		t.Errorf("the pool is %+v", pool)
	}
	network, err := clients.MultusConfigs("default").Get(t.Context(), "macvlan-ens192", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if enabled := network.Spec.EnableCoordinator; enabled == nil || !*enabled || network.Spec.DisableIPAM {
		t.Errorf("the network is %+v", network.Spec)
	}
}

// TestEveryFieldIsExplained walks through the schemas as `kubectl explain`
// does.
func TestEveryFieldIsExplained(t *testing.T) {
	type property struct {
		Description string
		Properties  map[string]json.RawMessage
		Items       json.RawMessage
	}
	var walk func(path string, raw json.RawMessage, described bool)
	walk = func(path string, raw json.RawMessage, described bool) {
		var p property
		if err := json.Unmarshal(raw, &p); err != nil {
			t.Fatal(err)
		}
		if !described && p.Description == "" && !strings.HasSuffix(path, ".metadata") {
			t.Errorf("%s has no description", path)
		}
		for name, child := range p.Properties {
			walk(path+"."+name, child, false)
		}
		if p.Items != nil {
			walk(path+"[]", p.Items, true)
		}
	}
	var seen []string
	err := fs.WalkDir(crds.YAML(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(crds.YAML(), path)
		if err != nil {
			return err
		}
		var definition struct {
			Spec struct {
				Names    struct{ Kind string }
				Versions []struct {
					Schema struct{ OpenAPIV3Schema json.RawMessage }
				}
			}
		}
		if err := yaml.Unmarshal(text, &definition); err != nil {
			return err
		}
		for _, v := range definition.Spec.Versions {
			seen = append(seen, definition.Spec.Names.Kind)
			walk(definition.Spec.Names.Kind, v.Schema.OpenAPIV3Schema, false)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(seen)
	if diff := cmp.Diff([]string{"IPBlock", "SpiderCoordinator", "SpiderEndpoint", "SpiderIPPool", "SpiderMultusConfig", "SpiderReservedIP"}, seen); diff != "" {
		t.Error(diff)
	}
}
