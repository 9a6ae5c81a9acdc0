package agent

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/holdfast-ipam/holdfast/agent/selection"
	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// TestInterfacesOfAPod plays what Multus asks for a pod with several
// interfaces, one ADD after the other, against a real API server.
func TestInterfacesOfAPod(t *testing.T) {
	s := startServer(t)
	a := s.readyAgent(t, "several")
	for _, test := range []struct {
		name string
		run  func(*testing.T, *realServer, *Agent)
	}{
		{"WaitForTheOneWhosePoolIsFull", interfaceOfAFullPool},
		{"ShareNoAddressOfAPool", interfacesOnOnePool},
		{"HaveEachRouteOnce", routesOfInterfaces},
		{"HaveBothFamiliesOrNone", familiesOfAnInterface},
		{"AreToldWhyEachPoolWasRefused", reasonsOfAllPools},
		{"GetTheFirstPoolNamedThatHasRoom", firstPoolWithRoom},
		{"CostTheSameFromALargePool", largePool},
		{"NeverGetWhatIsReserved", reservedFromNowOn},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s, a) })
	}
}

// readyAgent returns an agent that answers ADDs, with a node of its own.
func (s *realServer) readyAgent(t *testing.T, node string) *Agent {
	t.Helper()
	return s.readyAgentAt(t, node, newTestTime())
}

// readyAgentAt is readyAgent with a clock.
func (s *realServer) readyAgentAt(t *testing.T, node string, clock *testTime) *Agent {
	t.Helper()
	s.node(t, node)
	a := s.agent(t, node, clock)
	l, err := lease.New(lease.Config{
		Node: a.node, Cluster: a.cluster, Disk: leasetest.NewDisk(nil).Open(), Now: clock.now,
		CoolDown: a.config.CoolDown.Duration,
	})
	if err != nil {
		t.Fatal(err)
	}
	a.lessee = l
	for _, informer := range a.informers() {
		follow(t, informer)
	}
	learn(t, a)
	beat(t, a)
	return a
}

// pool creates a pool and waits until the agent sees it.
func (s *realServer) pool(t *testing.T, a *Agent, name string, spec v2beta1.IPPoolSpec) {
	t.Helper()
	_, err := a.clients.IPPools().Create(t.Context(), &v2beta1.SpiderIPPool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { _, ok := a.pools.Get(name); return ok }, "the agent sees pool %s", name)
}

func eventually(t *testing.T, is func() bool, claim string, args ...any) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 5*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		return is(), nil
	})
	if err != nil {
		t.Fatalf("not after 20 s: "+claim, args...)
	}
}

// podWith creates a pod of the node with annotations.
func (s *realServer) podWith(t *testing.T, node, name string, annotations map[string]string) *corev1.Pod {
	t.Helper()
	pod, err := s.kube.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "nginx"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// briefly is for an ADD that is known to find no address: its plugin does not
// wait until one comes free.
func briefly(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	t.Cleanup(cancel)
	return ctx
}

// attempt asks for the addresses of interfaces in their order, as for one
// sandbox. Where one fails it gives all of them back, as Multus does.
func attempt(ctx context.Context, a *Agent, pod *corev1.Pod, container string, interfaces ...string) (map[string]*cni.AddResult, error) {
	results := map[string]*cni.AddResult{}
	for _, ifname := range interfaces {
		at := cni.Attachment{ContainerID: container, Interface: ifname, Pod: cni.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID)}}
		result, err := a.add(ctx, &cni.AddRequest{Attachment: at, Network: "lan"})
		if err != nil {
			return results, fmt.Errorf("%s: %w", ifname, err)
		}
		results[ifname] = result
	}
	return results, nil
}

func giveBack(t *testing.T, a *Agent, pod *corev1.Pod, container string, interfaces ...string) {
	t.Helper()
	for _, ifname := range interfaces {
		at := cni.Attachment{ContainerID: container, Interface: ifname, Pod: cni.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID)}}
		if _, err := a.del(t.Context(), &cni.DelRequest{Attachment: at}); err != nil {
			t.Fatal(err)
		}
	}
}

// journaled returns the pod's entries, as in "net1 10.66.0.1 assigned".
func journaled(a *Agent, pod *corev1.Pod) (lines []string) {
	for _, e := range a.lessee.Entries() {
		if e.Owner.PodUID == string(pod.UID) {
			lines = append(lines, fmt.Sprintf("%s %s %s", e.Owner.Interface, e.Addr, e.State))
		}
	}
	return lines
}

func interfaceOfAFullPool(t *testing.T, s *realServer, a *Agent) {
	s.pool(t, a, "roomy", v2beta1.IPPoolSpec{Subnet: "10.20.0.0/16", IPs: v2beta1.Ranges{"10.20.0.1-10.20.0.9"}})
	s.pool(t, a, "tight", v2beta1.IPPoolSpec{Subnet: "10.21.0.0/16", IPs: v2beta1.Ranges{"10.21.0.1"}})
	both := map[string]string{selection.PoolListAnnotation: `[{"ipv4":["roomy"]},{"ipv4":["tight"]}]`}
	first := s.podWith(t, "several", "first", both)
	if _, err := attempt(t.Context(), a, first, "first", "eth0", "net1"); err != nil {
		t.Fatal(err)
	}
	second := s.podWith(t, "several", "second", both)
	var kept string
	for i := range 2 {
		container := fmt.Sprint("second-", i)
		got, err := attempt(briefly(t), a, second, container, "eth0", "net1")
		if err == nil || !strings.Contains(err.Error(), `net1: all IP addresses used out in pools ["tight"]`) || !strings.Contains(err.Error(), "spec.ips") {
			t.Errorf("the error is %v", err)
		}
		addr := got["eth0"].Addresses[0].Prefix.Addr().String()
		if i > 0 && addr != kept {
			t.Errorf("eth0 had %s and has %s in the next sandbox", kept, addr)
		}
		kept = addr
		if lines := journaled(a, second); len(lines) != 1 || lines[0] != "eth0 "+kept+" assigned" {
			t.Errorf("the journal has %q", lines)
		}
		giveBack(t, a, second, container, "net1", "eth0")
		if lines := journaled(a, second); len(lines) != 1 || lines[0] != "eth0 "+kept+" cooling" {
			t.Errorf("after the DELs the journal has %q", lines)
		}
		for _, e := range a.lessee.Entries() {
			if e.Owner.PodUID == string(second.UID) && e.Since.Add(a.config.CoolDown.Duration) != a.now().Add(retryRest) {
				t.Errorf("it is kept for the next try since %s, now %s, want it for %s", e.Since, a.now(), retryRest)
			}
		}
	}
	// Room appears.
	pool, err := a.clients.IPPools().Get(t.Context(), "tight", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pool.Spec.IPs = v2beta1.Ranges{"10.21.0.1-10.21.0.2"}
	if _, err := a.clients.IPPools().Update(t.Context(), pool, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { p, _ := a.pools.Get("tight"); return p.Generation == 2 }, "the agent sees the room")
	got, err := attempt(t.Context(), a, second, "second-last", "eth0", "net1")
	if err != nil || got["eth0"].Addresses[0].Prefix.Addr().String() != kept || got["net1"].Addresses[0].Prefix.String() != "10.21.0.2/16" {
		t.Errorf("got %+v, %v, want %s on eth0 as before", got, err, kept)
	}
	giveBack(t, a, second, "second-last", "net1", "eth0", "eth0")
	giveBack(t, a, first, "first", "net1", "eth0")
	for _, e := range a.lessee.Entries() {
		if e.State != lease.Cooling {
			t.Errorf("after all DELs %s is %s", e.Addr, e.State)
		}
	}
}

func interfacesOnOnePool(t *testing.T, s *realServer, a *Agent) {
	s.pool(t, a, "one", v2beta1.IPPoolSpec{Subnet: "10.22.0.0/16", IPs: v2beta1.Ranges{"10.22.0.1-10.22.0.3"}})
	pod := s.podWith(t, "several", "shares", map[string]string{selection.PoolAnnotation: `{"ipv4":["one"]}`})
	got, err := attempt(t.Context(), a, pod, "shares", "eth0", "net1", "net2")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Prefix]string{}
	for ifname, result := range got {
		if other, twice := seen[result.Addresses[0].Prefix]; twice || len(result.Addresses) != 1 {
			t.Errorf("%s has %v, and %q has it, too", ifname, result.Addresses, other)
		}
		seen[result.Addresses[0].Prefix] = ifname
	}
	again, err := attempt(t.Context(), a, pod, "shares", "eth0", "net1", "net2")
	for ifname, result := range again {
		if seen[result.Addresses[0].Prefix] != ifname || err != nil {
			t.Errorf("asked again, %s has %v, %v", ifname, result.Addresses, err)
		}
	}
}

func routesOfInterfaces(t *testing.T, s *realServer, a *Agent) {
	s.pool(t, a, "left", v2beta1.IPPoolSpec{
		Subnet: "10.23.0.0/16", IPs: v2beta1.Ranges{"10.23.0.1-10.23.0.9"}, Gateway: "10.23.1.1",
		Routes: []v2beta1.Route{{Dst: "10.70.0.0/16", Gw: "10.23.1.2"}},
	})
	s.pool(t, a, "right", v2beta1.IPPoolSpec{Subnet: "fd00:23::/64", IPs: v2beta1.Ranges{"fd00:23::1-fd00:23::9"}, Gateway: "fd00:23::ff"})
	pod := s.podWith(t, "several", "routed", map[string]string{
		selection.PoolListAnnotation:  `[{"ipv4":["left"],"cleangateway":true},{"ipv4":["left"]},{"ipv6":["right"]}]`,
		"k8s.v1.cni.cncf.io/networks": "lan,lan",
		selection.RoutesAnnotation: `[{"dst":"10.70.0.0/16","gw":"10.23.1.2"},{"dst":"10.71.0.0/16","gw":"10.23.1.3"},
			{"dst":"fd07::/64","gw":"fd00:23::2"},{"dst":"10.72.0.0/16","gw":"192.0.2.1"},{"dst":"::/0","gw":"fd00:23::ff"}]`,
	})
	got, err := attempt(t.Context(), a, pod, "routed", "eth0", "net1", "net2")
	if err != nil {
		t.Fatal(err)
	}
	for ifname, want := range map[string]string{
		"eth0": "10.70.0.0/16 via 10.23.1.2, 10.71.0.0/16 via 10.23.1.3",
		"net1": "10.70.0.0/16 via 10.23.1.2, 0.0.0.0/0 via 10.23.1.1", // the pool's own, and the default
		"net2": "fd07::/64 via fd00:23::2, ::/0 via fd00:23::ff",
	} {
		var texts []string
		for _, r := range got[ifname].Routes {
			texts = append(texts, fmt.Sprintf("%s via %s", r.Destination, r.Gateway))
		}
		if text := strings.Join(texts, ", "); text != want {
			t.Errorf("%s has the routes %s\nwant %s", ifname, text, want)
		}
	}
	events, err := s.kube.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(pod.UID)})
	if err != nil || len(events.Items) != 1 {
		t.Fatalf("the events are %v, %v, want one", events, err)
	}
	want := "left out of annotation ipam.spidernet.io/routes: 10.72.0.0/16 via 192.0.2.1: no interface of the pod has an address in the subnet of that gateway. Correct gw, or take the route out, and delete the pod"
	if e := events.Items[0]; e.Type != corev1.EventTypeWarning || e.Message != want {
		t.Errorf("the event is %s %q", e.Type, e.Message)
	}
}

func familiesOfAnInterface(t *testing.T, s *realServer, a *Agent) {
	s.pool(t, a, "many", v2beta1.IPPoolSpec{Subnet: "10.24.0.0/16", IPs: v2beta1.Ranges{"10.24.0.1-10.24.0.9"}})
	s.pool(t, a, "none", v2beta1.IPPoolSpec{Subnet: "fd00:24::/64"})
	pod := s.podWith(t, "several", "half", map[string]string{selection.PoolAnnotation: `{"ipv4":["many"],"ipv6":["none"]}`})
	if _, err := attempt(t.Context(), a, pod, "half", "eth0"); err == nil || !strings.Contains(err.Error(), `used out in pools ["none"]`) {
		t.Errorf("the error is %v", err)
	}
	if lines := journaled(a, pod); len(lines) > 0 {
		t.Errorf("one family failed, and the journal has %q", lines)
	}
	alone := s.podWith(t, "several", "alone", map[string]string{selection.PoolAnnotation: `{"ipv4":["many"]}`})
	got, err := attempt(t.Context(), a, alone, "alone", "eth0")
	if err != nil || len(got["eth0"].Addresses) != 1 {
		t.Errorf("asked for IPv4 alone, got %+v, %v", got["eth0"], err)
	}
}

func reasonsOfAllPools(t *testing.T, s *realServer, a *Agent) {
	s.pool(t, a, "shut", v2beta1.IPPoolSpec{Subnet: "10.25.0.0/16", IPs: v2beta1.Ranges{"10.25.0.1"}, Disable: true})
	s.pool(t, a, "elsewhere", v2beta1.IPPoolSpec{Subnet: "10.26.0.0/16", IPs: v2beta1.Ranges{"10.26.0.1"}, NodeName: []string{"other"}})
	s.pool(t, a, "empty", v2beta1.IPPoolSpec{Subnet: "10.27.0.0/16"})
	for pools, reasons := range map[string][]string{
		`"shut","elsewhere"`:         {"pool shut is disabled (spec.disable)", "pool elsewhere is not for node several (spec.nodeName)"},
		`"shut","empty","elsewhere"`: {`all IP addresses used out in pools ["empty"]`, "pool shut is disabled (spec.disable)", "pool elsewhere is not for node several (spec.nodeName)", "add addresses to spec.ips"},
	} {
		name := fmt.Sprint("refused-", len(pools))
		pod := s.podWith(t, "several", name, map[string]string{selection.PoolAnnotation: `{"ipv4":[` + pools + `]}`})
		ctx, cancel := context.WithTimeout(t.Context(), exhaustedWait/2)
		defer cancel()
		_, err := attempt(ctx, a, pod, name, "eth0")
		if ctx.Err() != nil {
			t.Errorf("%s: it waited for an address, and the pools have none that could come free", pools)
		}
		for _, reason := range append(reasons, "annotation ipam.spidernet.io/ippool of the pod") {
			if err == nil || !strings.Contains(err.Error(), reason) {
				t.Errorf("the error is %v, want %q in it", err, reason)
			}
		}
		if lines := journaled(a, pod); len(lines) > 0 {
			t.Errorf("the journal has %q", lines)
		}
	}
}

func firstPoolWithRoom(t *testing.T, s *realServer, a *Agent) {
	s.pool(t, a, "rich", v2beta1.IPPoolSpec{Subnet: "10.32.0.0/16", IPs: v2beta1.Ranges{"10.32.0.1-10.32.200.0"}})
	s.pool(t, a, "poor", v2beta1.IPPoolSpec{Subnet: "10.33.0.0/16", IPs: v2beta1.Ranges{"10.33.0.1"}})
	s.pool(t, a, "six", v2beta1.IPPoolSpec{Subnet: "fd00:33::/64", IPs: v2beta1.Ranges{"fd00:33::1-fd00:33::9"}})
	for i, test := range []struct{ pools, want string }{
		{`"ipv4":["rich"]`, "rich"}, // and its node leases more of it from now on
		{`"ipv4":["poor","rich"],"ipv6":["six"]`, "poor six"},
		{`"ipv4":["poor","rich"],"ipv6":["six"]`, "rich six"},
		{`"ipv4":["rich","poor"]`, "rich"},
	} {
		name := fmt.Sprint("order-", i)
		pod := s.podWith(t, "several", name, map[string]string{selection.PoolAnnotation: "{" + test.pools + "}"})
		got, err := attempt(t.Context(), a, pod, name, "eth0")
		if err != nil {
			t.Fatal(err)
		}
		var pools []string
		for _, address := range got["eth0"].Addresses {
			pools = append(pools, address.Pool)
		}
		if from := strings.Join(pools, " "); from != test.want {
			t.Errorf("asked for %s, the pod has addresses of %s, want %s", test.pools, from, test.want)
		}
	}
}

// requests returns how many requests ADDs have made, by kind.
func requests(t *testing.T, a *Agent) map[string]float64 {
	t.Helper()
	families, err := a.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "holdfast_api_requests_total" {
			continue
		}
		for _, m := range f.Metric {
			var key []string
			for _, l := range m.Label {
				key = append(key, l.GetValue())
			}
			n[strings.Join(key, " ")] += m.GetCounter().GetValue()
		}
	}
	return n
}

func largePool(t *testing.T, s *realServer, a *Agent) {
	cost := map[string]float64{}
	for name, spec := range map[string]v2beta1.IPPoolSpec{
		"small-four": {Subnet: "10.28.0.0/28", IPs: v2beta1.Ranges{"10.28.0.0-10.28.0.15"}},
		"small-six":  {Subnet: "fd00:28::/124", IPs: v2beta1.Ranges{"fd00:28::-fd00:28::f"}},
		"large-four": {Subnet: "11.0.0.0/8", IPs: v2beta1.Ranges{"11.0.0.1-11.255.255.254"}},
		"large-six":  {Subnet: "fd00:29::/64", IPs: v2beta1.Ranges{"fd00:29::-fd00:29::ffff:ffff:ffff:ffff"}},
		"huge-six":   {Subnet: "fd00:30::/48", IPs: v2beta1.Ranges{"fd00:30::-fd00:30:0:ffff:ffff:ffff:ffff:ffff"}},
	} {
		s.pool(t, a, name, spec)
		key := `{"ipv6":["` + name + `"]}`
		if strings.HasSuffix(name, "four") {
			key = `{"ipv4":["` + name + `"]}`
		}
		pod := s.podWith(t, "several", name, map[string]string{selection.PoolAnnotation: key})
		eventually(t, func() bool { _, ok := a.pods.cached("default", name); return ok }, "the agent sees pod %s", name)
		before := requests(t, a)
		if _, err := attempt(t.Context(), a, pod, name, "eth0"); err != nil {
			t.Fatal(err)
		}
		for kind, n := range requests(t, a) {
			if !strings.Contains(kind, "watch") {
				cost[name] += n - before[kind]
			}
		}
		if cost[name] == 0 || cost[name] > 2 {
			t.Errorf("the first address of pool %s cost %v requests, want a read and a write at most", name, cost[name])
		}
	}
	t.Logf("requests for the first address: %v", cost)
}

func reservedFromNowOn(t *testing.T, s *realServer, a *Agent) {
	s.pool(t, a, "partly", v2beta1.IPPoolSpec{Subnet: "10.31.0.0/16", IPs: v2beta1.Ranges{"10.31.0.1-10.31.0.4"}})
	use := map[string]string{selection.PoolAnnotation: `{"ipv4":["partly"]}`}
	first := s.podWith(t, "several", "before", use)
	got, err := attempt(t.Context(), a, first, "before", "eth0")
	if err != nil {
		t.Fatal(err)
	}
	has := got["eth0"].Addresses[0].Prefix.Addr()
	// What it has, and all but one of the others.
	_, err = a.clients.ReservedIPs().Create(t.Context(), &v2beta1.SpiderReservedIP{
		ObjectMeta: metav1.ObjectMeta{Name: "taken"}, Spec: v2beta1.ReservedIPSpec{IPs: v2beta1.Ranges{"10.31.0.1-10.31.0.3"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return len(a.pools.reserved.All()) == 1 }, "the agent sees the reservation")
	next, err := attempt(t.Context(), a, s.podWith(t, "several", "after", use), "after", "eth0")
	if err != nil || next["eth0"].Addresses[0].Prefix.String() != "10.31.0.4/16" {
		t.Errorf("with all others reserved, the next pod got %+v, %v", next["eth0"], err)
	}
	again, err := attempt(t.Context(), a, first, "before", "eth0")
	if err != nil || again["eth0"].Addresses[0].Prefix.Addr() != has {
		t.Errorf("the pod that had %s before it was reserved got %+v, %v", has, again["eth0"], err)
	}
	if err := a.clients.ReservedIPs().Delete(t.Context(), "taken", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return len(a.pools.reserved.All()) == 0 }, "the agent sees that it is gone")
	if _, err := attempt(t.Context(), a, s.podWith(t, "several", "later", use), "later", "eth0"); err != nil {
		t.Errorf("with the reservation gone: %v", err)
	}
}
