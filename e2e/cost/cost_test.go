//go:build e2e

// Package cost holds the agent to the cost table of the design: how many
// requests to the API server a pod start waits for, counted by the agents
// themselves against a real API server.
package cost

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/holdfast-ipam/holdfast/agent"
	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/crds"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

const namespace = "default"

// limit is a row of the design's table: the most requests that a pod start
// may cost, those made ahead of ADD included.
type limit struct {
	name string
	// ahead and waited are reads and writes before ADD and while it waits.
	ahead, waited, both [2]int
}

// noLimit is no limit of its own: the sum counts.
const noLimit = 1 << 20

var limits = []limit{
	{"stateless, warm", [2]int{0, 0}, [2]int{0, 0}, [2]int{0, 0}},
	{"StatefulSet pod, first time", [2]int{1, 0}, [2]int{1, 2}, [2]int{1, 2}},
	{"StatefulSet pod, same UID again", [2]int{0, 0}, [2]int{0, 0}, [2]int{0, 0}},
	{"StatefulSet pod recreated on the same node", [2]int{1, 0}, [2]int{0, 0}, [2]int{1, 0}},
	{"StatefulSet pod, moved", [2]int{noLimit, noLimit}, [2]int{noLimit, noLimit}, [2]int{3, 1}},
	{"DEL", [2]int{0, 0}, [2]int{0, 0}, [2]int{0, 0}},
}

func TestPodStartsCostWhatTheDesignSays(t *testing.T) {
	c := newCluster(t)
	a, b := c.startAgent(t, "node-a"), c.startAgent(t, "node-b")
	// The first pod of each node pays for the leases of those that follow.
	a.add(t, c.pod(t, "warm-up-a", "node-a", ""), "c0")
	b.add(t, c.pod(t, "warm-up-b", "node-b", ""), "c0")

	var got []limit
	measure := func(name string, on *node, do func(before counts)) {
		before := on.counts(t)
		do(before)
		got = append(got, on.since(t, name, before))
	}

	stateless := c.pod(t, "stateless", "node-a", "")
	measure(limits[0].name, a, func(counts) { a.add(t, stateless, "c1") })

	var web cni.Pod
	var first, again, recreated, moved string
	measure(limits[1].name, a, func(before counts) {
		web = c.pod(t, "web-0", "node-a", "web")
		a.prepared(t, before, "get", "spiderendpoints")
		first = a.add(t, web, "c2")
	})
	measure(limits[2].name, a, func(counts) { again = a.add(t, web, "c3") })
	measure(limits[5].name, a, func(counts) { a.del(t, web, "c3") })
	c.deletePod(t, "web-0")
	measure(limits[3].name, a, func(before counts) {
		web = c.pod(t, "web-0", "node-a", "web")
		a.prepared(t, before, "get", "ipblocks")
		recreated = a.add(t, web, "c4")
	})
	a.del(t, web, "c4")
	c.deletePod(t, "web-0")
	measure(limits[4].name, b, func(before counts) {
		web = c.pod(t, "web-0", "node-b", "web")
		b.prepared(t, before, "patch", "ipblocks")
		moved = b.add(t, web, "c5")
	})
	if first != again || first != recreated || first != moved {
		t.Errorf("the address did not hold: %s, then %s, %s and %s", first, again, recreated, moved)
	}
	judge(t, got)
}

// judge compares with the limits and prints the table.
func judge(t *testing.T, got []limit) {
	t.Helper()
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "CASE\tAHEAD OF ADD (READS, WRITES)\tWAITED FOR\tTOGETHER\tALLOWED")
	for _, l := range limits {
		for _, g := range got {
			if g.name != l.name {
				continue
			}
			fmt.Fprintf(w, "%s\t%d, %d\t%d, %d\t%d, %d\t%d, %d\n", g.name, g.ahead[0], g.ahead[1],
				g.waited[0], g.waited[1], g.both[0], g.both[1], l.both[0], l.both[1])
			for i, what := range []string{"reads", "writes"} {
				if g.ahead[i] > l.ahead[i] || g.waited[i] > l.waited[i] || g.both[i] > l.both[i] {
					t.Errorf("%s: %s are %d ahead, %d waited for, %d together; allowed are %d, %d, %d",
						g.name, what, g.ahead[i], g.waited[i], g.both[i], l.ahead[i], l.waited[i], l.both[i])
				}
			}
		}
	}
	if len(got) != len(limits) {
		t.Errorf("%d of %d cases were measured", len(got), len(limits))
	}
	w.Flush()
	t.Logf("requests to the API server, per pod\n%s", table.String())
}

// cluster is a real API server without any node but those of the test.
type cluster struct {
	config *rest.Config
	kube   kubernetes.Interface
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{config: apitest.Start(t)}
	var err error
	if c.kube, err = kubernetes.NewForConfig(c.config); err != nil {
		t.Fatal(err)
	}
	client, err := rest.HTTPClientFor(c.config)
	if err != nil {
		t.Fatal(err)
	}
	kinds, err := crds.NewClients(c.config, client)
	if err != nil {
		t.Fatal(err)
	}
	_, err = kinds.IPPools().Create(t.Context(), &v2beta1.SpiderIPPool{
		ObjectMeta: metav1.ObjectMeta{Name: "wide"},
		Spec:       v2beta1.IPPoolSpec{Subnet: "10.6.0.0/16", IPs: v2beta1.Ranges{"10.6.8.0-10.6.15.255"}, Default: true},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	replicas := int32(3)
	labels := map[string]string{"app": "web"}
	_, err = c.kube.AppsV1().StatefulSets(namespace).Create(t.Context(), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: podSpec("")},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func podSpec(node string) corev1.PodSpec {
	return corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "main", Image: "none"}}}
}

// pod creates a pod bound to the node, owned by the StatefulSet if one is
// named.
func (c *cluster) pod(t *testing.T, name, node, statefulSet string) cni.Pod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{
			"v1.multus-cni.io/default-network": "kube-system/net",
		}},
		Spec: podSpec(node),
	}
	if statefulSet != "" {
		yes := true
		pod.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "apps/v1", Kind: "StatefulSet", Name: statefulSet, UID: "0", Controller: &yes,
		}}
	}
	made, err := c.kube.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return cni.Pod{Namespace: namespace, Name: name, UID: string(made.UID)}
}

func (c *cluster) deletePod(t *testing.T, name string) {
	t.Helper()
	now := int64(0)
	err := c.kube.CoreV1().Pods(namespace).Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	if err != nil {
		t.Fatal(err)
	}
}

// node is a running agent.
type node struct {
	name   string
	client *cni.Client
	http   string
}

func (c *cluster) startAgent(t *testing.T, name string) *node {
	t.Helper()
	_, err := c.kube.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "holdfast") // short: a socket's path has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := &node{name: name, http: freeAddress(t), client: &cni.Client{Socket: filepath.Join(dir, "s"), Patience: 20 * time.Second}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- agent.Run(ctx, c.config, agent.Options{
			NodeName: name, Namespace: "kube-system", PodName: "agent-" + name,
			Socket: n.client.Socket, Journal: filepath.Join(dir, "journal.db"), HTTPAddress: n.http, Version: "test",
		}, agent.DefaultConfig(), slog.New(slog.DiscardHandler))
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the agent of %s ended: %v", name, err)
		}
	})
	eventually(t, "the agent of "+name+" is ready", func() bool {
		s, err := n.client.Status(t.Context())
		return err == nil && s.Ready
	})
	return n
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, 30*time.Second, true,
		func(context.Context) (bool, error) { return ok(), nil })
	if err != nil {
		t.Fatalf("it did not come about within 30 s that %s", what)
	}
}

func attachment(pod cni.Pod, container string) cni.Attachment {
	return cni.Attachment{ContainerID: container, Interface: "eth0", Pod: pod}
}

func (n *node) add(t *testing.T, pod cni.Pod, container string) string {
	t.Helper()
	result, err := n.client.Add(t.Context(), cni.AddRequest{Attachment: attachment(pod, container), Network: "net"})
	if err != nil {
		t.Fatalf("ADD of %s on %s: %v", pod.Name, n.name, err)
	}
	return result.Addresses[0].Prefix.String()
}

func (n *node) del(t *testing.T, pod cni.Pod, container string) {
	t.Helper()
	if err := n.client.Del(t.Context(), cni.DelRequest{Attachment: attachment(pod, container)}); err != nil {
		t.Fatalf("DEL of %s on %s: %v", pod.Name, n.name, err)
	}
}

// requestKey tells requests apart as the agent's metric does.
type requestKey struct{ verb, resource, cause string }

type counts map[requestKey]int

// counts reads the agent's metric.
func (n *node) counts(t *testing.T) counts {
	t.Helper()
	response, err := http.Get("http://" + n.http + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	made := counts{}
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		var k requestKey
		var v float64
		labels, value, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "holdfast_api_requests_total{"), "} ")
		if !ok || !strings.HasPrefix(lines.Text(), "holdfast_api_requests_total{") {
			continue
		}
		if _, err := fmt.Sscanf(labels, "cause=%q,resource=%q,verb=%q", &k.cause, &k.resource, &k.verb); err != nil {
			t.Fatalf("metric %q: %v", lines.Text(), err)
		}
		if _, err := fmt.Sscan(value, &v); err != nil {
			t.Fatalf("metric %q: %v", lines.Text(), err)
		}
		made[k] = int(v)
	}
	if len(made) == 0 {
		t.Fatal("the agent counts no requests: nothing can be told")
	}
	return made
}

// since returns what was requested after the counts were taken.
func (n *node) since(t *testing.T, name string, before counts) limit {
	t.Helper()
	l := limit{name: name}
	for k, v := range n.counts(t) {
		made := v - before[k]
		i := 1
		if k.verb == "get" || k.verb == "list" {
			i = 0
		}
		switch k.cause {
		case "prepare":
			l.ahead[i] += made
		case "add", "del":
			l.waited[i] += made
		default:
			continue
		}
		l.both[i] += made
	}
	return l
}

// prepared waits until the agent made the request ahead of ADD that completes
// what it does for a pod it has just seen.
func (n *node) prepared(t *testing.T, before counts, verb, resource string) {
	t.Helper()
	k := requestKey{verb, resource, "prepare"}
	eventually(t, fmt.Sprintf("%s prepared the pod by %s of %s", n.name, verb, resource), func() bool {
		return n.counts(t)[k] > before[k]
	})
}
