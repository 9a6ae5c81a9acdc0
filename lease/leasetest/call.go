package leasetest

import (
	"context"
	"fmt"
	"slices"

	"github.com/holdfast-ipam/holdfast/lease"
)

// begin records a call, lands what is due before it, and asks what goes
// wrong in it.
func (c *Cluster) begin(ctx context.Context, method, object string) (Call, Fault, error) {
	c.mu.Lock()
	call := Call{N: len(c.calls) + 1, Method: method, Object: object}
	c.calls = append(c.calls, call)
	c.land(func(w lateWrite) bool { return w.due != 0 && w.due < call.N })
	c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return call, Fault{}, fmt.Errorf("%s %s: %w", method, object, err)
	}
	if c.fault == nil {
		return call, Fault{}, nil
	}
	return call, c.fault(call), nil
}

func (c *Cluster) read(ctx context.Context, method, object string, get func() bool) error {
	call, fault, err := c.begin(ctx, method, object)
	if err != nil {
		return err
	}
	if fault.Kind != None && fault.Kind != Conflict {
		return errLost(call)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !get() {
		return fmt.Errorf("%s %s: %w", method, object, lease.ErrNotFound)
	}
	return nil
}

// write runs a guarded change under the lock, now, later or never.
func (c *Cluster) write(ctx context.Context, method, object string, change func() error) error {
	call, fault, err := c.begin(ctx, method, object)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch fault.Kind {
	case Conflict:
		c.touch(call)
		return fmt.Errorf("%w: a writer was faster", lease.ErrConflict)
	case Refused:
		return fmt.Errorf("%w: too many requests", lease.ErrRefused)
	case Lost:
		return errLost(call)
	case AnswerLost:
		_ = change() // the answer is what gets lost
		return errLost(call)
	case Late:
		due := 0
		if fault.After > 0 {
			due = call.N + fault.After
		}
		c.late = append(c.late, lateWrite{due: due, land: change})
		return errLost(call)
	}
	return change()
}

// land lets the late writes that are due take effect, in the order they were
// made, each only if its version still stands. The caller holds the lock.
func (c *Cluster) land(due func(lateWrite) bool) (landed int) {
	c.late = slices.DeleteFunc(c.late, func(w lateWrite) bool {
		if !due(w) {
			return false
		}
		if w.land() == nil {
			landed++
		}
		return true
	})
	return landed
}

// Land lets all late writes reach the cluster now and returns how many took
// effect: a write whose version no longer stands is lost.
func (c *Cluster) Land() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.land(func(lateWrite) bool { return true })
}

// Late returns the number of writes that are still under way.
func (c *Cluster) Late() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.late)
}

// Calls returns all calls made so far, those that failed included.
func (c *Cluster) Calls() []Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}
