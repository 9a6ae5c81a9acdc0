package elected

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

func nodeOf(uid string, taints ...string) *corev1.Node {
	n := &corev1.Node{}
	n.UID = types.UID(uid)
	n.CreationTimestamp = metav1.NewTime(time.Unix(1000, 0))
	for _, t := range taints {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: t})
	}
	return n
}

func TestOnlyANodeThatIsGoneIsGone(t *testing.T) {
	for _, test := range []struct {
		claim string
		node  *corev1.Node
		want  bool
	}{
		{"there is no Node", nil, true},
		{"another Node has its name", nodeOf("b"), true},
		{"it was declared out of service", nodeOf("a", "node.kubernetes.io/out-of-service"), true},
		{"it is there", nodeOf("a"), false},
		{"it only does not answer", nodeOf("a", "node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"), false},
		{"it is cordoned", nodeOf("a", "node.kubernetes.io/unschedulable"), false},
	} {
		f := Fencer{Now: time.Now}
		if got := f.Glance(lease.Node{Name: "a", UID: "a"}, test.node); got != test.want {
			t.Errorf("%s: gone %v, want %v", test.claim, got, test.want)
		}
	}
}

func TestPodBoundToTheNodeHoldsItsAddresses(t *testing.T) {
	c := leasetest.NewCluster(nil)
	if _, err := c.PutEndpoint(t.Context(), lease.Endpoint{
		Namespace: "default", Pod: "web-0", PodUID: "web-0-uid",
		Addresses: []lease.EndpointAddress{{Interface: "net1", Addr: netip.MustParseAddr("10.7.0.1")}},
	}); err != nil {
		t.Fatal(err)
	}
	podIPs := corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "10.6.168.101"}, {IP: "fd00::1"}}}
	for _, test := range []struct {
		claim     string
		pod       corev1.Pod
		successor *corev1.Node
		held      []string
		unknown   bool
	}{
		{
			claim: "status tells", pod: corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Status: podIPs},
			held: []string{"10.6.168.101", "fd00::1"},
		}, {
			claim: "status and endpoint tell",
			pod:   corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-0", UID: "web-0-uid"}, Status: podIPs},
			held:  []string{"10.6.168.101", "10.7.0.1", "fd00::1"},
		}, {
			claim: "the endpoint speaks of an earlier pod",
			pod:   corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-0", UID: "other"}}, unknown: true,
		}, {
			claim: "status tells of one of several interfaces",
			pod: corev1.Pod{ObjectMeta: metav1.ObjectMeta{
				Name: "a", Annotations: map[string]string{"k8s.v1.cni.cncf.io/networks": "net1"},
			}, Status: podIPs},
			held: []string{"10.6.168.101", "fd00::1"}, unknown: true,
		}, {
			claim: "status tells of one of several interfaces, and Multus of all",
			pod: corev1.Pod{ObjectMeta: metav1.ObjectMeta{
				Name: "a", Annotations: map[string]string{
					"k8s.v1.cni.cncf.io/networks":       "net1",
					"k8s.v1.cni.cncf.io/network-status": `[{"ips":["10.6.168.101","fd00::1"]},{"interface":"net1","ips":["10.7.0.2"]}]`,
				},
			}, Status: podIPs},
			held: []string{"10.6.168.101", "10.7.0.2", "fd00::1"},
		}, {
			claim: "the endpoint tells of one of several interfaces",
			pod: corev1.Pod{ObjectMeta: metav1.ObjectMeta{
				Name: "web-0", UID: "web-0-uid", Annotations: map[string]string{"k8s.v1.cni.cncf.io/networks": "net1"},
			}},
			held: []string{"10.7.0.1"}, unknown: true,
		}, {
			claim: "nothing tells", pod: corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, unknown: true,
		}, {
			claim: "nothing tells of a pod that may have been on the node before",
			pod:   corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", CreationTimestamp: metav1.NewTime(time.Unix(999, 0))}},

			successor: nodeOf("b"), unknown: true,
		}, {
			claim: "the pod was bound to the successor and does not run",
			pod:   corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", CreationTimestamp: metav1.NewTime(time.Unix(1001, 0))}},

			successor: nodeOf("b"),
		}, {
			claim: "the pod is older than the successor, was bound to it and does not run",
			pod: corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "a", CreationTimestamp: metav1.NewTime(time.Unix(999, 0))},
				Status: corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
					{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(time.Unix(1001, 0))},
				}},
			},
			successor: nodeOf("b"),
		}, {
			claim: "the pod was bound before there was the successor",
			pod: corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "a", CreationTimestamp: metav1.NewTime(time.Unix(998, 0))},
				Status: corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
					{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(time.Unix(999, 0))},
				}},
			},
			successor: nodeOf("b"), unknown: true,
		}, {
			claim: "the pod was bound to the successor and runs",
			pod: corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "a", CreationTimestamp: metav1.NewTime(time.Unix(1001, 0))},
				Status:     corev1.PodStatus{Phase: corev1.PodRunning},
			},
			successor: nodeOf("b"), unknown: true,
		}, {
			claim: "the pod was bound to the successor and has a sandbox",
			pod: corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "a", CreationTimestamp: metav1.NewTime(time.Unix(1001, 0))},
				Status: corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
					{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionTrue},
				}},
			},
			successor: nodeOf("b"), unknown: true,
		}, {
			claim:     "the pod has lost its sandbox since there is the successor",
			pod:       corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-0", UID: "web-0-uid"}, Status: withoutSandbox(podIPs, 1001)},
			successor: nodeOf("b"),
		}, {
			claim:     "the pod had lost its sandbox before there was the successor, and may have another one",
			pod:       corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-0", UID: "web-0-uid"}, Status: withoutSandbox(podIPs, 999)},
			successor: nodeOf("b"), held: []string{"10.6.168.101", "10.7.0.1", "fd00::1"},
		}, {
			claim: "the pod has lost its sandbox, and no Node says so",
			pod:   corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Status: withoutSandbox(podIPs, 1001)},
			held:  []string{"10.6.168.101", "fd00::1"},
		}, {
			claim: "the pod is in the node's network", pod: corev1.Pod{Spec: corev1.PodSpec{HostNetwork: true}, Status: podIPs},
		}, {
			claim: "the pod has failed, but nothing says that its containers ended",
			pod: corev1.Pod{
				Spec:   corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}},
				Status: corev1.PodStatus{Phase: corev1.PodFailed, PodIPs: podIPs.PodIPs},
			},
			held: []string{"10.6.168.101", "fd00::1"},
		}, {
			claim: "the pod has finished",
			pod: corev1.Pod{
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}},
				Status: corev1.PodStatus{Phase: corev1.PodSucceeded, PodIPs: podIPs.PodIPs, ContainerStatuses: []corev1.ContainerStatus{
					{Name: "c", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}},
				}},
			},
		},
	} {
		test.pod.Namespace = "default"
		held := inUse{}
		err := (&Fencer{Cluster: c, HoldDown: time.Minute}).holdings(t.Context(), &test.pod, test.successor, held)
		if errors.Is(err, errUnknownAddresses) != test.unknown || err != nil && !test.unknown {
			t.Errorf("%s: %v, want unknown %v", test.claim, err, test.unknown)
		}
		for _, addr := range test.held {
			if _, ok := held[netip.MustParseAddr(addr)]; !ok {
				t.Errorf("%s: %s is not held: %v", test.claim, addr, held)
			}
		}
		if len(held) != len(test.held) {
			t.Errorf("%s: held %v, want %v", test.claim, held, test.held)
		}
	}
}

// withoutSandbox returns the status of a pod that has had no sandbox since a
// Unix time in seconds.
func withoutSandbox(status corev1.PodStatus, since int64) corev1.PodStatus {
	status.Phase = corev1.PodRunning
	status.Conditions = []corev1.PodCondition{{
		Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Unix(since, 0),
	}}
	return status
}

func TestFencingEndsOneNodesLeaseAndKeepsPins(t *testing.T) {
	dead, alive := lease.Node{Name: "a", UID: "a"}, lease.Node{Name: "b", UID: "b"}
	pinned := netip.MustParseAddr("10.6.168.97")
	var between func()
	c := leasetest.NewCluster(func(call leasetest.Call) leasetest.Fault {
		if f := between; call.Method == "PutBlock" && f != nil {
			between = nil
			f()
		}
		return leasetest.Fault{}
	})
	b, err := lease.NewBlock(lease.BlockOf(pinned))
	if err != nil {
		t.Fatal(err)
	}
	b.Claim(dead, 0b1111)
	b.Claim(alive, 0b110000)
	if err := b.Pin(dead.UID, pinned, lease.Identity{Namespace: "default", Pod: "web-0", Interface: "eth0"}); err != nil {
		t.Fatal(err)
	}
	if b, err = c.PutBlock(t.Context(), b); err != nil {
		t.Fatal(err)
	}

	held := inUse{b.Addr(3): {}}
	end := func(held inUse) (int, error) {
		b, err := c.Block(t.Context(), b.Name())
		if err != nil {
			t.Fatal(err)
		}
		return endLease(t.Context(), c, b, dead.UID, held)
	}
	if left, err := end(held); left != 1 || err != nil {
		t.Errorf("with a pod left: %d addresses stay leased, %v, want 1", left, err)
	}
	// The pod of web-0 comes up elsewhere at this very moment.
	between = func() {
		b, err := c.Block(t.Context(), b.Name())
		if err == nil {
			err = b.TakeOver(alive, pinned, lease.Identity{Namespace: "default", Pod: "web-0", Interface: "eth0"})
		}
		if err == nil {
			_, err = c.PutBlock(t.Context(), b)
		}
		if err != nil {
			t.Error(err)
		}
	}
	if _, err := end(nil); !errors.Is(err, lease.ErrConflict) {
		t.Errorf("fencing behind a take-over ended with %v, want a conflict", err)
	}
	if left, err := end(nil); left != 0 || err != nil {
		t.Errorf("%d addresses stay leased, %v", left, err)
	}
	got := c.Blocks()[0]
	if got.LeasedTo(dead.UID) != 0 || got.LeasedTo(alive.UID) != 0b110010 || len(got.Pins) != 1 {
		t.Errorf("after fencing:\n%s", c)
	}
}

// What is named without a pin, its StatefulSet has given up: a pod that waits
// for that very address may be the one whose endpoint names it.
func TestAddressThatAnIdentitysEndpointNamesIsInUseWithItsPinOnly(t *testing.T) {
	b, err := lease.NewBlock(netip.MustParsePrefix("10.6.168.96/28"))
	if err != nil {
		t.Fatal(err)
	}
	b.Claim(lease.Node{Name: "a", UID: "a"}, 0b1111)
	if err := b.Pin("a", b.Addr(1), lease.Identity{Namespace: "default", Pod: "web-0", Interface: "eth0"}); err != nil {
		t.Fatal(err)
	}
	if err := b.Pin("a", b.Addr(2), lease.Identity{Namespace: "default", Pod: "db-0", Interface: "net1"}); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		sticky bool
		ips    []corev1.PodIP
		want   map[netip.Addr]bool
	}{
		"of an identity":      {true, nil, map[netip.Addr]bool{b.Addr(0): false, b.Addr(1): true, b.Addr(2): false}},
		"and its status too":  {true, []corev1.PodIP{{IP: b.Addr(0).String()}}, map[netip.Addr]bool{b.Addr(0): true, b.Addr(1): true, b.Addr(2): false}},
		"of no StatefulSet's": {false, nil, map[netip.Addr]bool{b.Addr(0): true, b.Addr(1): true, b.Addr(2): true}},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Status: corev1.PodStatus{PodIPs: test.ips}}
		e := &lease.Endpoint{Namespace: "default", Pod: "web-0", PodUID: "u", Sticky: test.sticky, Addresses: []lease.EndpointAddress{
			{Interface: "net1", Addr: b.Addr(0)}, {Interface: "eth0", Addr: b.Addr(1)}, {Interface: "net1", Addr: b.Addr(2)},
		}}
		held := inUse{}
		told(pod, e, held)
		if diff := cmp.Diff(test.want, held.of(&b), cmp.Comparer(func(x, y netip.Addr) bool { return x == y })); diff != "" {
			t.Errorf("an endpoint %s (-want +got):\n%s", name, diff)
		}
	}
}

// ward is a node with a lease, a Fencer that watches over it, and the time.
type ward struct {
	*testing.T
	Fencer
	lessee  lease.Node
	cluster *leasetest.Cluster
	block   string
	now     time.Time
	// node and pods are what a quorum read shows, asked how often one was
	// made.
	node  *corev1.Node
	pods  []corev1.Pod
	asked int
}

// outOfService is the taint of a node that an administrator gave up.
const outOfService = corev1.TaintNodeOutOfService

const holdDown = 5 * time.Minute

func newWard(t *testing.T) *ward {
	w := &ward{
		T: t, lessee: lease.Node{Name: "a", UID: "a"}, cluster: leasetest.NewCluster(nil),
		now: time.Unix(5000, 0), node: nodeOf("a", outOfService),
	}
	w.Fencer = Fencer{
		Cluster: w.cluster, HoldDown: holdDown, Now: func() time.Time { return w.now },
		Node: func(_ context.Context, name string) (*corev1.Node, error) {
			w.asked++
			if name != "a" {
				t.Errorf("read node %s", name)
			}
			if w.node == nil {
				return nil, lease.ErrNotFound
			}
			return w.node, nil
		},
		Pods: func(_ context.Context, node string) ([]corev1.Pod, error) {
			if node != "a" {
				t.Errorf("listed the pods of %s", node)
			}
			return w.pods, nil
		},
	}
	w.block = w.claim("10.6.168.96/28")
	return w
}

// claim leases three addresses of a block to the node.
func (w *ward) claim(cidr string) (block string) {
	w.Helper()
	b, err := lease.NewBlock(netip.MustParsePrefix(cidr))
	if err != nil {
		w.Fatal(err)
	}
	b.Claim(w.lessee, 0b1110)
	if _, err := w.cluster.PutBlock(w.Context(), b); err != nil {
		w.Fatal(err)
	}
	return b.Name()
}

// glance lets the cache show the node with the taints.
func (w *ward) glance(taints ...string) (news bool) {
	return w.Glance(w.lessee, nodeOf("a", taints...))
}

// fence fences in the named blocks and reports what came of it.
func (w *ward) fence(blocks ...string) Fenced {
	w.Helper()
	done, err := w.Fence(w.Context(), w.lessee, blocks)
	if err != nil {
		w.Fatal(err)
	}
	return done
}

func (w *ward) leased(block string) int {
	w.Helper()
	b, err := w.cluster.Block(w.Context(), block)
	if err != nil {
		w.Fatal(err)
	}
	return b.LeasedTo(w.lessee.UID).Len()
}

func TestHoldDownStartsAnewWhenTheNodeWasSeen(t *testing.T) {
	w := newWard(t)
	w.glance(outOfService)
	w.now = w.now.Add(holdDown - time.Second)
	w.glance() // it is back
	w.now = w.now.Add(time.Second)
	if done := w.fence(w.block); w.leased(w.block) != 3 {
		t.Errorf("fenced although it came back: %+v", done)
	}
	if !w.glance(outOfService) {
		t.Error("that it is gone again is no news")
	}
	w.now = w.now.Add(holdDown - time.Second)
	if w.glance(outOfService) {
		t.Error("an event that tells nothing new is news")
	}
	if done := w.fence(w.block); done.Rest != time.Second || w.leased(w.block) != 3 || w.asked > 0 {
		t.Errorf("before the hold-down had passed again: %+v, asked %d times\n%s", done, w.asked, w.cluster)
	}
	w.now = w.now.Add(time.Second)
	if done := w.fence(w.block); w.leased(w.block) != 0 || len(done.Ended) != 1 {
		t.Errorf("not fenced after the hold-down: %+v", done)
	}
}

func TestNodeFoundAliveRightBeforeIsNotFenced(t *testing.T) {
	w := newWard(t)
	w.Glance(w.lessee, nil) // the cache has no Node
	w.node = nodeOf("a")
	w.now = w.now.Add(holdDown)
	if done := w.fence(w.block); w.asked != 1 || w.leased(w.block) != 3 {
		t.Errorf("asked %d times, %+v\n%s", w.asked, done, w.cluster)
	}
	w.node = nil
	if done := w.fence(w.block); w.leased(w.block) != 3 {
		t.Errorf("fenced right after it was found alive: %+v", done)
	}
}

func TestNodeNotKnownToBeGoneIsNotFenced(t *testing.T) {
	w := newWard(t)
	w.now = w.now.Add(2 * holdDown)
	if done := w.fence(w.block); w.leased(w.block) != 3 {
		t.Errorf("fenced at first sight: %+v", done)
	}
}

func TestNodeKeepsItsLeaseWhileAPodIsBoundToIt(t *testing.T) {
	w := newWard(t)
	other := w.claim("10.6.168.112/28")
	w.pods = []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "p"}}}
	w.Glance(w.lessee, nil)
	w.node = nil
	w.now = w.now.Add(holdDown)
	if done, err := w.Fence(t.Context(), w.lessee, []string{w.block, other}); !errors.Is(err, errUnknownAddresses) || len(done.Ended) > 0 {
		t.Errorf("with a pod whose addresses nothing tells: %+v, %v", done, err)
	}
	w.pods[0].Status.PodIPs = []corev1.PodIP{{IP: "10.6.168.98"}}
	if done := w.fence(w.block, other); w.leased(w.block) != 1 || w.leased(other) != 0 || len(done.Waiting) != 1 || len(done.Ended) != 1 {
		t.Errorf("with a pod in one of two blocks: %+v\n%s", done, w.cluster)
	}
	w.pods = nil
	if done := w.fence(w.block); w.leased(w.block) != 0 {
		t.Errorf("without pods: %+v", done)
	}
}

func TestErrorIsNoEvidenceThatANodeIsGone(t *testing.T) {
	broken := errors.New("the API server is away")
	w := newWard(t)
	node, pods := w.Node, w.Pods
	w.glance(outOfService)
	w.now = w.now.Add(holdDown)
	w.Node = func(context.Context, string) (*corev1.Node, error) { return nil, broken }
	if _, err := w.Fence(t.Context(), w.lessee, []string{w.block}); !errors.Is(err, broken) || w.leased(w.block) != 3 {
		t.Errorf("without an answer about the node: %v\n%s", err, w.cluster)
	}
	w.Node = node
	w.Pods = func(context.Context, string) ([]corev1.Pod, error) { return nil, broken }
	if _, err := w.Fence(t.Context(), w.lessee, []string{w.block}); !errors.Is(err, broken) || w.leased(w.block) != 3 {
		t.Errorf("without an answer about its pods: %v\n%s", err, w.cluster)
	}
	w.Pods = pods
	if done := w.fence(w.block); w.leased(w.block) != 0 {
		t.Errorf("not fenced after the answers came: %+v", done)
	}
}

func TestLeaseThatComesToLightLaterEndsToo(t *testing.T) {
	w := newWard(t)
	w.node = nil
	w.Glance(w.lessee, nil)
	w.now = w.now.Add(holdDown)
	w.fence(w.block)
	late := w.claim("10.6.168.112/28") // the last update of a node that is no more
	if !w.Glance(w.lessee, nil) {
		t.Fatal("a block that names a node that was fenced is no news, so nobody would look at it")
	}
	if done := w.fence(late); w.leased(late) != 3 || done.Rest != holdDown {
		t.Errorf("at once: %+v", done)
	}
	w.now = w.now.Add(holdDown)
	if done := w.fence(late); w.leased(late) != 0 {
		t.Errorf("after a hold-down: %+v", done)
	}
}

func TestNodeThatComesBackDuringTheFencingKeepsItsLease(t *testing.T) {
	w := newWard(t)
	w.glance(outOfService)
	w.now = w.now.Add(holdDown)
	pods := w.Pods
	w.Pods = func(ctx context.Context, node string) ([]corev1.Pod, error) {
		// Right after the Node was read, the taint is taken off. The node's
		// agent finds it in order, writes its blocks as they are, and assigns.
		b, err := w.cluster.Block(ctx, w.block)
		if err == nil {
			_, err = w.cluster.PutBlock(ctx, b)
		}
		if err != nil {
			t.Error(err)
		}
		return pods(ctx, node)
	}
	if done, err := w.Fence(t.Context(), w.lessee, []string{w.block}); !errors.Is(err, lease.ErrConflict) || w.leased(w.block) != 3 {
		t.Errorf("%+v, %v\n%s", done, err, w.cluster)
	}
	w.node = nodeOf("a")
	if done := w.fence(w.block); w.leased(w.block) != 3 {
		t.Errorf("%+v\n%s", done, w.cluster)
	}
}
