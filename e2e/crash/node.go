package main

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/cni"
)

const (
	// agentNamespace is where the agents hold their election.
	agentNamespace = "kube-system"
	// readyLimit is how long an agent may take to become ready while nothing
	// is broken.
	readyLimit = time.Minute
)

// node is a machine: a Node object, a disk, an agent, and sandboxes.
type node struct {
	world *world
	name  string
	dir   string
	// fault is held by the one fault that the node suffers.
	fault sync.Mutex
	// collecting is held by a GC, and shared by ADDs.
	collecting sync.RWMutex
	line       *line

	mu   sync.Mutex
	uid  string
	pods map[*pod]bool
	// life ends when the machine is lost. A new one begins with the node's
	// next object.
	life context.Context
	lose context.CancelFunc
	// agent is the running process, nil while there is none. A process that
	// ends although nobody killed it is started again by the watcher.
	agent *apitest.Process
}

func newNode(w *world, name string) *node {
	n := &node{world: w, name: name, dir: filepath.Join(w.dir, name), pods: map[*pod]bool{}}
	n.life, n.lose = context.WithCancel(w.ctx)
	return n
}

func (n *node) socket() string  { return filepath.Join(n.dir, "s") }
func (n *node) journal() string { return filepath.Join(n.dir, "journal.db") }

func (n *node) kubeconfig() string { return filepath.Join(n.dir, "kubeconfig") }

// log is the file that every agent of the node writes to.
func (n *node) log() string {
	return filepath.Join(n.dir, filepath.Base(n.world.options.holdfast)+".log")
}

// client returns a client of the node's agent that asks again for so long.
func (n *node) client(patience time.Duration) *cni.Client {
	return &cni.Client{Socket: n.socket(), Patience: patience}
}

// begin creates the Node, starts the agent and waits until it is ready.
func (n *node) begin(ctx context.Context) error {
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return err
	}
	if err := n.connect(); err != nil {
		return err
	}
	if err := n.create(ctx); err != nil {
		return err
	}
	if err := n.start(); err != nil {
		return err
	}
	return n.ready(ctx)
}

// connect lays the line to the API server and writes the agent's kubeconfig.
func (n *node) connect() error {
	config := n.world.server.Config()
	var err error
	if n.line, err = newLine(strings.TrimPrefix(config.Host, "https://")); err != nil {
		return err
	}
	n.world.going.Go(func() { n.line.serve(n.world.ctx) })
	config.Host = "https://" + n.line.address()
	return apitest.WriteKubeconfig(config, n.kubeconfig(), "", rest.ImpersonationConfig{})
}

// create makes the node's object.
func (n *node) create(ctx context.Context) error {
	nodes := n.world.api.kube.CoreV1().Nodes()
	return n.world.api.insist(ctx, func(ctx context.Context) error {
		_, err := nodes.Create(ctx, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: n.name},
			Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
		}, metav1.CreateOptions{})
		if err != nil && !isThere(err) {
			return err
		}
		made, err := nodes.Get(ctx, n.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.uid = string(made.UID)
		return nil
	})
}

// ready waits until the agent assigns new addresses.
func (n *node) ready(ctx context.Context) error {
	return apitest.Await(ctx, readyLimit, "the agent of "+n.name+" is ready", func(ctx context.Context) error {
		s, err := n.client(0).Status(ctx)
		if err == nil && !s.Ready {
			err = errors.New(s.Reason)
		}
		return err
	})
}

// start starts the agent unless it runs or there is no machine.
func (n *node) start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.agent != nil || n.life.Err() != nil {
		return nil
	}
	p, err := apitest.Run(n.dir, n.world.options.holdfast, "agent",
		"--node-name="+n.name, "--namespace="+agentNamespace, "--pod-name=agent-"+n.name,
		"--socket="+n.socket(), "--journal="+n.journal(),
		"--config="+n.world.path("conf.yml"), "--kubeconfig="+n.kubeconfig(),
		"--http-address=127.0.0.1:0")
	if err != nil {
		return err
	}
	n.agent = p
	n.world.tally.add("agents started")
	n.world.going.Go(func() { n.watch(p) })
	return nil
}

// watch starts the agent anew if it ends by itself, as a kubelet does. That
// is right only for an agent whose Node became another.
func (n *node) watch(p *apitest.Process) {
	<-p.Done()
	n.mu.Lock()
	byItself := n.agent == p
	if byItself {
		n.agent = nil
	}
	n.mu.Unlock()
	if !byItself {
		return
	}
	last := lastLine(p.Tail())
	n.world.tally.add("agents that ended because their Node is another")
	n.world.ledger.remark(n.name, "the agent ended by itself: %s", last)
	if !strings.Contains(last, "start anew") {
		n.world.ledger.violate(healthy, netip.Addr{}, n.name, "the agent of %s ended by itself: %s", n.name, last)
	}
	if apitest.Pause(n.world.ctx, time.Second) {
		if err := n.start(); err != nil {
			n.world.ledger.violate(playable, netip.Addr{}, n.name, "cannot start the agent of %s: %v", n.name, err)
		}
	}
}

func lastLine(text string) string {
	lines := bytes.Split(bytes.TrimSpace([]byte(text)), []byte("\n"))
	return string(lines[len(lines)-1])
}

// stop ends the agent with a signal, if it runs, and returns when it is gone.
func (n *node) stop(s syscall.Signal) {
	n.mu.Lock()
	p := n.agent
	n.agent = nil
	n.mu.Unlock()
	if p == nil {
		return
	}
	if s == syscall.SIGTERM && p.Signal(s) == nil {
		select {
		case <-p.Done():
			return
		case <-time.After(readyLimit):
			n.world.ledger.violate(healthy, netip.Addr{}, n.name, "the agent of %s did not end within %s of SIGTERM", n.name, readyLimit)
		}
	}
	p.Kill()
}

// freeze stops the agent where it is (SIGSTOP), and reports whether one runs.
func (n *node) freeze() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.agent != nil && n.agent.Stop() == nil
}

// thaw lets it go on (SIGCONT), unless it was killed meanwhile.
func (n *node) thaw() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.agent != nil {
		_ = n.agent.Signal(syscall.SIGCONT) // it may be ending just now
	}
}

// close ends the agent for good.
func (n *node) close() {
	n.lose()
	n.stop(syscall.SIGKILL)
}

// admit binds a pod to the node, false when the node is gone. It returns the
// machine's life.
func (n *node) admit(p *pod) (context.Context, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.life.Err() != nil {
		return nil, false
	}
	n.pods[p] = true
	return n.life, true
}

func (n *node) dismiss(p *pod) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pods, p)
}

// bound returns the pods that are bound to the node.
func (n *node) bound() []*pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	var bound []*pod
	for p := range n.pods {
		bound = append(bound, p)
	}
	return bound
}
