// Package watch keeps caches of API objects: client-go's typed informers, made
// from a typed client, with the few questions this project asks of them.
package watch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/cenkalti/backoff/v4"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// Client is what the typed clients of all kinds can do.
type Client[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// Object is a pointer to an API object.
type Object interface {
	cache.Object
	runtime.Object
	SetManagedFields([]metav1.ManagedFieldsEntry)
}

// The pauses between two looks for an API server that is away, with some
// jitter, doubled from the first up to the second.
const (
	firstPause = 200 * time.Millisecond
	longPause  = 5 * time.Second
)

// Options say what of a kind is cached, and how. The zero Options cache all
// of it.
type Options[T Object] struct {
	// Narrow puts a selector into the options of lists and watches.
	Narrow func(*metav1.ListOptions)
	// Slim drops what nobody reads of an object. Managed fields, often half
	// of it, go in any case.
	Slim func(T)
	// Resync is how often each object is reported again without an event;
	// it costs no request.
	Resync time.Duration
	// Indexers are for By.
	Indexers cache.TypedIndexers[T]
}

// Informer is a cache of one kind. [Informer.RunWithContext] keeps it current.
type Informer[T Object] struct {
	cache.TypedSharedIndexInformer[T]
}

// New returns a cache of what the client lists. example is an empty object of
// the kind.
func New[T Object, L runtime.Object](client Client[L], example T, o Options[T]) Informer[T] {
	narrow := o.Narrow
	if narrow == nil {
		narrow = func(*metav1.ListOptions) {}
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, lo metav1.ListOptions) (runtime.Object, error) {
			narrow(&lo)
			return answered(ctx, func() (L, error) { return client.List(ctx, lo) })
		},
		WatchFuncWithContext: func(ctx context.Context, lo metav1.ListOptions) (watch.Interface, error) {
			narrow(&lo)
			return answered(ctx, func() (watch.Interface, error) { return client.Watch(ctx, lo) })
		},
	}
	untyped := cache.NewSharedIndexInformer(lw, example, o.Resync, cache.TypedIndexersToIndexers(o.Indexers))
	// It fails only for an informer that runs already.
	_ = untyped.SetTransform(func(object any) (any, error) {
		if t, ok := object.(T); ok {
			t.SetManagedFields(nil)
			if o.Slim != nil {
				o.Slim(t)
			}
		}
		return object, nil
	})
	return Informer[T]{cache.NewTypedSharedIndexInformer[T](untyped)}
}

// answered asks until there is a server to answer. An informer by itself looks
// for one ever more seldom, up to once a minute, which is right for a server
// that is overloaded and wrong for one that was away: then a node would be
// blind for a minute after it has come back.
func answered[R any](ctx context.Context, ask func() (R, error)) (R, error) {
	pauses := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(firstPause), backoff.WithMaxInterval(longPause), backoff.WithMaxElapsedTime(0))
	return backoff.RetryWithData(func() (R, error) {
		r, err := ask()
		var dial *net.OpError
		if errors.As(err, &dial) && dial.Op == "dial" {
			return r, err
		}
		if err != nil {
			return r, backoff.Permanent(err)
		}
		return r, nil
	}, backoff.WithContext(pauses, ctx))
}

// Get returns the cached object at namespace/name, or name for a kind without
// namespaces.
func (i Informer[T]) Get(key string) (object T, ok bool) {
	found, exists, err := i.GetStore().GetByKey(key)
	if err != nil || !exists {
		return object, false
	}
	object, ok = found.(T)
	return object, ok
}

// All returns the cached objects, in any order.
func (i Informer[T]) All() []T {
	list := i.GetStore().List()
	all := make([]T, 0, len(list))
	for _, object := range list {
		if t, ok := object.(T); ok {
			all = append(all, t)
		}
	}
	return all
}

// By returns the cached objects that the index has under key.
func (i Informer[T]) By(index, key string) []T {
	// An error would say that there is no such index.
	found, _ := i.GetTypedIndexer().ByTypedIndex(index, key)
	return found
}

// On calls changed for each object in the cache, now and whenever it appears
// or changes, and gone, with its last state that is known, when it disappears.
// was is the zero T for an object that appears. Calls come one at a time.
func (i Informer[T]) On(changed func(was, is T), gone func(was T)) error {
	_, err := i.AddTypedEventHandler(cache.TypedResourceEventHandlerFuncs[T]{
		AddFunc:    func(is T) { changed(*new(T), is) },
		UpdateFunc: changed,
		DeleteFunc: func(d cache.DeletedObject[T]) {
			if d.OptionalObj != *new(T) {
				gone(d.OptionalObj)
			}
		},
	})
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	return nil
}

// Synced waits for the caches to have the whole state of some moment. It
// returns false when ctx ended first.
func Synced(ctx context.Context, of ...interface{ HasSyncedChecker() cache.DoneChecker }) bool {
	for _, i := range of {
		select {
		case <-ctx.Done():
			return false
		case <-i.HasSyncedChecker().Done():
		}
	}
	return true
}
