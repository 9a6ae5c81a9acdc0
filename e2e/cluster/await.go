package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// Await calls is every quarter of a second until it returns nil, at most for
// the time given. If that never comes, the error is the last one of is.
func Await(ctx context.Context, within time.Duration, is func(context.Context) error) error {
	last := errors.New("it was never looked at")
	err := wait.PollUntilContextTimeout(ctx, 250*time.Millisecond, within, true, func(ctx context.Context) (bool, error) {
		err := is(ctx)
		if err != nil && ctx.Err() == nil {
			last = err
		}
		return err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("not after %s: %w", within, last)
	}
	return nil
}

// AwaitAPIServer waits until the API server says that it is ready.
func (c *Cluster) AwaitAPIServer(ctx context.Context) error {
	return Await(ctx, 2*time.Minute, func(ctx context.Context) error {
		return c.Kube.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}
