package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
)

// stateless is how many pods each offer has that come and go. Together with
// the StatefulSets' pods, the scarce pool has about as many as addresses.
func stateless() map[string]int {
	return map[string]int{rich: 16, scarce: 16, left: 7, right: 7}
}

// sets are the StatefulSets of a run.
func sets(w *world) []*statefulSet {
	return []*statefulSet{
		newStatefulSet(w, "rich-a", rich, 6),
		newStatefulSet(w, "rich-b", rich, 4),
		newStatefulSet(w, "scarce-a", scarce, 8),
		newStatefulSet(w, "scarce-b", scarce, 8),
		newStatefulSet(w, "scarce-c", scarce, 8),
		newStatefulSet(w, "left-a", left, 6),
		newStatefulSet(w, "right-a", right, 6),
	}
}

// trouble is the time of faults under load. When it returns, everything is up
// again, and pods stay as they are.
func (w *world) trouble(ctx context.Context) error {
	w.sets = sets(w)
	loading, unload := context.WithCancel(ctx)
	defer unload()
	breaking, mend := context.WithTimeout(ctx, w.duration())
	defer mend()
	var load, faults errgroup.Group
	for offer, n := range stateless() {
		for i := range n {
			load.Go(func() error { return w.comeAndGo(loading, fmt.Sprintf("%s-%d", offer, i), offer) })
		}
	}
	for _, s := range w.sets {
		load.Go(func() error { return s.control(loading) })
	}
	load.Go(func() error { w.audit(loading); return nil })
	load.Go(func() error { w.collectAttachments(loading); return nil })
	faults.Go(func() error { w.breakThings(breaking); return nil })
	faults.Go(func() error { w.killInTheAct(breaking); return nil })
	faults.Go(func() error { w.loseNodes(breaking); return nil })
	w.sayHowItGoes(breaking)
	err := faults.Wait()
	close(w.calm)
	unload()
	return errors.Join(err, load.Wait(), ctx.Err())
}

// sayHowItGoes prints a line every now and then until ctx ends.
func (w *world) sayHowItGoes(ctx context.Context) {
	for apitest.Pause(ctx, 10*time.Second) {
		w.say("%s", w.tally.line(len(w.ledger.living(nil))))
	}
}

// comeAndGo is a place for one stateless pod at a time.
func (w *world) comeAndGo(ctx context.Context, name, offer string) error {
	dice := w.dice("place " + name)
	for i := 0; apitest.Pause(ctx, between(dice, 0, 3*time.Second)); i++ {
		p, err := w.schedule(dice, fmt.Sprintf("%s-%d", name, i), offer, nil)
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil // it stays
		case <-p.gone: // with its node
		case <-time.After(between(dice, 500*time.Millisecond, 20*time.Second)):
			p.terminate()
			<-p.gone
		}
	}
	return nil
}

// schedule makes a pod on one of the nodes that are there. One at least always
// is.
func (w *world) schedule(dice *rand.Rand, name, offer string, set *statefulSet) (*pod, error) {
	o, err := offerOf(offer)
	if err != nil {
		return nil, err
	}
	for {
		if p := w.newPod(dice, name, o, w.nodes[dice.IntN(len(w.nodes))], set); p != nil {
			return p, nil
		}
		if w.ctx.Err() != nil {
			return nil, w.ctx.Err()
		}
	}
}
