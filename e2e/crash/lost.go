package main

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"os"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
)

// loseNodes takes whole machines away, one at a time: the machine dies with
// all its sandboxes, its pods and its Node are removed, and later a machine of
// the same name joins, with the old disk or an empty one. Half of the absences
// are long enough for the leases to end while the node is away.
func (w *world) loseNodes(ctx context.Context) {
	dice := w.dice("lost nodes")
	for apitest.Pause(ctx, between(dice, 3*time.Second, 20*time.Second)) {
		n := w.nodes[dice.IntN(len(w.nodes))]
		n.fault.Lock()
		err := n.vanish(ctx, dice)
		n.fault.Unlock()
		if err != nil && w.ctx.Err() == nil {
			w.ledger.violate(playable, netip.Addr{}, n.name, "cannot bring %s back: %v", n.name, err)
		}
	}
}

// vanish is one absence. It ends early when ctx does.
func (n *node) vanish(ctx context.Context, dice *rand.Rand) error {
	w := n.world
	away := between(dice, 0, 15*time.Second)
	if dice.IntN(2) == 0 {
		away = holdDown + between(dice, 5*time.Second, 25*time.Second)
	}
	empty, podsFirst := dice.IntN(2) == 0, dice.IntN(2) == 0
	w.tally.fault("nodes lost")
	w.ledger.remark(n.name, "the machine is lost, for %s, disk emptied: %t", away, empty)
	n.mu.Lock()
	n.lose()
	n.mu.Unlock()
	w.ledger.endAll(n)
	n.stop(syscall.SIGKILL)
	if err := n.forget(podsFirst); err != nil {
		return err
	}
	apitest.Pause(ctx, away)
	if empty {
		if err := os.Remove(n.journal()); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	if err := n.create(w.ctx); err != nil {
		return err
	}
	n.mu.Lock()
	n.life, n.lose = context.WithCancel(w.ctx)
	n.mu.Unlock()
	w.ledger.remark(n.name, "the machine is back as another node (UID %s)", n.uid)
	return n.start()
}

// forget removes the node's object and waits until its pods' are gone.
func (n *node) forget(podsFirst bool) error {
	bound := n.bound()
	removeNode := func() error {
		return n.world.api.remove(n.world.ctx, func(ctx context.Context, o metav1.DeleteOptions) error {
			return n.world.api.kube.CoreV1().Nodes().Delete(ctx, n.name, o)
		}, n.uid)
	}
	if !podsFirst {
		if err := removeNode(); err != nil {
			return err
		}
	}
	for _, p := range bound {
		select {
		case <-p.gone:
		case <-n.world.ctx.Done():
			return n.world.ctx.Err()
		}
	}
	if podsFirst {
		return removeNode()
	}
	return nil
}
