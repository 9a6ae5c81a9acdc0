//go:build e2e

package agents

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/holdfast-ipam/holdfast/agent"
	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/crds"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

const namespace = "default"

// cluster is a real API server without any node but those of the test.
type cluster struct {
	config *rest.Config
	kube   kubernetes.Interface
	kinds  *crds.Clients
	// annotation is what pods created from now on say of their pools.
	annotation string
}

func newCluster(t *testing.T) *cluster {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // failures are on purpose here
	c := &cluster{config: apitest.Start(t)}
	var err error
	if c.kube, err = kubernetes.NewForConfig(c.config); err != nil {
		t.Fatal(err)
	}
	client, err := rest.HTTPClientFor(c.config)
	if err != nil {
		t.Fatal(err)
	}
	if c.kinds, err = crds.NewClients(c.config, client); err != nil {
		t.Fatal(err)
	}
	c.createPool(t, "wide", v2beta1.IPPoolSpec{Subnet: "10.6.0.0/16", IPs: v2beta1.Ranges{"10.6.8.0-10.6.15.255"}, Default: true})
	c.createPool(t, "six", v2beta1.IPPoolSpec{Subnet: "fd00:6::/64", IPs: v2beta1.Ranges{"fd00:6::10-fd00:6::ffff"}})
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

func (c *cluster) createPool(t *testing.T, name string, spec v2beta1.IPPoolSpec) {
	t.Helper()
	pool := &v2beta1.SpiderIPPool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
	if _, err := c.kinds.IPPools().Create(t.Context(), pool, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
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
	if c.annotation != "" {
		pod.Annotations["ipam.spidernet.io/ippool"] = c.annotation
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

// node is a node with an agent that can be started and stopped.
type node struct {
	cluster *cluster
	name    string
	dir     string
	client  *cni.Client
	http    string
	line    *line
	stop    func() error
}

// addNode creates a Node and starts its agent.
func (c *cluster) addNode(t *testing.T, name string) *node {
	t.Helper()
	c.createNode(t, name)
	dir, err := os.MkdirTemp("", "holdfast") // short: a socket's path has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := &node{
		cluster: c, name: name, dir: dir, line: &line{},
		client: &cni.Client{Socket: filepath.Join(dir, "s"), Patience: 20 * time.Second},
	}
	n.start(t)
	n.ready(t)
	return n
}

func (c *cluster) createNode(t *testing.T, name string) {
	t.Helper()
	_, err := c.kube.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func (n *node) journal() string { return filepath.Join(n.dir, "journal.db") }

// start runs the node's agent until n.stop, which returns what ended it, or
// the end of the test.
func (n *node) start(t *testing.T) {
	t.Helper()
	n.http = freeAddress(t)
	config := rest.CopyConfig(n.cluster.config)
	config.Dial = n.line.dial
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- agent.Run(ctx, config, agent.Options{
			NodeName: n.name, Namespace: "kube-system", PodName: "agent-" + n.name,
			Socket: n.client.Socket, Journal: n.journal(), HTTPAddress: n.http, Version: "test",
		}, agent.DefaultConfig(), slog.New(slog.DiscardHandler))
	}()
	n.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := n.stop(); err != nil {
			t.Errorf("the agent of %s ended: %v", n.name, err)
		}
	})
}

// ready waits until the agent assigns new addresses.
func (n *node) ready(t *testing.T) {
	t.Helper()
	eventually(t, "the agent of "+n.name+" is ready", func() bool {
		s, err := n.client.Status(t.Context())
		return err == nil && s.Ready
	})
}

// line is an agent's connection to the API server, which can be cut.
type line struct {
	mu    sync.Mutex
	down  bool
	conns []net.Conn
}

func (l *line) dial(ctx context.Context, network, address string) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return nil, fmt.Errorf("dial %s: %w", address, syscall.ECONNREFUSED)
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		l.conns = append(l.conns, conn)
	}
	return conn, err
}

// cut takes the API server away from the agent, watches included.
func (l *line) cut(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	var errs []error
	for _, conn := range l.conns {
		errs = append(errs, conn.Close())
	}
	if err := errors.Join(errs...); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	l.conns = nil
}

func (l *line) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
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
	addr, err := n.tryAdd(t, pod, container)
	if err != nil {
		t.Fatalf("ADD of %s on %s: %v", pod.Name, n.name, err)
	}
	return addr
}

func (n *node) tryAdd(t *testing.T, pod cni.Pod, container string) (string, error) {
	t.Helper()
	result, err := n.client.Add(t.Context(), cni.AddRequest{Attachment: attachment(pod, container), Network: "net"})
	if err != nil {
		return "", err
	}
	return result.Addresses[0].Prefix.String(), nil
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
