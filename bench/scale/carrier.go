package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/rpc"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/holdfast-ipam/holdfast/agent"
	"github.com/holdfast-ipam/holdfast/agent/apitest"
)

// Carrier is the process of the agents: it starts and stops them when it is
// told to (net/rpc). Its methods are those calls.
type Carrier struct {
	// ctx ends with the process, and with it every agent.
	ctx context.Context
	dir string
	api *rest.Config
	log *slog.Logger

	mu     sync.Mutex
	agents map[string]*carried
}

// carried is the agent of a node, through all of its starts.
type carried struct {
	line *line
	// starts is how often it was started, fell why it ended although nobody
	// had told it to, each time.
	starts int
	fell   []string
	// stop ends it, done is closed when it has ended. Both are nil for one
	// that does not run.
	stop context.CancelFunc
	done chan struct{}
}

// systemNamespace is that of the agents.
const systemNamespace = "kube-system"

// Start is a call: agents of nodes are to run.
type Start struct {
	Nodes []string
	// HoldDown is that of the configuration, 0 for the product's own.
	HoldDown time.Duration
}

// Stop is a call: agents are to end.
type Stop struct {
	Nodes []string
	// Lost nodes lose their network before, so that their agents take leave of
	// nobody.
	Lost bool
}

// Reading is what the agents have asked for since their first start.
type Reading struct {
	// Kinds, Sent and Received are by node.
	Kinds          map[string]tally
	Sent, Received map[string]int64
	// Fell tells of agents that ended although nobody had told them to.
	Fell []string
	// Memory is that of the process.
	Memory Memory
}

// Memory is what the process of the agents has, in bytes, right after a
// collection of garbage.
type Memory struct {
	Heap, Stacks uint64
	Goroutines   int
}

// carry runs a Carrier until ctx ends.
func carry(ctx context.Context, dir, kubeconfig string) error {
	api, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	c := &Carrier{
		ctx: ctx, dir: dir, api: api, agents: map[string]*carried{},
		// What goes wrong in an agent is worth a look; what goes right would
		// cost more than the agents.
		log: slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	server := rpc.NewServer()
	if err := server.Register(c); err != nil {
		return err
	}
	l, err := net.Listen("unix", carrierSocket(dir))
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // it ends Accept
	defer stop()
	server.Accept(l)
	return errors.Join(c.Stop(Stop{Nodes: c.names()}, nil), ctx.Err())
}

func carrierSocket(dir string) string { return filepath.Join(dir, "c") }

func (c *Carrier) names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for name := range c.agents {
		names = append(names, name)
	}
	return names
}

// Start begins to run agents. It does not wait until they are ready.
func (c *Carrier) Start(call Start, _ *struct{}) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range call.Nodes {
		a := c.agents[name]
		if a == nil {
			a = &carried{line: newLine()}
			c.agents[name] = a
		}
		if a.stop != nil {
			return fmt.Errorf("the agent of %s runs already", name)
		}
		ctx, stop := context.WithCancel(c.ctx)
		a.stop, a.done = stop, make(chan struct{})
		go c.live(ctx, name, a, a.done, call.HoldDown)
	}
	return nil
}

// restartPause is what a kubelet waits at first before it starts a container
// anew that has ended.
const restartPause = 10 * time.Second

// live runs an agent until ctx ends, again when it ends by itself.
func (c *Carrier) live(ctx context.Context, name string, a *carried, done chan struct{}, holdDown time.Duration) {
	defer close(done)
	defer a.line.close()
	for ctx.Err() == nil {
		err := c.run(ctx, name, a, holdDown)
		a.line.close()
		if ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		a.fell = append(a.fell, fmt.Sprintf("agent of %s: %v", name, err))
		c.mu.Unlock()
		apitest.Pause(ctx, restartPause)
	}
}

// run is one life of an agent's process.
func (c *Carrier) run(ctx context.Context, name string, a *carried, holdDown time.Duration) error {
	c.mu.Lock()
	a.starts++
	pod := podName(name, a.starts)
	c.mu.Unlock()
	api := rest.CopyConfig(c.api)
	api.Dial = a.line.dial
	api.Wrap(a.line.wrap)
	config := agent.DefaultConfig()
	if holdDown > 0 {
		config.HoldDown.Duration = holdDown
	}
	return agent.Run(ctx, api, agent.Options{
		NodeName: name, Namespace: systemNamespace, PodName: pod,
		Socket: agentSocket(c.dir, name), Journal: filepath.Join(c.dir, name+".db"), Version: "scale",
	}, config, c.log.With("node", name))
}

func agentSocket(dir, node string) string { return filepath.Join(dir, node+".s") }

// Stop ends agents and returns when they have ended.
func (c *Carrier) Stop(call Stop, _ *struct{}) error {
	var ended []chan struct{}
	c.mu.Lock()
	for _, name := range call.Nodes {
		a := c.agents[name]
		if a == nil || a.stop == nil {
			continue
		}
		if call.Lost {
			a.line.lose()
		}
		a.stop()
		ended = append(ended, a.done)
		a.stop, a.done = nil, nil
	}
	c.mu.Unlock()
	for _, done := range ended {
		<-done
	}
	return nil
}

// Read reads all meters.
func (c *Carrier) Read(_ struct{}, r *Reading) error {
	r.Kinds, r.Sent, r.Received = map[string]tally{}, map[string]int64{}, map[string]int64{}
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, a := range c.agents {
		r.Kinds[name] = a.line.ledger.read()
		r.Sent[name], r.Received[name] = a.line.sent.Load(), a.line.received.Load()
		r.Fell = append(r.Fell, a.fell...)
	}
	return nil
}

// Busy counts the requests so far but for those that agents make without a
// cause.
func (c *Carrier) Busy(_ struct{}, requests *int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.agents {
		for k, n := range a.line.ledger.read() {
			if !k.steady() {
				*requests += n.Requests
			}
		}
	}
	return nil
}

// electionLeases is the kind of object by which agents elect one of them.
const electionLeases = "leases"

// steady reports whether agents ask for it again and again: the election, the
// look at their own Node, and watches, which the API server ends after a while.
func (k kind) steady() bool {
	return k.Resource == electionLeases || k == kind{"get", "nodes"} || k.Verb == "watch"
}

// Weigh collects garbage and returns what is left.
func (c *Carrier) Weigh(_ struct{}, m *Memory) error {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	*m = Memory{Heap: stats.HeapAlloc, Stacks: stats.StackInuse, Goroutines: runtime.NumGoroutine()}
	return nil
}
