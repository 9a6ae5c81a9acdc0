package lease

import (
	"context"
	"slices"
	"sync"
)

// turns lets those who want the same key go one at a time, in the order in
// which they came. The zero turns are ready for use.
type turns[K comparable] struct {
	mu sync.Mutex
	// lines has, for each key, who has its turn and who waits behind.
	lines map[K][]chan struct{}
}

// take waits for the caller's turn, which lasts until done is called. It fails
// with the context's error if that ends first.
func (t *turns[K]) take(ctx context.Context, key K) (done func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	mine := make(chan struct{})
	t.mu.Lock()
	if t.lines == nil {
		t.lines = map[K][]chan struct{}{}
	}
	ahead := len(t.lines[key])
	t.lines[key] = append(t.lines[key], mine)
	t.mu.Unlock()
	if ahead > 0 {
		select {
		case <-mine:
		case <-ctx.Done():
			t.leave(key, mine)
			return nil, ctx.Err()
		}
	}
	return func() { t.leave(key, mine) }, nil
}

// leave takes one out of the line. Behind the one whose turn it was, the next
// has it.
func (t *turns[K]) leave(key K, mine chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := slices.Index(t.lines[key], mine)
	line := slices.Delete(t.lines[key], at, at+1)
	if len(line) == 0 {
		delete(t.lines, key)
		return
	}
	t.lines[key] = line
	if at == 0 {
		close(line[0])
	}
}
