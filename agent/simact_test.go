package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/agent/elected"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// simAction is something that may happen.
type simAction struct {
	name   string
	weight int
	// fault actions do not happen in runs without faults, needed ones happen
	// in every run.
	fault, needed bool
	do            func()
}

// node returns a random node.
func (h *sim) node() *simNode { return h.nodes[h.random.IntN(len(h.nodes))] }

func (h *sim) actions() []simAction {
	return []simAction{
		{name: "create", weight: 40, do: h.createStateless},
		{name: "scale", weight: 16, do: func() {
			s := h.sets[h.random.IntN(len(h.sets))]
			h.scale(s, s.start, int32(h.random.IntN(simReplicas+1)))
		}},
		{name: "move start", weight: 3, do: func() {
			s := h.sets[h.random.IntN(len(h.sets))]
			h.scale(s, int32(h.random.IntN(simReplicas)), s.replicas)
		}},
		{name: "delete set", weight: 3, do: func() { h.deleteSet(h.sets[h.random.IntN(len(h.sets))]) }},
		{name: "control", weight: 60, needed: true, do: h.control},
		{name: "schedule", weight: 100, needed: true, do: h.schedule},
		{name: "kubelet", weight: 300, needed: true, do: h.kubelet},
		{name: "evict", weight: 25, do: h.evict},
		{name: "complete", weight: 8, do: h.complete},
		{name: "tear down", weight: 20, do: h.tearDown},
		{name: "DEL", weight: 60, needed: true, do: h.deliverDel},
		{name: "ADD given up", weight: 8, fault: true, do: h.giveUp},
		{name: "ADD repeated", weight: 8, do: h.addAgain},
		{name: "late ADD", weight: 4, fault: true, do: h.lateAdd},
		{name: "CNI GC", weight: 4, do: func() { h.validate(h.node()) }},

		{name: "boot", weight: 60, needed: true, do: func() { h.bootSome() }},
		{name: "hear", weight: 200, needed: true, do: func() { h.hear(h.node()) }},
		{name: "relist", weight: 5, fault: true, do: func() { h.relist(h.node()) }},
		{name: "heartbeat", weight: 25, needed: true, do: func() { h.beat(h.node()) }},
		{name: "upkeep", weight: 40, needed: true, do: func() { h.upkeep(h.node()) }},
		{name: "endpoint", weight: 60, needed: true, do: func() { h.writeEndpoint(h.node()) }},
		{name: "mend endpoints", weight: 6, needed: true, do: func() { h.mendEndpoints(h.node()) }},
		{name: "endpoint deleted", weight: 4, fault: true, do: h.deleteEndpoint},
		{name: "leaks", weight: 12, needed: true, do: func() { h.findLeaks(h.node()) }},
		{name: "lost blocks", weight: 8, needed: true, do: func() { h.findLost(h.node()) }},
		{name: "agent crash", weight: 8, fault: true, do: func() { h.count("agent crash"); h.crash(h.node()) }},
		{name: "pause", weight: 6, fault: true, do: h.pauseSome},
		{name: "journal lost", weight: 3, fault: true, do: func() { h.loseJournal(h.node()) }},

		{name: "cut", weight: 4, fault: true, do: func() { h.cutOff(h.node()) }},
		{name: "API server away", weight: 2, fault: true, do: func() {
			if h.outdated() {
				return
			}
			h.logf("the API server is away")
			h.count("API server away")
			h.away.Store(true)
		}},
		{name: "power", weight: 3, fault: true, do: func() { h.powerOff(h.node()) }},
		{name: "taint", weight: 20, fault: true, do: func() { h.taint(h.node()) }},
		{name: "Node deleted", weight: 3, fault: true, do: func() { h.deleteNode(h.node()) }},
		{name: "mend", weight: 100, needed: true, do: h.mend},
		{name: "pool edited", weight: 3, fault: true, do: h.editPool},

		{name: "collect", weight: 30, needed: true, do: func() { h.collect(h.someElected()) }},
		{name: "fence", weight: 15, needed: true, do: func() { h.fence(h.someElected()) }},
		{name: "glance", weight: 20, needed: true, do: func() { h.glance(h.someElected()) }},
		{name: "elect", weight: 3, fault: true, do: func() { h.count("another is elected"); h.elect() }},
		{name: "owner GC", weight: 10, needed: true, do: h.collectOwned},
		{name: "time", weight: 40, needed: true, do: h.passTime},
	}
}

// act begins something new.
func (h *sim) act() {
	total := 0
	for _, a := range h.acts {
		total += a.weight * h.moods[a.name]
	}
	draw := h.random.IntN(total)
	for _, a := range h.acts {
		if draw -= a.weight * h.moods[a.name]; draw < 0 {
			a.do()
			return
		}
	}
}

func (h *sim) passTime() {
	d := []time.Duration{
		time.Millisecond, 20 * time.Millisecond, 200 * time.Millisecond, time.Second, 6 * time.Second, 30 * time.Second, 2 * time.Minute,
	}[h.random.IntN(7)]
	h.logf("%s pass", d)
	h.pause(d)
}

func (h *sim) bootSome() {
	if n := h.node(); n.agent == nil && !n.off {
		if n.object(h) == nil && !n.cut() && !h.away.Load() {
			h.register(n)
		}
		h.boot(n)
	}
}

func (h *sim) pauseSome() {
	p := h.someElected().process
	if a := h.node().agent; a != nil && h.random.IntN(2) == 0 {
		p = a.process
	}
	p.paused = true
	h.logf("%s is paused", p.name)
	h.count("process paused")
}

// outdated reports whether an agent has not noticed that its Node is another
// one. What it assigns then, nobody knows before a kubelet reports it: that
// kubelets do within half a hold-down is what fencing counts on.
func (h *sim) outdated() bool {
	return slices.ContainsFunc(h.nodes, func(n *simNode) bool {
		return n.agent != nil && n.agent.serving && n.agent.node.UID != n.uid(h)
	})
}

// cutOff cuts a node off from the API server.
func (h *sim) cutOff(n *simNode) {
	if h.outdated() {
		return
	}
	h.logf("node %s is cut off", n.name)
	h.count("node cut off")
	n.running.Load().cut.Store(true)
}

// mend puts one thing in order that is not.
func (h *sim) mend() {
	var broken []func()
	if h.away.Load() {
		broken = append(broken, func() { h.logf("the API server is back"); h.away.Store(false) })
	}
	for _, e := range h.elected {
		if e.process.paused {
			broken = append(broken, func() { h.logf("%s goes on", e.process.name); e.process.paused = false })
		}
	}
	for _, n := range h.nodes {
		broken = append(broken, h.brokenAt(n)...)
	}
	if len(broken) > 0 {
		broken[h.random.IntN(len(broken))]()
	}
}

func (h *sim) brokenAt(n *simNode) (broken []func()) {
	if n.cut() {
		broken = append(broken, func() { h.logf("node %s is not cut off any more", n.name); n.running.Load().cut.Store(false) })
	}
	if a := n.agent; a != nil && a.process.paused {
		broken = append(broken, func() { h.logf("%s goes on", a.process.name); a.process.paused = false })
	}
	if n.off {
		broken = append(broken, func() { h.logf("node %s has power", n.name); n.off = false })
	}
	if node := n.object(h); node != nil && len(node.Spec.Taints) > 0 {
		broken = append(broken, func() {
			h.logf("node %s is in service again", n.name)
			node = node.DeepCopy()
			node.Spec.Taints = nil
			h.api.put("nodes", node)
		})
	}
	return broken
}

// loseJournal replaces an agent's disk while its pods run on. A pod of which
// nothing but the journal tells is safe for the quarantine only, so no such
// pod may be there.
func (h *sim) loseJournal(n *simNode) {
	told := map[string]bool{}
	for _, e := range h.storedEndpoints() {
		for _, a := range e.Addresses {
			told[e.PodUID+" "+a.Addr.String()] = true
		}
	}
	for _, name := range h.names() {
		p := h.pods[name]
		if p.node != n || p.sandbox == nil {
			continue
		}
		if p.adding != nil {
			return
		}
		for _, addrs := range p.sandbox.addrs {
			for _, addr := range addrs {
				if !told[p.uid+" "+addr.String()] {
					return
				}
			}
		}
	}
	h.logf("node %s loses its journal", n.name)
	h.count("journal lost")
	h.crash(n)
	n.disk.Replace()
	n.diskOf = ""
}

// powerOff switches a machine off, with all that runs on it.
func (h *sim) powerOff(n *simNode) {
	if n.off {
		return
	}
	h.logf("node %s has no power", n.name)
	h.count("machine off")
	n.off = true
	h.crash(n)
	for _, name := range h.names() {
		if p := h.pods[name]; p.node == n {
			h.kill(p)
		}
	}
	if h.random.IntN(3) == 0 {
		h.count("disk replaced")
		n.disk.Replace()
		n.diskOf = ""
	}
}

// taint declares a machine that is off out of service, which ends its pods.
func (h *sim) taint(n *simNode) {
	node := n.object(h)
	if node == nil || !n.off || len(node.Spec.Taints) > 0 {
		return
	}
	h.logf("node %s is out of service", n.name)
	h.count("out-of-service taint")
	node = node.DeepCopy()
	node.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeOutOfService, Effect: corev1.TaintEffectNoExecute}}
	h.api.put("nodes", node)
	h.losePods(n)
}

// losePods deletes the pods of a node by force: nothing of them runs.
func (h *sim) losePods(n *simNode) {
	for _, name := range h.names() {
		if p := h.pods[name]; p.node == n {
			h.gone(p)
		}
	}
}

// deleteNode deletes the Node of a machine that is off or runs no pod.
func (h *sim) deleteNode(n *simNode) {
	if n.object(h) == nil || n.cut() || h.away.Load() {
		return
	}
	for _, p := range h.pods {
		if p.node == n && (p.sandbox != nil || p.adding != nil) {
			return
		}
	}
	h.logf("Node %s is deleted", n.name)
	h.count("Node deleted")
	h.api.remove("nodes", n.name)
	h.losePods(n)
	if !n.off && h.random.IntN(2) == 0 {
		h.register(n) // before its agent has noticed
	}
}

// deleteEndpoint is somebody who deletes the endpoint of a pod that runs. It is
// written anew by what the journal knows.
func (h *sim) deleteEndpoint() {
	p := h.some(func(p *simPod) bool { return p.sandbox.whole(p) && !p.leaving && p.adding == nil })
	if p == nil || simGet[*v2beta1.SpiderEndpoint](h.api, "spiderendpoints", simNamespace+"/"+p.name) == nil {
		return
	}
	known := 0
	for _, e := range p.node.disk.Entries() {
		if e.State == lease.Assigned && e.Owner.PodUID == p.uid && e.Detail != nil {
			known++
		}
	}
	if p.node.fresh || known < p.families()*len(p.interfaces) {
		return // nothing else tells what the pod has
	}
	h.logf("the endpoint of %s is deleted by hand", p.name)
	h.count("endpoint deleted by hand")
	h.api.remove("spiderendpoints", simNamespace+"/"+p.name)
	h.untold[p.name] = p.uid
}

// simElected is an agent that thinks it is the elected one.
type simElected struct {
	process   *simProcess
	cluster   *cluster.Client
	collector *elected.Collector
	fencer    *elected.Fencer
	nodes     *simCache[*corev1.Node]
	busy      map[string]bool
}

// elect makes another agent the elected one, with a memory of its own. The
// one before may not have noticed.
func (h *sim) elect() {
	h.terms++
	p := newSimProcess(h.simWorld, fmt.Sprintf("gc%d", h.terms))
	e := &simElected{process: p, busy: map[string]bool{}, nodes: newSimCache("nodes", func(*corev1.Node) bool { return true })}
	e.nodes.begin(h.api, h.founded())
	var err error
	if e.cluster, err = cluster.New(h.clients.config, h.clients.http); err != nil {
		h.t.Fatal(err)
	}
	e.collector = &elected.Collector{Cluster: e.cluster, StatefulSet: h.window}
	began := time.Now()
	rate := []float64{0.8, 1, 1.25}[h.random.IntN(3)]
	e.fencer = &elected.Fencer{
		Cluster: e.cluster, HoldDown: h.config.HoldDown.Duration,
		Now: func() time.Time { return began.Add(time.Duration(float64(time.Since(began)) * rate)) },
		Node: func(ctx context.Context, name string) (*corev1.Node, error) {
			node, err := h.clients.kube.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
			return node, simNotFound(err)
		},
		Pods: func(ctx context.Context, node string) ([]corev1.Pod, error) {
			return cluster.PodsOn(ctx, h.clients.kube.CoreV1(), node)
		},
	}
	h.elected = append(h.elected, e)
	if len(h.elected) > 2 {
		h.elected[0].process.dead.Store(true)
		h.elected[0].process.end()
		h.elected = h.elected[1:]
		h.director.Reap()
	}
}

// window is the quorum read of a StatefulSet.
func (h *sim) window(ctx context.Context, namespace, name string) (elected.Window, error) {
	set, err := h.clients.kube.AppsV1().StatefulSets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return elected.Window{}, simNotFound(err)
	}
	return elected.WindowOf(set), nil
}

func simNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return lease.ErrNotFound
	}
	return err
}

func (h *sim) someElected() *simElected { return h.elected[h.random.IntN(len(h.elected))] }

// collect judges a block, or an endpoint. Caches tell an elected agent where
// to look; here it looks anywhere.
func (h *sim) collect(e *simElected) {
	if e.process.paused {
		return
	}
	blocks, endpoints := h.storedBlocks(), h.storedEndpoints()
	i := h.random.IntN(len(blocks) + len(endpoints) + 1)
	switch {
	case i < len(blocks):
		h.collectBlock(e, blocks[i].Name())
	case i < len(blocks)+len(endpoints):
		h.collectPointer(e, endpoints[i-len(blocks)].Pod)
	}
}

func (h *sim) collectBlock(e *simElected, name string) {
	if e.busy[name] {
		return
	}
	e.busy[name] = true
	h.begin(e.process, "collect "+name, func(ctx context.Context) error {
		_, err := e.collector.Block(ctx, name, nil)
		return err
	}, func(error) { e.busy[name] = false })
}

func (h *sim) collectPointer(e *simElected, pod string) {
	if e.busy[pod] {
		return
	}
	e.busy[pod] = true
	h.begin(e.process, "collect endpoint "+pod, func(ctx context.Context) error {
		_, err := e.collector.Pointer(ctx, simNamespace, pod)
		return err
	}, func(error) { e.busy[pod] = false })
}

// glance tells an elected agent's fencer what its cache of Nodes hears.
func (h *sim) glance(e *simElected) {
	if behind := e.nodes.behind(h.api); behind > 0 && !h.away.Load() {
		e.nodes.hear(h.api, 1+h.random.IntN(behind))
	}
	for lessee := range h.lessees() {
		node, _ := e.nodes.store.get(lessee.Name)
		e.fencer.Glance(lessee, node)
	}
}

// lessees are the nodes that lease anything, with the blocks.
func (h *sim) lessees() map[lease.Node][]string {
	of := map[lease.Node][]string{}
	for _, b := range h.storedBlocks() {
		for _, l := range b.Leases {
			of[l.Node] = append(of[l.Node], b.Name())
		}
	}
	return of
}

// fence ends leases of nodes that are gone.
func (h *sim) fence(e *simElected) {
	if e.process.paused || e.busy["fence"] {
		return
	}
	e.busy["fence"] = true
	lessees := h.lessees()
	h.begin(e.process, "fence", func(ctx context.Context) error {
		var errs []error
		for _, b := range sortedLessees(lessees) {
			_, err := e.fencer.Fence(ctx, b, lessees[b])
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}, func(error) { e.busy["fence"] = false })
}

// collectOwned is the garbage collector of Kubernetes: an endpoint goes with
// the pod that owns it.
func (h *sim) collectOwned() {
	for _, e := range h.storedEndpoints() {
		if p := h.pods[e.Pod]; !e.Sticky && (p == nil || p.uid != e.PodUID) {
			h.logf("endpoint %s goes with its pod", e.Pod)
			h.api.remove("spiderendpoints", simNamespace+"/"+e.Pod)
		}
	}
}
