package main

import (
	"context"
	"errors"
	"fmt"
	"net/rpc"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/crds"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

const (
	// namespace is that of the pods.
	namespace = "default"
	// account is the agents' service account, as the chart names it.
	account = "holdfast"
	pool    = "scale"
	// subnet is the pool's, with room for a million pods, and addresses what
	// of it is for pods.
	subnet    = "10.64.0.0/12"
	addresses = "10.64.0.16-10.79.255.239"
	// crew is how many requests to the API server the run makes at a time for
	// its own purposes where nothing says when.
	crew = 16
)

// lab is one size: an API server, nodes, and the process of their agents.
type lab struct {
	dir     string
	server  *apitest.Server
	kube    *kubernetes.Clientset
	kinds   *crds.Clients
	carrier *apitest.Process
	control *rpc.Client
	nodes   []*node
}

// node is a Node object with an agent.
type node struct {
	name, uid, socket string
	lost              bool
}

// newLab starts everything but the agents. dir must be short: a socket's path
// has at most 107 bytes.
func newLab(ctx context.Context, dir string, agents int) (*lab, error) {
	l := &lab{dir: dir}
	err := l.open(ctx, agents)
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lab) open(ctx context.Context, agents int) error {
	serverDir, agentDir := filepath.Join(l.dir, "server"), l.agentDir()
	err := errors.Join(os.MkdirAll(serverDir, 0o700), os.MkdirAll(agentDir, 0o700))
	if err != nil {
		return err
	}
	if l.server, err = apitest.Open(ctx, serverDir); err != nil {
		return err
	}
	if l.kube, l.kinds, err = l.server.Clients(); err != nil {
		return err
	}
	if err := l.furnish(ctx, agents); err != nil {
		return err
	}
	return l.openCarrier(ctx)
}

func (l *lab) agentDir() string { return filepath.Join(l.dir, "a") }

// furnish makes the objects that are there before the agents.
func (l *lab) furnish(ctx context.Context, agents int) error {
	_, err := l.kube.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: account},
		// What permissions cost is the same for all.
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: systemNamespace, Name: account}},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("give the agents permissions: %w", err)
	}
	_, err = l.kinds.IPPools().Create(ctx, &v2beta1.SpiderIPPool{
		ObjectMeta: metav1.ObjectMeta{Name: pool},
		Spec:       v2beta1.IPPoolSpec{Subnet: subnet, IPs: v2beta1.Ranges{addresses}},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create the pool: %w", err)
	}
	var group errgroup.Group
	group.SetLimit(crew)
	for i := range agents {
		n := &node{name: fmt.Sprintf("node-%04d", i)}
		n.socket = agentSocket(l.agentDir(), n.name)
		l.nodes = append(l.nodes, n)
		group.Go(func() error { return l.createNode(ctx, n) })
	}
	return group.Wait()
}

func (l *lab) createNode(ctx context.Context, n *node) error {
	made, err := l.kube.CoreV1().Nodes().Create(ctx, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.name},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create %s: %w", n.name, err)
	}
	n.uid = string(made.UID)
	return nil
}

// carryCommand is what this program is called with to be a [Carrier].
const carryCommand = "carry"

// openCarrier starts the process of the agents.
func (l *lab) openCarrier(ctx context.Context) error {
	kubeconfig := filepath.Join(l.dir, "kubeconfig")
	if err := l.writeKubeconfig(kubeconfig); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if l.carrier, err = apitest.Run(l.dir, self, carryCommand, "--dir="+l.agentDir(), "--kubeconfig="+kubeconfig); err != nil {
		return err
	}
	return apitest.Await(ctx, time.Minute, "the process of the agents answers", func(context.Context) (err error) {
		if l.control, err = rpc.Dial("unix", carrierSocket(l.agentDir())); err != nil {
			return fmt.Errorf("%w: %s", err, l.carrier.Tail())
		}
		return nil
	})
}

// writeKubeconfig writes with what the agents call: as their service account.
func (l *lab) writeKubeconfig(path string) error {
	return apitest.WriteKubeconfig(l.server.Config(), path, "", rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + systemNamespace + ":" + account,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + systemNamespace, "system:authenticated"},
	})
}

// close ends what the lab has started.
func (l *lab) close() {
	if l.control != nil {
		_ = l.control.Close() // the process ends next
	}
	if l.carrier != nil {
		l.carrier.Kill()
	}
	if l.server != nil {
		l.server.Close()
	}
}

// call calls the process of the agents.
func (l *lab) call(ctx context.Context, method string, args, reply any) error {
	call := l.control.Go("Carrier."+method, args, reply, make(chan *rpc.Call, 1))
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-call.Done:
	}
	if call.Error != nil {
		return fmt.Errorf("process of the agents, %s: %w: %s", method, call.Error, l.carrier.Tail())
	}
	return nil
}

// startAgents starts those of nodes and waits until they are ready.
func (l *lab) startAgents(ctx context.Context, nodes []*node, holdDown time.Duration, limit time.Duration) error {
	if err := l.call(ctx, "Start", Start{Nodes: namesOf(nodes), HoldDown: holdDown}, nil); err != nil {
		return err
	}
	for _, n := range nodes {
		if err := apitest.Await(ctx, limit, n.name+" has an agent ready", n.ready); err != nil {
			return fmt.Errorf("%w: %s", err, l.carrier.Tail())
		}
	}
	return nil
}

func (n *node) ready(ctx context.Context) error {
	status, err := (&cni.Client{Socket: n.socket}).Status(ctx)
	if err == nil && !status.Ready {
		err = errors.New(status.Reason)
	}
	return err
}

func namesOf(nodes []*node) []string {
	var names []string
	for _, n := range nodes {
		names = append(names, n.name)
	}
	return names
}

// podName is that of an agent's pod, another after each start, and nodeOf the
// node it is of.
func podName(node string, start int) string { return fmt.Sprintf("holdfast.%d.%s", start, node) }

func nodeOf(pod string) string { return pod[strings.LastIndexByte(pod, '.')+1:] }
