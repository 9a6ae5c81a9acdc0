package elected

import (
	"context"
	"fmt"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// resync is how often every object is looked at again without an event. It
// heals what was given up or overlooked, and costs no request by itself.
const resync = 10 * time.Minute

// The indexes of the caches.
const (
	// indexStatefulSet finds blocks by the StatefulSet, namespace/name, that
	// a pin's pod would belong to.
	indexStatefulSet = "statefulset"
	// indexPod finds blocks by the pod, namespace/name, of a pin.
	indexPod = "pod"
	// indexLessee finds blocks by the UID of a node with a lease in them.
	indexLessee = "lessee"
	// indexPool finds endpoints by the pools of their addresses.
	indexPool = "pool"
)

// watches are the caches that more than one duty looks into. They live for a
// term: nobody but the elected agent watches whole kinds.
type watches struct {
	blocks       informer[*v1alpha1.IPBlock]
	endpoints    informer[*v2beta1.SpiderEndpoint]
	statefulSets informer[*appsv1.StatefulSet]
}

func newWatches(c *Config) *watches {
	return &watches{
		blocks: newInformer(c.CRDs.IPBlocks(), &v1alpha1.IPBlock{}, cache.TypedIndexers[*v1alpha1.IPBlock]{
			indexStatefulSet: pinnedStatefulSets,
			indexPod:         pinnedPods,
			indexLessee:      lessees,
		}),
		endpoints: newInformer(c.CRDs.Endpoints(metav1.NamespaceAll), &v2beta1.SpiderEndpoint{}, cache.TypedIndexers[*v2beta1.SpiderEndpoint]{
			indexPool: poolsOf,
		}),
		statefulSets: newInformer(c.Kubernetes.AppsV1().StatefulSets(metav1.NamespaceAll), &appsv1.StatefulSet{}, nil),
	}
}

// run keeps the caches current until ctx ends.
func (w *watches) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { w.blocks.RunWithContext(ctx) })
	wg.Go(func() { w.endpoints.RunWithContext(ctx) })
	wg.Go(func() { w.statefulSets.RunWithContext(ctx) })
}

// informer is a cache of one kind.
type informer[T cache.Object] struct {
	cache.TypedSharedIndexInformer[T]
}

// lister is what the typed clients of all kinds have.
type lister[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

func newInformer[T cache.Object, L runtime.Object](client lister[L], example T, indexers cache.TypedIndexers[T]) informer[T] {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return client.List(ctx, o)
		},
		WatchFuncWithContext: client.Watch,
	}
	untyped := cache.NewSharedIndexInformer(lw, any(example).(runtime.Object), resync, cache.TypedIndexersToIndexers(indexers))
	// Fails only when the informer has been started.
	_ = untyped.SetTransform(withoutManagedFields)
	return informer[T]{cache.NewTypedSharedIndexInformer[T](untyped)}
}

// withoutManagedFields drops what makes up half of an object and nobody here
// reads.
func withoutManagedFields(object any) (any, error) {
	if m, err := meta.Accessor(object); err == nil {
		m.SetManagedFields(nil)
	}
	return object, nil
}

// get returns the cached object at namespace/name, or name for a kind without
// namespaces.
func (i informer[T]) get(key string) (object T, ok bool) {
	found, exists, err := i.GetStore().GetByKey(key)
	if err != nil || !exists {
		return object, false
	}
	object, ok = found.(T)
	return object, ok
}

// by returns the cached objects that the index has under key.
func (i informer[T]) by(index, key string) []T {
	// An error would say that there is no such index.
	found, _ := i.GetTypedIndexer().ByTypedIndex(index, key)
	return found
}

// on calls changed for each object in the cache, now and whenever it appears
// or changes, and gone when it disappears; was is the zero T for an object
// that appears. Calls come one at a time.
func (i informer[T]) on(changed func(was, is T), gone func(T)) error {
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

// synced waits for the caches to have the whole state of some moment. It
// returns false when ctx ended first.
func synced(ctx context.Context, of ...interface{ HasSyncedChecker() cache.DoneChecker }) bool {
	for _, i := range of {
		select {
		case <-ctx.Done():
			return false
		case <-i.HasSyncedChecker().Done():
		}
	}
	return true
}
