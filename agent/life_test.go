package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/agent/elected"
	"github.com/holdfast-ipam/holdfast/agent/selection"
	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// TestLifeOfAnEndpoint has pods and their endpoints come and go on a real API
// server, by the hands of agents and of people.
func TestLifeOfAnEndpoint(t *testing.T) {
	s := startServer(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *realServer)
	}{
		{"LooksAsSpiderpoolsDoes", shape},
		{"DeletedByHandIsWrittenAnewWithinSeconds", deletedByHand},
		{"DeletedByHandWhileItsAgentIsAwayLosesNothing", deletedWhileAway},
		{"DeletedByHandBetweenTwoPodsLosesNothing", deletedBetweenPods},
		{"WithoutItsPinIsNotWrittenAnew", notRestoredWithoutPin},
		{"OfAFinishedPodGoesWithItsAddress", finishedPod},
		{"OfAFinishedStatefulSetPodStays", finishedStatefulSetPod},
		{"PodOfAnEarlierNodeOfTheNameGetsOne", earlierNodesPod},
		{"PodDeletedByForceKeepsItsAddressForItsGracePeriod", forceDeleted},
		{"FinishedPodWithoutDELKeepsItsAddress", finishedWithoutDel},
		{"FinishedPodWithoutDELGivesItBackWhereAsked", zombie},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s) })
	}
}

// life is an agent on a node of its own, with the watches that tell it of pods
// and endpoints, and the clock that it goes by.
type life struct {
	*Agent
	s     *realServer
	clock *testTime
	disk  *leasetest.Disk
	end   func()
}

// begin starts the agent of a node.
func (s *realServer) begin(t *testing.T, node string, disk *leasetest.Disk) *life {
	t.Helper()
	l := &life{s: s, clock: newTestTime(), disk: disk}
	l.Agent = s.agent(t, node, l.clock)
	var err error
	if l.lessee, err = lease.New(lease.Config{Node: l.node, Cluster: l.cluster, Disk: disk.Open(), Now: l.now}); err != nil {
		t.Fatal(err)
	}
	learn(t, l.Agent)
	beat(t, l.Agent)
	follow(t, l.pods.informer)
	follow(t, l.pools.informer)
	follow(t, l.pools.reserved)
	follow(t, l.endpoints.informer)
	ctx, cancel := context.WithCancel(t.Context())
	if err := errors.Join(l.watchPods(ctx), l.watchEndpoints()); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = l.endpoints.run(ctx) })
	l.end = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(l.end)
	for _, e := range l.lessee.Entries() {
		l.endpoints.enqueue(e.Namespace, e.Pod)
	}
	return l
}

// bear creates a pod on the agent's node: one of the StatefulSet of the
// name's first part, or of nothing, with forty seconds to end in.
func (l *life) bear(t *testing.T, name string, sticky bool) *corev1.Pod {
	t.Helper()
	grace, controller := int64(40), true
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			NodeName: l.node.Name, Containers: []corev1.Container{{Name: "c", Image: "nginx"}},
			TerminationGracePeriodSeconds: &grace, RestartPolicy: corev1.RestartPolicyNever,
		},
	}
	if set, _, ok := elected.SplitPodName(name); ok && sticky {
		pod.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: appsv1.SchemeGroupVersion.String(), Kind: "StatefulSet", Name: set, UID: "set", Controller: &controller,
		}}
	}
	return l.create(t, pod)
}

// create creates a pod and waits for the watch.
func (l *life) create(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	pod, err := l.s.kube.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	within(t, func() string {
		if _, ok := l.pods.cached("default", pod.Name); !ok {
			return "the watch does not show " + pod.Name
		}
		return ""
	})
	return pod
}

func (l *life) sandbox(pod *corev1.Pod) cni.Attachment {
	return cni.Attachment{
		ContainerID: "sandbox-of-" + pod.Name, Interface: "eth0",
		Pod: cni.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID)},
	}
}

// give has the agent assign an address of the range to the pod, and waits for
// the endpoint.
func (l *life) give(t *testing.T, pod *corev1.Pod, ranges string) netip.Addr {
	t.Helper()
	p := detailed(t, ranges)
	beat(t, l.Agent) // the clock may have been put forward
	r := l.identify(pod, &cni.AddRequest{Attachment: l.sandbox(pod), Network: "net"})
	r.Families = [][]lease.Pool{{p}}
	entries, err := l.lessee.Acquire(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	l.endpoints.enqueue(pod.Namespace, pod.Name)
	l.hasEndpoint(t, pod, entries[0].Addr)
	return entries[0].Addr
}

// within waits until check returns an empty text, and fails with the last one
// otherwise.
func within(t *testing.T, check func() string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for problem := check(); problem != ""; problem = check() {
		if time.Now().After(deadline) {
			t.Fatal(problem)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// hasEndpoint waits for the endpoint of a pod to say what it has.
func (l *life) hasEndpoint(t *testing.T, pod *corev1.Pod, addr netip.Addr) {
	t.Helper()
	within(t, func() string {
		e, err := l.cluster.Endpoint(t.Context(), pod.Namespace, l.bearing(pod).name)
		if err != nil {
			return err.Error()
		}
		names := slices.ContainsFunc(e.Of("eth0"), func(a lease.EndpointAddress) bool { return a.Addr == addr })
		if !names || e.PodUID != string(pod.UID) || e.Node != l.node.Name || e.Sticky != l.bearing(pod).sticky {
			return fmt.Sprintf("the endpoint says %+v, want %s of %s", e, addr, pod.UID)
		}
		return ""
	})
}

func (l *life) hasNoEndpoint(t *testing.T, name string) {
	t.Helper()
	within(t, func() string {
		e, err := l.cluster.Endpoint(t.Context(), "default", name)
		if !errors.Is(err, lease.ErrNotFound) {
			return fmt.Sprintf("there is an endpoint: %+v, %v", e, err)
		}
		return ""
	})
}

// deleteEndpoint is somebody who deletes an endpoint.
func (s *realServer) deleteEndpoint(t *testing.T, a *Agent, name string) {
	t.Helper()
	if err := a.clients.Endpoints("default").Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// state returns what the journal says of an address.
func (l *life) state(addr netip.Addr) lease.State {
	for _, e := range l.lessee.Entries() {
		if e.Addr == addr {
			return e.State
		}
	}
	return ""
}

// collector judges as the elected agent does, by a StatefulSet of one replica.
func (l *life) collector() *elected.Collector {
	return &elected.Collector{
		Cluster: l.cluster,
		StatefulSet: func(context.Context, string, string) (elected.Window, error) {
			return elected.Window{Replicas: 1}, nil
		},
		Machine: elected.FindMachine(l.kube.Discovery().RESTClient(), true),
	}
}

// keepsPin has every pin of an address's block judged, and fails if the
// address is not pinned afterwards.
func (l *life) keepsPin(t *testing.T, addr netip.Addr) {
	t.Helper()
	name := lease.Name(lease.BlockOf(addr))
	if _, err := l.collector().Block(t.Context(), name, nil); err != nil {
		t.Fatal(err)
	}
	b, err := l.cluster.Block(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := b.PinAt(addr); !ok {
		t.Errorf("%s is not pinned any more", addr)
	}
}

// status changes what the kubelet says of a pod.
func (l *life) status(t *testing.T, pod *corev1.Pod, phase corev1.PodPhase) {
	t.Helper()
	next := pod.DeepCopy()
	next.Status.Phase = phase
	if phase == corev1.PodSucceeded || phase == corev1.PodFailed {
		next.Status.ContainerStatuses = []corev1.ContainerStatus{{
			Name: "c", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}},
		}}
	}
	if _, err := l.s.kube.CoreV1().Pods("default").UpdateStatus(t.Context(), next, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	within(t, func() string {
		if seen, ok := l.pods.cached("default", pod.Name); !ok || seen.Status.Phase != phase {
			return fmt.Sprintf("the watch shows no pod of phase %s: %+v", phase, seen)
		}
		return ""
	})
}

// vanish deletes a pod's object at once, and waits for the watch.
func (l *life) vanish(t *testing.T, name string) {
	t.Helper()
	l.s.deletePod(t, name)
	within(t, func() string {
		if _, ok := l.pods.cached("default", name); ok {
			return "the watch still shows " + name
		}
		return ""
	})
}

func (l *life) stop(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	if _, err := l.del(t.Context(), &cni.DelRequest{Attachment: l.sandbox(pod)}); err != nil {
		t.Fatal(err)
	}
}

// dualStack is the status of the endpoint of a pod with addresses from two
// pools, of which one has a gateway and a route.
const dualStack = `{"current":{"uid":"UID","node":"shapes","ips":[{"interface":"eth0",` +
	`"ipv4":"10.31.0.1/16","ipv6":"fd00:31::1/64","ipv4Pool":"shape4","ipv6Pool":"shape6","vlan":0,` +
	`"ipv4Gateway":"10.31.255.254","cleanGateway":false,"routes":[{"dst":"10.99.0.0/16","gw":"10.31.0.254"}]}]},` +
	`"ownerControllerType":"KIND","ownerControllerName":"OWNER"}`

func shape(t *testing.T, s *realServer) {
	s.node(t, "shapes")
	l := s.begin(t, "shapes", leasetest.NewDisk(nil))
	four := &v2beta1.SpiderIPPool{ObjectMeta: metav1.ObjectMeta{Name: "shape4"}, Spec: v2beta1.IPPoolSpec{
		Subnet: "10.31.0.0/16", IPs: []string{"10.31.0.1"}, Gateway: "10.31.255.254",
		Routes: []v2beta1.Route{{Dst: "10.99.0.0/16", Gw: "10.31.0.254"}},
	}}
	six := &v2beta1.SpiderIPPool{ObjectMeta: metav1.ObjectMeta{Name: "shape6"}, Spec: v2beta1.IPPoolSpec{
		Subnet: "fd00:31::/64", IPs: []string{"fd00:31::1"},
	}}
	families, err := l.pools.families(selection.Selection{IPv4: []*v2beta1.SpiderIPPool{four}, IPv6: []*v2beta1.SpiderIPPool{six}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, kind, owner string }{{"shapes-plain", "Pod", "shapes-plain"}, {"shapes-0", "StatefulSet", "shapes"}} {
		sticky := c.kind == "StatefulSet"
		pod := l.bear(t, c.name, sticky)
		r := l.identify(pod, &cni.AddRequest{Attachment: l.sandbox(pod), Network: "net"})
		r.Families = families
		if _, err := l.lessee.Acquire(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		l.endpoints.enqueue("default", c.name)
		l.hasEndpoint(t, pod, netip.MustParseAddr("10.31.0.1"))
		e, err := l.clients.Endpoints("default").Get(t.Context(), c.name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(e.Status)
		want := strings.NewReplacer("UID", string(pod.UID), "KIND", c.kind, "OWNER", c.owner).Replace(dualStack)
		if diff := cmp.Diff(want, string(got)); err != nil || diff != "" {
			t.Errorf("status of %s (-want +got), %v:\n%s", c.name, err, diff)
		}
		var owners []metav1.OwnerReference
		if !sticky {
			owners = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: c.name, UID: pod.UID}}
		}
		if diff := cmp.Diff(owners, e.OwnerReferences, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("owners of %s (-want +got):\n%s", c.name, diff)
		}
		l.stop(t, pod)
		l.clock.pass(time.Minute)
		if err := l.lessee.Tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var table metav1.Table
	raw, err := s.kube.Discovery().RESTClient().Get().SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").
		AbsPath("/apis/spiderpool.spidernet.io/v2beta1/namespaces/default/spiderendpoints/shapes-0").DoRaw(t.Context())
	if err == nil {
		err = json.Unmarshal(raw, &table)
	}
	if err != nil {
		t.Fatal(err)
	}
	printed := map[string]any{}
	for i, c := range table.ColumnDefinitions {
		printed[strings.ToUpper(c.Name)] = table.Rows[0].Cells[i]
	}
	if diff := cmp.Diff(map[string]any{
		"NAME": "shapes-0", "INTERFACE": "eth0", "IPV4POOL": "shape4", "IPV4": "10.31.0.1/16",
		"IPV6POOL": "shape6", "IPV6": "fd00:31::1/64", "NODE": "shapes",
	}, printed); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
}

func deletedByHand(t *testing.T, s *realServer) {
	s.node(t, "mends")
	l := s.begin(t, "mends", leasetest.NewDisk(nil))
	for name, sticky := range map[string]bool{"mends-0": true, "mends-plain": false} {
		pod := l.bear(t, name, sticky)
		addr := l.give(t, pod, "10.20.0.1-10.20.0.9")
		for range 2 {
			s.deleteEndpoint(t, l.Agent, name)
			l.hasEndpoint(t, pod, addr)
		}
		if sticky {
			l.keepsPin(t, addr)
		}
	}
}

func deletedWhileAway(t *testing.T, s *realServer) {
	s.node(t, "away")
	disk := leasetest.NewDisk(nil)
	l := s.begin(t, "away", disk)
	pod := l.bear(t, "away-0", true)
	addr := l.give(t, pod, "10.21.0.1-10.21.0.9")
	l.end()
	disk.Crash()
	s.deleteEndpoint(t, l.Agent, "away-0")
	l.keepsPin(t, addr) // the elected agent sees a pin without endpoint
	l = s.begin(t, "away", disk)
	l.hasEndpoint(t, pod, addr)
	l.keepsPin(t, addr)
}

func deletedBetweenPods(t *testing.T, s *realServer) {
	s.node(t, "between")
	l := s.begin(t, "between", leasetest.NewDisk(nil))
	pod := l.bear(t, "between-0", true)
	addr := l.give(t, pod, "10.22.0.1-10.22.0.9")
	l.stop(t, pod)
	l.vanish(t, "between-0")
	s.deleteEndpoint(t, l.Agent, "between-0")
	l.hasEndpoint(t, pod, addr)
	l.keepsPin(t, addr)
	if e, err := l.clients.Endpoints("default").Get(t.Context(), "between-0", metav1.GetOptions{}); err != nil ||
		e.Status.OwnerControllerType != "StatefulSet" || e.Status.OwnerControllerName != "between" {
		t.Errorf("the endpoint written anew says %+v, %v", e, err)
	}
}

func notRestoredWithoutPin(t *testing.T, s *realServer) {
	s.node(t, "unpinned")
	l := s.begin(t, "unpinned", leasetest.NewDisk(nil))
	pod := l.bear(t, "unpinned-1", true) // of a StatefulSet that wants one
	addr := l.give(t, pod, "10.23.0.1-10.23.0.9")
	l.stop(t, pod)
	l.vanish(t, "unpinned-1")
	if _, err := l.collector().Block(t.Context(), lease.Name(lease.BlockOf(addr)), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := l.collector().Pointer(t.Context(), "default", "unpinned-1"); err != nil {
		t.Fatal(err)
	}
	if l.state(addr) != lease.Retained {
		t.Fatalf("the journal says %q: nothing tempts the agent", l.state(addr))
	}
	if err := l.endpoints.write(t.Context(), "default/unpinned-1"); err != nil {
		t.Fatal(err)
	}
	l.hasNoEndpoint(t, "unpinned-1")
}

func finishedPod(t *testing.T, s *realServer) {
	s.node(t, "finishes")
	l := s.begin(t, "finishes", leasetest.NewDisk(nil))
	for _, phase := range []corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed} {
		for name, order := range map[string][]func(*corev1.Pod){
			"first-del":   {func(p *corev1.Pod) { l.stop(t, p) }, func(p *corev1.Pod) { l.status(t, p, phase) }},
			"first-phase": {func(p *corev1.Pod) { l.status(t, p, phase) }, func(p *corev1.Pod) { l.stop(t, p) }},
		} {
			pod := l.bear(t, fmt.Sprintf("%s-%d", name, len(phase)), false)
			addr := l.give(t, pod, "10.24.0.1-10.24.0.9")
			for _, step := range order {
				step(pod)
			}
			l.hasNoEndpoint(t, pod.Name)
			if got := l.state(addr); got != lease.Cooling {
				t.Errorf("%s, %s: the journal says %q, want the address back", name, phase, got)
			}
			if _, err := l.s.kube.CoreV1().Pods("default").Get(t.Context(), pod.Name, metav1.GetOptions{}); err != nil {
				t.Errorf("the pod is gone, so this shows nothing: %v", err)
			}
		}
	}
}

func finishedStatefulSetPod(t *testing.T, s *realServer) {
	s.node(t, "evicts")
	l := s.begin(t, "evicts", leasetest.NewDisk(nil))
	pod := l.bear(t, "evicts-0", true)
	addr := l.give(t, pod, "10.25.0.1-10.25.0.9")
	l.stop(t, pod)
	l.status(t, pod, corev1.PodFailed)
	if err := l.endpoints.write(t.Context(), "default/evicts-0"); err != nil {
		t.Fatal(err)
	}
	l.hasEndpoint(t, pod, addr)
	l.keepsPin(t, addr)
}

func earlierNodesPod(t *testing.T, s *realServer) {
	s.node(t, "reborn")
	l := s.begin(t, "reborn", leasetest.NewDisk(nil))
	if _, err := l.clients.IPPools().Create(t.Context(), &v2beta1.SpiderIPPool{
		ObjectMeta: metav1.ObjectMeta{Name: "reborn"},
		Spec:       v2beta1.IPPoolSpec{Subnet: "10.26.0.0/16", IPs: []string{"10.26.0.1-10.26.0.9"}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := l.bear(t, "lives-through", false)
	addr := l.give(t, pod, "10.26.0.1-10.26.0.9")
	stranger := l.bear(t, "stranger", false)
	for p, ip := range map[*corev1.Pod]string{pod: addr.String(), stranger: "10.26.0.9"} {
		p.Status.PodIPs, p.Status.PodIP = []corev1.PodIP{{IP: ip}}, ip
		if _, err := s.kube.CoreV1().Pods("default").UpdateStatus(t.Context(), p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	l.end()
	s.deleteEndpoint(t, l.Agent, pod.Name) // as if it had not been written
	if err := s.kube.CoreV1().Nodes().Delete(t.Context(), "reborn", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.node(t, "reborn")
	l = s.begin(t, "reborn", leasetest.NewDisk(nil))
	within(t, func() string {
		if _, ok := l.pools.Get("reborn"); !ok {
			return "the watch does not show the pool"
		}
		return ""
	})
	if err := l.mendEndpoints(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.hasEndpoint(t, pod, addr)
	// Its address lies in the pool, and nobody has leased it.
	if err := l.endpoints.write(t.Context(), "default/stranger"); err != nil {
		t.Fatal(err)
	}
	l.hasNoEndpoint(t, "stranger")
}

func forceDeleted(t *testing.T, s *realServer) {
	s.node(t, "forced")
	l := s.begin(t, "forced", leasetest.NewDisk(nil))
	ready := func(is corev1.ConditionStatus) {
		t.Helper()
		node, err := s.kube.CoreV1().Nodes().Get(t.Context(), "forced", metav1.GetOptions{})
		if err == nil {
			node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: is}}
			_, err = s.kube.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]lease.State{"forced-plain": lease.Cooling, "forced-0": lease.Retained} {
		pod := l.bear(t, name, want == lease.Retained)
		addr := l.give(t, pod, "10.27.0.1-10.27.0.9")
		l.clock.pass(time.Hour)
		l.vanish(t, name)
		ready(corev1.ConditionUnknown)
		for range 3 {
			l.clock.pass(time.Hour)
			if err := l.findLeaks(t.Context()); err != nil || l.state(addr) != lease.Assigned {
				t.Errorf("%s: %s on a node whose kubelet does not answer, %v", name, l.state(addr), err)
			}
		}
		ready(corev1.ConditionTrue)
		began := l.clock.now()
		for l.state(addr) == lease.Assigned {
			l.clock.pass(time.Second)
			if err := l.findLeaks(t.Context()); err != nil {
				t.Fatal(err)
			}
			if l.clock.now().Sub(began) > 10*time.Minute {
				t.Fatalf("%s keeps %s for good", name, addr)
			}
		}
		took := l.clock.now().Sub(began)
		if got := l.state(addr); got != want || took < 40*time.Second {
			t.Errorf("%s: %s after %s, want %s, and not before the containers had the time to end", name, got, took, want)
		}
		if want == lease.Retained {
			l.keepsPin(t, addr)
		}
	}
}

func finishedWithoutDel(t *testing.T, s *realServer) {
	s.node(t, "no-del")
	l := s.begin(t, "no-del", leasetest.NewDisk(nil))
	pod := l.bear(t, "no-del", false)
	addr := l.give(t, pod, "10.28.0.1-10.28.0.9")
	l.status(t, pod, corev1.PodSucceeded)
	for range 3 {
		l.clock.pass(time.Hour)
		if err := l.findLeaks(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := l.state(addr); got != lease.Assigned {
		t.Errorf("%s is %s although a sandbox may have it", addr, got)
	}
	l.hasEndpoint(t, pod, addr)
	l.vanish(t, "no-del") // as its owner's clean-up does
	l.clock.pass(time.Second)
	if err := l.findLeaks(t.Context()); err != nil || l.state(addr) != lease.Cooling {
		t.Errorf("%s is %s after the pod is gone that had finished, %v", addr, l.state(addr), err)
	}
}

func zombie(t *testing.T, s *realServer) {
	s.node(t, "zombies")
	l := s.begin(t, "zombies", leasetest.NewDisk(nil))
	l.config.GC.ZombieOnReadyNode = true
	runs, ends := l.bear(t, "zombie-runs", false), l.bear(t, "zombie-ends", false)
	alive, addr := l.give(t, runs, "10.29.0.1-10.29.0.9"), l.give(t, ends, "10.29.0.1-10.29.0.9")
	l.status(t, runs, corev1.PodRunning)
	l.status(t, ends, corev1.PodSucceeded)
	l.clock.pass(time.Hour)
	began := l.clock.now()
	for l.state(addr) == lease.Assigned && l.clock.now().Sub(began) < time.Hour {
		if err := l.findLeaks(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.clock.pass(time.Second)
	}
	if took := l.clock.now().Sub(began); l.state(addr) != lease.Cooling || took < 40*time.Second {
		t.Errorf("%s is %s after %s, want it back after the grace period of 40s", addr, l.state(addr), took)
	}
	l.hasNoEndpoint(t, "zombie-ends")
	if got := l.state(alive); got != lease.Assigned {
		t.Errorf("%s of a pod that runs is %s", alive, got)
	}
}

func TestPodThatIsOverGetsNoAddress(t *testing.T) {
	now := metav1.Now()
	for _, test := range []struct {
		claim    string
		policy   corev1.RestartPolicy
		phase    corev1.PodPhase
		reason   string
		deleting *metav1.Time
		over     bool
	}{
		{"a pod that starts", corev1.RestartPolicyAlways, corev1.PodPending, "", nil, false},
		{"a pod whose sandbox is made anew", corev1.RestartPolicyNever, corev1.PodRunning, "", nil, false},
		{"a pod that is being deleted", corev1.RestartPolicyAlways, corev1.PodRunning, "", &now, true},
		{"a Job's pod that is done", corev1.RestartPolicyNever, corev1.PodSucceeded, "", nil, true},
		{"a Job's pod that is done and would have been tried again", corev1.RestartPolicyOnFailure, corev1.PodSucceeded, "", nil, true},
		{"a Job's pod that has failed", corev1.RestartPolicyNever, corev1.PodFailed, "", nil, true},
		{"a pod that has failed and is tried again", corev1.RestartPolicyOnFailure, corev1.PodFailed, "", nil, false},
		{"an evicted pod", corev1.RestartPolicyAlways, corev1.PodFailed, "Evicted", nil, true},
	} {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: test.deleting},
			Spec:       corev1.PodSpec{RestartPolicy: test.policy}, Status: corev1.PodStatus{Phase: test.phase, Reason: test.reason},
		}
		if err := over(cni.Pod{Namespace: "default", Name: "p"}, pod); (err != nil) != test.over {
			t.Errorf("%s: %v, want it refused: %t", test.claim, err, test.over)
		}
	}
}

func TestSlimPodStillTellsWhetherItHasFinished(t *testing.T) {
	for _, phase := range []corev1.PodPhase{corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed} {
		for _, running := range []bool{false, true} {
			pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a"}, {Name: "b"}}}, Status: corev1.PodStatus{Phase: phase}}
			for _, c := range pod.Spec.Containers {
				s := corev1.ContainerStatus{Name: c.Name, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}
				if running && c.Name == "b" {
					s.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
				}
				pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, s)
			}
			want := cluster.Finished(pod)
			if slimPod(pod); cluster.Finished(pod) != want || want != (phase != corev1.PodRunning && !running) {
				t.Errorf("%s, a container runs %t: finished %t in full and %t slim", phase, running, want, cluster.Finished(pod))
			}
		}
	}
}
