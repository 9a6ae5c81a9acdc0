package agent

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/crds"
	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// starting returns an agent as it is before it knows its node's leases: all
// that its socket needs for everything but an ADD.
func starting(t testing.TB) *Agent {
	t.Helper()
	l, err := lease.New(lease.Config{
		Node: lease.Node{Name: "node", UID: "uid"}, Cluster: leasetest.NewCluster(nil),
		Disk: leasetest.NewDisk(nil).Open(), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{config: DefaultConfig(), log: slog.New(slog.DiscardHandler), now: time.Now, metrics: newMetrics(), lessee: l}
	client, err := kubernetes.NewForConfig(&rest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	clients, err := crds.NewClients(&rest.Config{}, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	a.pods, a.nodes = newPods(client, "node"), newOwnNode(client, "node")
	a.coordinators, a.upkeep = newCoordinators(clients), newUpkeep(a)
	return a
}

func ask(a *Agent, method, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	a.socketHandler().ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w
}

func TestDelOfWhatIsNotThereSucceeds(t *testing.T) {
	for _, body := range []string{
		`{"containerID":"c","interface":"eth0","pod":{"namespace":"default","name":"web-0","uid":"u"}}`,
		`{"containerID":"c","interface":"eth0","pod":{}}`,
	} {
		if w := ask(starting(t), http.MethodPost, cni.PathDel, body); w.Code != http.StatusNoContent {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
}

func TestStatusTellsWhyAnAddWouldFail(t *testing.T) {
	w := ask(starting(t), http.MethodGet, cni.PathStatus, "")
	var s cni.Status
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	if s.Ready || s.Reason == "" {
		t.Errorf("status is %+v", s)
	}
}

func TestCheckOfAnAddressNobodyAssignedFails(t *testing.T) {
	w := ask(starting(t), http.MethodPost, cni.PathCheck, `{"containerID":"c","interface":"eth0","pod":{},"addresses":["10.0.0.1/16"]}`)
	var e cni.Error
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code == http.StatusNoContent {
		t.Fatalf("%d %s, %v", w.Code, w.Body, err)
	}
	if !strings.Contains(e.Message, "10.0.0.1") {
		t.Errorf("the message does not name the address: %q", e.Message)
	}
}

// FuzzSocket: whatever comes over the socket is answered with nothing, a
// result, or an Error that says something; an agent is not to be brought down
// by a plugin of another version.
func FuzzSocket(f *testing.F) {
	paths := []string{cni.PathDel, cni.PathCheck, cni.PathGC, cni.PathConflict, cni.PathCoordination}
	for i := range paths {
		f.Add(i, `{"containerID":"c","interface":"eth0","pod":{"namespace":"default","name":"web-0","uid":"u"}}`)
		f.Add(i, `{"network":"net","valid":[{"containerID":"c","interface":"eth0"}],"addresses":["10.0.0.1/16","fd00::1/64"]}`)
		f.Add(i, `{"addresses":[""]}`)
		f.Add(i, `[]`)
		f.Add(i, "\x00")
	}
	a := starting(f)
	f.Fuzz(func(t *testing.T, path int, body string) {
		w := ask(a, http.MethodPost, paths[uint(path)%uint(len(paths))], body)
		if w.Code == http.StatusNoContent {
			return
		}
		var e cni.Error
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Code == 0 || e.Message == "" {
			t.Errorf("%d %s, %v", w.Code, w.Body, err)
		}
	})
}
