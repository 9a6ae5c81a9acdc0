package elected

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/holdfast-ipam/holdfast/lease"
)

// The pauses between two tries of a job: doubled from the first up to the
// second, and after patience tries the third. What waits for a pod to end
// within its usual grace period is done within seconds of that, and what
// waits for a pod on a dead node costs two requests a minute.
const (
	firstPause = 100 * time.Millisecond
	longPause  = 5 * time.Second
	idlePause  = 30 * time.Second
	patience   = 40
	// jobTime ends a job whose answers do not come.
	jobTime = time.Minute
)

// queue holds jobs that are done one at a time for each key, and again after
// a pause until they succeed.
type queue[K comparable] struct {
	workqueue.TypedRateLimitingInterface[K]
	limiter workqueue.TypedRateLimiter[K]
	// wait is the shortest pause after a job that has to be done again because
	// what it waits for has not come about.
	wait time.Duration
}

func newQueue[K comparable](name string) queue[K] {
	limiter := workqueue.NewTypedMaxOfRateLimiter(
		workqueue.NewTypedItemExponentialFailureRateLimiter[K](firstPause, longPause),
		workqueue.NewTypedItemFastSlowRateLimiter[K](0, idlePause, patience),
	)
	return queue[K]{
		TypedRateLimitingInterface: workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[K]{Name: name}),
		limiter:                    limiter,
	}
}

// work does jobs in n goroutines until ctx ends. A job that returns again or
// an error is tried again after a pause.
func (q queue[K]) work(ctx context.Context, n int, log *slog.Logger, do func(context.Context, K) (again bool, err error)) {
	stop := context.AfterFunc(ctx, q.ShutDown)
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for range n {
		wg.Go(func() {
			for q.next(ctx, log, do) {
			}
		})
	}
}

func (q queue[K]) next(ctx context.Context, log *slog.Logger, do func(context.Context, K) (bool, error)) bool {
	key, shutdown := q.Get()
	if shutdown {
		return false
	}
	defer q.Done(key)
	job, cancel := context.WithTimeout(ctx, jobTime)
	defer cancel()
	again, err := do(job, key)
	switch {
	case ctx.Err() != nil:
		return false
	case errors.Is(err, lease.ErrConflict):
		log.Debug("somebody else was faster, trying again", "err", err)
	case err != nil:
		log.Warn("failed, trying again", "err", err)
	}
	switch {
	case err != nil:
		q.AddRateLimited(key)
	case again:
		q.AddAfter(key, max(q.limiter.When(key), q.wait))
	default:
		q.Forget(key)
	}
	return true
}
