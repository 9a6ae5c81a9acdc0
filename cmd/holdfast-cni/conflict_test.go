package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"go4.org/netipx"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	holdfast "github.com/holdfast-ipam/holdfast/agent"
	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/cni/nettest"
	"github.com/holdfast-ipam/holdfast/crds"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// cluster is a node with the real agent, detection on, and a real API server.
type cluster struct {
	config *rest.Config
	kube   kubernetes.Interface
	kinds  *crds.Clients
	client *cni.Client
	// metrics is where the agent answers them.
	metrics string
}

// TestDetection runs the plugin against the real agent on links where others
// are.
func TestDetection(t *testing.T) {
	nettest.New(t) // or skip before a server is started for nothing
	c := newCluster(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{
		{"StatelessPodMovesToAddressesNobodyUses", statelessMoves},
		{"StatefulSetPodStaysAndSaysSo", statefulSetStays},
		{"PodWithoutUnusedAddressIsToldWhoUsesThem", allUsed},
		{"ScarcePoolWithoutUnusedAddressSaysBoth", scarceUsed},
		{"PodWithoutGatewayKeepsItsAddress", noGateway},
		{"PodThatHasNoLinkYetGetsItsAddress", noLink},
		{"ReportOfNobodyWhoHoldsTheAddressChangesNothing", badReports},
		{"PodThatAVirtualMachineMovesToIsNotProbedFor", migration},
		{"MacvlanHasItsLinkWhenItAsksForAddresses", realMacvlan},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, c)
		})
	}
}

// wired is a sandbox on a link with a stranger, and an agent that answers on
// the wire: ADD with one address after another, and a report of a conflict with
// status and text.
func wired(t *testing.T, status int, text string) (a *agent, env []string, stranger net.HardwareAddr) {
	t.Helper()
	lan, netns := nettest.NewSwitch(t), nettest.New(t)
	_, stranger = lan.Host(t, prefixes("10.30.0.1/16")...)
	lan.Plug(t, netns, "eth0")
	adds := 0
	a = newAgentFunc(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case cni.PathAdd:
			adds++
			fmt.Fprintf(w, `{"addresses":[{"prefix":"10.30.0.%d/16","pool":"p","enableIPConflictDetection":true}]}`, adds)
		case cni.PathConflict:
			w.WriteHeader(status)
			io.WriteString(w, text)
		}
	})
	return a, environment("ADD", "CNI_NETNS="+netns.Path), stranger
}

func TestConflictIsReportedAndAnotherAddressAskedFor(t *testing.T) {
	t.Parallel()
	agent, env, stranger := wired(t, http.StatusOK, `{"setAside":true}`)
	got := runPlugin(t, "spiderpool", network("1.0.0", agent.socket, "", ""), env...)
	mustSucceed(t, got)
	if !strings.Contains(got.Stdout, "10.30.0.2/16") {
		t.Errorf("it printed %s", got.Stdout)
	}
	add := call{"POST", "/v1/add", `{"containerID":"c0ffee","interface":"eth0","pod":{"namespace":"default","name":"test-sts-0","uid":"u-1"},"network":"lan"}`}
	agent.mustHaveBeenAsked(t, add,
		call{"POST", "/v1/conflict", `{"containerID":"c0ffee","interface":"eth0","pod":{"namespace":"default","name":"test-sts-0","uid":"u-1"},
			"conflicts":[{"address":"10.30.0.1","mac":"` + stranger.String() + `"}]}`}, add)
}

// Whatever becomes of the report, the user is told who has the address.
func TestConflictThatCannotBeReportedFailsTheAdd(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		text   string
	}{
		"an agent that does not know the call": {http.StatusNotFound, "404 page not found\n"},
		"a refusal":                            {http.StatusUnprocessableEntity, `{"code":999,"msg":"no","details":"why"}`},
		"an address that stays":                {http.StatusOK, `{"setAside":false,"reason":"it is mine"}`},
		"no reason":                            {http.StatusOK, `{}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			agent, env, stranger := wired(t, c.status, c.text)
			printed := cniError(t, runPlugin(t, "spiderpool", network("1.0.0", agent.socket, "", ""), env...))
			if !strings.Contains(printed.Msg+printed.Details, "10.30.0.1 is used by "+stranger.String()) {
				t.Errorf("printed %+v", printed)
			}
			if asked := agent.asked(); len(asked) != 2 {
				t.Errorf("the agent was asked %d times, want for addresses and with the report", len(asked))
			}
		})
	}
}

func TestAddressesOfAMissingNamespaceAreNotGivenUnprobed(t *testing.T) {
	t.Parallel()
	agent := newAgent(t, http.StatusOK, `{"addresses":[{"prefix":"10.30.0.1/16","pool":"p","enableIPConflictDetection":true}]}`)
	printed := cniError(t, runPlugin(t, "spiderpool", network("1.0.0", agent.socket, "", ""), environment("ADD")...))
	if printed.Code != types.ErrTryAgainLater || !strings.Contains(printed.Details, "not known whether the addresses are in use") {
		t.Errorf("printed %+v", printed)
	}
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{config: apitest.Start(t)}
	var err error
	if c.kube, err = kubernetes.NewForConfig(c.config); err != nil {
		t.Fatal(err)
	}
	httpClient, err := rest.HTTPClientFor(c.config)
	if err != nil {
		t.Fatal(err)
	}
	if c.kinds, err = crds.NewClients(c.config, httpClient); err != nil {
		t.Fatal(err)
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "worker"}}
	if _, err := c.kube.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.metrics = freeAddress(t)
	options := holdfast.Options{
		NodeName: "worker", Namespace: "kube-system", PodName: "holdfast-worker", Version: "test",
		Socket: socketPath(t), Journal: filepath.Join(t.TempDir(), "journal.db"), HTTPAddress: c.metrics,
	}
	conf := holdfast.DefaultConfig()
	conf.EnableIPConflictDetection, conf.EnableGatewayDetection = true, true
	conf.CoolDown = holdfast.Duration{Duration: time.Second}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- holdfast.Run(ctx, c.config, options, conf, slog.New(slog.NewTextHandler(t.Output(), nil)))
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	c.client = &cni.Client{Socket: options.Socket, Patience: time.Minute}
	for deadline := time.Now().Add(time.Minute); ; <-time.After(20 * time.Millisecond) {
		status, err := c.client.Status(t.Context())
		if err == nil && status.Ready {
			return c
		}
		if time.Now().After(deadline) {
			t.Fatalf("the agent is not ready: %+v, %v", status, err)
		}
	}
}

// freeAddress returns an address to listen on that was free just now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// pool creates a pool.
func (c *cluster) pool(t *testing.T, name string, spec v2beta1.IPPoolSpec) {
	t.Helper()
	pool := &v2beta1.SpiderIPPool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
	if _, err := c.kinds.IPPools().Create(t.Context(), pool, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// testPod is a pod, and the network namespace of its one sandbox after another.
type testPod struct {
	cluster *cluster
	object  *corev1.Pod
	netns   *nettest.Namespace
	tries   int
}

// pod creates a pod that asks for addresses of these pools; change, if any,
// makes it a special one.
func (c *cluster) pod(t *testing.T, name, pools string, change func(*corev1.Pod)) *testPod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Annotations: map[string]string{"ipam.spidernet.io/ippool": pools}},
		Spec:       corev1.PodSpec{NodeName: "worker", Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	if change != nil {
		change(pod)
	}
	pod, err := c.kube.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return &testPod{cluster: c, object: pod, netns: nettest.New(t)}
}

// member makes a pod one of a StatefulSet, which it creates.
func (c *cluster) member(t *testing.T, set string) func(*corev1.Pod) {
	t.Helper()
	labels := map[string]string{"app": set}
	owner, err := c.kube.AppsV1().StatefulSets("default").Create(t.Context(), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: set},
		Spec: appsv1.StatefulSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return func(pod *corev1.Pod) {
		pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(owner, appsv1.SchemeGroupVersion.WithKind("StatefulSet"))}
	}
}

// call runs a verb of the plugin for the pod's sandbox.
func (p *testPod) call(t *testing.T, verb string) outcome {
	t.Helper()
	return runPlugin(t, "spiderpool", network("1.0.0", p.cluster.client.Socket, "", ""), append(p.environment(verb), "CNI_PATH=/opt/cni/bin")...)
}

// environment is what the runtime sets for the pod's sandbox.
func (p *testPod) environment(verb string) []string {
	return []string{
		"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + p.sandbox(), "CNI_IFNAME=eth0", "CNI_NETNS=" + p.netns.Path,
		fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=%s;K8S_POD_UID=%s", p.object.Name, p.object.UID),
	}
}

func (p *testPod) sandbox() string { return fmt.Sprintf("%s-%d", p.object.Name, p.tries) }

// add is an ADD for a new sandbox that must succeed.
func (p *testPod) add(t *testing.T) (addrs []string) {
	t.Helper()
	p.tries++
	got := p.call(t, "ADD")
	mustSucceed(t, got)
	var result struct {
		IPs []struct {
			Address string `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal([]byte(got.Stdout), &result); err != nil {
		t.Fatal(err)
	}
	for _, ip := range result.IPs {
		addrs = append(addrs, ip.Address)
	}
	return addrs
}

// fail is an ADD for a new sandbox that must fail, and the DEL with which a
// runtime answers that.
func (p *testPod) fail(t *testing.T) types.Error {
	t.Helper()
	p.tries++
	got := cniError(t, p.call(t, "ADD"))
	mustSucceed(t, p.call(t, "DEL"))
	return got
}

// says fails the test unless the error has all the words.
func says(t *testing.T, got types.Error, words ...string) {
	t.Helper()
	if got.Code != types.ErrTryAgainLater {
		t.Errorf("the code is %d, want %d", got.Code, types.ErrTryAgainLater)
	}
	for _, word := range append(words, cni.AddFailed) {
		if !strings.Contains(got.Msg+": "+got.Details, word) {
			t.Errorf("the error says %q: %q, and nothing of %q", got.Msg, got.Details, word)
		}
	}
}

// journal returns what the agent's journal has in a range.
func (c *cluster) journal(t *testing.T, in string) (entries []lease.Entry) {
	t.Helper()
	status, body := c.ask(t, http.MethodGet, "/v1/journal", "")
	var all []lease.Entry
	if err := json.Unmarshal(body, &all); err != nil || status != http.StatusOK {
		t.Fatalf("%d %s, %v", status, body, err)
	}
	return slices.DeleteFunc(all, func(e lease.Entry) bool { return !netip.MustParsePrefix(in).Contains(e.Addr) })
}

// ask sends any request to the agent's socket.
func (c *cluster) ask(t *testing.T, method, path, body string) (int, []byte) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.client.Socket)
	}}}
	request, err := http.NewRequestWithContext(t.Context(), method, "http://agent"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, text
}

func prefixes(s ...string) (p []netip.Prefix) {
	for _, s := range s {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

func statelessMoves(t *testing.T, c *cluster) {
	c.pool(t, "moves4", v2beta1.IPPoolSpec{Subnet: "10.20.0.0/16", IPs: v2beta1.Ranges{"10.20.0.1-10.20.0.4"}, Gateway: "10.20.0.254"})
	c.pool(t, "moves6", v2beta1.IPPoolSpec{Subnet: "fd20::/64", IPs: v2beta1.Ranges{"fd20::1-fd20::4"}})
	lan := nettest.NewSwitch(t)
	lan.Host(t, prefixes("10.20.0.254/16")...)
	_, stranger := lan.Host(t, prefixes("10.20.0.1/16", "10.20.0.2/16", "fd20::1/64")...)
	p := c.pod(t, "moves", `{"ipv4":["moves4"],"ipv6":["moves6"]}`, nil)
	lan.Plug(t, p.netns, "eth0")
	got := p.add(t)
	if diff := cmp.Diff([]string{"10.20.0.3/16", "fd20::2/64"}, got); diff != "" {
		t.Errorf("addresses (-want +got):\n%s\nand %s is on the link", diff, stranger)
	}
	aside := map[string]bool{}
	for _, e := range append(c.journal(t, "10.20.0.0/16"), c.journal(t, "fd20::/64")...) {
		if e.State == lease.Cooling && time.Until(e.Since) > 9*time.Minute {
			aside[e.Addr.String()] = true
		}
	}
	if diff := cmp.Diff(map[string]bool{"10.20.0.1": true, "10.20.0.2": true, "fd20::1": true}, aside); diff != "" {
		t.Errorf("set aside (-want +got):\n%s", diff)
	}
	if n := c.counted(t, "set_aside"); n < 3 {
		t.Errorf("%d conflicts are counted", n)
	}
	// Another pod does not run into the stranger again.
	next := c.pod(t, "next", `{"ipv4":["moves4"]}`, nil)
	lan.Plug(t, next.netns, "eth0")
	if got := next.add(t); !slices.Equal(got, []string{"10.20.0.4/16"}) {
		t.Errorf("the next pod got %s", got)
	}
}

// counted returns how many conflicts the agent counted, by outcome.
func (c *cluster) counted(t *testing.T, outcome string) (n int) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+c.metrics+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "holdfast_ip_conflicts_total{outcome=\""+outcome+"\"} %d", &n); err == nil {
			return n
		}
	}
	return 0
}

func statefulSetStays(t *testing.T, c *cluster) {
	c.pool(t, "stays", v2beta1.IPPoolSpec{Subnet: "10.21.0.0/16", IPs: v2beta1.Ranges{"10.21.0.1-10.21.0.9"}})
	lan := nettest.NewSwitch(t)
	host, mac := lan.Host(t, prefixes("10.21.0.1/16")...)
	p := c.pod(t, "stays-0", `{"ipv4":["stays"]}`, c.member(t, "stays"))
	lan.Plug(t, p.netns, "eth0")
	for range 2 {
		says(t, p.fail(t), "10.21.0.1 is used by "+mac.String(), "pod default/stays-0 keeps its address")
	}
	entries := c.journal(t, "10.21.0.0/16")
	if len(entries) != 1 || entries[0].State != lease.Retained || entries[0].Addr != netip.MustParseAddr("10.21.0.1") {
		t.Errorf("the journal says %+v, want the pod's address retained and no other", entries)
	}
	events, err := c.kube.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=stays-0"})
	if err != nil || len(events.Items) != 1 {
		t.Fatalf("events %+v, %v; want one", events, err)
	}
	e := events.Items[0]
	if e.Type != corev1.EventTypeWarning || e.Reason != "IPConflict" || e.Count != 2 || e.InvolvedObject.UID != p.object.UID ||
		!strings.Contains(e.Message, "10.21.0.1") || !strings.Contains(e.Message, mac.String()) {
		t.Errorf("the event is %+v, want one warning that counts both tries and names address and user", e)
	}
	host.Do(t, func() error { // the stranger goes
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.AddrDel(link, &netlink.Addr{IPNet: netipx.PrefixIPNet(netip.MustParsePrefix("10.21.0.1/16"))})
	})
	if got := p.add(t); !slices.Equal(got, []string{"10.21.0.1/16"}) {
		t.Errorf("the pod got %s, want the address it kept", got)
	}
}

func allUsed(t *testing.T, c *cluster) {
	c.pool(t, "used", v2beta1.IPPoolSpec{Subnet: "10.22.0.0/16", IPs: v2beta1.Ranges{"10.22.0.1-10.22.0.9"}})
	lan := nettest.NewSwitch(t)
	var all []string
	for i := range 9 {
		all = append(all, fmt.Sprintf("10.22.0.%d/16", i+1))
	}
	_, mac := lan.Host(t, prefixes(all...)...)
	p := c.pod(t, "used", `{"ipv4":["used"]}`, nil)
	lan.Plug(t, p.netns, "eth0")
	got := p.fail(t)
	says(t, got, "IP conflict", mac.String(), "excludeIPs")
	if n := strings.Count(got.Msg, "is used by"); n != 4 {
		t.Errorf("it names %d addresses, want the first one and three moves: %s", n, got.Msg)
	}
	if entries := c.journal(t, "10.22.0.0/16"); len(entries) != 4 {
		t.Errorf("the journal has %+v, want the four that were set aside", entries)
	}
}

func scarceUsed(t *testing.T, c *cluster) {
	c.pool(t, "scarce", v2beta1.IPPoolSpec{Subnet: "10.23.0.0/16", IPs: v2beta1.Ranges{"10.23.0.1-10.23.0.2"}})
	lan := nettest.NewSwitch(t)
	_, mac := lan.Host(t, prefixes("10.23.0.1/16", "10.23.0.2/16")...)
	p := c.pod(t, "scarce", `{"ipv4":["scarce"]}`, nil)
	lan.Plug(t, p.netns, "eth0")
	says(t, p.fail(t), "all IP addresses used out", "10.23.0.1 is used by "+mac.String(), "10.23.0.2 is used by "+mac.String())
}

func noGateway(t *testing.T, c *cluster) {
	c.pool(t, "routed", v2beta1.IPPoolSpec{Subnet: "10.24.0.0/16", IPs: v2beta1.Ranges{"10.24.0.1-10.24.0.9"}, Gateway: "10.24.0.254"})
	lan := nettest.NewSwitch(t)
	for _, p := range []*testPod{
		c.pod(t, "routed", `{"ipv4":["routed"]}`, nil),
		c.pod(t, "routed-0", `{"ipv4":["routed"]}`, c.member(t, "routed")),
	} {
		lan.Plug(t, p.netns, "eth0")
		p.tries++
		says(t, cniError(t, p.call(t, "ADD")), "gateway 10.24.0.254 of pool routed does not answer")
	}
	before := c.journal(t, "10.24.0.0/16")
	if len(before) != 2 || before[0].State != lease.Assigned || before[1].State != lease.Assigned {
		t.Errorf("the journal has %+v, want both pods' addresses and nothing set aside", before)
	}
	lan.Host(t, prefixes("10.24.0.254/16")...)
	p := c.pod(t, "routed-later", `{"ipv4":["routed"]}`, nil)
	lan.Plug(t, p.netns, "eth0")
	if got := p.add(t); len(got) != 1 {
		t.Errorf("with a gateway, the pod got %s", got)
	}
}

func noLink(t *testing.T, c *cluster) {
	c.pool(t, "linkless", v2beta1.IPPoolSpec{Subnet: "10.25.0.0/16", IPs: v2beta1.Ranges{"10.25.0.1-10.25.0.9"}, Gateway: "10.25.0.254"})
	p := c.pod(t, "linkless", `{"ipv4":["linkless"]}`, nil)
	if got := p.add(t); len(got) != 1 {
		t.Errorf("the pod got %s", got)
	}
}

func migration(t *testing.T, c *cluster) {
	c.pool(t, "migrates", v2beta1.IPPoolSpec{Subnet: "10.27.0.0/16", IPs: v2beta1.Ranges{"10.27.0.1"}})
	lan := nettest.NewSwitch(t)
	lan.Host(t, prefixes("10.27.0.1/16")...) // the machine, where it still runs
	p := c.pod(t, "migrates", `{"ipv4":["migrates"]}`, func(pod *corev1.Pod) {
		pod.Annotations["kubevirt.io/migrationJobName"] = "move"
	})
	lan.Plug(t, p.netns, "eth0")
	if got := p.add(t); !slices.Equal(got, []string{"10.27.0.1/16"}) {
		t.Errorf("the pod got %s", got)
	}
}

// realMacvlan has the reference plugin call ours, as a runtime has it.
func realMacvlan(t *testing.T, c *cluster) {
	dir := filepath.Join(apitest.BinDir(), "..", "kind", "bin", "cni-plugins")
	if _, err := os.Stat(filepath.Join(dir, "macvlan")); err != nil {
		t.Skipf("`make kind-up` builds macvlan: %v", err)
	}
	c.pool(t, "real", v2beta1.IPPoolSpec{Subnet: "10.28.0.0/16", IPs: v2beta1.Ranges{"10.28.0.1-10.28.0.9"}})
	lan := nettest.NewSwitch(t)
	lan.Host(t, prefixes("10.28.0.1/16")...)
	node, _ := lan.Host(t)
	p := c.pod(t, "real", `{"ipv4":["real"]}`, nil)
	p.tries++
	command := exec.CommandContext(t.Context(), filepath.Join(dir, "macvlan"))
	command.Env = append(p.environment("ADD"), "CNI_PATH="+bin)
	command.Stdin = strings.NewReader(fmt.Sprintf(
		`{"cniVersion":"1.0.0","name":"lan","type":"macvlan","master":"eth0","ipam":{"type":"spiderpool","ipam_unix_socket_path":%q}}`, c.client.Socket))
	var output []byte
	node.Do(t, func() (err error) { // a program starts in the namespace of the thread
		if output, err = command.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, output)
		}
		return nil
	})
	var addrs []netlink.Addr
	p.netns.Do(t, func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			addrs, err = netlink.AddrList(link, netlink.FAMILY_V4)
		}
		return err
	})
	if len(addrs) != 1 || addrs[0].IPNet.String() != "10.28.0.2/16" {
		t.Errorf("the pod has %v, want the address after the stranger's; macvlan said %s", addrs, output)
	}
}

func badReports(t *testing.T, c *cluster) {
	c.pool(t, "reported", v2beta1.IPPoolSpec{Subnet: "10.26.0.0/16", IPs: v2beta1.Ranges{"10.26.0.1-10.26.0.9"}})
	p, other := c.pod(t, "reported", `{"ipv4":["reported"]}`, nil), c.pod(t, "unreported", `{"ipv4":["reported"]}`, nil)
	mine, others := strings.TrimSuffix(p.add(t)[0], "/16"), strings.TrimSuffix(other.add(t)[0], "/16")
	before := c.journal(t, "10.26.0.0/16")
	report := func(container, ifname, conflicts string) string {
		return fmt.Sprintf(`{"containerID":%q,"interface":%q,"pod":{"namespace":"default","name":"reported","uid":%q},"conflicts":%s}`,
			container, ifname, p.object.UID, conflicts)
	}
	conflict := func(addr string) string { return fmt.Sprintf(`[{"address":%q,"mac":"02:00:00:00:00:01"}]`, addr) }
	for what, body := range map[string]string{
		"nothing":                      ``,
		"no JSON":                      `conflict!`,
		"another shape":                `[1]`,
		"no conflicts":                 report(p.sandbox(), "eth0", `[]`),
		"null":                         report(p.sandbox(), "eth0", `null`),
		"a conflict of nothing":        report(p.sandbox(), "eth0", `[{}]`),
		"an address that is none":      report(p.sandbox(), "eth0", conflict("10.26.0.500")),
		"an empty address":             report(p.sandbox(), "eth0", conflict("")),
		"no hardware address":          report(p.sandbox(), "eth0", fmt.Sprintf(`[{"address":%q}]`, mine)),
		"a hardware address that lies": report(p.sandbox(), "eth0", fmt.Sprintf(`[{"address":%q,"mac":"somebody"}]`, mine)),
		"no sandbox":                   report("", "eth0", conflict(mine)),
		"an unknown sandbox":           report("unknown", "eth0", conflict(mine)),
		"the journal's unknown":        report(lease.UnknownSandbox, "eth0", conflict(mine)),
		"another pod's sandbox":        report(other.sandbox(), "eth0", conflict(mine)),
		"another interface":            report(p.sandbox(), "net1", conflict(mine)),
		"another pod's address":        report(p.sandbox(), "eth0", conflict(others)),
		"a free address":               report(p.sandbox(), "eth0", conflict("10.26.0.9")),
		"an address of no pool":        report(p.sandbox(), "eth0", conflict("192.0.2.1")),
		"mine and another pod's":       report(p.sandbox(), "eth0", fmt.Sprintf(`[{"address":%q,"mac":"02:00:00:00:00:01"},{"address":%q,"mac":"02:00:00:00:00:01"}]`, mine, others)),
	} {
		status, text := c.ask(t, http.MethodPost, cni.PathConflict, body)
		var said cni.Error
		if err := json.Unmarshal(text, &said); err != nil || status < 400 || said.Code == 0 || said.Message == "" {
			t.Errorf("%s: %d %s, %v; want an error that says something", what, status, text, err)
		}
		if diff := cmp.Diff(before, c.journal(t, "10.26.0.0/16"), cmp.Comparer(func(x, y netip.Addr) bool { return x == y })); diff != "" {
			t.Errorf("%s changed the journal (-before +after):\n%s", what, diff)
		}
	}
	if status, text := c.ask(t, http.MethodPost, cni.PathConflict, report(p.sandbox(), "eth0", conflict(mine))); status != http.StatusOK {
		t.Errorf("the holder's own report is refused: %d %s", status, text)
	}
}
