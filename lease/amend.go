package lease

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Limits of one guarded update with its retries. The longest is well below
// the time a kubelet gives a sandbox.
const (
	amendFirstPause = 5 * time.Millisecond
	amendMaxPause   = time.Second
	amendGiveUp     = 10 * time.Second
)

// amendment is one change that waits for its block.
type amendment struct {
	change func(*Block) error
	// deadline is its caller's, the zero time if there is none.
	deadline time.Time
	// lead receives nothing and is closed when it is this amendment's turn
	// to run the next update; done carries its result.
	lead chan struct{}
	done chan error
}

// amend changes one block by a guarded update, together with every other
// change that waits for the same block: fifty pods that want a pin in one
// block cost a few updates and not fifty that defeat each other.
//
// change judges and changes a copy of the block and may run several times,
// each time on a newer state. Its own error is returned as it is and leaves
// the block as it was. It must be a function of the block alone: an update
// whose answer was lost is settled by computing it again on a fresh read,
// and if that read still has the old version, the same update is sent again.
func (l *Lessee) amend(ctx context.Context, prefix netip.Prefix, change func(*Block) error) error {
	a := &amendment{change: change, lead: make(chan struct{}), done: make(chan error, 1)}
	a.deadline, _ = ctx.Deadline()
	l.mu.Lock()
	queue, running := l.queues[prefix]
	l.queues[prefix] = append(queue, a)
	l.mu.Unlock()
	if running {
		select {
		case err := <-a.done:
			return err
		case <-a.lead:
		}
	}
	// An update that others wait for does not end with the one caller who
	// happens to run it.
	l.runBatch(context.WithoutCancel(ctx), prefix)
	return <-a.done
}

// runBatch commits what waits for the block and passes the lead on.
func (l *Lessee) runBatch(ctx context.Context, prefix netip.Prefix) {
	l.mu.Lock()
	batch := slices.Clone(l.queues[prefix])
	l.mu.Unlock()

	ctx, cancel := withPatience(ctx, batch)
	defer cancel()
	l.commit(ctx, prefix, batch)

	l.mu.Lock()
	defer l.mu.Unlock()
	rest := l.queues[prefix][len(batch):]
	if len(rest) == 0 {
		delete(l.queues, prefix)
		return
	}
	l.queues[prefix] = rest
	close(rest[0].lead)
}

// withPatience ends the context of an update when it is to be given up, or
// earlier, when the last of those who wait for it has to.
func withPatience(ctx context.Context, batch []*amendment) (context.Context, context.CancelFunc) {
	var last time.Time
	for _, a := range batch {
		if a.deadline.IsZero() {
			return context.WithTimeout(ctx, about(amendGiveUp))
		}
		if a.deadline.After(last) {
			last = a.deadline
		}
	}
	ctx, cancel := context.WithDeadline(ctx, last)
	bounded, also := context.WithTimeout(ctx, about(amendGiveUp))
	return bounded, func() { also(); cancel() }
}

// about draws a time near d: what was begun at one moment, and gets no answer from
// the API server, is not given up and begun anew at one moment.
func about(d time.Duration) time.Duration {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(d), backoff.WithRandomizationFactor(0.01)).NextBackOff()
}

// commit applies the batch by one guarded update and tells each amendment.
func (l *Lessee) commit(ctx context.Context, prefix netip.Prefix, batch []*amendment) {
	refusals := make([]error, len(batch))
	err := backoff.Retry(func() error {
		base, err := l.current(ctx, prefix)
		if err != nil {
			return err
		}
		next, changed := base.Clone(), false
		for i, a := range batch {
			trial := next.Clone()
			if refusals[i] = a.change(&trial); refusals[i] == nil {
				changed = changed || !trial.Equal(&next)
				next = trial
			}
		}
		// A batch that undoes itself is sent: one of its changes may be an
		// earlier one again whose answer was lost, and only a write ends that.
		if !changed {
			return nil
		}
		stored, err := l.cluster.PutBlock(ctx, next)
		if err != nil {
			l.distrust(prefix)
			return fmt.Errorf("update block %s: %w", next.Name(), err)
		}
		l.see(stored)
		return nil
	}, backoff.WithContext(amendPauses(), ctx))
	for i, a := range batch {
		a.done <- errors.Join(refusals[i], err)
	}
}

func amendPauses() backoff.BackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(amendFirstPause),
		backoff.WithMaxInterval(amendMaxPause),
		backoff.WithMaxElapsedTime(amendGiveUp))
}

// current returns the state to judge: the newest one known, or else a quorum
// read. A block that does not exist is an empty one without a version.
func (l *Lessee) current(ctx context.Context, prefix netip.Prefix) (Block, error) {
	if b, ok := l.watched(prefix); ok {
		return b, nil
	}
	return l.read(ctx, prefix)
}

// watched returns the newest state of a block that is known, unless an update
// of it failed or this node leases nothing in it, because then no watch keeps
// the view fresh.
func (l *Lessee) watched(prefix netip.Prefix) (Block, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.views[prefix]
	return v.block, v.trusted && v.block.LeasedTo(l.node.UID) != 0
}

// read is a quorum read of a block, see [Lessee.current].
func (l *Lessee) read(ctx context.Context, prefix netip.Prefix) (Block, error) {
	l.mu.Lock()
	before := l.views[prefix].block.Version
	l.mu.Unlock()
	b, err := l.cluster.Block(ctx, Name(prefix))
	if errors.Is(err, ErrNotFound) {
		l.unsee(prefix, before)
		return NewBlock(prefix)
	}
	if err != nil {
		return Block{}, fmt.Errorf("read block %s: %w", Name(prefix), err)
	}
	if err := b.Validate(); err != nil {
		return Block{}, err
	}
	l.see(b)
	return b, nil
}
