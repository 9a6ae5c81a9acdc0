package checker

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const said = `
{"namespace": {"path": "/var/run/netns/one", "links": [
  {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "prefixlen": 8, "scope": "host"}]},
  {"ifname": "eth0", "addr_info": [{"local": "10.6.0.1", "prefixlen": 16, "scope": "global"}, {"local": "fe80::1", "prefixlen": 64, "scope": "link"}]}
]}}
{"namespace": {"path": "/var/run/netns/two", "links": []}}
{"sandbox": {"id": "abc", "namespace": "ns", "pod": "web-0", "uid": "pod-0", "path": "/var/run/netns/one"}}
{"sandbox": {"id": "def", "namespace": "kube-system", "pod": "agent", "uid": "pod-a", "path": ""}}
`

func TestNodeIsHeard(t *testing.T) {
	var n Node
	if err := n.hear(said + `{"journal": []}`); err != nil {
		t.Fatal(err)
	}
	want := []Namespace{
		{
			Path: "/var/run/netns/one", Sandbox: "abc", Namespace: "ns", Pod: "web-0", PodUID: "pod-0",
			Addresses: []InterfaceAddress{{"eth0", netip.MustParsePrefix("10.6.0.1/16")}},
		},
		{Path: "/var/run/netns/two"},
	}
	if diff := cmp.Diff(want, n.Namespaces, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Errorf("namespaces (-want +got):\n%s", diff)
	}
	if n.Journal == nil {
		t.Error("an empty journal counts as no answer")
	}
}

func TestSilentJournalIsNotAnEmptyOne(t *testing.T) {
	var n Node
	if err := n.hear(said); err != nil {
		t.Fatal(err)
	}
	if n.Journal != nil {
		t.Errorf("the journal is %v without an answer", n.Journal)
	}
}

func TestNodeThatStammersIsAnError(t *testing.T) {
	for _, text := range []string{`{"namespace"`, said + "no jq here", `{"journal": [{"addr": "10.6.0"}]}`} {
		var n Node
		if err := n.hear(text); err == nil {
			t.Errorf("%q was understood", text)
		}
	}
}
