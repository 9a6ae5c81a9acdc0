package elected

import (
	"errors"
	"net/netip"
	"testing"
	"time"

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
