package elected

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/holdfast-ipam/holdfast/crds"
	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
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
		if got := isGone(test.node, "a"); got != test.want {
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
			claim: "nothing tells", pod: corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, unknown: true,
		}, {
			claim: "nothing tells of a pod that may have been on the node before",
			pod:   corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", CreationTimestamp: metav1.NewTime(time.Unix(999, 0))}},

			successor: nodeOf("b"), unknown: true,
		}, {
			claim: "the pod was bound to the successor",
			pod:   corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", CreationTimestamp: metav1.NewTime(time.Unix(1001, 0))}},

			successor: nodeOf("b"),
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
		held := map[netip.Addr]bool{}
		err := holdings(t.Context(), c, &test.pod, test.successor, held)
		if errors.Is(err, errUnknownAddresses) != test.unknown || err != nil && !test.unknown {
			t.Errorf("%s: %v, want unknown %v", test.claim, err, test.unknown)
		}
		for _, addr := range test.held {
			if !held[netip.MustParseAddr(addr)] {
				t.Errorf("%s: %s is not held: %v", test.claim, addr, held)
			}
		}
		if len(held) != len(test.held) {
			t.Errorf("%s: held %v, want %v", test.claim, held, test.held)
		}
	}
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

	held := map[netip.Addr]bool{b.Addr(3): true}
	if left, err := endLease(t.Context(), c, b.Name(), dead.UID, held); left != 4 || err != nil {
		t.Errorf("with a pod left: %d addresses stay leased, %v, want 4", left, err)
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
	if _, err := endLease(t.Context(), c, b.Name(), dead.UID, nil); !errors.Is(err, lease.ErrConflict) {
		t.Errorf("fencing behind a take-over ended with %v, want a conflict", err)
	}
	if left, err := endLease(t.Context(), c, b.Name(), dead.UID, nil); left != 0 || err != nil {
		t.Errorf("%d addresses stay leased, %v", left, err)
	}
	got := c.Blocks()[0]
	if got.LeasedTo(dead.UID) != 0 || got.LeasedTo(alive.UID) != 0b110010 || len(got.Pins) != 1 {
		t.Errorf("after fencing:\n%s", c)
	}
}

// seen is a fence that sees what the test puts into its caches.
func seen(t *testing.T, c *leasetest.Cluster, holdDown time.Duration) *fence {
	kinds := new(crds.Clients)
	return &fence{
		blocks: newCache(kinds.IPBlocks(), &v1alpha1.IPBlock{}, cache.TypedIndexers[*v1alpha1.IPBlock]{indexLessee: lessees}),
		// Never started, so it lists nothing.
		nodes:   newCache(kinds.IPBlocks(), &corev1.Node{}, nil),
		cluster: c, holdDown: holdDown,
		look: func(context.Context, lease.Node) (map[netip.Addr]bool, bool, error) {
			return nil, true, nil
		},
		queue: newQueue[lease.Node]("test"),
		log:   slog.New(slog.NewTextHandler(t.Output(), nil)),
		gone:  map[string]time.Time{},
	}
}

func TestHoldDownStartsAnewWhenTheNodeWasSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const holdDown = 5 * time.Minute
		c := leasetest.NewCluster(nil)
		b, err := lease.NewBlock(netip.MustParsePrefix("10.6.168.96/28"))
		if err != nil {
			t.Fatal(err)
		}
		lessee := lease.Node{Name: "a", UID: "a"}
		b.Claim(lessee, 0b111)
		if _, err = c.PutBlock(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		f := seen(t, c, holdDown)
		defer f.queue.ShutDown()
		cached := &v1alpha1.IPBlock{Spec: v1alpha1.IPBlockSpec{Leases: []v1alpha1.Lease{{Node: "a", NodeUID: "a"}}}}
		cached.Name = b.Name()
		if err := f.blocks.GetStore().Add(cached); err != nil {
			t.Fatal(err)
		}
		node := func(taints ...string) {
			t.Helper()
			n := nodeOf("a", taints...)
			n.Name = "a"
			if err := f.nodes.GetStore().Add(n); err != nil {
				t.Fatal(err)
			}
			f.glance(lessee)
		}
		leased := func() int {
			t.Helper()
			if again, err := f.do(t.Context(), lessee); again || err != nil {
				t.Fatalf("again %v, %v", again, err)
			}
			return c.Blocks()[0].LeasedTo("a").Len()
		}
		node(corev1.TaintNodeOutOfService)
		time.Sleep(holdDown - time.Second)
		node() // it is back
		time.Sleep(time.Second)
		if leased() != 3 {
			t.Error("fenced although it came back")
		}
		node(corev1.TaintNodeOutOfService)
		time.Sleep(holdDown - time.Second)
		node(corev1.TaintNodeOutOfService) // an event that tells nothing new
		if leased() != 3 {
			t.Error("fenced before the hold-down had passed again")
		}
		time.Sleep(time.Second)
		if leased() != 0 {
			t.Error("not fenced after the hold-down")
		}
	})
}

func TestNodeFoundAliveRightBeforeIsNotFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := leasetest.NewCluster(nil)
		f := seen(t, c, time.Minute)
		defer f.queue.ShutDown()
		asked := false
		f.look = func(context.Context, lease.Node) (map[netip.Addr]bool, bool, error) {
			asked = true
			return nil, false, nil
		}
		b, err := lease.NewBlock(netip.MustParsePrefix("10.6.168.96/28"))
		if err != nil {
			t.Fatal(err)
		}
		lessee := lease.Node{Name: "a", UID: "a"}
		b.Claim(lessee, 0b111)
		if _, err = c.PutBlock(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		cached := &v1alpha1.IPBlock{Spec: v1alpha1.IPBlockSpec{Leases: []v1alpha1.Lease{{Node: "a", NodeUID: "a"}}}}
		cached.Name = b.Name()
		if err := f.blocks.GetStore().Add(cached); err != nil {
			t.Fatal(err)
		}
		f.glance(lessee) // the cache has no Node
		time.Sleep(time.Minute)
		again, err := f.do(t.Context(), lessee)
		if again || err != nil || !asked || c.Blocks()[0].LeasedTo("a").Len() != 3 {
			t.Errorf("asked %v, again %v, %v\n%s", asked, again, err, c)
		}
	})
}
