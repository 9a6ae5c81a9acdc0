package elected

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/holdfast-ipam/holdfast/agent/watch"
)

// leaseName is the name of the election's Lease object in the release
// namespace.
const leaseName = "holdfast"

// pace is the times of an election.
type pace struct {
	// duration is how long a Lease holds after its last renewal, deadline how
	// long its holder tries to renew it until it resigns, and retry the time
	// between two renewals.
	duration, deadline, retry time.Duration
	// spread is the time over which the others stand when it is free.
	spread time.Duration
}

// usual is slow, because each renewal is told to every agent: a tenth of an event
// a second each, where client-go's election would have each read the Lease every
// three seconds. An agent that dies without a word is followed after 40 to 43
// seconds, one that ends within two or three.
func usual() pace {
	return pace{duration: 40 * time.Second, deadline: 30 * time.Second, retry: 10 * time.Second, spread: 2 * time.Second}
}

// election is an agent's part in the election of one. client-go's part of it
// (tools/leaderelection) is for those who stand: an elector that has not won
// reads the Lease over and over. So an agent waits, by a watch of that one
// object, until the Lease is free, and only then has an elector stand. As in
// client-go, a Lease has run out when it has not changed for its duration by this
// agent's own clock, whatever times it names.
type election struct {
	pace
	config *Config
	lease  watch.Informer[*coordinationv1.Lease]

	mu sync.Mutex
	// last is the Lease as it was last heard of, nil for none, at when. It is
	// known to be so unless the watch has not begun.
	last  *coordinationv1.Lease
	known bool
	at    time.Time
	// news is closed when one of them changes.
	news chan struct{}
}

func newElection(c *Config, p pace) *election {
	return &election{
		pace: p, config: c, at: time.Now(), news: make(chan struct{}),
		lease: watch.New(c.Kubernetes.CoordinationV1().Leases(c.Namespace), &coordinationv1.Lease{}, watch.Options[*coordinationv1.Lease]{
			Narrow: func(o *metav1.ListOptions) { o.FieldSelector = "metadata.name=" + leaseName },
		}),
	}
}

// listen has the watch, which is yet to run, tell of the Lease.
func (e *election) listen() error {
	err := e.lease.On(
		func(_, is *coordinationv1.Lease) { e.note(is) },
		func(*coordinationv1.Lease) { e.note(nil) })
	if err != nil {
		return fmt.Errorf("watch the Lease %s/%s: %w", e.config.Namespace, leaseName, err)
	}
	return nil
}

// note takes note of the Lease. An older state than the one known is none: the
// watch may lag behind a read.
func (e *election) note(is *coordinationv1.Lease) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if is != nil && e.last != nil && is.UID == e.last.UID && !later(is.ResourceVersion, e.last.ResourceVersion) {
		return
	}
	if is == nil && e.last == nil && e.known {
		return
	}
	e.last, e.known, e.at = is, true, time.Now()
	close(e.news)
	e.news = make(chan struct{})
}

// later reports whether version x is later than y: decimal numbers that grow
// (KEP-5504).
func later(x, y string) bool {
	if len(x) != len(y) {
		return len(x) > len(y)
	}
	return x > y
}

func (e *election) heard() (last *coordinationv1.Lease, known bool, at time.Time, news <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last, e.known, e.at, e.news
}

// holder returns who holds a Lease, if anybody does.
func holder(l *coordinationv1.Lease) string {
	if l == nil || l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

// open reports whether this agent may hold the Lease without anybody's end: it
// is nobody's, or this agent's own from before it was started anew.
func (e *election) open(l *coordinationv1.Lease) bool {
	return holder(l) == "" || holder(l) == e.config.Identity
}

// await returns when this agent may stand, or when ctx ends. Where the watch is
// broken, it reads the Lease once in its duration.
func (e *election) await(ctx context.Context) {
	for ctx.Err() == nil {
		last, known, at, news := e.heard()
		free := known && e.open(last)
		// Many wait, and the first to stand is to be told of before the next.
		pause := rand.N(e.spread)
		if !free {
			pause += time.Until(at.Add(e.duration))
		}
		select {
		case <-ctx.Done():
			return
		case <-news:
			continue
		case <-time.After(pause):
		}
		if free {
			return
		}
		if err := e.vacate(ctx, last); err != nil {
			e.config.Log.Warn("look whether somebody is elected", "duty", "election", "err", err)
			e.sleep(ctx, e.retry)
		}
	}
}

func (e *election) sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// vacate ends the hold of one who has not renewed it for its duration, so that
// an elector need not find that out once more. It reads the Lease before, because
// a watch that is broken tells of no renewal either.
func (e *election) vacate(ctx context.Context, last *coordinationv1.Lease) error {
	client := e.config.Kubernetes.CoordinationV1().Leases(e.config.Namespace)
	now, err := client.Get(ctx, leaseName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		e.note(nil)
		return nil
	}
	if err != nil {
		return err
	}
	if last == nil || now.UID != last.UID || now.ResourceVersion != last.ResourceVersion {
		e.note(now)
		return nil
	}
	next := now.DeepCopy()
	next.Spec.HolderIdentity = nil
	stored, err := client.Update(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // somebody was faster, or it has been renewed after all
	}
	if err != nil {
		return err
	}
	e.config.Log.Info("nobody renews the Lease any more", "duty", "election", "holder", holder(last))
	e.note(stored)
	return nil
}

// stand takes part in one election, up to the end of the term if it is won, and
// to the moment when somebody else is known to hold the Lease if not. The Lease
// is held until the duties have ended.
func (e *election) stand(ctx context.Context, duties func(context.Context)) error {
	electing, resign := context.WithCancel(context.WithoutCancel(ctx))
	defer resign()
	var term term
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: e.config.Namespace, Name: leaseName},
			Client:     e.config.Kubernetes.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: e.config.Identity},
		},
		LeaseDuration:   e.duration,
		RenewDeadline:   e.deadline,
		RetryPeriod:     e.retry,
		ReleaseOnCancel: true,
		Name:            leaseName,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) { term.serve(leading, duties) },
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("stand for election as %q in namespace %q: %w", e.config.Identity, e.config.Namespace, err)
	}
	stop := context.AfterFunc(ctx, func() {
		term.end()
		resign()
	})
	defer stop()
	var watching sync.WaitGroup
	watching.Go(func() { e.lost(electing); resign() })
	elector.Run(electing)
	term.end()
	resign()
	watching.Wait()
	return nil
}

// lost returns when somebody else is known to hold the Lease, or when ctx ends.
func (e *election) lost(ctx context.Context) {
	for ctx.Err() == nil {
		last, known, _, news := e.heard()
		if known && !e.open(last) {
			return
		}
		select {
		case <-ctx.Done():
		case <-news:
		}
	}
}

// run takes part until ctx ends, and has the duties carried out whenever this
// agent is elected.
func (e *election) run(ctx context.Context, duties func(context.Context)) error {
	if err := e.listen(); err != nil {
		return err
	}
	watching, cease := context.WithCancel(ctx)
	var watches sync.WaitGroup
	defer watches.Wait()
	defer cease()
	watches.Go(func() { e.lease.RunWithContext(watching) })
	watches.Go(func() {
		if watch.Synced(watching, e.lease) && len(e.lease.All()) == 0 {
			e.note(nil) // there is none yet, which no event tells
		}
	})
	for ctx.Err() == nil {
		if e.await(ctx); ctx.Err() != nil {
			break
		}
		if err := e.stand(ctx, duties); err != nil {
			return err
		}
	}
	return nil
}
