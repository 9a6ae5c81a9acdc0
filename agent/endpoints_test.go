package agent

import (
	"encoding/json"
	"errors"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

func TestEndpointWaitsForTheWatchToShowThePod(t *testing.T) {
	disk := leasetest.NewDisk(nil).Open()
	err := disk.Write([]lease.Entry{{
		Addr: netip.MustParseAddr("10.6.0.1"), State: lease.Assigned, Namespace: "default", Pod: "web-0",
		Owner: lease.Owner{PodUID: "new", Interface: "eth0"}, Detail: json.RawMessage(`{}`),
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{now: time.Now}
	if a.lessee, err = lease.New(lease.Config{Disk: disk, Now: time.Now}); err != nil {
		t.Fatal(err)
	}
	cached := newSimCache("pods", func(*corev1.Pod) bool { return true })
	a.pods = &pods{informer: cached.informer()}
	w := newEndpoints(a)
	defer w.queue.ShutDown()
	if err := w.write(t.Context(), "default/web-0"); !errors.Is(err, errPodNotSeen) {
		t.Errorf("the watch shows no pod: %v", err)
	}
	cached.see("default/web-0", &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-0", UID: "old"}}, true)
	if err := w.write(t.Context(), "default/web-0"); !errors.Is(err, errPodNotSeen) {
		t.Errorf("the watch shows an earlier pod of the name: %v", err)
	}
}

// A status goes on to name the addresses of the pod's last sandbox.
func TestEndpointIsAdoptedOfAnEarlierNodesLease(t *testing.T) {
	for name, test := range map[string]struct {
		lessee lease.Node
		sticky bool
		want   bool
	}{
		"an earlier Node of the name":            {lease.Node{Name: "a", UID: "earlier"}, false, true},
		"this Node, and maybe another pod's now": {lease.Node{Name: "a", UID: "a"}, false, false},
		"this Node, pinned":                      {lease.Node{Name: "a", UID: "a"}, true, true},
		"a Node of another name":                 {lease.Node{Name: "b", UID: "b"}, true, false},
	} {
		e := lease.Entry{Addr: netip.MustParseAddr("10.0.0.1"), Namespace: "default", Pod: "web-0", Sticky: test.sticky, Owner: lease.Owner{PodUID: "u", Interface: "eth0"}}
		b, err := lease.NewBlock(lease.BlockOf(e.Addr))
		if err != nil {
			t.Fatal(err)
		}
		b.Claim(test.lessee, 0b10)
		if test.sticky {
			if err := b.Pin(test.lessee.UID, e.Addr, e.Identity()); err != nil {
				t.Fatal(err)
			}
		}
		if got := adoptable(&e, &b, lease.Node{Name: "a", UID: "a"}); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

// A pin that is on its way out may be unmarked yet, and nothing else tells when.
func TestEndpointOfAPinThatIsBeingReleasedIsLookedAtAgain(t *testing.T) {
	node := lease.Node{Name: "a", UID: "a"}
	e := lease.Entry{Addr: netip.MustParseAddr("10.0.0.1"), Namespace: "default", Pod: "web-0", Sticky: true, Owner: lease.Owner{Interface: "eth0"}}
	other := e
	other.Pod = "web-1"
	for name, test := range map[string]struct {
		pinned  bool
		mark    bool
		entry   lease.Entry
		node    lease.Node
		held    bool
		decided bool
	}{
		"pinned":                 {true, false, e, node, true, true},
		"pinned, and marked":     {true, true, e, node, false, false},
		"not pinned":             {false, false, e, node, false, true},
		"pinned to another one":  {true, true, other, node, false, true},
		"leased to another node": {true, true, e, lease.Node{Name: "b", UID: "b"}, false, true},
	} {
		b, err := lease.NewBlock(lease.BlockOf(e.Addr))
		if err != nil {
			t.Fatal(err)
		}
		b.Claim(node, 0b10)
		if test.pinned {
			err = b.Pin(node.UID, e.Addr, e.Identity())
		}
		if test.mark && err == nil {
			err = b.MarkReleasing(e.Addr, e.Identity())
		}
		if err != nil {
			t.Fatal(err)
		}
		held, err := isHeld(&test.entry, &b, test.node)
		if held != test.held || errors.Is(err, errReleasing) == test.decided {
			t.Errorf("%s: held %v, %v", name, held, err)
		}
	}
}
