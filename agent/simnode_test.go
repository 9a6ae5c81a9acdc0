package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"

	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// simNode is a machine: its disk outlives the agents, its sandboxes outlive
// all but the machine's power.
type simNode struct {
	name string
	disk *leasetest.Disk
	// diskOf is the UID of the node that the journal on the disk is of, empty
	// for none.
	diskOf string
	// fresh is set while the journal may not know of earlier assignments.
	fresh bool
	// off is set while the machine has no power.
	off bool
	// clock is how fast its clock runs, and by how much it is wrong.
	rate   float64
	offset time.Duration
	boots  int
	agent  *simAgent
	// running is the agent's process for the disk, which is another
	// goroutine's.
	running atomic.Pointer[simProcess]
}

// simAgent is a running agent.
type simAgent struct {
	*Agent
	process  *simProcess
	watchers []simWatcher
	pods     *simCache[*corev1.Pod]
	writes   *simQueue
	// serving is set when the socket answers, started when the agent has
	// learned its leases.
	serving, started bool
	busy             map[string]bool // what runs once at a time
}

// simQueue is a workqueue that the simulation takes keys from.
type simQueue struct {
	workqueue.TypedRateLimitingInterface[string] // nil
	mu                                           sync.Mutex
	keys                                         []string
}

func (q *simQueue) Add(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !slices.Contains(q.keys, key) {
		q.keys = append(q.keys, key)
	}
}

func (q *simQueue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.keys)
}

// take removes the i-th key.
func (q *simQueue) take(i int) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	key := q.keys[i]
	q.keys = slices.Delete(q.keys, i, i+1)
	return key
}

func (h *sim) addNode(name string) *simNode {
	n := &simNode{
		name: name, rate: []float64{0.8, 1, 1, 1.25}[h.random.IntN(4)],
		offset: time.Duration(h.random.IntN(600)-300) * time.Second,
	}
	n.disk = leasetest.NewDisk(func(w leasetest.DiskWrite) leasetest.DiskFault {
		p := n.running.Load()
		if p.dead.Load() {
			return leasetest.CrashUnsynced
		}
		return h.director.Wait(fmt.Sprintf("%s disk %d", p.name, w.N), simCall{who: p, stage: stageDisk}).disk
	})
	h.nodes = append(h.nodes, n)
	h.register(n)
	return n
}

// register creates the Node object, as a kubelet does.
func (h *sim) register(n *simNode) {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.name, CreationTimestamp: metav1.NewTime(time.Now())},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
	}
	h.logf("Node %s is registered with UID %s", n.name, h.api.put("nodes", node).GetUID())
}

// object is the Node, nil without one.
func (n *simNode) object(h *sim) *corev1.Node { return simGet[*corev1.Node](h.api, "nodes", n.name) }

func (n *simNode) uid(h *sim) string {
	if node := n.object(h); node != nil {
		return string(node.UID)
	}
	return ""
}

// fit reports whether pods may be bound to the node.
func (n *simNode) fit(h *sim) bool {
	node := n.object(h)
	return node != nil && len(node.Spec.Taints) == 0 && !n.off
}

func (n *simNode) cut() bool { return n.running.Load() != nil && n.running.Load().cut.Load() }

// boot starts an agent. It reads its Node and begins to serve.
func (h *sim) boot(n *simNode) {
	n.boots++
	p := newSimProcess(h.simWorld, fmt.Sprintf("%s%d", n.name, n.boots))
	p.cut.Store(n.cut())
	n.running.Store(p)
	now := func() time.Time {
		return h.began.Add(n.offset + time.Duration(float64(time.Since(h.began))*n.rate)).Round(0)
	}
	a := &simAgent{process: p, writes: &simQueue{}, busy: map[string]bool{}}
	a.Agent = &Agent{
		options: Options{NodeName: n.name, Namespace: "kube-system"}, config: h.config,
		log: slog.New(slog.DiscardHandler), now: now, kube: h.clients.kube,
	}
	a.upkeep = newUpkeep(a.Agent)
	a.leaks = newLeaks(a.now, 0)
	h.connect(n, a)
	n.agent = a
	var fresh bool
	h.begin(p, "meet", func(ctx context.Context) (err error) {
		fresh, err = h.meet(ctx, n, a)
		return err
	}, func(err error) {
		if err != nil {
			h.crash(n) // and it tries again
			return
		}
		a.serving = true
		h.fill(n, a)
		h.begin(p, "start", func(ctx context.Context) error {
			return a.start(p.ctx, fresh)
		}, func(err error) {
			if err != nil {
				h.crash(n)
				return
			}
			a.started = true
		})
	})
}

// connect gives the agent its clients and caches.
func (h *sim) connect(n *simNode, a *simAgent) {
	var err error
	if a.cluster, err = cluster.New(h.clients.config, h.clients.http); err != nil {
		h.t.Fatal(err)
	}
	a.clients = a.cluster.Kinds()
	a.pods = newSimCache("pods", func(p *corev1.Pod) bool { return p.Spec.NodeName == n.name })
	own := newSimCache("nodes", func(o *corev1.Node) bool { return o.Name == n.name })
	ippools := newSimCache("spiderippools", func(*v2beta1.SpiderIPPool) bool { return true })
	reserved := newSimCache("spiderreservedips", func(*v2beta1.SpiderReservedIP) bool { return true })
	spaces := newSimCache("namespaces", func(*metav1.PartialObjectMetadata) bool { return true })
	a.Agent.pods = &pods{node: n.name, client: a.kube, informer: a.pods.informer()}
	a.nodes = &ownNode{client: a.kube, name: n.name, informer: own.informer()}
	a.pools = &pools{
		informer: ippools.informer(), reserved: reserved.informer(), now: a.now,
		parsed: map[string]parsedPool{}, used: map[string]time.Time{}, none: map[string]time.Time{}, waiting: map[string]int{},
		expected: map[string]expectation{},
	}
	a.namespaces = &namespaces{informer: spaces.informer()}
	ends := newSimCache("spiderendpoints", func(e *v2beta1.SpiderEndpoint) bool { return e.Status.Current.Node == n.name })
	a.endpoints = &endpoints{agent: a.Agent, queue: a.writes, informer: ends.informer()}
	a.watchers = []simWatcher{a.pods, own, ippools, reserved, spaces, ends}
}

// meet finds out which node this is, as [Agent.meet] does, and opens the
// journal, as journal.Open does.
func (h *sim) meet(ctx context.Context, n *simNode, a *simAgent) (fresh bool, err error) {
	node, err := a.nodes.read(ctx)
	switch {
	case err == nil:
		a.node = lease.Node{Name: node.Name, UID: string(node.UID)}
	case n.diskOf != "" && !apierrors.IsNotFound(err):
		a.node = lease.Node{Name: n.name, UID: n.diskOf}
	default:
		return false, err
	}
	if n.diskOf != a.node.UID {
		n.fresh, n.diskOf = true, a.node.UID
		n.disk.Replace()
	}
	a.complete = func() error { n.fresh = false; return nil }
	a.lessee, err = lease.New(lease.Config{
		Node: a.node, Cluster: a.cluster, Disk: n.disk.Open(), Now: a.now, CoolDown: h.config.CoolDown.Duration,
	})
	return n.fresh, err
}

// fill makes the watches know some state of not long ago.
func (h *sim) fill(n *simNode, a *simAgent) {
	selector := v1alpha1.LesseeLabelPrefix + a.node.UID
	mine := newSimCache("ipblocks", func(b *v1alpha1.IPBlock) bool { _, ok := b.Labels[selector]; return ok })
	a.Agent.blocks = &blocks{cluster: a.cluster, selector: selector, informer: mine.informer()}
	a.watchers = append(a.watchers, mine)
	for _, w := range a.watchers {
		version := h.api.now()
		if !h.calm && h.rate > 0 {
			version -= min(version, uint64(h.random.IntN(8)))
		}
		w.begin(h.api, max(version, h.founded()))
	}
}

// crash ends an agent. What it has sent may still come in.
func (h *sim) crash(n *simNode) {
	if n.agent == nil {
		return
	}
	p := n.agent.process
	h.logf("%s is no more", p.name)
	n.agent = nil
	p.dead.Store(true)
	p.end()
	for _, g := range h.director.Waiting() {
		if g.Call.who == p && g.Call.stage == stageDisk {
			h.pass(g)
		}
	}
	n.disk.Crash()
	h.director.Reap()
	for _, name := range h.names() {
		if pod := h.pods[name]; pod.adding != nil && pod.adding.process == p {
			h.addFailed(pod)
		}
	}
}

// leasesNow reports whether the agent knows the address for one of its leases.
func (a *simAgent) leasesNow(addr netip.Addr) bool {
	return a != nil && slices.Contains(a.lessee.Leasing(), lease.BlockOf(addr))
}

// alone runs something on an agent that runs once at a time.
func (h *sim) alone(n *simNode, what string, run func(context.Context, *Agent) error, finish func(error)) {
	a := n.agent
	if a == nil || !a.serving || a.process.paused || a.busy[what] {
		return
	}
	a.busy[what] = true
	h.begin(a.process, what, func(ctx context.Context) error { return run(ctx, a.Agent) }, func(err error) {
		a.busy[what] = false
		if finish != nil {
			finish(err)
		}
	})
}

// beat is a heartbeat; an agent whose node is another one ends.
func (h *sim) beat(n *simNode) {
	h.alone(n, "heartbeat", func(ctx context.Context, a *Agent) error {
		_, err := a.beat(ctx)
		return err
	}, func(err error) {
		if err != nil {
			h.crash(n)
		}
	})
}

func (h *sim) upkeep(n *simNode) {
	if n.agent != nil && n.agent.started {
		h.alone(n, "upkeep", func(ctx context.Context, a *Agent) error { return a.upkeep.round(ctx) }, nil)
	}
}

func (h *sim) findLeaks(n *simNode) {
	if n.agent != nil && n.agent.started {
		h.alone(n, "leaks", func(ctx context.Context, a *Agent) error { return a.findLeaks(ctx) }, nil)
	}
}

func (h *sim) findLost(n *simNode) {
	if n.agent != nil && n.agent.started {
		h.alone(n, "lost blocks", func(ctx context.Context, a *Agent) error { return a.findLost(ctx) }, nil)
	}
}

func (h *sim) mendEndpoints(n *simNode) {
	if n.agent != nil && n.agent.started {
		h.alone(n, "endpoints", func(ctx context.Context, a *Agent) error { return a.mendEndpoints(ctx) }, nil)
	}
}

// writeEndpoint writes one endpoint that is due, and again after an error.
func (h *sim) writeEndpoint(n *simNode) {
	a := n.agent
	if a == nil || !a.started || a.process.paused || a.writes.Len() == 0 || a.busy["endpoint"] {
		return
	}
	key := a.writes.take(h.random.IntN(a.writes.Len()))
	h.alone(n, "endpoint", func(ctx context.Context, a *Agent) error { return a.endpoints.write(ctx, key) }, func(err error) {
		if err != nil {
			a.writes.Add(key)
		}
	})
}

// hear lets one of an agent's watches go on, of those that are behind.
func (h *sim) hear(n *simNode) {
	a := n.agent
	if a == nil || !a.serving || a.process.paused {
		return
	}
	var of []simWatcher
	for _, w := range a.watchers {
		if w.waits() || w.behind(h.api) > 0 && !n.cut() && !h.away.Load() {
			of = append(of, w)
		}
	}
	if len(of) == 0 {
		return
	}
	w := of[h.random.IntN(len(of))]
	if behind := w.behind(h.api); behind > 0 && !n.cut() && !h.away.Load() {
		w.hear(h.api, 1+h.random.IntN(behind))
	}
	h.notify(n, w)
}

// relist begins one of an agent's watches anew.
func (h *sim) relist(n *simNode) {
	a := n.agent
	if a == nil || !a.serving || n.cut() || h.away.Load() {
		return
	}
	w := a.watchers[h.random.IntN(len(a.watchers))]
	h.logf("%s lists %s anew", a.process.name, w.name())
	h.count("relist")
	w.relist(h.api)
	h.notify(n, w)
}

// notify lets the handlers of a watch hear what they have not heard of, one
// thing after the other.
func (h *sim) notify(n *simNode, w simWatcher) {
	if !w.waits() {
		return
	}
	h.alone(n, "notice of "+w.name(), func(context.Context, *Agent) error {
		for notice := w.next(); notice != nil; notice = w.next() {
			notice()
		}
		return nil
	}, nil)
}

// add is an ADD for an interface of a sandbox.
func (h *sim) add(p *simPod, q *cni.AddRequest, finish func(*cni.AddResult, error)) *simOp {
	var got *cni.AddResult
	a := p.node.agent
	return h.begin(a.process, fmt.Sprintf("ADD %s %s of %s", q.ContainerID, q.Interface, q.Pod.Name), func(ctx context.Context) (err error) {
		got, err = a.add(withCause(ctx, "add"), q)
		return err
	}, func(err error) { finish(got, err) })
}
