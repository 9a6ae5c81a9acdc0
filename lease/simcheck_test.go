package lease_test

import (
	"net/netip"
	"slices"
	"time"

	"github.com/holdfast-ipam/holdfast/lease"
)

// check holds the state of the world against what was promised.
func (h *sim) check() {
	holders := map[netip.Addr]*simPod{}
	for _, name := range h.names() {
		p := h.pods[name]
		if p.sandbox == nil {
			continue
		}
		for _, addr := range p.sandbox.addrs {
			if other := holders[addr]; other != nil {
				h.fatalf("%s is used by %s and by %s", addr, other.name, p.name)
			}
			holders[addr] = p
			h.checkRight(p, addr)
		}
	}
}

// checkRight fails unless the cluster says that the node may let the pod use
// the address.
func (h *sim) checkRight(p *simPod, addr netip.Addr) {
	var block lease.Block
	for _, b := range h.cluster.Blocks() {
		if b.Prefix() == lease.BlockOf(addr) {
			block = b
		}
	}
	if pin, ok := block.PinAt(addr); p.sticky && (!ok || pin.Identity != p.identity()) {
		h.fatalf("%s uses %s, which is not pinned to it", p.name, addr)
	}
	if at, _ := block.LesseeOf(addr); !p.sticky && at != p.node.id {
		h.fatalf("%s on %s uses %s, which is leased to %q", p.name, p.node.id.Name, addr, at.Name)
	}
}

// checkAnswer fails unless an answer is whole and on disk.
func (h *sim) checkAnswer(n *simNode, p *simPod, got []lease.Entry, container string) {
	if len(got) != p.families {
		h.fatalf("%s asked for %d addresses and got %v", p.name, p.families, got)
	}
	for _, e := range got {
		if a, ok := h.aside[e.Addr]; ok && time.Now().Before(a.until) {
			h.fatalf("%s was answered with %s, which is set aside until %s", container, e.Addr, a.until)
		}
		stored := slices.IndexFunc(n.disk.Entries(), func(d lease.Entry) bool {
			return d.Addr == e.Addr && d.State == lease.Assigned && d.Owner == e.Owner
		})
		if stored < 0 {
			h.fatalf("%s was answered with %s, which is not on disk", container, e.Addr)
		}
	}
}

// quiet ends all faults, lets everything land and every watch catch up.
func (h *sim) quiet() {
	h.logf("quiet")
	h.drain()
	h.logf("%d late writes land", h.cluster.Land())
	h.settle()
}

// settle runs everybody's upkeep until nothing is due any more.
func (h *sim) settle() {
	for range 4 {
		for _, n := range h.nodes {
			for _, c := range h.cluster.Changes(n.seen) {
				n.seen = c.Version
				h.tell(n, c)
				h.drain()
			}
			h.upkeep(n)
			h.drain()
			h.tidy(n)
			h.drain()
		}
		h.fence()
		h.drain()
		h.collect()
		h.drain()
		h.check()
		time.Sleep(2 * time.Minute) // synctest's time: beyond every pause
	}
}

// finish deletes every pod and looks for addresses that are lost.
func (h *sim) finish() {
	h.scale(0)
	for len(h.pods) > 0 {
		for _, p := range h.pods {
			p.leaving = true
		}
		h.kubelet()
		h.drain()
	}
	h.settle()
	if e := h.cluster.Endpoints(); len(e) > 0 {
		h.fatalf("endpoints are left: %v", e)
	}
	free := map[netip.Addr]bool{}
	for _, n := range h.nodes {
		for _, addr := range n.Free() {
			free[addr] = true
		}
		for _, e := range n.Entries() {
			h.fatalf("the journal of %s keeps %s %s", n.id.Name, e.Addr, e.State)
		}
	}
	for _, b := range h.cluster.Blocks() {
		for o := range (^b.Claimable()).Offsets() {
			if !free[b.Addr(o)] {
				h.fatalf("%s is lost", b.Addr(o))
			}
		}
	}
}
