package leasetest

import (
	"cmp"
	"slices"
	"sync"
	"testing/synctest"
)

// Director makes a run of operations that go on at once the sequence of its
// choices: whatever they call waits at a gate until the director lets it pass,
// one call at a time. It works within a bubble of testing/synctest, which tells
// when nothing moves any more. C is what there is to know of a call, V the
// verdict how it goes on. All but Wait is for the one goroutine that directs.
type Director[C, V any] struct {
	mu      sync.Mutex
	gates   []*Gate[C, V]
	running []*Operation
}

// Gate is a call that waits.
type Gate[C, V any] struct {
	// Key orders the calls that wait. It depends on the run alone, and not on
	// which goroutine came first.
	Key  string
	Call C
	open chan V
}

// Wait stands at a gate until the director opens it.
func (d *Director[C, V]) Wait(key string, call C) V {
	g := &Gate[C, V]{Key: key, Call: call, open: make(chan V)}
	d.mu.Lock()
	d.gates = append(d.gates, g)
	d.mu.Unlock()
	return <-g.open
}

// Waiting returns the gates at which calls wait once nothing else moves, by
// key.
func (d *Director[C, V]) Waiting() []*Gate[C, V] {
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	slices.SortStableFunc(d.gates, func(x, y *Gate[C, V]) int { return cmp.Compare(x.Key, y.Key) })
	return slices.Clone(d.gates)
}

// Pass opens a gate and waits until nothing moves any more.
func (d *Director[C, V]) Pass(g *Gate[C, V], verdict V) {
	d.mu.Lock()
	d.gates = slices.DeleteFunc(d.gates, func(o *Gate[C, V]) bool { return o == g })
	d.mu.Unlock()
	g.open <- verdict
	synctest.Wait()
}

// Operation is something under way that calls through gates.
type Operation struct {
	// end is set when the operation has returned.
	end   func()
	ended bool
}

// Ended reports whether [Director.Reap] has heard of the operation's end.
func (o *Operation) Ended() bool { return o.ended }

// Begin starts an operation. The function that run returns is for Reap to call.
func (d *Director[C, V]) Begin(run func() (end func())) *Operation {
	op := &Operation{}
	d.running = append(d.running, op)
	go func() {
		end := run()
		d.mu.Lock()
		defer d.mu.Unlock()
		op.end = end
	}()
	return op
}

// Reap waits until nothing moves and lets operations that have returned tell
// so, the one that began first before the others.
func (d *Director[C, V]) Reap() {
	for {
		synctest.Wait()
		d.mu.Lock()
		i := slices.IndexFunc(d.running, func(op *Operation) bool { return op.end != nil })
		d.mu.Unlock()
		if i < 0 {
			return
		}
		op := d.running[i]
		d.running = slices.Delete(d.running, i, i+1)
		op.ended = true
		op.end()
	}
}

// Running returns how many operations have not ended.
func (d *Director[C, V]) Running() int { return len(d.running) }
