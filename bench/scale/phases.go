package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/cni"
)

// run is everything at one size.
type run struct {
	options *options
	report  *report
	agents  int
	lab     *lab

	adds    times
	living  living
	gone    departed
	trouble *trouble
	elected electedAgents
	// achieved is how many pods started or ended in a second in this phase.
	achieved float64
	// kept are the pods that exist all the while between two phases.
	kept []*pod
}

// The names of phases, as tables show them.
const (
	startUp   = "start-up"
	idle      = "idle"
	podStarts = "pod starts"
	podEnds   = "pod ends"
	setUp     = "StatefulSet up"
	setDown   = "StatefulSet down"
	upgrade   = "rolling upgrade"
	loss      = "a tenth lost"
)

// atSize goes through all phases with so many agents.
func atSize(ctx context.Context, o *options, rep *report, dir string, agents int) error {
	l, err := newLab(ctx, filepath.Join(dir, fmt.Sprint(agents)), agents)
	if err != nil {
		return err
	}
	defer l.close()
	r := &run{
		options: o, report: rep, agents: agents, lab: l, trouble: rep.trouble,
		living: living{by: map[netip.Addr]*pod{}}, gone: departed{uids: map[string]bool{}},
	}
	ctx, stop := context.WithCancel(ctx)
	var following errgroup.Group
	following.Go(func() error { r.follow(ctx); return nil })
	for _, phase := range []func(context.Context) error{
		r.startUp, r.idle, r.pods, r.set, r.upgrade, r.lose,
	} {
		if err = phase(ctx); err != nil {
			err = fmt.Errorf("%d agents: %w", agents, err)
			break
		}
	}
	stop()
	return errors.Join(err, following.Wait())
}

// readyLimit is how long agents may take to become ready that start at once.
const readyLimit = 10 * time.Minute

// startUp starts all agents at once, on a cluster that knows none.
func (r *run) startUp(ctx context.Context) error {
	return r.measure(ctx, startUp, 0, func(ctx context.Context) error {
		return r.lab.startAgents(ctx, r.lab.nodes, 0, readyLimit)
	})
}

// idle does nothing.
func (r *run) idle(ctx context.Context) error {
	return r.measure(ctx, idle, 0, func(ctx context.Context) error {
		apitest.Pause(ctx, r.options.idle)
		return ctx.Err()
	})
}

// pods starts stateless pods on all nodes and ends them, but for one on each
// node.
func (r *run) pods(ctx context.Context) error {
	all := newPods("pod", "", r.lab.nodes, r.options.pods)
	err := r.measure(ctx, podStarts, len(all), func(ctx context.Context) error {
		return r.paced(ctx, all, r.start)
	})
	if err != nil {
		return err
	}
	r.kept = all[:r.agents]
	ending := all[r.agents:]
	return r.measure(ctx, podEnds, len(ending), func(ctx context.Context) error {
		err := r.paced(ctx, ending, r.end)
		return errors.Join(err, r.collect(ctx))
	})
}

// upgrade stops and starts agents, some at a time, and has the new ones asked
// whether pods have their addresses. It also changes the hold-down, so that the
// next phase does not take as long as the product's own.
func (r *run) upgrade(ctx context.Context) error {
	return r.measure(ctx, upgrade, len(r.kept), func(ctx context.Context) error {
		for rest := r.lab.nodes; len(rest) > 0; {
			batch := rest[:min(r.options.batch, len(rest))]
			rest = rest[len(batch):]
			if err := r.lab.call(ctx, "Stop", Stop{Nodes: namesOf(batch)}, nil); err != nil {
				return err
			}
			if err := r.lab.startAgents(ctx, batch, r.options.holdDown, readyLimit); err != nil {
				return err
			}
		}
		return paced(ctx, r.options.rate, r.kept, r.check)
	})
}

// check asks an agent whether the pod has its address.
func (r *run) check(ctx context.Context, p *pod) error {
	limited, cancel := context.WithTimeout(ctx, cni.AddTimeout)
	defer cancel()
	client := cni.Client{Socket: p.node.socket, Patience: cni.AddPatience}
	err := client.Check(limited, cni.CheckRequest{Attachment: p.attachment(), Addresses: []netip.Prefix{p.address}})
	if err != nil && ctx.Err() == nil {
		r.trouble.note("an upgrade cost a pod its address", err)
	}
	return ctx.Err()
}

// lose loses a tenth of the nodes: their agents fall silent, then their Node
// objects are deleted, by the cloud's controller, and their pods, by the pod
// garbage collector. It ends when nobody has a lease of them. The elected agent
// is not among them, at any size: a new one would begin the hold-down anew.
func (r *run) lose(ctx context.Context) error {
	lost := r.lab.choose(lostOf(r.agents), r.elected.since())
	return r.measure(ctx, loss, 0, func(ctx context.Context) error {
		if err := r.lab.call(ctx, "Stop", Stop{Nodes: namesOf(lost), Lost: true}, nil); err != nil {
			return err
		}
		for _, n := range lost {
			if err := r.lab.kube.CoreV1().Nodes().Delete(ctx, n.name, metav1.DeleteOptions{}); err != nil {
				return fmt.Errorf("delete %s: %w", n.name, err)
			}
		}
		for _, p := range r.kept {
			if !p.node.lost {
				continue
			}
			r.living.leave(p)
			if err := r.vanish(ctx, p); err != nil {
				return err
			}
		}
		return r.awaitNone(ctx, "a lease did not come back", func(ctx context.Context) (int, error) { return r.lab.leasesOf(ctx, lost) })
	})
}

// choose takes so many nodes from the last ones, but for those to spare, and
// marks them as lost.
func (l *lab) choose(many int, spare map[string]bool) (lost []*node) {
	var left []*node
	for i := range l.nodes {
		n := l.nodes[len(l.nodes)-1-i]
		if n.lost = len(lost) < many && !spare[n.name]; n.lost {
			lost = append(lost, n)
		} else {
			left = append(left, n)
		}
	}
	l.nodes = left
	return lost
}

// lastLimit is how long something may remain beyond a hold-down: an election,
// and the work itself.
const lastLimit = 3 * time.Minute

// remainStep is how often the run looks what remains: each look lists all
// blocks.
const remainStep = time.Second

// awaitNone waits until nothing remains, and notes what does after all the
// time it may take.
func (r *run) awaitNone(ctx context.Context, what string, remaining func(context.Context) (int, error)) error {
	deadline := time.Now().Add(2*r.options.holdDown + lastLimit)
	for {
		n, err := remaining(ctx)
		if n == 0 || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			for range n {
				r.trouble.note(what, fmt.Errorf("%d of them with %d agents", n, r.agents))
			}
			return nil
		}
		if !apitest.Pause(ctx, remainStep) {
			return ctx.Err()
		}
	}
}

// leasesOf counts the leases that nodes have in blocks.
func (l *lab) leasesOf(ctx context.Context, nodes []*node) (int, error) {
	of := map[string]bool{}
	for _, n := range nodes {
		of[n.uid] = true
	}
	blocks, err := l.kinds.IPBlocks().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return 0, fmt.Errorf("list blocks: %w", err)
	}
	left := 0
	for _, b := range blocks.Items {
		for _, lease := range b.Spec.Leases {
			if of[lease.NodeUID] {
				left++
			}
		}
	}
	return left, nil
}
