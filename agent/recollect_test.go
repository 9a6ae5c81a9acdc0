package agent

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	nadv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

func TestOfTwoAddressesOfALostJournalThePodGoesOnWithItsStatus(t *testing.T) {
	tell := func(ifname, addr string, status, detail bool) recollection {
		r := recollection{entry: lease.Entry{Addr: netip.MustParseAddr(addr), Owner: lease.Owner{PodUID: "u", Interface: ifname}}, status: status}
		if detail {
			r.entry.Detail = json.RawMessage(`{}`)
		}
		return r
	}
	for name, test := range map[string]struct {
		told []recollection
		want []string // those a sandbox may be answered with
	}{
		"they agree":              {[]recollection{tell("eth0", "10.0.0.1", true, true)}, []string{"10.0.0.1"}},
		"they differ":             {[]recollection{tell("eth0", "10.0.0.1", false, true), tell("eth0", "10.0.0.2", true, true)}, []string{"10.0.0.2"}},
		"nothing tells its pool":  {[]recollection{tell("eth0", "10.0.0.1", false, true), tell("eth0", "10.0.0.2", true, false)}, []string{"10.0.0.1"}},
		"another family":          {[]recollection{tell("eth0", "fd00::1", false, true), tell("eth0", "10.0.0.2", true, true)}, []string{"fd00::1", "10.0.0.2"}},
		"another interface":       {[]recollection{tell("net1", "10.0.0.1", false, true), tell("eth0", "10.0.0.2", true, true)}, []string{"10.0.0.1", "10.0.0.2"}},
		"the status has two":      {[]recollection{tell("eth0", "10.0.0.1", true, true), tell("eth0", "10.0.0.2", true, true)}, []string{"10.0.0.1"}},
		"no status to be told of": {[]recollection{tell("eth0", "10.0.0.1", false, true)}, []string{"10.0.0.1"}},
	} {
		preferStatus(test.told)
		var got []string
		for _, r := range test.told {
			if r.entry.Detail != nil {
				got = append(got, r.entry.Addr.String())
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: goes on with %v, want %v", name, got, test.want)
		}
	}
}

// What an earlier sandbox of the pod had on one interface, a later one may have
// on another, and the endpoint may not say so yet.
func TestAddressOfALostJournalIsOnTheInterfaceThatTheStatusTells(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u", Annotations: map[string]string{
		nadv1.NetworkStatusAnnot: `[{"interface":"eth0","default":true,"ips":["10.0.0.1"]},{"interface":"net1","ips":["10.0.0.2"]}]`,
	}}}
	pod.Status.PodIPs = []corev1.PodIP{{IP: "10.0.0.1"}}
	ep := lease.Endpoint{PodUID: "u", Addresses: []lease.EndpointAddress{
		{Interface: "eth0", Addr: netip.MustParseAddr("10.0.0.2"), Detail: json.RawMessage(`{}`)},
	}}
	told := (&Agent{now: time.Now}).collate(pod, ep, func(netip.Addr) json.RawMessage { return json.RawMessage(`{}`) })
	preferStatus(told)
	slices.SortStableFunc(told, worthMore)
	var got []string
	for _, r := range told {
		if r.entry.Detail != nil {
			got = append(got, r.entry.Owner.Interface+" "+r.entry.Addr.String())
		}
	}
	if want := []string{"eth0 10.0.0.1", "net1 10.0.0.2"}; !slices.Equal(got, want) {
		t.Errorf("the pod goes on with %v, want %v", got, want)
	}
	if first := told[1].entry; first.Addr != netip.MustParseAddr("10.0.0.2") || first.Owner.Interface != "net1" {
		t.Errorf("10.0.0.2 is kept for %s, want net1", first.Owner.Interface)
	}
}

// A pod's status names the addresses of its last sandbox until it has another
// one, and by then they may be another pod's.
func TestOfTwoPodsOfALostJournalTheOneThatLostItsSandboxGivesWay(t *testing.T) {
	const addr = "10.0.0.1"
	for name, test := range map[string]struct {
		last   bool
		status bool // the other pod's
		want   string
	}{
		"it has a sandbox":                  {false, false, "first"},
		"it has lost it":                    {true, false, "second"},
		"it has lost it, the other says so": {true, true, "second"},
	} {
		told := []recollection{
			{entry: lease.Entry{Addr: netip.MustParseAddr(addr), Pod: "first"}, status: true, last: test.last, version: "9"},
			{entry: lease.Entry{Addr: netip.MustParseAddr(addr), Pod: "second"}, status: test.status, version: "10"},
		}
		if slices.SortStableFunc(told, worthMore); told[0].entry.Pod != test.want {
			t.Errorf("%s: the %s has the address, want the %s", name, told[0].entry.Pod, test.want)
		}
	}
}

// The address of net1's other family is at another node, from where the next
// ADD takes it over: until then the endpoint is all that leads there.
func TestEndpointOfAPodKeepsTheFamilyThatALostJournalDoesNotTell(t *testing.T) {
	told := func(ifname, addr, container string) lease.Entry {
		return lease.Entry{Addr: netip.MustParseAddr(addr), State: lease.Assigned, Sticky: true, Container: container, Owner: lease.Owner{PodUID: "u", Interface: ifname}}
	}
	old := lease.Endpoint{Sticky: true, Addresses: []lease.EndpointAddress{
		{Interface: "net1", Addr: netip.MustParseAddr("10.0.0.1")}, {Interface: "net1", Addr: netip.MustParseAddr("fd00::1")},
		{Interface: "net2", Addr: netip.MustParseAddr("10.0.0.2")},
	}}
	w := &endpoints{agent: &Agent{}}
	for name, test := range map[string]struct {
		entry lease.Entry
		want  string
	}{
		"a lost journal":               {told("net1", "10.0.0.1", lease.UnknownSandbox), "net1 10.0.0.1, net1 fd00::1, net2 10.0.0.2"},
		"another address of a family":  {told("net1", "10.0.0.9", lease.UnknownSandbox), "net1 10.0.0.9, net1 fd00::1, net2 10.0.0.2"},
		"an ADD that has one family":   {told("net1", "10.0.0.1", "c1"), "net1 10.0.0.1, net2 10.0.0.2"},
		"an ADD of another interface":  {told("net3", "10.0.0.3", "c1"), "net3 10.0.0.3, net1 10.0.0.1, net1 fd00::1, net2 10.0.0.2"},
		"a pod of no StatefulSet's":    {lease.Entry{Addr: netip.MustParseAddr("10.0.0.3"), Owner: lease.Owner{Interface: "net3"}}, "net3 10.0.0.3"},
		"a lost journal, of a v6 only": {told("net1", "fd00::1", lease.UnknownSandbox), "net1 fd00::1, net1 10.0.0.1, net2 10.0.0.2"},
	} {
		var got []string
		for _, a := range w.desired(old, &corev1.Pod{}, []lease.Entry{test.entry}).Addresses {
			got = append(got, a.Interface+" "+a.Addr.String())
		}
		if strings.Join(got, ", ") != test.want {
			t.Errorf("%s: the endpoint names %s, want %s", name, strings.Join(got, ", "), test.want)
		}
	}
}

// Halfway through the DEL of a pod with two families its endpoint names both:
// they are its identity's.
func TestEndpointNamesWhatIsRetainedOfAPodThatHasMore(t *testing.T) {
	entry := func(addr, uid string, state lease.State) lease.Entry {
		return lease.Entry{
			Addr: netip.MustParseAddr(addr), State: state, Sticky: true, Namespace: "default", Pod: "web-0",
			Owner: lease.Owner{PodUID: uid, Interface: "eth0"}, Detail: json.RawMessage(`{}`),
		}
	}
	for name, test := range map[string]struct {
		journal []lease.Entry
		want    []string
	}{
		"both assigned":              {[]lease.Entry{entry("10.0.0.1", "u", lease.Assigned), entry("fd00::1", "u", lease.Assigned)}, []string{"10.0.0.1", "fd00::1"}},
		"one passed over by a DEL":   {[]lease.Entry{entry("10.0.0.1", "u", lease.Assigned), entry("fd00::1", "u", lease.Retained)}, []string{"10.0.0.1", "fd00::1"}},
		"both given back":            {[]lease.Entry{entry("10.0.0.1", "u", lease.Retained), entry("fd00::1", "u", lease.Retained)}, nil},
		"another instead of it":      {[]lease.Entry{entry("10.0.0.1", "u", lease.Assigned), entry("10.0.0.2", "u", lease.Retained)}, []string{"10.0.0.1"}},
		"retained of an earlier pod": {[]lease.Entry{entry("10.0.0.1", "u", lease.Assigned), entry("fd00::1", "earlier", lease.Retained)}, []string{"10.0.0.1"}},
	} {
		disk := leasetest.NewDisk(nil).Open()
		if err := disk.Write(test.journal, nil); err != nil {
			t.Fatal(err)
		}
		l, err := lease.New(lease.Config{Node: lease.Node{Name: "a", UID: "a"}, Cluster: leasetest.NewCluster(nil), Disk: disk, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range (&endpoints{agent: &Agent{lessee: l}}).assigned("u") {
			got = append(got, e.Addr.String())
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: names %v, want %v", name, got, test.want)
		}
	}
}
