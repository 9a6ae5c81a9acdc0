package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/agent/elected"
	"github.com/holdfast-ipam/holdfast/agent/journal"
	"github.com/holdfast-ipam/holdfast/agent/watch"
	"github.com/holdfast-ipam/holdfast/crds"
	"github.com/holdfast-ipam/holdfast/lease"
)

// meetRetry is the pause between two looks for the node's object, at most twice
// as long by jitter.
const meetRetry = time.Second

// Options are what differs from node to node and from start to start.
type Options struct {
	// NodeName is the name of the node the agent works for.
	NodeName string
	// Namespace and PodName are the agent's own.
	Namespace string
	PodName   string
	// Socket is the path of the unix socket, Journal that of the journal.
	Socket  string
	Journal string
	// HTTPAddress serves health and metrics; empty for none.
	HTTPAddress string
	// WebhookAddress serves the webhook that judges objects when they are
	// applied; empty for none.
	WebhookAddress string
	// Version is the agent's own, for STATUS and the log.
	Version string
}

// Agent is the process of one node: see the package comment.
type Agent struct {
	options Options
	config  Config
	log     *slog.Logger
	now     func() time.Time

	node         lease.Node
	kube         kubernetes.Interface
	clients      *crds.Clients
	networks     *elected.Networks
	metadata     metadata.Interface
	cluster      *cluster.Client
	lessee       *lease.Lessee
	pods         *pods
	pools        *pools
	nodes        *ownNode
	namespaces   *namespaces
	coordinators *coordinators
	blocks       *blocks
	upkeep       *upkeep
	endpoints    *endpoints
	leaks        *leaks
	metrics      *metrics
	events       *podEvents
	// complete marks a journal that was lost as rebuilt.
	complete func() error
	// learned is set when the lessee knows the leases this node began with.
	learned atomic.Bool
	// preparing are the placements under way ahead of their ADD.
	preparing sync.WaitGroup
}

// Run works for the node until ctx ends. It returns nil then, and otherwise
// the reason why it cannot go on: an agent that was deleted with its Node, or
// whose watches cannot be started, is to be started anew.
func Run(ctx context.Context, rc *rest.Config, o Options, c Config, log *slog.Logger) error {
	a := &Agent{options: o, config: c, log: log, now: time.Now, metrics: newMetrics()}
	if err := a.connect(rc); err != nil {
		return err
	}
	if err := a.meet(ctx); err != nil {
		return err
	}
	disk, fresh, err := journal.Open(o.Journal, a.node.UID)
	if err != nil {
		return err
	}
	if notice := disk.Notice(); notice != nil {
		log.Warn("the journal was set aside", "err", notice)
	}
	a.complete = disk.Complete
	err = a.work(ctx, disk, fresh)
	return errors.Join(err, disk.Close())
}

// connect makes the clients and the watches, which begin in [Agent.work].
func (a *Agent) connect(rc *rest.Config) error {
	rc = cluster.Config(rc, "holdfast/"+a.options.Version)
	rc.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &requestCounter{next: next, counter: a.metrics.api}
	})
	client, err := rest.HTTPClientFor(rc)
	if err != nil {
		return fmt.Errorf("connect to the API server: %w", err)
	}
	if a.kube, err = kubernetes.NewForConfigAndClient(rc, client); err != nil {
		return err
	}
	if a.cluster, err = cluster.New(rc, client); err != nil {
		return err
	}
	a.clients = a.cluster.Kinds()
	if a.networks, err = elected.NewNetworks(rc, client); err != nil {
		return err
	}
	if a.metadata, err = metadata.NewForConfigAndClient(rc, client); err != nil {
		return err
	}
	a.pods = newPods(a.kube, a.options.NodeName)
	a.pools = newPools(a.clients, a.now)
	a.nodes = newOwnNode(a.kube, a.options.NodeName)
	a.namespaces = newNamespaces(a.metadata)
	a.coordinators = newCoordinators(a.clients)
	a.events = newPodEvents(a.kube.CoreV1(), a.now)
	a.upkeep = newUpkeep(a)
	a.endpoints = newEndpoints(a)
	a.leaks = newLeaks(a.now, a.config.GC.Delay.Duration)
	return nil
}

// meet finds out which node this is: by its Node, or while the API server is
// away by the journal. Then pods that the journal knows are answered, and
// nothing else is begun before the heartbeat has found the Node in order.
func (a *Agent) meet(ctx context.Context) error {
	for {
		node, err := a.nodes.read(ctx)
		if err == nil {
			a.node = lease.Node{Name: node.Name, UID: string(node.UID)}
			return nil
		}
		if uid, unknown := journal.NodeUID(a.options.Journal); unknown == nil && !apierrors.IsNotFound(err) {
			a.log.Warn("the API server is out of reach: going by the journal", "node", a.options.NodeName, "nodeUID", uid, "err", err)
			a.node = lease.Node{Name: a.options.NodeName, UID: uid}
			return nil
		}
		a.log.Info("waiting for the node's object", "node", a.options.NodeName, "err", err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("read node %s: %w", a.options.NodeName, err)
		case <-time.After(wait.Jitter(meetRetry, 1)):
		}
	}
}

// work starts everything there is, once, and ends it.
func (a *Agent) work(ctx context.Context, disk lease.Disk, fresh bool) (err error) {
	a.lessee, err = lease.New(lease.Config{
		Node: a.node, Cluster: a.cluster, Disk: disk, Now: a.now, CoolDown: a.config.CoolDown.Duration,
	})
	if err != nil {
		return err
	}
	a.metrics.watch(a.lessee)
	a.blocks = newBlocks(a.cluster, a.node.UID)
	listener, err := listen(a.options.Socket)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.serve(ctx, listener) })
	if a.options.HTTPAddress != "" {
		group.Go(func() error { return a.serveHTTP(ctx) })
	}
	for _, informer := range a.informers() {
		group.Go(func() error { informer.RunWithContext(ctx); return nil })
	}
	// No address waits for it.
	group.Go(func() error { a.coordinators.informer.RunWithContext(ctx); return nil })
	group.Go(func() error { return a.webhook(ctx) })
	group.Go(func() error { return a.heartbeat(ctx) })
	group.Go(func() error { return a.begin(ctx, group, fresh) })
	err = group.Wait()
	a.preparing.Wait()
	return err
}

func (a *Agent) informers() []cache.SharedIndexInformer {
	return []cache.SharedIndexInformer{
		a.pods.informer, a.pools.informer, a.pools.reserved,
		a.nodes.informer, a.namespaces.informer, a.blocks.informer,
	}
}

// begin makes the agent ready for new assignments and starts what goes on in
// the background from then on.
func (a *Agent) begin(ctx context.Context, group *errgroup.Group, fresh bool) error {
	for _, informer := range a.informers() {
		if !watch.Synced(ctx, informer) {
			return nil // told to end
		}
	}
	if err := a.start(ctx, fresh); err != nil {
		return err
	}
	group.Go(func() error { return a.upkeep.run(ctx) })
	group.Go(func() error { return a.endpoints.run(ctx) })
	group.Go(func() error { a.endpoints.informer.RunWithContext(ctx); return nil })
	group.Go(func() error { return every(ctx, mendPeriod, a.log, "endpoints", a.mendEndpoints) })
	group.Go(func() error { return every(ctx, leakPeriod, a.log, "leaks", a.findLeaks) })
	group.Go(func() error { return every(ctx, lostPeriod, a.log, "lost blocks", a.findLost) })
	group.Go(func() error { return a.runElected(ctx) })
	return nil
}

// start makes the agent ready, once its caches are full: it learns its leases
// and then does what the watches say.
func (a *Agent) start(ctx context.Context, fresh bool) error {
	if err := a.learn(ctx, fresh); err != nil {
		return err
	}
	if _, err := a.beat(ctx); err != nil {
		return err
	}
	if err := a.watchBlocks(ctx); err != nil {
		return err
	}
	a.log.Info("ready", "node", a.node.Name, "nodeUID", a.node.UID, "version", a.options.Version, "journalLost", fresh)
	if err := errors.Join(a.watchPods(ctx), a.watchPools(), a.watchEndpoints()); err != nil {
		return err
	}
	a.pools.resume(a.lessee.Entries())
	a.upkeep.kick()
	for _, e := range a.lessee.Entries() {
		a.endpoints.enqueue(e.Namespace, e.Pod)
	}
	return nil
}

// every does a thing at once and then once a period, until ctx ends. An error
// is logged, and the thing done again a period later.
func every(ctx context.Context, period time.Duration, log *slog.Logger, name string, do func(context.Context) error) error {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		if err := do(ctx); err != nil && ctx.Err() == nil {
			log.Warn(name, "outcome", "error", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (a *Agent) runElected(ctx context.Context) error {
	return elected.New(elected.Config{
		Kubernetes: a.kube, CRDs: a.clients, Networks: a.networks, Cluster: a.cluster,
		Namespace: a.options.Namespace, Identity: a.options.PodName,
		EnableStatefulSet: a.config.EnableStatefulSet, EnableKubevirtStaticIP: a.config.EnableKubevirtStaticIP,
		HoldDown: a.config.HoldDown.Duration,
		Resync:   a.config.GC.Interval.Duration, CiliumConfigMap: a.config.CiliumConfigMap,
		Rules: a.rules(), Webhook: a.options.WebhookAddress != "",
		Log: a.log,
	}).Run(ctx)
}

// serveHTTP serves health and metrics over TCP.
func (a *Agent) serveHTTP(ctx context.Context) error {
	l, err := net.Listen("tcp", a.options.HTTPAddress)
	if err != nil {
		return fmt.Errorf("listen for health and metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", a.metrics.handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if s := a.status(); !s.Ready {
			http.Error(w, s.Reason, http.StatusServiceUnavailable)
		}
	})
	return runServer(ctx, &http.Server{Handler: mux, ReadHeaderTimeout: drainTimeout}, l)
}
