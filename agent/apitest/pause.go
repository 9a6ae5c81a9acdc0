package apitest

import (
	"context"
	"fmt"
	"time"
)

// Pause waits for d, and reports whether ctx has not ended meanwhile.
func Pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// awaitStep is how often [Await] looks.
const awaitStep = 50 * time.Millisecond

// Await repeats look until it finds nothing wrong, for a limit at most. Its
// error has the last one that look returned, or is that of ctx. what goes on
// after "that".
func Await(ctx context.Context, limit time.Duration, what string, look func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := look(limited)
		if err == nil {
			return nil
		}
		if !Pause(limited, awaitStep) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("it did not come about within %s that %s: %w", limit, what, err)
		}
	}
}
