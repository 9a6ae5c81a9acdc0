package main

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
)

// bench is one system under measurement in one round.
type bench struct {
	options *options
	report  *report
	round   int
	name    string
	system  system
	lab     *lab
	living  living
	// offers is how many times addresses were offered.
	offers int
}

// The scenarios there are.
const (
	unasked      = "idle"
	inPlenty     = "plenty"
	inScarcity   = "scarce"
	withIdentity = "statefulset"
	ofSizes      = "sizes"
	inCrowd      = "crowd"
)

func scenarioNames() []string {
	return []string{unasked, inPlenty, inScarcity, withIdentity, ofSizes, inCrowd}
}

// scenario is what is measured in a lab of its own, so that the work that one
// leaves behind is not counted in the next.
type scenario func(ctx context.Context, b *bench) error

// chosen are the scenarios of a round for a system.
func (o *options) chosen(system string, round int) []scenario {
	var all []scenario
	for _, name := range o.scenarios {
		if lacks(system, name) == "" && (round == 1 || once(system, name) == "") {
			all = append(all, o.scenario(name)...)
		}
	}
	return all
}

// scenario returns what is done, once for each concurrency where that is the
// question.
func (o *options) scenario(name string) []scenario {
	most := o.concurrency[len(o.concurrency)-1]
	switch name {
	case unasked:
		return []scenario{func(ctx context.Context, b *bench) error { return b.idle(ctx) }}
	case inScarcity:
		return []scenario{func(ctx context.Context, b *bench) error {
			return b.stateless(ctx, asManyAsPods, most, true, true)
		}}
	case withIdentity:
		return []scenario{func(ctx context.Context, b *bench) error { return b.statefulSet(ctx, most) }}
	case ofSizes:
		return []scenario{func(ctx context.Context, b *bench) error { return b.sizes(ctx) }}
	case inCrowd:
		return []scenario{func(ctx context.Context, b *bench) error { return b.crowd(ctx, most) }}
	}
	var all []scenario
	for _, c := range o.concurrency {
		all = append(all, func(ctx context.Context, b *bench) error {
			return b.stateless(ctx, amongPlenty, c, false, c == most)
		})
	}
	return all
}

// The names of stages that are judged by themselves.
const (
	amongPlenty  = "plenty"
	asManyAsPods = "as many as pods"
	rebuilt      = ", rebuild"
	again        = ", again"
	deleted      = ", delete"
	atFirst      = "StatefulSet, first"
	samePods     = "StatefulSet, sandboxes anew"
	onItsNode    = "StatefulSet, on its node"
	toTheNext    = "StatefulSet, to the next node"
)

// idle measures a system that nobody asks.
func (b *bench) idle(ctx context.Context) error {
	return b.measure(ctx, unasked, 0, 0, func(ctx context.Context, s *stage) error {
		apitest.Pause(ctx, b.options.idle)
		s.Seconds = b.options.idle.Seconds()
		return ctx.Err()
	})
}

// offer makes addresses available that nobody has used, under a fresh name.
func (b *bench) offer(ctx context.Context, exact bool) (network string, err error) {
	b.offers++
	network = fmt.Sprintf("net-%d", b.offers)
	return network, b.system.offer(ctx, network, newAddresses(b.offers, b.options.pods, exact))
}

// stateless starts pods from addresses that nobody has used before, and ends
// them, with a rebuild between if asked for. Where addresses are plenty, it
// does so again: a node is warm then.
func (b *bench) stateless(ctx context.Context, name string, concurrency int, exact, rebuild bool) error {
	network, err := b.offer(ctx, exact)
	if err != nil {
		return err
	}
	pods := newPods("pod-"+network, "", network, b.options.pods)
	err = b.start(ctx, name, concurrency, pods)
	if err == nil && rebuild {
		err = b.rebuild(ctx, name+rebuilt, concurrency, pods)
	}
	if err == nil {
		err = b.stop(ctx, name+deleted, concurrency, pods)
	}
	if err != nil || exact {
		return err
	}
	return b.again(ctx, name, concurrency, pods)
}

// again starts such pods as were there before, under other names, on nodes that
// have leases from them, and ends them.
func (b *bench) again(ctx context.Context, name string, concurrency int, before []*pod) error {
	if !warms(b.name) {
		return nil
	}
	if !apitest.Pause(ctx, restTime) {
		return ctx.Err()
	}
	var pods []*pod
	for _, p := range before {
		pods = append(pods, &pod{name: "again-" + p.name, node: p.node % nodeCount, network: p.network, six: p.six})
	}
	return b.startAndStop(ctx, name+again, concurrency, pods)
}

// restTime is longer than Holdfast keeps an address from the next pod (coolDown).
const restTime = 7 * time.Second

// start binds the pods and starts them.
func (b *bench) start(ctx context.Context, name string, concurrency int, pods []*pod) error {
	return b.measure(ctx, name, concurrency, len(pods), func(ctx context.Context, s *stage) error {
		err := all(ctx, pods, b.lab.create)
		if err == nil {
			err = b.addAll(ctx, s, concurrency, pods)
		}
		if err == nil {
			err = all(ctx, pods, b.lab.report)
		}
		return err
	})
}

// addAll starts sandboxes for all pods.
func (b *bench) addAll(ctx context.Context, s *stage, concurrency int, pods []*pod) error {
	return b.timed(ctx, s, func(ctx context.Context) error {
		return each(ctx, concurrency, pods, func(slot int, p *pod) error { return b.add(ctx, s, slot, p) })
	})
}

// running are the pods that have an address.
func running(pods []*pod) []*pod {
	var some []*pod
	for _, p := range pods {
		if p.address.IsValid() {
			some = append(some, p)
		}
	}
	return some
}

// rebuild replaces each pod by one of another name on the next node at once.
func (b *bench) rebuild(ctx context.Context, name string, concurrency int, pods []*pod) error {
	return b.measure(ctx, name, concurrency, len(pods), func(ctx context.Context, s *stage) error {
		err := b.timed(ctx, s, func(limited context.Context) error {
			return each(limited, concurrency, pods, func(slot int, p *pod) error {
				if err := b.succeed(ctx, s, slot, p); err != nil {
					return err
				}
				return b.add(limited, s, slot, p)
			})
		})
		if err != nil {
			return err
		}
		return all(ctx, running(pods), b.lab.report)
	})
}

// succeed ends a pod, DEL included, and makes its successor's object.
func (b *bench) succeed(ctx context.Context, s *stage, slot int, p *pod) error {
	err := b.lab.terminate(ctx, p)
	if err == nil && p.address.IsValid() {
		err = b.del(ctx, s, slot, p)
	}
	if err == nil {
		err = b.lab.remove(ctx, p)
	}
	if err != nil {
		return err
	}
	p.name += "r"
	p.node = (p.node + 1) % nodeCount
	return b.lab.create(ctx, p)
}

// stop ends all pods, and looks what they leave.
func (b *bench) stop(ctx context.Context, name string, concurrency int, pods []*pod) error {
	return b.measure(ctx, name, concurrency, len(pods), func(ctx context.Context, s *stage) error {
		ended, err := b.end(ctx, s, concurrency, pods)
		if err == nil {
			s.Left, err = b.system.held(ctx, ended)
		}
		return err
	})
}

// end ends the pods, objects included, and returns those whose sandboxes it came
// to end.
func (b *bench) end(ctx context.Context, s *stage, concurrency int, pods []*pod) ([]*pod, error) {
	if err := all(ctx, pods, b.lab.terminate); err != nil {
		return nil, err
	}
	ended, err := b.delAll(ctx, s, concurrency, pods)
	if err == nil {
		err = all(ctx, pods, b.lab.remove)
	}
	return ended, err
}

// delAll ends the sandboxes of the pods that have one, and returns those that
// it came to.
func (b *bench) delAll(ctx context.Context, s *stage, concurrency int, pods []*pod) ([]*pod, error) {
	had := running(pods)
	err := b.timed(ctx, s, func(ctx context.Context) error {
		return each(ctx, concurrency, had, func(slot int, p *pod) error { return b.del(ctx, s, slot, p) })
	})
	var ended []*pod
	for _, p := range had {
		if !p.address.IsValid() {
			ended = append(ended, p)
		}
	}
	s.Done = len(ended)
	return ended, err
}

// statefulSet starts the pods of a StatefulSet, gives them other sandboxes,
// replaces them on their nodes, then on others, and scales down by half.
func (b *bench) statefulSet(ctx context.Context, concurrency int) error {
	network, err := b.offer(ctx, false)
	if err != nil {
		return err
	}
	pods := newPods("web", "web", network, b.options.pods)
	if err := b.lab.createSet(ctx, "web", len(pods)); err != nil {
		return err
	}
	if err := b.start(ctx, atFirst, concurrency, pods); err != nil {
		return err
	}
	if err := b.renew(ctx, samePods, concurrency, pods); err != nil {
		return err
	}
	if err := b.replace(ctx, onItsNode, concurrency, pods, 0); err != nil {
		return err
	}
	if err := b.replace(ctx, toTheNext, concurrency, pods, 1); err != nil {
		return err
	}
	return b.scaleDown(ctx, "StatefulSet, half of it until free", concurrency, pods)
}

// renew gives each pod another sandbox, as a runtime does when one has died: the
// pod is the same, its UID too.
func (b *bench) renew(ctx context.Context, name string, concurrency int, pods []*pod) error {
	return b.measure(ctx, name, concurrency, len(pods), func(ctx context.Context, s *stage) error {
		return b.timed(ctx, s, func(ctx context.Context) error {
			return each(ctx, concurrency, running(pods), func(slot int, p *pod) error {
				if err := b.del(ctx, s, slot, p); err != nil {
					return err
				}
				return b.add(ctx, s, slot, p)
			})
		})
	})
}

// replace ends all pods, and starts their successors so many nodes further.
// The ends are a stage of their own.
func (b *bench) replace(ctx context.Context, name string, concurrency int, pods []*pod, further int) error {
	err := b.measure(ctx, name+deleted, concurrency, len(pods), func(ctx context.Context, s *stage) error {
		_, err := b.end(ctx, s, concurrency, pods)
		return err
	})
	if err != nil {
		return err
	}
	for _, p := range pods {
		p.node = (p.node + further) % nodeCount
	}
	return b.start(ctx, name, concurrency, pods)
}

// scaleDown takes the upper half of the pods away and measures until none of
// their addresses is kept from others.
func (b *bench) scaleDown(ctx context.Context, name string, concurrency int, pods []*pod) error {
	half := pods[len(pods)/2:]
	return b.measure(ctx, name, concurrency, len(half), func(ctx context.Context, s *stage) error {
		began := time.Now()
		if err := b.lab.scale(ctx, half[0].set, len(pods)/2); err != nil {
			return err
		}
		ended, err := b.end(ctx, s, concurrency, half)
		if err != nil {
			return err
		}
		until := began.Add(b.options.limitOf(b.name))
		for {
			s.Left, err = b.system.held(ctx, ended)
			if err != nil || s.Left == 0 || time.Now().After(until) {
				s.Seconds = time.Since(began).Seconds()
				return err
			}
			if !apitest.Pause(ctx, freeStep) {
				return ctx.Err()
			}
		}
	})
}

// freeStep is how often it is looked whether addresses are free.
const freeStep = 200 * time.Millisecond
