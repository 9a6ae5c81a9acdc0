package elected

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/holdfast-ipam/holdfast/agent/watch"
	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

const (
	// collectors is how many blocks and endpoints are collected at a time.
	collectors = 4
	// settling is how long what looks like garbage is left alone before
	// quorum reads are spent on it: a pod that is being placed has a pin
	// before it has an endpoint, and a block a lease before its address is
	// handed out.
	settling = 3 * time.Second
	// ending is how long the ends of a StatefulSet's pods gather before its
	// blocks are read.
	ending = time.Second
)

// job is a block to collect, or the endpoint of a pod.
type job struct {
	block          string
	namespace, pod string
}

// gc is the loop that finds out, from caches, where a [Collector] is to look.
type gc struct {
	*watches
	collector Collector
	queue     queue[job]
	log       *slog.Logger
}

// collect is the duty of giving back what nobody wants.
func (d *Duties) collect(ctx context.Context, w *watches, log *slog.Logger) {
	g := &gc{
		watches: w,
		collector: Collector{
			Cluster:     d.config.Cluster,
			StatefulSet: d.statefulSet,
			Machine:     FindMachine(d.config.Kubernetes.Discovery().RESTClient(), d.config.EnableKubevirtStaticIP),
			Stateless:   !d.config.EnableStatefulSet,
		},
		queue: newQueue[job]("gc"),
		log:   log,
	}
	g.queue.wait = ending
	// With a part of the caches everything would look like garbage.
	if !watch.Synced(ctx, w.blocks, w.endpoints, w.statefulSets) {
		return
	}
	if err := g.watch(); err != nil {
		log.Error("cannot begin", "err", err)
		return
	}
	g.queue.work(ctx, collectors, log, g.do)
}

// statefulSet is the quorum read of a StatefulSet.
func (d *Duties) statefulSet(ctx context.Context, namespace, name string) (Window, error) {
	set, err := d.config.Kubernetes.AppsV1().StatefulSets(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return Window{}, lease.ErrNotFound
	}
	if err != nil {
		return Window{}, err
	}
	return WindowOf(set), nil
}

func (g *gc) watch() error {
	err := g.blocks.On(
		func(was, is *v1alpha1.IPBlock) {
			g.glance(is, 0)
			if was == nil || was.ResourceVersion == is.ResourceVersion {
				g.visitMachines(is, "")
			}
		},
		func(*v1alpha1.IPBlock) {})
	if err != nil {
		return err
	}
	// A StatefulSet's status changes when one of its pods ends, so this is
	// also how the end of a pod above the replica count is noticed soon. As many
	// end together, and each makes one of many changes, these gather.
	err = g.statefulSets.On(
		func(was, is *appsv1.StatefulSet) {
			if was != nil && was.UID == is.UID && was.Generation == is.Generation && was.ResourceVersion != is.ResourceVersion {
				g.glanceAll(indexStatefulSet, is, ending)
				return
			}
			g.glanceAll(indexStatefulSet, is, 0)
		},
		func(was *appsv1.StatefulSet) { g.glanceAll(indexStatefulSet, was, 0) })
	if err != nil {
		return err
	}
	return g.endpoints.On(
		func(_, is *v2beta1.SpiderEndpoint) {
			g.glanceAll(indexPod, is, 0)
			g.glanceAtPointer(is)
			for _, b := range g.blocks.By(indexPod, is.Namespace+"/"+is.Name) {
				g.visitMachines(b, is.Namespace+"/"+is.Name)
			}
		},
		func(was *v2beta1.SpiderEndpoint) { g.glanceAll(indexPod, was, 0) })
}

// glanceAll glances at the blocks that the index has under the object's name.
func (g *gc) glanceAll(index string, object metav1.Object, soon time.Duration) {
	for _, b := range g.blocks.By(index, object.GetNamespace()+"/"+object.GetName()) {
		g.glance(b, soon)
	}
}

// glance puts a block into the queue if the caches say that there may be
// something to collect in it, soon if it is nothing that takes time to settle.
func (g *gc) glance(b *v1alpha1.IPBlock, soon time.Duration) {
	key := job{block: b.Name}
	if len(b.Spec.Leases) == 0 && len(b.Spec.Pins) == 0 {
		g.queue.AddAfter(key, settling)
		return
	}
	for _, p := range b.Spec.Pins {
		namespace, pod, _ := strings.Cut(p.Pod, "/")
		addr, _ := netip.ParseAddr(p.Address)
		switch {
		case p.Releasing || p.Kind == "" && g.unwanted(namespace, pod):
			g.queue.AddAfter(key, soon)
			return
		case !g.pointed(namespace, pod, p.Interface, addr):
			g.queue.AddAfter(key, settling)
		}
	}
}

// visitMachines puts a block into the queue if it has addresses of virtual
// machines, or of the one named. Nothing is watched of these: their agents
// write an endpoint when its pod is gone, and else they are looked up when a
// term begins and once in a resync.
func (g *gc) visitMachines(b *v1alpha1.IPBlock, name string) {
	for _, p := range b.Spec.Pins {
		if p.Kind != "" && (name == "" || p.Pod == name) {
			g.queue.AddAfter(job{block: b.Name}, settling)
		}
	}
}

// suspect is glance for one pin of a block as read.
func (g *gc) suspect(p lease.Pin) bool {
	id := p.Identity
	return p.Releasing || id.Kind != "" || g.unwanted(id.Namespace, id.Pod) || !g.pointed(id.Namespace, id.Pod, id.Interface, p.Addr)
}

func (g *gc) unwanted(namespace, pod string) bool {
	name, ordinal, ok := SplitPodName(pod)
	if !ok || g.collector.Stateless {
		return true
	}
	set, ok := g.statefulSets.Get(namespace + "/" + name)
	return !ok || !WindowOf(set).Wants(ordinal)
}

func (g *gc) pointed(namespace, pod, ifname string, addr netip.Addr) bool {
	e, ok := g.endpoints.Get(namespace + "/" + pod)
	return ok && names(e, ifname, addr)
}

// names reports whether the endpoint points from the interface to the
// address.
func names(e *v2beta1.SpiderEndpoint, ifname string, addr netip.Addr) bool {
	for _, i := range e.Status.Current.IPs {
		if i.Interface == ifname && (bare(i.IPv4) == addr || bare(i.IPv6) == addr) {
			return true
		}
	}
	return false
}

// bare returns the address of 10.6.168.101/16, or the zero Addr.
func bare(text string) netip.Addr {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr()
}

// glanceAtPointer puts an endpoint that outlives its pod into the queue if it
// names an address that the caches do not know as pinned for it.
func (g *gc) glanceAtPointer(e *v2beta1.SpiderEndpoint) {
	if len(e.OwnerReferences) > 0 {
		return
	}
	key := job{namespace: e.Namespace, pod: e.Name}
	if len(e.Status.Current.IPs) == 0 {
		g.queue.AddAfter(key, settling)
	}
	for _, i := range e.Status.Current.IPs {
		for _, addr := range []netip.Addr{bare(i.IPv4), bare(i.IPv6)} {
			if addr.IsValid() && !g.pinned(e, i.Interface, addr) {
				g.queue.AddAfter(key, settling)
			}
		}
	}
}

func (g *gc) pinned(e *v2beta1.SpiderEndpoint, ifname string, addr netip.Addr) bool {
	b, ok := g.blocks.Get(lease.Name(lease.BlockOf(addr)))
	if !ok {
		return false
	}
	for _, p := range b.Spec.Pins {
		if p.Pod == e.Namespace+"/"+e.Name && p.Interface == ifname && p.Address == addr.String() &&
			(p.Kind == "" || p.Kind == e.Status.OwnerControllerType) {
			return true
		}
	}
	return false
}

func (g *gc) do(ctx context.Context, j job) (again bool, err error) {
	if j.block == "" {
		return g.collector.Pointer(ctx, j.namespace, j.pod)
	}
	done, err := g.collector.Block(ctx, j.block, g.suspect)
	var pods []Pod
	for _, p := range done.Removed {
		g.log.Info("gave an address back", "block", j.block, "addr", p.Addr, "pod", p.Identity.Namespace+"/"+p.Identity.Pod, "interface", p.Identity.Interface)
		if pod := (Pod{p.Identity.Namespace, p.Identity.Pod}); !slices.Contains(pods, pod) {
			pods = append(pods, pod)
		}
	}
	// Together, because their endpoints name the same blocks.
	waiting, failed, unread := g.collector.Pointers(ctx, pods)
	for _, p := range slices.Concat(waiting, failed) {
		g.queue.AddAfter(job{namespace: p.Namespace, pod: p.Name}, firstPause)
	}
	if unread != nil {
		g.log.Debug("some endpoints are left for another time", "block", j.block, "err", unread)
	}
	if done.Deleted {
		g.log.Debug("deleted an empty block", "block", j.block)
	}
	return len(done.Waiting) > 0, err
}

// pinnedPods indexes a block by the pods of its pins.
func pinnedPods(b *v1alpha1.IPBlock) ([]string, error) {
	var pods []string
	for _, p := range b.Spec.Pins {
		pods = append(pods, p.Pod)
	}
	return pods, nil
}

// pinnedStatefulSets indexes a block by the StatefulSets that its pins' pods
// would belong to.
func pinnedStatefulSets(b *v1alpha1.IPBlock) ([]string, error) {
	var sets []string
	for _, p := range b.Spec.Pins {
		namespace, pod, _ := strings.Cut(p.Pod, "/")
		if name, _, ok := SplitPodName(pod); ok {
			sets = append(sets, cache.NewObjectName(namespace, name).String())
		}
	}
	return sets, nil
}
