package agent

import (
	"maps"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/holdfast-ipam/holdfast/agent/watch"
)

// simWatcher is a cache that hears what the simulation tells it.
type simWatcher interface {
	name() string
	// behind returns how many changes there are that it has not heard of.
	behind(*simAPI) int
	// hear tells it the next n changes.
	hear(api *simAPI, n int)
	// relist tells it the present state, and nothing of what was between.
	relist(*simAPI)
	// begin tells it the state of the version.
	begin(api *simAPI, version uint64)
	// next returns a notification that its handlers have not seen, or nil,
	// and waits whether there is one.
	next() func()
	waits() bool
}

// simCached is an object that a simCache holds.
type simCached interface {
	watch.Object
	metav1.Object
}

// simCache is an informer of which the simulation decides what it hears and
// when. Its store is ahead of its handlers, as a real one's is.
type simCache[T simCached] struct {
	cache.TypedSharedIndexInformer[T] // nil: the agent uses what is below
	resource                          string
	selects                           func(T) bool
	store                             simStore[T]
	handlers                          []cache.TypedResourceEventHandler[T]
	mu                                sync.Mutex // of handlers and notices
	notices                           []func()
	seen                              uint64
}

func newSimCache[T simCached](resource string, selects func(T) bool) *simCache[T] {
	return &simCache[T]{resource: resource, selects: selects, store: simStore[T]{mu: &sync.Mutex{}, of: map[string]T{}}}
}

func (c *simCache[T]) informer() watch.Informer[T] {
	return watch.Informer[T]{TypedSharedIndexInformer: c}
}

// simStore is the store of a simCache, as far as [watch.Informer] uses it.
type simStore[T simCached] struct {
	cache.Store // nil
	mu          *sync.Mutex
	of          map[string]T
}

func (c *simCache[T]) GetStore() cache.Store { return c.store }

func (s simStore[T]) GetByKey(key string) (any, bool, error) {
	o, ok := s.get(key)
	return o, ok, nil
}

func (s simStore[T]) get(key string) (T, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.of[key]
	return o, ok
}

func (s simStore[T]) set(key string, o T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of[key] = o
}

func (s simStore[T]) drop(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.of, key)
}

func (s simStore[T]) keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.of))
}

func (s simStore[T]) List() []any {
	var all []any
	for _, key := range s.keys() {
		if o, ok := s.get(key); ok {
			all = append(all, o)
		}
	}
	return all
}

func (c *simCache[T]) HasSynced() bool { return c.seen > 0 }

func (c *simCache[T]) AddTypedEventHandler(h cache.TypedResourceEventHandler[T], _ ...cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	c.mu.Lock()
	c.handlers = append(c.handlers, h)
	c.mu.Unlock()
	for _, key := range c.store.keys() {
		o, _ := c.store.get(key)
		c.notify(func() { h.OnAdd(o, true) })
	}
	return nil, nil
}

func (c *simCache[T]) name() string { return c.resource }

func (c *simCache[T]) behind(api *simAPI) int {
	return len(api.since(c.resource, c.seen))
}

func (c *simCache[T]) hear(api *simAPI, n int) {
	changes := api.since(c.resource, c.seen)
	for _, change := range changes[:min(n, len(changes))] {
		c.seen = change.version
		is, _ := change.is.(T)
		c.see(change.key, is, change.is != nil)
	}
}

func (c *simCache[T]) relist(api *simAPI) {
	now := map[string]T{}
	for _, o := range simAll[T](api, c.resource) {
		now[keyOf(o)] = o
	}
	c.become(now, api.now())
}

func (c *simCache[T]) begin(api *simAPI, version uint64) {
	then := map[string]T{}
	for _, change := range api.since(c.resource, 0) {
		switch {
		case change.version > version:
		case change.is == nil:
			delete(then, change.key)
		default:
			then[change.key] = change.is.(T)
		}
	}
	c.become(then, max(version, 1))
}

func (c *simCache[T]) become(state map[string]T, version uint64) {
	c.seen = version
	for _, key := range c.store.keys() {
		if _, ok := state[key]; !ok {
			c.see(key, *new(T), false)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(state)) {
		c.see(key, state[key], true)
	}
}

// see takes note of an object and tells the handlers later.
func (c *simCache[T]) see(key string, is T, exists bool) {
	was, had := c.store.get(key)
	if exists && !c.selects(is) {
		exists = false
	}
	switch {
	case exists && had && was.GetUID() == is.GetUID() && was.GetResourceVersion() == is.GetResourceVersion():
		return
	case exists:
		c.store.set(key, is)
	case had:
		c.store.drop(key)
	}
	c.mu.Lock()
	handlers := slices.Clone(c.handlers)
	c.mu.Unlock()
	for _, h := range handlers {
		switch {
		case exists && had:
			c.notify(func() { h.OnUpdate(was, is) })
		case exists:
			c.notify(func() { h.OnAdd(is, false) })
		case had:
			c.notify(func() { h.OnDelete(cache.DeletedObject[T]{OptionalObj: was}) })
		}
	}
}

func (c *simCache[T]) notify(notice func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notices = append(c.notices, notice)
}

func (c *simCache[T]) waits() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.notices) > 0
}

func (c *simCache[T]) next() func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.notices) == 0 {
		return nil
	}
	notice := c.notices[0]
	c.notices = c.notices[1:]
	return notice
}
