package main

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
)

func isThere(err error) bool { return apierrors.IsAlreadyExists(err) }

// fault is one way to break something. It returns when the thing works again,
// which is soon after ctx has ended.
type fault struct {
	weight int
	do     func(ctx context.Context, w *world, dice *rand.Rand)
}

func faults() []fault {
	return []fault{
		{8, onNode(killAgent)},
		{3, onNode(endAgent)},
		{5, onNode(stopAgent)},
		{3, onElected(killAgent)},
		{1, onElected(stopForLong)},
		{1, killEverything},
		{4, onLine("line cut", cut)},
		{3, onLine("line lossy", lossy)},
		{2, onLine("line silent", silent)},
		{10, delayRequests},
		{3, pauseServer},
		{1, killServer},
	}
}

// breakThings begins one fault after another until ctx ends, and returns when
// all of them have ended.
func (w *world) breakThings(ctx context.Context) {
	dice := w.dice("faults")
	var total int
	for _, f := range faults() {
		total += f.weight
	}
	var broken sync.WaitGroup
	defer broken.Wait()
	for apitest.Pause(ctx, between(dice, 100*time.Millisecond, 4*time.Second)) {
		n, own := dice.IntN(total), rand.New(rand.NewPCG(dice.Uint64(), 0))
		for _, f := range faults() {
			if n -= f.weight; n < 0 {
				broken.Go(func() { f.do(ctx, w, own) })
				break
			}
		}
	}
}

// onNode has one node suffer, unless it does already.
func onNode(do func(context.Context, *node, *rand.Rand)) func(context.Context, *world, *rand.Rand) {
	return func(ctx context.Context, w *world, dice *rand.Rand) {
		suffer(ctx, w.nodes[dice.IntN(len(w.nodes))], dice, do)
	}
}

func suffer(ctx context.Context, n *node, dice *rand.Rand, do func(context.Context, *node, *rand.Rand)) {
	if n.fault.TryLock() {
		defer n.fault.Unlock()
		do(ctx, n, dice)
	}
}

// onElected has the node of the elected agent suffer.
func onElected(do func(context.Context, *node, *rand.Rand)) func(context.Context, *world, *rand.Rand) {
	return func(ctx context.Context, w *world, dice *rand.Rand) {
		asking, cancel := context.WithTimeout(ctx, attemptLimit)
		defer cancel()
		lease, err := w.api.kube.CoordinationV1().Leases(agentNamespace).Get(asking, "holdfast", metav1.GetOptions{})
		if err != nil || lease.Spec.HolderIdentity == nil {
			return // nobody is elected just now
		}
		for _, n := range w.nodes {
			if strings.TrimPrefix(*lease.Spec.HolderIdentity, "agent-") == n.name {
				w.tally.fault("faults of the elected agent")
				suffer(ctx, n, dice, do)
			}
		}
	}
}

// killAgent is kill -9. Most agents are started again at once.
func killAgent(ctx context.Context, n *node, dice *rand.Rand) {
	n.world.tally.fault("kill -9")
	n.world.ledger.remark(n.name, "kill -9")
	n.stop(syscall.SIGKILL)
	n.comeBack(ctx, dice)
}

// endAgent is what an upgrade does.
func endAgent(ctx context.Context, n *node, dice *rand.Rand) {
	n.world.tally.fault("SIGTERM")
	n.world.ledger.remark(n.name, "SIGTERM")
	n.stop(syscall.SIGTERM)
	n.comeBack(ctx, dice)
}

// killing is an agent that is to be killed so long from now, because of what it
// does at this moment.
type killing struct {
	node  *node
	after time.Duration
}

// killInTheAct kills agents while they answer an ADD, or just after: what they
// have answered has to be on their disk by then.
func (w *world) killInTheAct(ctx context.Context) {
	dice := w.dice("killed in the act")
	var broken sync.WaitGroup
	defer broken.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case k := <-w.killings:
			own := rand.New(rand.NewPCG(dice.Uint64(), 0))
			broken.Go(func() {
				if apitest.Pause(ctx, k.after) {
					w.tally.fault("kill -9 during or after an ADD")
					suffer(ctx, k.node, own, killAgent)
				}
			})
		}
	}
}

// inTheAct has the node's agent killed so long from now, if anything is being
// broken.
func (n *node) inTheAct(after time.Duration) {
	select {
	case n.world.killings <- killing{n, after}:
	default:
	}
}

func (n *node) comeBack(ctx context.Context, dice *rand.Rand) {
	if dice.IntN(3) == 0 {
		apitest.Pause(ctx, between(dice, 0, 15*time.Second))
	}
	n.world.ledger.remark(n.name, "the agent is started")
	if err := n.start(); err != nil {
		n.world.ledger.violate(playable, netip.Addr{}, n.name, "cannot start the agent of %s: %v", n.name, err)
	}
}

// stopAgent stops the process in the middle of whatever it does, for a moment
// or for longer than pods wait.
func stopAgent(ctx context.Context, n *node, dice *rand.Rand) {
	n.stopFor(ctx, between(dice, 50*time.Millisecond, 20*time.Second))
}

// stopForLong stops it for longer than an election lasts, or than an agent
// that is cut off may go on: it wakes up and thinks it is elected.
func stopForLong(ctx context.Context, n *node, dice *rand.Rand) {
	n.stopFor(ctx, between(dice, 17*time.Second, 40*time.Second))
}

func (n *node) stopFor(ctx context.Context, d time.Duration) {
	if !n.freeze() {
		return
	}
	n.world.tally.fault("SIGSTOP")
	n.world.ledger.remark(n.name, "SIGSTOP for %s", d)
	apitest.Pause(ctx, d)
	n.thaw()
	n.world.ledger.remark(n.name, "SIGCONT")
}

// killEverything is a power cut: every agent and the API server at once.
func killEverything(ctx context.Context, w *world, dice *rand.Rand) {
	w.tally.fault("power cuts")
	w.ledger.remark("", "everything is killed at once")
	var all sync.WaitGroup
	defer all.Wait()
	servers := rand.New(rand.NewPCG(dice.Uint64(), 0))
	all.Go(func() { killServer(ctx, w, servers) })
	for _, n := range w.nodes {
		own := rand.New(rand.NewPCG(dice.Uint64(), 0))
		all.Go(func() { suffer(ctx, n, own, killAgent) })
	}
}

// onLine breaks one agent's connection to the API server, mostly for a moment,
// at times for longer than an agent that is cut off may go on.
func onLine(what string, state lineState) func(context.Context, *world, *rand.Rand) {
	return func(ctx context.Context, w *world, dice *rand.Rand) {
		n := w.nodes[dice.IntN(len(w.nodes))]
		if !n.line.fault.TryLock() {
			return
		}
		defer n.line.fault.Unlock()
		d := between(dice, 50*time.Millisecond, 10*time.Second)
		if dice.IntN(6) == 0 {
			d = between(dice, 10*time.Second, 50*time.Second)
		}
		w.tally.fault(what)
		w.ledger.remark(n.name, "%s for %s", what, d)
		n.line.become(state)
		apitest.Pause(ctx, d)
		n.line.become(whole)
		w.ledger.remark(n.name, "the line is whole again")
	}
}

// delayRequests has what one agent asks within a moment arrive long after the
// agent has lost the connection it asked by, and has asked again: updates land
// late.
func delayRequests(ctx context.Context, w *world, dice *rand.Rand) {
	n := w.nodes[dice.IntN(len(w.nodes))]
	if !n.line.fault.TryLock() {
		return
	}
	defer n.line.fault.Unlock()
	moment, delay := between(dice, 50*time.Millisecond, 3*time.Second), between(dice, 100*time.Millisecond, 10*time.Second)
	w.tally.fault("line late")
	w.ledger.remark(n.name, "what it asks within %s arrives %s late", moment, delay)
	n.line.becomeFor(late, delay)
	apitest.Pause(ctx, moment)
	n.line.become(whole)
	w.ledger.remark(n.name, "the line is whole again")
}

// pauseServer stops the API server: requests hang.
func pauseServer(ctx context.Context, w *world, dice *rand.Rand) {
	if !w.serverFault.TryLock() {
		return
	}
	defer w.serverFault.Unlock()
	d := between(dice, 100*time.Millisecond, 8*time.Second)
	if dice.IntN(8) == 0 {
		d = between(dice, 12*time.Second, 40*time.Second)
	}
	w.tally.fault("API server paused")
	w.ledger.remark("", "the API server is paused for %s", d)
	if err := w.server.Pause(); err != nil {
		w.ledger.violate(playable, netip.Addr{}, "", "cannot pause the API server: %v", err)
		return
	}
	apitest.Pause(ctx, d)
	if err := w.server.Resume(); err != nil {
		w.ledger.violate(playable, netip.Addr{}, "", "cannot resume the API server: %v", err)
	}
	w.ledger.remark("", "the API server goes on")
}

// killServer kills the API server: answers of requests under way are lost,
// and every watch breaks.
func killServer(ctx context.Context, w *world, dice *rand.Rand) {
	if !w.serverFault.TryLock() {
		return
	}
	defer w.serverFault.Unlock()
	w.tally.fault("API server restarted")
	w.ledger.remark("", "the API server is killed")
	w.server.Kill()
	apitest.Pause(ctx, between(dice, 0, 8*time.Second))
	if err := w.server.Restart(w.ctx); err != nil && w.ctx.Err() == nil {
		w.ledger.violate(playable, netip.Addr{}, "", "cannot restart the API server: %v", err)
	}
	w.ledger.remark("", "the API server is ready again")
}
