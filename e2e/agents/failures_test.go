//go:build e2e

package agents

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/lease"
)

// entries asks the agent for its journal.
func (n *node) entries(t *testing.T) []lease.Entry {
	t.Helper()
	var entries []lease.Entry
	response := n.raw(t, http.MethodGet, "/v1/journal", "")
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&entries); err != nil {
		t.Fatal(err)
	}
	return entries
}

// raw sends what a plugin never would.
func (n *node) raw(t *testing.T, method, path, body string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://agent"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", n.client.Socket)
		},
	}}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

func (n *node) addressesInUse(t *testing.T) int {
	t.Helper()
	used := 0
	for _, e := range n.entries(t) {
		if e.State == lease.Assigned || e.State == lease.Placing {
			used++
		}
	}
	return used
}

func TestPodsStartAndStopWhileTheAPIServerIsAway(t *testing.T) {
	c := newCluster(t)
	n := c.addNode(t, "node-a")
	web := c.pod(t, "web-0", "node-a", "web")
	before := n.add(t, web, "c1")
	// A watch reports in order: who has seen the later pod has seen the other.
	other := c.pod(t, "other", "node-a", "")
	n.add(t, c.pod(t, "warm-up", "node-a", ""), "c2")

	n.line.cut(t)
	if after := n.add(t, web, "c3"); after != before {
		t.Errorf("restarted in place, the pod has %s and had %s", after, before)
	}
	n.add(t, other, "c4")
	n.del(t, other, "c4")
	n.del(t, web, "c3")
	if again := n.add(t, web, "c5"); again != before {
		t.Errorf("after a DEL, the pod has %s and had %s", again, before)
	}
	n.line.mend()
}

func TestAgentThatStartsWithoutTheAPIServerAnswersPodsItKnows(t *testing.T) {
	c := newCluster(t)
	n := c.addNode(t, "node-a")
	web := c.pod(t, "web-0", "node-a", "web")
	stranger := c.pod(t, "stranger", "node-a", "")
	before := n.add(t, web, "c1")
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n.line.cut(t)
	n.start(t)
	if after := n.add(t, web, "c2"); after != before {
		t.Errorf("the pod has %s and had %s", after, before)
	}
	n.client.Patience = 0
	if addr, err := n.tryAdd(t, stranger, "c3"); err == nil {
		t.Errorf("a pod that nobody knows got %s without the API server", addr)
	}
	n.client.Patience = 20 * time.Second
	n.line.mend()
	n.ready(t)
	n.add(t, stranger, "c4")
}

func TestLostJournalGivesNoAddressTwice(t *testing.T) {
	c := newCluster(t)
	n := c.addNode(t, "node-a")
	var pods []cni.Pod
	held := map[string]string{}
	for i := range 12 {
		set := ""
		if i < 3 {
			set = "web"
		}
		pod := c.pod(t, fmt.Sprintf("web-%d", i), "node-a", set)
		pods = append(pods, pod)
		held[n.add(t, pod, fmt.Sprint("c", i))] = pod.Name
	}
	n.endpointsWritten(t, pods)
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(n.journal()); err != nil {
		t.Fatal(err)
	}
	n.start(t)
	n.ready(t)
	for i := range 20 {
		pod := c.pod(t, fmt.Sprintf("new-%d", i), "node-a", "")
		addr := n.add(t, pod, fmt.Sprint("n", i))
		if other, taken := held[addr]; taken {
			t.Errorf("%s got %s, which %s has", pod.Name, addr, other)
		}
		held[addr] = pod.Name
	}
	for i, pod := range pods {
		if addr := n.add(t, pod, fmt.Sprint("again", i)); held[addr] != pod.Name {
			t.Errorf("%s came back with %s, which is %s's", pod.Name, addr, held[addr])
		}
	}
}

// endpointsWritten waits until every pod has its SpiderEndpoint, and there is no
// other.
func (n *node) endpointsWritten(t *testing.T, pods []cni.Pod) {
	t.Helper()
	eventually(t, "every pod has an endpoint", func() bool {
		list, err := n.cluster.kinds.Endpoints(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		of := map[string]bool{}
		for _, e := range list.Items {
			of[e.Status.Current.UID] = true
		}
		return len(list.Items) == len(pods) && !slices.ContainsFunc(pods, func(p cni.Pod) bool { return !of[p.UID] })
	})
}

func TestRecreatedNodeInheritsNothing(t *testing.T) {
	c := newCluster(t)
	n := c.addNode(t, "node-a")
	old := n.add(t, c.pod(t, "old", "node-a", ""), "c1")
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	if err := c.kube.CoreV1().Nodes().Delete(t.Context(), "node-a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.createNode(t, "node-a")
	n.start(t)
	n.ready(t)
	for i := range 20 {
		if addr := n.add(t, c.pod(t, fmt.Sprintf("new-%d", i), "node-a", ""), fmt.Sprint("n", i)); addr == old {
			t.Errorf("%s is assigned again, though the lease of the node that is gone has not ended", addr)
		}
	}
}

func TestAgentEndsWhenItsNodeIsAnother(t *testing.T) {
	c := newCluster(t)
	n := c.addNode(t, "node-a")
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n.line.cut(t)
	n.start(t) // by the journal
	gone := func() bool {
		_, err := os.Stat(n.client.Socket)
		return os.IsNotExist(err)
	}
	eventually(t, "the agent serves", func() bool { return !gone() })
	if err := c.kube.CoreV1().Nodes().Delete(t.Context(), "node-a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.createNode(t, "node-a")
	n.line.mend()
	eventually(t, "the agent has ended", gone)
	if err := n.stop(); err == nil || !strings.Contains(err.Error(), "start anew") {
		t.Errorf("it ended with %v", err)
	}
	n.stop = func() error { return nil } // judged
}

func TestGarbageOnTheSocketCostsNothing(t *testing.T) {
	c := newCluster(t)
	n := c.addNode(t, "node-a")
	n.add(t, c.pod(t, "pod", "node-a", ""), "c1")
	used := n.addressesInUse(t)
	paths := []string{cni.PathAdd, cni.PathDel, cni.PathCheck, cni.PathGC, cni.PathStatus, "/", "/v1", "/v2/add"}
	bodies := []string{"", "{", "[]", "null", "1", `"x"`, `{"pod":1}`, `{"valid":7}`, "\x00\xff",
		`{"containerID":"c1","interface":"eth1","pod":{"namespace":"default","name":"none","uid":"x"}}`,
		`{"pod":{"namespace":"../..","name":"../x"}}`, strings.Repeat("[", 100_000)}
	for _, path := range paths {
		for _, body := range bodies {
			for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
				response := n.raw(t, method, path, body)
				if response.StatusCode >= 500 && response.StatusCode != http.StatusInternalServerError {
					t.Errorf("%s %s %.20q: %s", method, path, body, response.Status)
				}
				response.Body.Close()
			}
		}
	}
	if now := n.addressesInUse(t); now != used {
		t.Errorf("%d addresses are in use, before it were %d", now, used)
	}
}

func TestRuntimesGCGivesBackWhatNoAttachmentHolds(t *testing.T) {
	c := newCluster(t)
	n := c.addNode(t, "node-a")
	kept := n.add(t, c.pod(t, "kept", "node-a", ""), "c1")
	n.add(t, c.pod(t, "leaked", "node-a", ""), "c2")
	err := n.client.GC(t.Context(), cni.GCRequest{
		Network: "net", Valid: []cni.ValidAttachment{{ContainerID: "c1", Interface: "eth0"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	assigned := slices.DeleteFunc(n.entries(t), func(e lease.Entry) bool { return e.State != lease.Assigned })
	if len(assigned) != 1 || !strings.HasPrefix(kept, assigned[0].Addr.String()+"/") {
		t.Errorf("assigned are %v, want %s only", assigned, kept)
	}
}

func TestStatefulSetPodKeepsItsAddressWhenItsPoolsCannotBeTold(t *testing.T) {
	c := newCluster(t)
	a, b := c.addNode(t, "node-a"), c.addNode(t, "node-b")
	web := c.pod(t, "web-0", "node-a", "web")
	before := a.add(t, web, "c0")
	on := a
	for i, step := range []struct {
		what, annotation string
		spoil            func() error
		to               *node
	}{
		{"the annotation is no JSON", "{", nil, a},
		{"the annotation names a pool that does not exist", `{"ipv4":["none"]}`, nil, b},
		{"the annotation names the other family", `{"ipv6":["six"]}`, nil, b},
		{"the pool is disabled", "", func() error { return c.disablePool(t, "wide") }, a},
		{"the pool is deleted", "", func() error {
			return c.kinds.IPPools().Delete(t.Context(), "wide", metav1.DeleteOptions{})
		}, b},
	} {
		on.del(t, web, fmt.Sprint("c", i))
		c.deletePod(t, "web-0")
		if step.spoil != nil {
			if err := step.spoil(); err != nil {
				t.Fatal(err)
			}
		}
		c.annotation = step.annotation
		web, on = c.pod(t, "web-0", step.to.name, "web"), step.to
		if addr := on.add(t, web, fmt.Sprint("c", i+1)); addr != before {
			t.Errorf("when %s, the pod has %s and had %s", step.what, addr, before)
		}
	}
	fresh := c.pod(t, "web-1", "node-a", "web")
	if addr, err := a.tryAdd(t, fresh, "f"); err == nil {
		t.Errorf("a pod without an address got %s from a pool that is gone", addr)
	}
}

func (c *cluster) disablePool(t *testing.T, name string) error {
	_, err := c.kinds.IPPools().Patch(t.Context(), name, types.MergePatchType,
		[]byte(`{"spec":{"disable":true}}`), metav1.PatchOptions{})
	return err
}
