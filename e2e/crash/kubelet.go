package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/cni"
)

// ifname is the interface that every sandbox has.
const ifname = "eth0"

// network is the name in the network configuration of every node.
const network = "net"

// How the plugin waits (cni.AddPatience and its like), made shorter so that
// more happens in a run.
const (
	addPatience = 5 * time.Second
	addLimit    = 10 * time.Second
	delLimit    = 4 * time.Second
)

// run is the kubelet's work for a pod: sandbox after sandbox until the pod is
// to go or the machine does. When it returns, no sandbox of the pod lives.
func (p *pod) run(life context.Context) {
	var old []string
	for n := 0; life.Err() == nil && !p.isAsked(); n++ {
		s := &sandbox{pod: p, container: fmt.Sprintf("%s-%d-%d", p.name, p.serial, n), life: life}
		if p.start(s) {
			p.world.going.Go(func() { p.tell(life, s) })
			p.live(s, old)
			p.world.ledger.finish(s, "its kubelet killed it")
		} else if !apitest.Pause(life, between(p.dice, 50*time.Millisecond, time.Second)) {
			return
		}
		p.clean(s)
		old = append(old, s.container)
	}
	p.delLate(old)
}

// start asks for the sandbox's address once, as the runtime does, and reports
// whether the sandbox lives. Now and then the runtime gives up early.
func (p *pod) start(s *sandbox) bool {
	limit := addLimit
	if p.dice.IntN(12) == 0 && !p.world.isCalm() {
		limit = between(p.dice, time.Millisecond, 2*time.Second)
	}
	err := p.add(s, limit)
	if err != nil {
		p.world.tally.refused(err, limit < addLimit)
	}
	return err == nil && p.world.ledger.lives(s)
}

// add sends one ADD and has its answer judged.
func (p *pod) add(s *sandbox, limit time.Duration) error {
	p.node.collecting.RLock()
	defer p.node.collecting.RUnlock()
	ctx, cancel := context.WithTimeout(s.life, limit)
	defer cancel()
	p.world.tally.add("ADD")
	act := p.dice.IntN(150)
	if act == 0 {
		p.node.inTheAct(between(p.dice, 0, 20*time.Millisecond))
	}
	asked := time.Now()
	result, err := p.node.client(addPatience).Add(ctx, cni.AddRequest{Attachment: p.attachment(s.container), Network: network})
	if err != nil {
		return err
	}
	var answer []netip.Prefix
	for _, a := range result.Addresses {
		answer = append(answer, a.Prefix)
	}
	p.world.ledger.answer(s, answer, asked)
	if act == 1 {
		p.node.inTheAct(0)
	}
	return nil
}

// live is the time in which the sandbox lives. It returns when the sandbox is
// to end.
func (p *pod) live(s *sandbox, old []string) {
	for {
		select {
		case <-p.asked:
			return
		case <-s.life.Done():
			return
		case <-time.After(between(p.dice, 100*time.Millisecond, 8*time.Second)):
		}
		if p.world.isCalm() {
			continue
		}
		switch p.dice.IntN(5) {
		case 0: // the sandbox dies, and the pod gets another
			p.world.tally.add("restarts in place")
			return
		case 1: // the answer may have been lost on its way to the runtime
			p.world.tally.add("repeated ADD")
			_ = p.add(s, addLimit) // an answer is judged, and none is none
		case 2:
			p.check(s)
		case 3: // the runtime cleans up behind an earlier sandbox once more
			if len(old) > 0 {
				p.world.tally.add("late DEL")
				p.del(old[p.dice.IntN(len(old))])
			}
		}
	}
}

// check sends a CHECK, which has to succeed while the sandbox lives.
func (p *pod) check(s *sandbox) {
	ctx, cancel := context.WithTimeout(s.life, delLimit)
	defer cancel()
	p.world.tally.add("CHECK")
	err := p.node.client(0).Check(ctx, cni.CheckRequest{
		Attachment: p.attachment(s.container), Addresses: s.prefixes,
	})
	var said *cni.Error
	refused := errors.As(err, &said) && !errors.Is(err, cni.ErrNoAnswer)
	if (err == nil || refused) && s.life.Err() == nil {
		p.world.ledger.expect(repeatable, err == nil, s.prefixes[0].Addr(), p.node.name, "%s lives with %s, and CHECK says: %v", s, s.prefixes, err)
	}
}

// clean sends the DEL of a sandbox that does not live, as often as not once,
// at times twice, at times never. An agent that is away gets it later or not
// at all.
func (p *pod) clean(s *sandbox) {
	if s.life.Err() != nil {
		return
	}
	switch n := p.dice.IntN(8); {
	case p.world.isCalm():
		p.del(s.container)
	case n == 0:
		p.world.tally.add("DEL never sent")
	case n == 1:
		p.world.tally.add("repeated DEL")
		p.del(s.container)
		p.del(s.container)
	default:
		p.del(s.container)
	}
}

// del sends a DEL and does not care what becomes of it.
func (p *pod) del(container string) {
	ctx, cancel := context.WithTimeout(p.world.ctx, delLimit)
	defer cancel()
	p.world.tally.add("DEL")
	request := cni.DelRequest{Attachment: p.attachment(container)}
	if p.dice.IntN(10) == 0 {
		request.Pod = cni.Pod{} // a runtime that passes no pod
	}
	if err := p.node.client(0).Del(ctx, request); err != nil {
		p.world.tally.add("DEL without answer")
	}
}

// delLate sends, at times, DELs of the pod's sandboxes when its name may belong
// to a later pod already.
func (p *pod) delLate(old []string) {
	if len(old) == 0 || p.dice.IntN(3) > 0 {
		return
	}
	container, after := old[p.dice.IntN(len(old))], between(p.dice, 0, 20*time.Second)
	p.world.going.Go(func() {
		if apitest.Pause(p.world.ctx, after) && !p.world.isCalm() {
			p.world.tally.add("late DEL")
			p.del(container)
		}
	})
}

// collectAttachments has the runtimes send GC now and then: whatever they do
// not name is to be given back. A runtime does not send GC while an ADD of the
// network is under way (CNI spec, "GC").
func (w *world) collectAttachments(ctx context.Context) {
	dice := w.dice("runtimes' GC")
	for apitest.Pause(ctx, between(dice, 200*time.Millisecond, 4*time.Second)) {
		n := w.nodes[dice.IntN(len(w.nodes))]
		if n.collecting.TryLock() {
			n.collect(ctx)
			n.collecting.Unlock()
		}
	}
}

func (n *node) collect(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, delLimit)
	defer cancel()
	request := cni.GCRequest{Network: network}
	for _, s := range n.world.ledger.living(n) {
		request.Valid = append(request.Valid, cni.ValidAttachment{ContainerID: s.container, Interface: ifname})
	}
	n.world.tally.add("GC")
	if err := n.client(0).GC(ctx, request); err != nil {
		n.world.tally.add("GC without answer")
	}
}
