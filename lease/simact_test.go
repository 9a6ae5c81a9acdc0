package lease_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// act begins something new.
func (h *sim) act() {
	n := h.nodes[h.random.IntN(len(h.nodes))]
	draw := h.random.IntN(100)
	for _, a := range []struct {
		weight int
		run    func()
	}{
		{4, func() { h.createStateless(n) }},
		{5, func() { h.scale(h.random.IntN(maxReplicas + 1)) }},
		{8, h.control},
		{28, h.kubelet},
		{2, h.conflict},
		{4, h.tearDown},
		{5, h.evict},
		{7, h.deliverDel},
		{2, h.giveUp},
		{2, h.addAgain},
		{4, h.prepare},
		{6, func() { h.tidy(n) }},
		{3, func() { h.yield(n) }},
		{6, func() { h.watch(n) }},
		{2, func() { h.crash(n) }},
		{1, func() { h.replace(n) }},
		{4, h.collect},
		{2, func() { h.upkeep(n) }},
		{1, func() { h.validate(n) }},
		{1, func() { h.logf("%d late writes land", h.cluster.Land()) }},
		{3, h.sleep},
	} {
		if draw -= a.weight; draw < 0 {
			a.run()
			return
		}
	}
}

func (h *sim) sleep() {
	d := []time.Duration{time.Millisecond, 20 * time.Millisecond, time.Second, coolDown, 2 * time.Minute}[h.random.IntN(5)]
	h.logf("%s pass", d)
	time.Sleep(d) // synctest's time
	h.director.Reap()
}

// names are the names of the pods, in order.
func (h *sim) names() []string { return slices.Sorted(maps.Keys(h.pods)) }

// some returns a random pod that ok accepts, or nil.
func (h *sim) some(ok func(*simPod) bool) *simPod {
	names := slices.DeleteFunc(h.names(), func(name string) bool { return !ok(h.pods[name]) })
	if len(names) == 0 {
		return nil
	}
	return h.pods[names[h.random.IntN(len(names))]]
}

func (h *sim) create(name string, n *simNode, sticky bool) {
	p := &simPod{node: n, families: 1 + h.random.IntN(2)}
	p.pod = pod{name: name, uid: h.cluster.SetPod(namespace, name, n.id.Name, false), sticky: sticky}
	h.pods[name] = p
	h.logf("pod %s is created on %s, uid %s", name, n.id.Name, p.uid)
}

func (h *sim) createStateless(n *simNode) {
	alive := 0
	for _, p := range h.pods {
		if !p.sticky {
			alive++
		}
	}
	if alive < maxStateless {
		h.created++
		h.create(fmt.Sprintf("one-%d", h.created), n, false)
	}
}

func (h *sim) scale(replicas int) {
	h.logf("the StatefulSet is scaled from %d to %d", h.replicas, replicas)
	h.replicas = replicas
	maps.DeleteFunc(h.home, func(key string, _ netip.Addr) bool {
		return !h.wanted(strings.Fields(key)[0])
	})
}

// wanted reports whether the StatefulSet wants the pod.
func (h *sim) wanted(name string) bool {
	ordinal, ok := strings.CutPrefix(name, "web-")
	n, err := strconv.Atoi(ordinal)
	return ok && err == nil && n < h.replicas
}

// control is the StatefulSet's controller: it creates one pod that is
// missing, or tells one to leave that nobody wants.
func (h *sim) control() {
	for i := range maxReplicas {
		name := fmt.Sprintf("web-%d", i)
		p := h.pods[name]
		switch {
		case p == nil && h.wanted(name):
			h.create(name, h.nodes[h.random.IntN(len(h.nodes))], true)
			return
		case p != nil && !h.wanted(name) && !p.leaving:
			h.logf("pod %s has to leave", name)
			p.leaving = true
			return
		}
	}
}

// evict tells a pod to leave.
func (h *sim) evict() {
	if p := h.some(func(p *simPod) bool { return !p.leaving }); p != nil {
		h.logf("pod %s has to leave", p.name)
		p.leaving = true
	}
}

// kubelet gives a pod a sandbox or, when it has to leave, ends it: the object
// goes once nothing of the pod runs.
func (h *sim) kubelet() {
	due := func(p *simPod) bool { return p.adding == nil && (p.sandbox == nil || p.leaving) }
	p := h.some(func(p *simPod) bool { return p.sticky && due(p) })
	if p == nil || h.random.IntN(3) == 0 {
		p = h.some(due)
	}
	switch {
	case p == nil:
	case !p.leaving:
		h.add(p)
	case p.sandbox != nil:
		h.kill(p)
	default:
		h.logf("pod %s is gone", p.name)
		h.cluster.DeletePod(namespace, p.name)
		delete(h.pods, p.name)
	}
}

// request asks for one family or both, from the pools in changing order.
func (h *sim) request(p *simPod, container string) lease.Request {
	r := p.request(container)
	four := []lease.Pool{h.pools[0], h.pools[1]}
	if h.random.IntN(2) == 0 {
		slices.Reverse(four)
	}
	r.Families = [][]lease.Pool{four, {h.pools[2]}}[:p.families]
	return r
}

// add is an ADD for a new sandbox.
func (h *sim) add(p *simPod) {
	h.sandboxes++
	container := fmt.Sprintf("s%d", h.sandboxes)
	r, n := h.request(p, container), p.node
	l := n.Lessee
	var got []lease.Entry
	var mine *operation
	op := h.begin(n.process, "ADD "+container+" of "+p.name, func(ctx context.Context) (err error) {
		got, err = l.Acquire(ctx, r)
		return err
	}, func(err error) {
		if err == nil {
			h.answered(p, r.Owner, got)
		}
		if p.adding != mine || mine == nil && p.adding != nil {
			return // nobody waits any more
		}
		p.adding = nil
		if err != nil {
			h.dels = append(h.dels, simDel{n, lease.Sandbox{Owner: r.Owner, Container: container}})
			return
		}
		p.sandbox = &simSandbox{container: container}
		for _, e := range got {
			p.sandbox.addrs = append(p.sandbox.addrs, e.Addr)
		}
		h.checkAnswer(n, p, got, container)
	})
	if mine = op; !op.Ended() {
		p.adding = op
	}
}

// answered remembers where an identity is at home.
func (h *sim) answered(p *simPod, o lease.Owner, got []lease.Entry) {
	if now := h.pods[p.name]; !p.sticky || now == nil || now.uid != o.PodUID || !h.wanted(p.name) {
		return
	}
	for _, e := range got {
		key := fmt.Sprintf("%s %t", p.name, e.Addr.Is4())
		if home, ok := h.home[key]; ok && home != e.Addr {
			h.fatalf("%s was at home at %s and got %s", p.name, home, e.Addr)
		}
		h.home[key] = e.Addr
	}
}

// giveUp is a runtime that waits no longer for an ADD.
func (h *sim) giveUp() {
	p := h.some(func(p *simPod) bool { return p.adding != nil })
	if p == nil {
		return
	}
	op := p.adding
	h.logf("%s #%03d is given up", op.process.name, op.n)
	p.adding = nil
	container := strings.Fields(op.name)[1]
	h.dels = append(h.dels, simDel{p.node, lease.Sandbox{Owner: p.owner(), Container: container}})
	op.cancel()
	h.director.Reap()
}

// addAgain repeats the ADD of a sandbox that runs: it gets the same answer.
func (h *sim) addAgain() {
	p := h.some(func(p *simPod) bool { return p.sandbox != nil && p.adding == nil })
	if p == nil {
		return
	}
	s, l := p.sandbox, p.node.Lessee
	r := h.request(p, s.container)
	var got []lease.Entry
	var mine *operation
	op := h.begin(p.node.process, "ADD "+s.container+" again", func(ctx context.Context) (err error) {
		got, err = l.Acquire(ctx, r)
		return err
	}, func(err error) {
		if p.adding == mine {
			p.adding = nil
		}
		if err != nil || p.sandbox != s {
			return
		}
		var addrs []netip.Addr
		for _, e := range got {
			addrs = append(addrs, e.Addr)
		}
		if !slices.Equal(addrs, s.addrs) {
			h.fatalf("sandbox %s had %v and is told %v", s.container, s.addrs, addrs)
		}
	})
	if mine = op; !op.Ended() {
		p.adding = op
	}
}

func (h *sim) kill(p *simPod) {
	h.logf("sandbox %s of %s is dead", p.sandbox.container, p.name)
	h.dels = append(h.dels, simDel{p.node, lease.Sandbox{Owner: p.owner(), Container: p.sandbox.container}})
	p.sandbox = nil
}

// simRest is how long an address that was set aside rests: not so long that a
// history would have to wait for it in the end.
const simRest = 3 * time.Minute

// simAside is an address that a node has set aside.
type simAside struct {
	node  *simNode
	until time.Time
}

// conflict is a sandbox that was answered and finds a stranger at some of its
// addresses, so it never comes to be.
func (h *sim) conflict() {
	p := h.some(func(p *simPod) bool { return p.sandbox != nil && p.adding == nil })
	if p == nil {
		return
	}
	n, l := p.node, p.node.Lessee
	s := lease.Sandbox{Owner: p.owner(), Container: p.sandbox.container}
	addrs := p.sandbox.addrs[h.random.IntN(len(p.sandbox.addrs)):]
	h.kill(p)
	until, aside := time.Now().Add(simRest), false
	h.begin(n.process, fmt.Sprintf("conflict of %s on %v", s.Container, addrs), func(ctx context.Context) (err error) {
		aside, err = l.SetAside(ctx, s, addrs, simRest)
		return err
	}, func(err error) {
		if err != nil || !aside {
			return
		}
		h.logf("%v are set aside", addrs)
		for _, addr := range addrs {
			h.aside[addr] = simAside{n, until}
		}
	})
}

// tearDown ends a sandbox whose pod stays.
func (h *sim) tearDown() {
	if p := h.some(func(p *simPod) bool { return p.sandbox != nil && p.adding == nil }); p != nil {
		h.kill(p)
	}
}

// deliverDel is a DEL, sooner or later, once, twice or never.
func (h *sim) deliverDel() {
	if len(h.dels) == 0 {
		return
	}
	i := h.random.IntN(len(h.dels))
	d := h.dels[i]
	if h.random.IntN(5) > 0 {
		h.dels = slices.Delete(h.dels, i, i+1)
	}
	if h.random.IntN(12) == 0 {
		return
	}
	l := d.node.Lessee
	h.begin(d.node.process, "DEL "+d.sandbox.Container, func(context.Context) error {
		_, err := l.Release(d.sandbox)
		return err
	}, func(error) {})
}

func (h *sim) prepare() {
	p := h.some(func(p *simPod) bool { return p.sticky && !p.leaving && p.sandbox == nil })
	if p == nil {
		return
	}
	l, r := p.node.Lessee, h.request(p, "")
	h.begin(p.node.process, "prepare "+p.name, func(ctx context.Context) error {
		return l.Prepare(ctx, r)
	}, func(error) {})
}

// alone runs something on a node that runs once at a time.
func (h *sim) alone(n *simNode, what string, run func(ctx context.Context, l *lease.Lessee) error) {
	if n.busy[what] {
		return
	}
	busy, l := n.busy, n.Lessee
	busy[what] = true
	h.begin(n.process, what, func(ctx context.Context) error { return run(ctx, l) }, func(error) { busy[what] = false })
}

func (h *sim) tidy(n *simNode) {
	h.alone(n, "tidy", func(ctx context.Context, l *lease.Lessee) error { return l.Tidy(ctx) })
}

func (h *sim) yield(n *simNode) {
	free := n.Free()
	slices.SortFunc(free, netip.Addr.Compare)
	if len(free) > 0 {
		free = free[:1+h.random.IntN(len(free))]
		h.alone(n, "yield", func(ctx context.Context, l *lease.Lessee) error { return l.Yield(ctx, free) })
	}
}

// watch tells a node of some changes it has not heard of, or of old ones
// again, as a watch that begins anew does.
func (h *sim) watch(n *simNode) {
	changes := h.cluster.Changes(n.seen)
	for _, c := range changes[:h.random.IntN(len(changes)+1)] {
		n.seen = c.Version
		h.tell(n, c)
	}
}

// tell tells a node of one change.
func (h *sim) tell(n *simNode, c leasetest.Change) {
	switch {
	case c.Block == nil:
	case c.Deleted || c.Block.LeasedTo(n.id.UID) == 0:
		l, prefix := n.Lessee, c.Block.Prefix()
		h.begin(n.process, "missing "+c.Block.Name(), func(ctx context.Context) error {
			return l.Missing(ctx, prefix)
		}, func(error) {})
	default:
		h.logf("%s observes %s@%s", n.process.name, c.Block.Name(), c.Block.Version)
		if err := n.Observe(*c.Block); err != nil {
			h.fatalf("observe: %v", err)
		}
	}
}

// crash ends a process and begins another. What it has sent may still land.
func (h *sim) crash(n *simNode) {
	h.logf("%s crashes", n.process.name)
	h.stop(n)
	h.boot(n)
	h.logf("%s boots with %v", n.process.name, n.Entries())
}

// stop ends a process; the ADDs that wait for it fail.
func (h *sim) stop(n *simNode) {
	dead := n.process
	dead.dead.Store(true)
	for _, g := range h.director.Waiting() {
		if g.Call.who == dead {
			h.pass(g)
		}
	}
	n.disk.Crash()
	for _, name := range h.names() {
		p := h.pods[name]
		if p.adding != nil && p.adding.process == dead {
			container := strings.Fields(p.adding.name)[1]
			p.adding = nil
			if p.sandbox == nil {
				h.dels = append(h.dels, simDel{n, lease.Sandbox{Owner: p.owner(), Container: container}})
			}
		}
	}
}

// replace loses a node for good: its pods are gone, it is fenced, and another
// node of its name comes up, sometimes with the disk of the old one.
func (h *sim) replace(n *simNode) {
	h.logf("%s is gone for good", n.id.Name)
	h.stop(n)
	for _, name := range h.names() {
		if h.pods[name].node == n {
			h.logf("pod %s is gone", name)
			h.cluster.DeletePod(namespace, name)
			delete(h.pods, name)
		}
	}
	h.dels = slices.DeleteFunc(h.dels, func(d simDel) bool { return d.node == n })
	maps.DeleteFunc(h.aside, func(_ netip.Addr, a simAside) bool { return a.node == n })
	if h.random.IntN(2) == 0 {
		n.disk.Replace()
	}
	n.id.UID = fmt.Sprintf("%s-%d", n.id.UID, n.boots)
	h.fence()
	h.boot(n)
	h.logf("%s boots with %v", n.process.name, n.Entries())
}

// fence ends the leases of nodes that are gone.
func (h *sim) fence() {
	c := &link{wires: h.wires, process: h.gc}
	for _, b := range h.cluster.Blocks() {
		for _, lease := range b.Leases {
			if slices.ContainsFunc(h.nodes, func(n *simNode) bool { return n.id == lease.Node }) {
				continue
			}
			h.begin(h.gc, "fence "+lease.Node.UID, func(ctx context.Context) error {
				b, err := c.Block(ctx, b.Name())
				if err != nil {
					return ignoreNotFound(err)
				}
				if b.Fence(lease.Node.UID, nil) == 0 {
					return nil
				}
				_, err = c.PutBlock(ctx, b)
				return err
			}, func(error) {})
		}
	}
}

// collect is the collector's round over everything. Two may run at once, as
// when an agent has not noticed that another was elected.
func (h *sim) collect() {
	c := &collector{Cluster: &link{wires: h.wires, process: h.gc}}
	c.wants = func(ctx context.Context, pod string) (bool, error) {
		return through(ctx, c.Cluster.(*link), "StatefulSet of "+pod, func(context.Context) (bool, error) {
			return h.wanted(pod), nil
		})
	}
	var blocks, pods []string
	for _, b := range h.cluster.Blocks() {
		blocks = append(blocks, b.Name())
	}
	for _, e := range h.cluster.Endpoints() {
		pods = append(pods, e.Pod)
	}
	h.begin(h.gc, "collect", func(ctx context.Context) error {
		var errs []error
		for _, name := range blocks {
			errs = append(errs, c.block(ctx, name))
		}
		for _, name := range pods {
			errs = append(errs, c.pointer(ctx, name))
		}
		return errors.Join(errs...)
	}, func(error) {})
}

// upkeep releases what the journal has for pods that are gone.
func (h *sim) upkeep(n *simNode) {
	living := map[string]bool{}
	for _, p := range h.pods {
		living[p.uid] = true
	}
	for _, e := range n.Entries() {
		if (e.State == lease.Assigned || e.State == lease.Placing) && !living[e.Owner.PodUID] {
			l := n.Lessee
			h.begin(n.process, "release pod "+e.Owner.PodUID, func(context.Context) error {
				_, err := l.ReleasePod(e.Owner.PodUID)
				return err
			}, func(error) {})
		}
	}
}

// validate is CNI GC: the runtime names the sandboxes there are, while it has
// no ADD under way.
func (h *sim) validate(n *simNode) {
	valid := map[string]bool{}
	for _, p := range h.pods {
		if p.node != n {
			continue
		}
		if p.adding != nil {
			return
		}
		if p.sandbox != nil {
			valid[p.sandbox.container] = true
		}
	}
	l := n.Lessee
	h.begin(n.process, "GC", func(context.Context) error {
		_, err := l.ReleaseInvalid("net", func(container, _ string) bool { return valid[container] })
		return err
	}, func(error) {})
}
