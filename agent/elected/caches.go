package elected

import (
	"cmp"
	"context"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/holdfast-ipam/holdfast/agent/watch"
	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// resync is how often every object is looked at again without an event, if
// [Config.Resync] says nothing else. It heals what was given up or overlooked,
// and costs no request by itself.
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
	blocks       watch.Informer[*v1alpha1.IPBlock]
	endpoints    watch.Informer[*v2beta1.SpiderEndpoint]
	statefulSets watch.Informer[*appsv1.StatefulSet]
	nodes        watch.Informer[*corev1.Node]
}

func newWatches(c *Config) *watches {
	interval := cmp.Or(c.Resync, resync)
	return &watches{
		blocks: watch.New(c.CRDs.IPBlocks(), &v1alpha1.IPBlock{}, watch.Options[*v1alpha1.IPBlock]{
			Resync: interval, Indexers: cache.TypedIndexers[*v1alpha1.IPBlock]{
				indexStatefulSet: pinnedStatefulSets,
				indexPod:         pinnedPods,
				indexLessee:      lessees,
			}}),
		endpoints: watch.New(c.CRDs.Endpoints(metav1.NamespaceAll), &v2beta1.SpiderEndpoint{}, watch.Options[*v2beta1.SpiderEndpoint]{
			Resync: interval, Indexers: cache.TypedIndexers[*v2beta1.SpiderEndpoint]{indexPool: poolsOf}}),
		statefulSets: watch.New(c.Kubernetes.AppsV1().StatefulSets(metav1.NamespaceAll), &appsv1.StatefulSet{},
			watch.Options[*appsv1.StatefulSet]{Resync: interval}),
		nodes: newCache(c.Kubernetes.CoreV1().Nodes(), &corev1.Node{}, nil),
	}
}

// run keeps the caches current until ctx ends.
func (w *watches) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { w.blocks.RunWithContext(ctx) })
	wg.Go(func() { w.endpoints.RunWithContext(ctx) })
	wg.Go(func() { w.statefulSets.RunWithContext(ctx) })
	wg.Go(func() { w.nodes.RunWithContext(ctx) })
}

// newCache returns the cache of a whole kind, or of what the client's
// namespace has of it.
func newCache[T watch.Object, L runtime.Object](client watch.Client[L], example T, indexers cache.TypedIndexers[T]) watch.Informer[T] {
	return watch.New(client, example, watch.Options[T]{Resync: resync, Indexers: indexers})
}
