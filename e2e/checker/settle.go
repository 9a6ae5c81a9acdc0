package checker

import (
	"context"
	"slices"
	"time"
)

// Settle takes snapshots until one has no violations, and returns none. It
// returns those of the last snapshot after grace has passed, or at once those
// that no moment excuses, see [Violation.Never].
func Settle(ctx context.Context, grace time.Duration, take func(context.Context) Snapshot) []Violation {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	var last []Violation
	for {
		found := Compare(take(ctx))
		if ctx.Err() != nil && last != nil {
			return last // what was taken after the end is half a snapshot
		}
		last = found
		never := slices.DeleteFunc(slices.Clone(found), func(v Violation) bool { return !v.Never })
		if len(found) == 0 || len(never) > 0 {
			return found
		}
		select {
		case <-ctx.Done():
			return last
		case <-time.After(500 * time.Millisecond):
		}
	}
}
