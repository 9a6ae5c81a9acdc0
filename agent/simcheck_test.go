package agent

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
	"go4.org/netipx"

	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// simEvent is a sandbox that took or left an address, for the check of
// histories.
type simEvent struct {
	addr      netip.Addr
	container string
	taken     bool
	from, to  int // steps
}

func (h *sim) storedBlocks() []lease.Block {
	var all []lease.Block
	for _, stored := range simAll[*v1alpha1.IPBlock](h.api, "ipblocks") {
		key := stored.Name + "@" + stored.ResourceVersion
		b, ok := h.blocks[key]
		if !ok {
			var err error
			if b, err = h.observe.FromIPBlock(stored); err != nil {
				h.fail("block %s: %v", stored.Name, err)
				continue
			}
			h.blocks[key] = b
		}
		all = append(all, b)
	}
	return all
}

func (h *sim) storedEndpoints() []lease.Endpoint {
	var all []lease.Endpoint
	for _, stored := range simAll[*v2beta1.SpiderEndpoint](h.api, "spiderendpoints") {
		e, err := cluster.FromSpiderEndpoint(stored)
		if err != nil {
			h.fail("endpoint %s: %v", stored.Name, err)
			continue
		}
		all = append(all, e)
	}
	return all
}

func sortedLessees(of map[lease.Node][]string) []lease.Node {
	return slices.SortedFunc(maps.Keys(of), func(x, y lease.Node) int { return cmp.Compare(x.UID, y.UID) })
}

// answered notes what an ADD gave to an interface, and holds it against what
// was promised to that very answer.
func (h *sim) answered(p *simPod, s *simSandbox, ifname string, got *cni.AddResult, begun int) {
	addrs := addressesIn(got)
	s.addrs[ifname] = addrs
	// Where pools are gone, a StatefulSet pod keeps what it has.
	if len(addrs) != p.families() && !(p.sticky() && h.faults["pool edited"] > 0) {
		h.fail("%s asked for %d addresses and got %v", p.name, p.families(), addrs)
	}
	for _, addr := range addrs {
		h.history = append(h.history, simEvent{addr, s.container, true, begun, h.steps})
		stored := slices.ContainsFunc(p.node.disk.Entries(), func(d lease.Entry) bool {
			return d.Addr == addr && d.State == lease.Assigned && d.Owner == lease.Owner{PodUID: p.uid, Interface: ifname}
		})
		if !stored {
			h.fail("%s was answered with %s, which is not on disk", s.container, addr)
		}
		if !p.sticky() || !h.wanted(p.name) {
			continue
		}
		key := fmt.Sprintf("%s %s %t", p.name, ifname, addr.Is4())
		if home, ok := h.home[key]; ok && home != addr && !h.mayLose(p) {
			h.fail("%s was at home at %s and got %s", key, home, addr)
		}
		h.home[key] = addr
	}
	h.check()
}

// mayLose reports whether a pod may lose its home: somebody has deleted the
// endpoint, and before an agent has written it again the pod has made way for
// another one, which may be elsewhere, or a journal is lost. What two nodes have
// pinned for the pod by then, the collector puts right.
func (h *sim) mayLose(p *simPod) bool {
	uid, deleted := h.untold[p.name]
	return deleted && (uid != p.uid || h.faults["journal lost"]+h.faults["disk replaced"]+h.faults["Node deleted"] > 0)
}

// untoldAndUnknown reports whether a pinned address is one that a journal which
// was lost knows by the pod's status alone, because somebody has deleted the
// endpoint: of what pool it is nothing tells, so none names it until the pod ends.
func (h *sim) untoldAndUnknown(pin lease.Pin) bool {
	_, deleted := h.untold[pin.Identity.Pod]
	return deleted && slices.ContainsFunc(h.nodes, func(n *simNode) bool {
		return slices.ContainsFunc(n.disk.Entries(), func(e lease.Entry) bool {
			return e.Addr == pin.Addr && e.Container == lease.UnknownSandbox && e.Detail == nil
		})
	})
}

// ended notes the end of a sandbox.
func (h *sim) ended(s *simSandbox) {
	for _, addrs := range s.addrs {
		for _, addr := range addrs {
			h.history = append(h.history, simEvent{addr, s.container, false, h.steps, h.steps})
		}
	}
}

// check holds the state of the world against what must always be so, where
// something has changed.
func (h *sim) check() {
	now := simMoment{h.api.now(), len(h.history)}
	if h.checked == now {
		return
	}
	h.checked = now
	blocks := map[netip.Prefix]lease.Block{}
	for _, b := range h.storedBlocks() {
		blocks[b.Prefix()] = b
	}
	holders := map[netip.Addr]*simPod{}
	for _, name := range h.names() {
		p := h.pods[name]
		if p.sandbox == nil {
			continue
		}
		for ifname, addrs := range p.sandbox.addrs {
			for _, addr := range addrs {
				if other := holders[addr]; other != nil {
					h.fail("%s is used by %s and by %s", addr, other.name, p.name)
				}
				holders[addr] = p
				b := blocks[lease.BlockOf(addr)]
				h.checkRight(p, ifname, addr, &b)
			}
		}
	}
}

// checkRight fails unless the blocks say that the pod may use the address.
func (h *sim) checkRight(p *simPod, ifname string, addr netip.Addr, b *lease.Block) {
	pin, pinned := b.PinAt(addr)
	if p.sticky() && !h.mayLose(p) && (!pinned || pin.Identity != lease.Identity{Namespace: simNamespace, Pod: p.name, Interface: ifname}) {
		h.fail("%s uses %s, which is not pinned to it", p.name, addr)
	}
	if at, _ := b.LesseeOf(addr); !p.sticky() && at.Name != p.node.name {
		h.fail("%s on %s uses %s, which is leased to %q", p.name, p.node.name, addr, at.Name)
	}
}

// warm reports whether a stateless pod's ADD has all it needs at hand: a free
// address of the first pool that is named for each family.
func (h *sim) warm(p *simPod, a *simAgent, q *cni.AddRequest) bool {
	if p.sticky() || h.rate > 0 || !a.started {
		return false
	}
	if _, seen := a.pods.store.get(simNamespace + "/" + p.name); !seen {
		return false
	}
	busy := slices.ContainsFunc(h.ops, func(op *simOp) bool { return op.process == a.process })
	free := func(pools []string) bool {
		return len(pools) == 0 || slices.ContainsFunc(a.lessee.Free(), func(addr netip.Addr) bool {
			return netipx.MustParseIPRange(usual(pools[0])).Contains(addr)
		})
	}
	return free(q.DefaultIPv4Pools) && free(q.DefaultIPv6Pools) && !busy
}

// checkCost holds an ADD against the table of costs, in runs without faults.
func (h *sim) checkCost(p *simPod, op *simOp, warm bool) {
	if op == nil || h.rate > 0 || !warm {
		return
	}
	if requests := op.cost.Load(); requests > 0 {
		h.fail("ADD of the stateless pod %s waited for %d requests on a warm node", p.name, requests)
	}
}

// agree fails unless blocks, pins, endpoints and journals say of each pod what
// its sandbox has.
func (h *sim) agree() {
	endpoints := map[string]lease.Endpoint{}
	for _, e := range h.storedEndpoints() {
		endpoints[e.Pod] = e
	}
	holders := map[netip.Addr]string{}
	for _, name := range h.names() {
		p := h.pods[name]
		if !p.sandbox.whole(p) || p.leaving || p.sandbox.nodeUID != p.node.uid(h) {
			continue // an agent knows nothing of what another Node's has done
		}
		e := endpoints[name]
		if e.PodUID != p.uid || e.Node != p.node.name || e.Sticky != p.sticky() {
			h.fail("the endpoint of %s, uid %s on %s, says %+v", name, p.uid, p.node.name, e)
		}
		for ifname, addrs := range p.sandbox.addrs {
			for _, addr := range addrs {
				holders[addr] = p.uid
				if !slices.ContainsFunc(e.Of(ifname), func(a lease.EndpointAddress) bool { return a.Addr == addr }) {
					h.fail("the endpoint of %s does not name %s on %s: %v", name, addr, ifname, e.Addresses)
				}
			}
		}
	}
	for _, n := range h.nodes {
		for _, e := range n.disk.Entries() {
			if uid, held := holders[e.Addr]; held && (e.State != lease.Assigned || e.Owner.PodUID != uid) && n.agent.leasesNow(e.Addr) {
				h.fail("%s is used by the pod %s, and the journal of %s says %s of %s", e.Addr, uid, n.name, e.State, e.Owner.PodUID)
			}
		}
	}
	for _, b := range h.storedBlocks() {
		for _, pin := range b.Pins {
			e := endpoints[pin.Identity.Pod]
			named := slices.ContainsFunc(e.Of(pin.Identity.Interface), func(a lease.EndpointAddress) bool { return a.Addr == pin.Addr })
			if !named && h.untoldAndUnknown(pin) {
				continue
			}
			wanted, exists := h.wanted(pin.Identity.Pod), h.pods[pin.Identity.Pod] != nil
			if exists && !wanted {
				continue // it goes with its pod
			}
			if !named || !wanted {
				h.fail("%s is pinned to %s, whose endpoint names %v, wanted %t", pin.Addr, pin.Identity, e.Addresses, wanted)
			}
		}
	}
}

// checkHistories judges the whole run once more, per address: each history
// must be that of a thing that has one holder at a time.
func (h *sim) checkHistories() {
	of := map[string][]porcupine.Operation{}
	for _, e := range h.history {
		of[e.addr.String()] = append(of[e.addr.String()], porcupine.Operation{
			Input: e, Call: int64(2 * e.from), Return: int64(2*e.to + 1),
		})
	}
	model := porcupine.Model{
		Init: func() any { return "" },
		Step: func(state, input, _ any) (bool, any) {
			e := input.(simEvent)
			if e.taken {
				return state == "" || state == e.container, e.container
			}
			return state == e.container, ""
		},
	}
	for addr, operations := range of {
		if !porcupine.CheckOperations(model, operations) {
			h.fail("the history of %s is not linearizable", addr)
		}
	}
}

// quiet ends all faults, puts everything in order again, and waits.
func (h *sim) quiet() {
	h.logf("quiet")
	h.calm = true
	h.putPool("four", "10.0.0.0/16", usual("four"))
	h.putPool("overlapping", "10.0.0.0/16", usual("overlapping"))
	for broken := true; broken; {
		before := len(h.log)
		h.mend()
		broken = len(h.log) > before
	}
	h.inOrder = true
	h.drain()
}

// settle lets everybody do what is due until nothing is. The second round is
// beyond hold-down and quarantine by the slowest clock, and later ones are for
// what it has set going.
func (h *sim) settle() {
	var held string
	for round := range 6 {
		h.round()
		h.pause(14 * time.Minute)
		now := h.held()
		if round > 0 && now == held {
			break
		}
		held = now
	}
	h.agents()
}

// rest lets what the last DELs left come to its end: the unfinished placement
// of a sandbox that is gone stays a minute for its pod.
func (h *sim) rest() {
	h.pause(2 * time.Minute)
	for range 2 {
		h.round()
	}
}

// round lets everybody do once what it does by itself.
func (h *sim) round() {
	h.agents()
	h.collectOwned()
	h.electedOnes(h.elected[len(h.elected)-1])
	h.check()
}

// agents lets every agent do all that it does by itself.
func (h *sim) agents() {
	for _, n := range h.nodes {
		if n.agent == nil {
			if n.object(h) == nil {
				h.register(n)
			}
			h.boot(n)
			h.drain()
		}
		h.allOf(n)
	}
}

func (h *sim) electedOnes(e *simElected) {
	h.glance(e)
	e.nodes.hear(h.api, math.MaxInt)
	h.glance(e)
	h.fence(e)
	h.drain()
	for _, b := range h.storedBlocks() {
		if len(b.Pins) > 0 || b.Empty() {
			h.collectBlock(e, b.Name())
			h.drain()
		}
	}
	for _, p := range h.storedEndpoints() {
		if p.Sticky {
			h.collectPointer(e, p.Pod)
			h.drain()
		}
	}
}

func (h *sim) allOf(n *simNode) {
	h.beat(n)
	h.drain()
	if n.agent == nil {
		return
	}
	for _, w := range n.agent.watchers {
		w.hear(h.api, math.MaxInt)
		h.notify(n, w)
		h.drain()
	}
	h.mendEndpoints(n)
	h.drain()
	for range n.agent.writes.Len() {
		h.writeEndpoint(n)
		h.drain()
	}
	for _, do := range []func(*simNode){h.findLost, h.findLeaks, h.upkeep} {
		do(n)
		h.drain()
	}
}

// serve lets every pod come up, and fails if one does not although its pools
// have room.
func (h *sim) serve() {
	// An address that a DEL gave back cools down, is seen free, rests, is
	// yielded, and is heard of: a round each. Where two have changed nothing,
	// no other will.
	var held string
	for round, still := 0, 0; round < 8 && still < 2; round++ {
		h.sendDels()
		h.lookAfterPods()
		if len(h.waiting()) == 0 {
			return
		}
		h.round()
		h.pause(30 * time.Second)
		still++
		if now := h.held(); now != held {
			held, still = now, 0
		}
	}
	for _, p := range h.waiting() {
		h.hungry(p)
	}
}

// held is who holds which address, by blocks, endpoints and journals.
func (h *sim) held() string {
	var s strings.Builder
	for _, b := range h.storedBlocks() {
		fmt.Fprintln(&s, b.Leases, b.Pins)
	}
	for _, e := range h.storedEndpoints() {
		fmt.Fprintln(&s, e.Pod, e.PodUID, e.Addresses)
	}
	for _, n := range h.nodes {
		for _, e := range n.disk.Entries() {
			fmt.Fprintln(&s, e.Addr, e.State, e.Pod, e.Container == "")
		}
	}
	return s.String()
}

func (h *sim) sendDels() {
	for _, d := range h.dels {
		h.del(d.node.agent, d)
		h.drain()
	}
	h.dels = nil
}

func (h *sim) lookAfterPods() {
	for range 2 * simReplicas * len(h.sets) {
		h.control()
	}
	for range len(h.pods) {
		h.schedule()
	}
	for _, name := range h.names() {
		p := h.pods[name]
		for range 1 + len(p.interfaces) {
			if h.pods[name] == p && h.due(p) {
				h.lookAfter(p)
				h.drain()
			}
		}
		h.beatAll()
	}
}

// beatAll keeps every agent trusted.
func (h *sim) beatAll() {
	for _, n := range h.nodes {
		if a := n.agent; a != nil && a.lessee.TrustedUntil().Sub(a.now()) < time.Minute {
			h.beat(n)
			h.drain()
		}
	}
}

// waiting returns the pods that want addresses.
func (h *sim) waiting() (pods []*simPod) {
	for _, name := range h.names() {
		if p := h.pods[name]; !p.sandbox.whole(p) && !p.finished && !p.leaving {
			pods = append(pods, p)
		}
	}
	return pods
}

// stays reports whether a lease of a Node that is no more does not end, because
// a pod there may have lost addresses (see mayLose): nothing tells all it has.
func (h *sim) stays(l lease.Lease) bool {
	return slices.ContainsFunc(h.names(), func(name string) bool {
		p := h.pods[name]
		return p.node != nil && p.node.name == l.Node.Name && p.node.uid(h) != l.Node.UID && h.mayLose(p)
	})
}

// hungry fails unless a pool of the pod has no address left.
func (h *sim) hungry(p *simPod) {
	used := map[netip.Addr]bool{}
	for _, b := range h.storedBlocks() {
		for _, pin := range b.Pins {
			used[pin.Addr] = true
		}
		for _, l := range b.Leases {
			for offset := range l.Addrs.Offsets() {
				if h.stays(l) {
					used[b.Addr(offset)] = true
				}
			}
		}
	}
	for _, n := range h.nodes {
		for _, e := range n.disk.Entries() { // those of a pod that waits for more are kept for it
			used[e.Addr] = true
		}
	}
	for _, name := range h.names() { // and what a sandbox has from the agent of a Node before this one
		if s := h.pods[name].sandbox; s != nil {
			for _, addrs := range s.addrs {
				for _, addr := range addrs {
					used[addr] = true
				}
			}
		}
	}
	v4, v6 := 0, 0
	for addr := range used {
		if addr.Is4() {
			v4++
		} else {
			v6++
		}
	}
	const all4, all6 = 9, 8 // 10.0.0.10-18, fd00::d-14
	if (!p.v4 || v4+len(p.interfaces) <= all4) && (!p.v6 || v6+len(p.interfaces) <= all6) {
		h.fail("pod %s on %s got no address although its pools have room: %d of %d, %d of %d", p.name, p.nodeName(), v4, all4, v6, all6)
	}
}

// finish deletes every pod and looks for addresses that are lost.
func (h *sim) finish() {
	for _, s := range h.sets {
		h.scale(s, 0, 0)
	}
	for round := 0; len(h.pods) > 0; round++ {
		for _, name := range h.names() {
			if p := h.pods[name]; !p.leaving {
				h.leave(p)
			}
		}
		h.kubelet()
		h.drain()
		if round > 200 {
			h.fail("pods do not end")
			return
		}
	}
	h.settle()
	if e := h.storedEndpoints(); len(e) > 0 {
		h.fail("endpoints are left: %v", e)
	}
	free := map[netip.Addr]bool{}
	for _, n := range h.nodes {
		if n.agent == nil || !n.agent.started {
			h.fail("the agent of %s does not run", n.name)
			return
		}
		for _, addr := range n.agent.lessee.Free() {
			free[addr] = true
		}
		for _, e := range n.disk.Entries() {
			h.fail("the journal of %s keeps %s %s", n.name, e.Addr, e.State)
		}
	}
	for _, b := range h.storedBlocks() {
		for o := range (^b.Claimable()).Offsets() {
			if !free[b.Addr(o)] {
				h.fail("%s is lost", b.Addr(o))
			}
		}
	}
}
