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
