package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/agent/journal"
	"github.com/holdfast-ipam/holdfast/agent/watch"
	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// realServer is a real API server. What a test does there, it does under names
// of its own.
type realServer struct {
	config *rest.Config
	kube   kubernetes.Interface
}

func startServer(t *testing.T) *realServer {
	t.Helper()
	s := &realServer{config: apitest.Start(t)}
	var err error
	if s.kube, err = kubernetes.NewForConfig(cluster.Config(s.config, "holdfast-test")); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestAPIServer runs all that needs a real API server against one.
func TestAPIServer(t *testing.T) {
	s := startServer(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *realServer)
	}{
		{"NodeThatIsTrustedAgainOutrunsWhatWasJudgedBefore", trustOutruns},
		{"NodeThatIsTrustedAgainKnowsWhatItLost", trustRelearns},
		{"NodeIsNotTrustedBeforeItHasLearnedItsLeases", trustAfterLearning},
		{"NodeOutOfServiceIsNotTrusted", outOfServiceNode},
		{"RecreatedNodeEndsTheAgentOfTheNodeBefore", recreatedNode},
		{"NodeWithoutObjectDoesNotGoByItsJournal", journalOfADeletedNode},
		{"PodThatTheWatchHasLostKeepsItsAddress", lostPod},
		{"BlockThatTheWatchReportsGoneIsReadBeforeItIsForgotten", lostBlock},
		{"EarlierPodsAgentLeavesTheEndpointToTheLaterPod", laterPodsEndpoint},
		{"AddOfAnEarlierPodIsRefused", earlierPodsAdd},
		{"StatusOfPodsTellsWhatALostJournalKnew", lostJournal},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s) })
	}
}

// node creates a Node.
func (s *realServer) node(t *testing.T, name string) *corev1.Node {
	t.Helper()
	node, err := s.kube.CoreV1().Nodes().Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return node
}

// testTime is the time of an agent under test. Its watches look at it too.
type testTime struct {
	mu sync.Mutex
	at time.Time
}

func newTestTime() *testTime { return &testTime{at: time.Now()} }

func (c *testTime) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// pass lets time go by.
func (c *testTime) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// agent returns the agent of a Node as it is before [Agent.start]: it knows
// which node it is, and its watches do not run.
func (s *realServer) agent(t *testing.T, node string, clock *testTime) *Agent {
	t.Helper()
	a := &Agent{
		options: Options{NodeName: node, Namespace: "kube-system"}, config: DefaultConfig(),
		log: slog.New(slog.NewTextHandler(t.Output(), nil)), now: clock.now, metrics: newMetrics(),
		complete: func() error { return nil },
	}
	if err := a.connect(s.config); err != nil {
		t.Fatal(err)
	}
	if err := a.meet(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := lease.New(lease.Config{Node: a.node, Cluster: a.cluster, Disk: leasetest.NewDisk(nil).Open(), Now: clock.now})
	if err != nil {
		t.Fatal(err)
	}
	a.lessee, a.blocks = l, newBlocks(a.cluster, a.node.UID)
	return a
}

// claim leases three addresses of a block to the agent's node, and returns the
// block as somebody reads it then.
func claim(t *testing.T, a *Agent, cidr string) lease.Block {
	t.Helper()
	b, err := lease.NewBlock(netip.MustParsePrefix(cidr))
	if err != nil {
		t.Fatal(err)
	}
	b.Claim(a.node, 0b1110)
	if b, err = a.cluster.PutBlock(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return b
}

// endLease takes the node's lease in a block away, as one who fences does.
func endLease(ctx context.Context, a *Agent, b lease.Block) error {
	b.Fence(a.node.UID, nil)
	_, err := a.cluster.PutBlock(ctx, b)
	return err
}

func beat(t *testing.T, a *Agent) {
	t.Helper()
	if _, err := a.beat(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func learn(t *testing.T, a *Agent) {
	t.Helper()
	if err := a.learn(t.Context(), false); err != nil {
		t.Fatal(err)
	}
}

func trustOutruns(t *testing.T, s *realServer) {
	s.node(t, "outruns")
	clock := newTestTime()
	a := s.agent(t, "outruns", clock)
	block := claim(t, a, "10.1.0.0/28")
	for _, when := range []string{"when it starts", "when it was cut off for long"} {
		judged, err := a.cluster.Block(t.Context(), block.Name())
		if err != nil {
			t.Fatal(err)
		}
		learn(t, a)
		beat(t, a)
		if err := a.lessee.Ready(); err != nil {
			t.Fatalf("%s, a node in order is not ready: %v", when, err)
		}
		if err := endLease(t.Context(), a, judged); !errors.Is(err, lease.ErrConflict) {
			t.Errorf("%s, the end of a lease judged before lands afterwards (%v)", when, err)
		}
		if got := len(a.lessee.Free()); got != 3 {
			t.Errorf("%s, %d addresses are free here, want 3", when, got)
		}
		clock.pass(a.config.HoldDown.Duration)
	}
}

func trustRelearns(t *testing.T, s *realServer) {
	s.node(t, "relearns")
	clock := newTestTime()
	a := s.agent(t, "relearns", clock)
	claim(t, a, "10.2.0.0/28")
	learn(t, a)
	beat(t, a)
	clock.pass(a.config.HoldDown.Duration)
	// Its watch does not tell.
	b, err := a.cluster.Block(t.Context(), lease.Name(netip.MustParsePrefix("10.2.0.0/28")))
	if err == nil {
		err = endLease(t.Context(), a, b)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := a.lessee.Ready(); !errors.Is(err, lease.ErrCutOff) {
		t.Errorf("after a hold-down without a heartbeat: %v", err)
	}
	beat(t, a)
	if free := a.lessee.Free(); len(free) > 0 || a.lessee.Ready() != nil {
		t.Errorf("ready (%v) with addresses that are leased to nobody: %v", a.lessee.Ready(), free)
	}
}

func trustAfterLearning(t *testing.T, s *realServer) {
	s.node(t, "learning")
	a := s.agent(t, "learning", newTestTime())
	pause, err := a.beat(t.Context())
	if until := a.lessee.TrustedUntil(); !until.IsZero() || err != nil || pause != heartbeatRetry {
		t.Errorf("trusted until %s, next beat in %s, %v", until, pause, err)
	}
	learn(t, a)
	beat(t, a)
	if err := a.lessee.Ready(); err != nil {
		t.Error(err)
	}
}

func outOfServiceNode(t *testing.T, s *realServer) {
	node := s.node(t, "lost")
	node.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeOutOfService, Effect: corev1.TaintEffectNoExecute}}
	if _, err := s.kube.CoreV1().Nodes().Update(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	a := s.agent(t, "lost", newTestTime())
	learn(t, a)
	beat(t, a)
	if until := a.lessee.TrustedUntil(); !until.IsZero() {
		t.Errorf("trusted until %s", until)
	}
}

func recreatedNode(t *testing.T, s *realServer) {
	s.node(t, "recreated")
	a := s.agent(t, "recreated", newTestTime())
	learn(t, a)
	beat(t, a)
	until := a.lessee.TrustedUntil()
	follow(t, a.nodes.informer)
	again := holder(t, a, "10.40.0.1-10.40.0.9")
	if _, err := a.add(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	if err := s.kube.CoreV1().Nodes().Delete(t.Context(), "recreated", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.beat(t.Context()); err == nil {
		t.Error("the agent of a node without object goes on")
	}
	s.node(t, "recreated")
	if _, err := a.beat(t.Context()); err == nil || !a.lessee.TrustedUntil().Equal(until) {
		t.Errorf("the agent of a node that was made anew goes on: %v, trusted until %s and then %s", err, until, a.lessee.TrustedUntil())
	}
	// Until it ends, it answers nobody, whom it knows as little as whom it does not.
	within(t, func() string {
		if got, err := a.add(t.Context(), again); err == nil {
			return fmt.Sprintf("a pod is answered with %+v", got)
		}
		return ""
	})
}

// holder gives an address to a pod, and returns what the pod's ADD asks then.
func holder(t *testing.T, a *Agent, ranges string) *cni.AddRequest {
	t.Helper()
	p := detailed(t, ranges)
	q := &cni.AddRequest{Network: "net", Attachment: cni.Attachment{
		ContainerID: "c", Interface: "eth0", Pod: cni.Pod{Namespace: "default", Name: "holds", UID: "u"},
	}}
	_, err := a.lessee.Acquire(t.Context(), lease.Request{
		Owner: sandbox(q.Attachment).Owner, Container: q.ContainerID, Network: q.Network,
		Namespace: q.Pod.Namespace, Pod: q.Pod.Name, Families: [][]lease.Pool{{p}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// onLog is a log of which only is known when it was written to.
type onLog func()

func (f onLog) Write(line []byte) (int, error) { f(); return len(line), nil }

func journalOfADeletedNode(t *testing.T, s *realServer) {
	// The agent says what it does after its first look: then that is enough.
	ctx, cancel := context.WithCancel(t.Context())
	a := &Agent{
		options: Options{NodeName: "deleted", Journal: filepath.Join(t.TempDir(), "journal.db")}, config: DefaultConfig(),
		log: slog.New(slog.NewTextHandler(onLog(cancel), nil)), now: time.Now, metrics: newMetrics(),
	}
	if err := a.connect(s.config); err != nil {
		t.Fatal(err)
	}
	disk, _, err := journal.Open(a.options.Journal, "uid-of-the-deleted")
	if err != nil {
		t.Fatal(err)
	}
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.meet(ctx); err == nil {
		t.Errorf("went by the journal of a node that is deleted: %+v", a.node)
	}
	s.node(t, "deleted")
	if err := a.meet(t.Context()); err != nil || a.node.UID == "uid-of-the-deleted" {
		t.Errorf("the node that was made anew is taken for %+v, %v", a.node, err)
	}
}

// follow runs one of the agent's watches until the test ends.
func follow(t *testing.T, informer cache.SharedIndexInformer) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { informer.RunWithContext(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	if !watch.Synced(t.Context(), informer) {
		t.Fatal("the watch does not begin")
	}
}

// pod creates a pod that is bound to a node.
func (s *realServer) pod(t *testing.T, name, node string) *corev1.Pod {
	t.Helper()
	pod, err := s.kube.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "nginx"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func (s *realServer) deletePod(t *testing.T, name string) {
	t.Helper()
	if err := s.kube.CoreV1().Pods("default").Delete(t.Context(), name, *metav1.NewDeleteOptions(0)); err != nil {
		t.Fatal(err)
	}
}

// acquire has the agent assign an address of the range to a pod's interface.
func acquire(t *testing.T, a *Agent, pod *corev1.Pod, ranges string) netip.Addr {
	t.Helper()
	p := detailed(t, ranges)
	entries, err := a.lessee.Acquire(t.Context(), lease.Request{
		Owner:     lease.Owner{PodUID: string(pod.UID), Interface: "eth0"},
		Container: "sandbox-of-" + pod.Name, Namespace: pod.Namespace, Pod: pod.Name,
		Families: [][]lease.Pool{{p}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return entries[0].Addr
}

// has reports whether the agent knows the address as the pod's.
func has(a *Agent, pod *corev1.Pod, addr netip.Addr) bool {
	return a.lessee.Has(lease.Sandbox{
		Owner: lease.Owner{PodUID: string(pod.UID), Interface: "eth0"}, Container: "sandbox-of-" + pod.Name,
	}, addr)
}

func lostPod(t *testing.T, s *realServer) {
	s.node(t, "forgetful")
	clock := newTestTime()
	a := s.agent(t, "forgetful", clock)
	learn(t, a)
	beat(t, a)
	pod := s.pod(t, "lives-on", "forgetful")
	follow(t, a.pods.informer)
	addr := acquire(t, a, pod, "10.3.0.1-10.3.0.3")
	clock.pass(leakAge + time.Second)
	if err := a.pods.informer.GetStore().Delete(pod); err != nil {
		t.Fatal(err)
	}
	if err := a.findLeaks(t.Context()); err != nil {
		t.Fatal(err)
	}
	clock.pass(usualGrace + tearDown)
	if err := a.findLeaks(t.Context()); err != nil || !has(a, pod, addr) {
		t.Errorf("a pod that lives lost %s to a watch that lost the pod, %v", addr, err)
	}
	s.deletePod(t, "lives-on")
	// On its way out the pod may show in the watch once more.
	for deadline := time.Now().Add(time.Minute); has(a, pod, addr); <-time.After(10 * time.Millisecond) {
		clock.pass(time.Second)
		if err := a.findLeaks(t.Context()); err != nil || time.Now().After(deadline) {
			t.Fatalf("a pod that is gone keeps %s, %v", addr, err)
		}
	}
}

func lostBlock(t *testing.T, s *realServer) {
	s.node(t, "unlabelled")
	a := s.agent(t, "unlabelled", newTestTime())
	block := claim(t, a, "10.4.0.0/28")
	learn(t, a)
	beat(t, a)
	pod := s.pod(t, "holder", "unlabelled")
	addr := acquire(t, a, pod, "10.4.0.1-10.4.0.3")
	follow(t, a.blocks.informer)
	if err := a.watchBlocks(t.Context()); err != nil {
		t.Fatal(err)
	}
	handled := func() { // the agent kicks itself after each event
		t.Helper()
		select {
		case <-a.upkeep.wake:
		case <-time.After(time.Minute):
			t.Fatal("the watch does not tell")
		}
	}
	handled()
	// Whoever takes the label away makes the block vanish from the watch.
	unlabel := fmt.Sprintf(`{"metadata":{"labels":{%q:null}}}`, cluster.LesseeSelector(a.node.UID))
	if _, err := a.clients.IPBlocks().Patch(t.Context(), block.Name(), types.MergePatchType, []byte(unlabel), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	handled()
	if leasing := a.lessee.Leasing(); !slices.Contains(leasing, block.Prefix()) || !has(a, pod, addr) {
		t.Errorf("leasing %v, has %s: %t", leasing, addr, has(a, pod, addr))
	}
}

func laterPodsEndpoint(t *testing.T, s *realServer) {
	s.node(t, "earlier")
	s.node(t, "later")
	old, young := s.agent(t, "earlier", newTestTime()), s.agent(t, "later", newTestTime())
	for _, a := range []*Agent{old, young} {
		learn(t, a)
		beat(t, a)
	}
	earlier := s.pod(t, "moves", "earlier")
	acquire(t, old, earlier, "10.5.0.1-10.5.0.3")
	s.deletePod(t, "moves")
	later := s.pod(t, "moves", "later")
	addr := acquire(t, young, later, "10.5.1.1-10.5.1.3")
	for _, put := range []struct {
		*Agent
		*corev1.Pod
	}{{old, earlier}, {young, later}} {
		// Each agent's watch shows its own pod.
		if err := put.pods.informer.GetStore().Add(put.Pod); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range []*Agent{young, old} {
		if err := a.endpoints.write(t.Context(), "default/moves"); err != nil {
			t.Fatal(err)
		}
	}
	e, err := old.cluster.Endpoint(t.Context(), "default", "moves")
	if err != nil || e.PodUID != string(later.UID) || len(e.Addresses) != 1 || e.Addresses[0].Addr != addr {
		t.Errorf("the endpoint says %+v, %v, want what the later pod has, %s", e, err, addr)
	}
}

func earlierPodsAdd(t *testing.T, s *realServer) {
	s.node(t, "repeats")
	a := s.agent(t, "repeats", newTestTime())
	follow(t, a.pods.informer)
	now := s.pod(t, "again", "repeats")
	_, err := a.pods.find(t.Context(), cni.Pod{Namespace: "default", Name: "again", UID: "of-an-earlier-pod"})
	if refusal := new(cni.Error); !errors.As(err, &refusal) {
		t.Errorf("an ADD of an earlier pod is taken for the later one's: %v", err)
	}
	found, err := a.pods.find(t.Context(), cni.Pod{Namespace: "default", Name: "again", UID: string(now.UID)})
	if err != nil || found.UID != now.UID {
		t.Errorf("found %+v, %v", found, err)
	}
}

func lostJournal(t *testing.T, s *realServer) {
	s.node(t, "new-disk")
	a := s.agent(t, "new-disk", newTestTime())
	claim(t, a, "10.8.0.0/28")
	claim(t, a, "10.8.0.16/28")
	for name, ip := range map[string]string{"runs-alone": "10.8.0.1", "runs-on": "10.8.0.2", "has-ended": "10.8.0.17"} {
		pod := s.pod(t, name, "new-disk")
		pod.Status.PodIPs = []corev1.PodIP{{IP: ip}}
		pod.Status.PodIP = ip
		if name == "has-ended" {
			pod.Status.Phase = corev1.PodSucceeded
			for _, c := range pod.Spec.Containers {
				pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
					Name: c.Name, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}},
				})
			}
		}
		if _, err := s.kube.CoreV1().Pods("default").UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	// What pool it is of only that tells which an earlier pod of the name left:
	// there is no such pool any more.
	detail := json.RawMessage(`{"pool":"gone","prefix":"10.8.0.2/16"}`)
	if _, err := a.cluster.PutEndpoint(t.Context(), lease.Endpoint{Namespace: "default", Pod: "runs-on", PodUID: "earlier", Node: "new-disk", Addresses: []lease.EndpointAddress{
		{Interface: "eth0", Addr: netip.MustParseAddr("10.8.0.2"), Detail: detail}, {Interface: "net1", Addr: netip.MustParseAddr("10.8.0.3"), Detail: detail},
	}}); err != nil {
		t.Fatal(err)
	}
	// It has an address that the status of one which has ended still tells of.
	heir := s.pod(t, "heir", "new-disk")
	if _, err := a.cluster.PutEndpoint(t.Context(), lease.Endpoint{Namespace: "default", Pod: heir.Name, PodUID: string(heir.UID), Node: "new-disk", Addresses: []lease.EndpointAddress{
		{Interface: "net1", Addr: netip.MustParseAddr("10.8.0.17"), Detail: detail},
	}}); err != nil {
		t.Fatal(err)
	}
	follow(t, a.pools.informer) // and no watch shows the pods yet
	if err := a.learn(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	state := map[netip.Addr]lease.State{}
	for _, e := range a.lessee.Entries() {
		state[e.Addr] = e.State
		if e.Pod == "runs-on" && e.Detail == nil {
			t.Errorf("nothing tells of what pool %s is, which an endpoint names", e.Addr)
		}
		if e.Pod == "has-ended" {
			t.Errorf("%s is for %s, which has ended, and not for %s", e.Addr, e.Pod, heir.Name)
		}
	}
	want := map[netip.Addr]lease.State{
		netip.MustParseAddr("10.8.0.1"):  lease.Assigned,
		netip.MustParseAddr("10.8.0.2"):  lease.Assigned,
		netip.MustParseAddr("10.8.0.3"):  lease.Cooling,
		netip.MustParseAddr("10.8.0.17"): lease.Assigned,
		netip.MustParseAddr("10.8.0.18"): lease.Cooling,
		netip.MustParseAddr("10.8.0.19"): lease.Cooling,
	}
	if diff := cmp.Diff(want, state, cmp.Comparer(func(x, y netip.Addr) bool { return x == y })); diff != "" {
		t.Errorf("after the journal was lost (-want +got):\n%s", diff)
	}
}
