package elected

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/holdfast-ipam/holdfast/agent/admission"
	"github.com/holdfast-ipam/holdfast/crds"
	"github.com/holdfast-ipam/holdfast/lease"
)

// Config is what the duties need.
type Config struct {
	// Kubernetes is a client without a limit of requests per second.
	Kubernetes kubernetes.Interface
	// CRDs are clients for the kinds of this project.
	CRDs *crds.Clients
	// Networks is the client for NetworkAttachmentDefinition, see
	// [NewNetworks]. Without it no SpiderMultusConfig is rendered.
	Networks *Networks
	// Cluster is the shared state that leases and pins live in.
	Cluster lease.Cluster

	// Namespace is the release namespace, where the election's Lease is.
	Namespace string
	// Identity names this agent in the election: its pod's name.
	Identity string
	// EnableStatefulSet lets StatefulSet pods own their addresses. Without it
	// a pin lasts as long as its pod.
	EnableStatefulSet bool
	// EnableKubevirtStaticIP lets virtual machines own their addresses.
	// Without it a pin lasts as long as their pods.
	EnableKubevirtStaticIP bool
	// HoldDown is how long a node must have been gone, seen without a break
	// by one elected agent, before its leases end. It is more than twice the
	// time for which an agent cut off from the API server goes on.
	HoldDown time.Duration
	// Resync is how often blocks and endpoints are looked at without an event;
	// zero for ten minutes.
	Resync time.Duration

	// CiliumConfigMap is namespace/name of Cilium's ConfigMap, empty for
	// kube-system/cilium-config. Where there is none there is no Cilium.
	CiliumConfigMap string
	// Survey is how often the networks of the cluster's pods and services are
	// looked up anew; zero for a minute.
	Survey time.Duration

	// Rules are the settings that pools are judged by, see [admission.Pool].
	Rules admission.Rules
	// Webhook is whether agents serve one, so that it needs a certificate.
	Webhook bool

	// Log is where the duties write. Their keys: duty, block, addr, pod,
	// interface, node, holdDown, network, pool, coordinator, phase, reason, err.
	Log *slog.Logger
}

// Duties are the duties of the elected agent.
type Duties struct {
	config Config
	pace   pace
}

// New returns the duties. [Duties.Run] carries them out.
func New(config Config) *Duties { return &Duties{config: config, pace: usual()} }

// Run stands for election until ctx ends and carries out the duties whenever
// elected. It returns nil when ctx ended, after the duties have ended and the
// Lease was given up, and an error when the election cannot be held at all.
func (d *Duties) Run(ctx context.Context) error {
	return newElection(&d.config, d.pace).run(ctx, d.serve)
}

// serve carries out the duties until ctx ends.
func (d *Duties) serve(ctx context.Context) {
	d.config.Log.Info("elected", "duty", "election")
	defer d.config.Log.Info("no longer elected", "duty", "election")
	w := newWatches(&d.config)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { w.run(ctx) })
	for name, duty := range map[string]func(context.Context, *watches, *slog.Logger){
		"gc":           d.collect,
		"networks":     d.renderNetworks,
		"coordinators": d.keepCoordinators,
		"pools":        d.keepPoolStatus,
		"fence":        d.fenceNodes,
		"webhook":      d.keepCertificate,
	} {
		wg.Go(func() { duty(ctx, w, d.config.Log.With("duty", name)) })
	}
}

// term is the time between winning an election and the end of the duties.
// The elector starts a term in a goroutine of its own and does not wait for
// its end; this does. The zero term has not begun.
type term struct {
	mu    sync.Mutex
	over  bool
	cease context.CancelFunc
	done  chan struct{}
}

// serve runs the duties with a context that ends with leading or [term.end].
func (t *term) serve(leading context.Context, duties func(context.Context)) {
	t.mu.Lock()
	if t.over {
		t.mu.Unlock()
		return
	}
	ctx, cease := context.WithCancel(leading)
	t.cease, t.done = cease, make(chan struct{})
	t.mu.Unlock()
	defer close(t.done)
	defer cease()
	duties(ctx)
}

// end lets the duties cease and returns when they have. A term that has not
// begun never will.
func (t *term) end() {
	t.mu.Lock()
	t.over = true
	cease, done := t.cease, t.done
	t.mu.Unlock()
	if cease != nil {
		cease()
		<-done
	}
}
