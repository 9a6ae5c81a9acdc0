package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/e2e/checker"
	"github.com/holdfast-ipam/holdfast/lease"
)

const (
	// accountLimit is how long it may take until every address is accounted
	// for. The longest chain: an election, the hold-down of a node that was
	// lost last, and what a pod that vanished is given to end in.
	accountLimit = holdDown + 3*time.Minute
	// fillLimit is how long pods may wait for the last addresses of a pool.
	fillLimit = 90 * time.Second
)

// account is the end of a run. Everything is up and nobody breaks anything:
// first all records have to agree about the pods there are, then pods fill
// every pool to its last address, then everything is deleted and nothing may
// remain.
func (w *world) account(ctx context.Context) error {
	for _, it := range []item{
		{agreed, accountLimit, nil, w.disagreements},
		{used, fillLimit, w.fill, w.waitingPods},
		{agreedIn, accountLimit, nil, w.disagreements},
		{emptied, accountLimit, w.deleteAll, w.remains},
	} {
		if err := w.take(ctx, it); err != nil {
			return err
		}
	}
	return nil
}

// item is a part of the account: something to do, if anything, and what must
// not be wrong for longer than limit after that.
type item struct {
	check check
	limit time.Duration
	do    func(context.Context) error
	wrong func(context.Context) []string
}

// take goes through one item. It ends the account where something stays wrong.
func (w *world) take(ctx context.Context, it item) error {
	begun := time.Now()
	if it.do != nil {
		if err := it.do(ctx); err != nil {
			return err
		}
	}
	wrong, last := w.await(ctx, it.limit, it.wrong)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	w.ledger.timed(it.check, time.Since(begun))
	for _, what := range wrong {
		w.ledger.violate(it.check, addrIn(what), "", "still wrong %s after everything was up: %s", it.limit, what)
	}
	if len(wrong) > 0 {
		return errBroken
	}
	w.ledger.expect(it.check, true, netip.Addr{}, "", "")
	w.say("%s (after %.0f s%s)", it.check, time.Since(begun).Seconds(), last)
	return nil
}

// await asks what is wrong until nothing is, at most for so long. It also
// returns what was wrong last, for people who wonder what took so long.
func (w *world) await(ctx context.Context, limit time.Duration, wrong func(context.Context) []string) (found []string, last string) {
	deadline := time.Now().Add(limit)
	for {
		found = wrong(ctx)
		if len(found) == 0 || time.Now().After(deadline) || !apitest.Pause(ctx, 500*time.Millisecond) {
			return found, last
		}
		last = ", the last to wait for: " + found[len(found)-1]
	}
}

// disagreements returns in what the witnesses disagree, and what waits.
func (w *world) disagreements(ctx context.Context) []string {
	wrong := w.waitingPods(ctx)
	s := w.snapshot(ctx)
	for _, v := range checker.Compare(s) {
		wrong = append(wrong, v.String())
	}
	for _, n := range s.Nodes {
		for _, e := range n.Journal {
			switch {
			case e.State == lease.Cooling, e.State == lease.Yielding, e.State == lease.Placing:
				wrong = append(wrong, fmt.Sprintf("%s is %s on %s", e.Addr, e.State, n.Name))
			case e.State == lease.Retained && !w.ledger.isWanted(e.Identity()):
				wrong = append(wrong, fmt.Sprintf("%s is retained on %s for %s, which nobody wants", e.Addr, n.Name, e.Identity()))
			}
		}
	}
	return wrong
}

// waitingPods returns the pods that have no address.
func (w *world) waitingPods(context.Context) []string {
	lives := map[*pod]bool{}
	for _, s := range w.ledger.living(nil) {
		lives[s.pod] = true
	}
	var waiting []string
	for _, p := range w.allPods() {
		if !lives[p] {
			waiting = append(waiting, fmt.Sprintf("pod %s of %s on %s has no address", p.name, p.offer.name, p.node.name))
		}
	}
	slices.Sort(waiting)
	return waiting
}

func (w *world) allPods() []*pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*pod
	for _, p := range w.pods {
		all = append(all, p)
	}
	return all
}

// fill creates as many pods as there are addresses that nobody lives with.
func (w *world) fill(ctx context.Context) error {
	dice := w.dice("fill")
	for _, o := range offers() {
		taken := w.ledger.taken()
		for i, addr := range o.pools[0].addresses() {
			if taken[addr] {
				continue
			}
			if _, err := w.schedule(dice, fmt.Sprintf("fill-%s-%d", o.name, i), o.name, nil); err != nil {
				return err
			}
		}
		// Pools that overlap are filled one after the other, or the pods of the
		// first could take what the second's were counted for.
		if wrong, _ := w.await(ctx, fillLimit, w.waitingPods); len(wrong) > 0 {
			return nil // the item will say so
		}
	}
	return nil
}

// deleteAll deletes every StatefulSet and every pod.
func (w *world) deleteAll(context.Context) error {
	for _, s := range w.sets {
		if err := s.end(); err != nil {
			return err
		}
	}
	all := w.allPods()
	for _, p := range all {
		p.terminate()
	}
	for _, p := range all {
		<-p.gone
	}
	return nil
}

// remains returns what is left of pods and StatefulSets that are gone.
func (w *world) remains(ctx context.Context) []string {
	wrong := w.disagreements(ctx)
	s := w.snapshot(ctx)
	for _, e := range s.Endpoints {
		wrong = append(wrong, fmt.Sprintf("there is an endpoint of %s", e.Name))
	}
	for _, b := range s.Blocks {
		for _, p := range b.Pins {
			wrong = append(wrong, fmt.Sprintf("%s is pinned for %s", p.Addr, p.Pod))
		}
	}
	for _, n := range s.Nodes {
		for _, e := range n.Journal {
			wrong = append(wrong, fmt.Sprintf("the journal of %s says %s is %s for %s", n.Name, e.Addr, e.State, e.Pod))
		}
	}
	for _, p := range s.Pools {
		if p.AllocatedCount != 0 {
			wrong = append(wrong, fmt.Sprintf("the status of pool %s counts %d addresses", p.Name, p.AllocatedCount))
		}
	}
	return wrong
}

// addrIn returns the first address that a text names, for its history.
func addrIn(text string) netip.Addr {
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return !strings.ContainsRune("0123456789abcdef.:", r) }) {
		if addr, err := netip.ParseAddr(word); err == nil {
			return addr
		}
	}
	return netip.Addr{}
}
