package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
)

const (
	// namespace is that of every pod.
	namespace = "default"
	// nodeCount is how many nodes there are, each with its agent.
	nodeCount = 8
	// holdDown is the shortest that an agent accepts, so that nodes that are
	// gone lose their leases within a run.
	holdDown = time.Minute
	// coolDown is how long an address rests between two pods.
	coolDown = 5 * time.Second
)

// errBroken ends a run early.
var errBroken = errors.New("a promise was broken")

// world is everything there is in a run.
type world struct {
	options options
	dir     string
	began   time.Time
	server  *apitest.Server
	api     *api
	nodes   []*node
	ledger  *ledger
	tally   *tally
	record  *record
	// serverFault is held by the one fault that the API server suffers.
	serverFault sync.Mutex
	// killings is asked of whoever breaks things: see killInTheAct.
	killings chan killing

	// going are goroutines that last until ctx ends, which is when the world
	// is closed: pods, late DELs, the recorder.
	ctx   context.Context
	end   context.CancelFunc
	going sync.WaitGroup

	mu     sync.Mutex
	serial int
	sets   []*statefulSet
	// pods are those whose object may exist.
	pods map[int]*pod
	// calm is closed when pods are to stay as they are.
	calm chan struct{}
}

// newWorld returns a world without anything in it. Whatever is put there ends
// with ctx or [world.close], whichever comes first.
func newWorld(ctx context.Context, o options, dir string) *world {
	w := &world{
		options: o, dir: dir, began: time.Now(), tally: newTally(),
		pods: map[int]*pod{}, calm: make(chan struct{}), killings: make(chan killing),
	}
	w.ledger = newLedger(ctx, w.began)
	w.record = newRecord(w.began)
	w.ctx, w.end = context.WithCancel(ctx)
	return w
}

// open starts the API server, creates pools and nodes, and returns when every
// agent is ready.
func (w *world) open(ctx context.Context) error {
	w.say("starting etcd, kube-apiserver and %d agents (usually 15 s)", nodeCount)
	if err := w.serve(ctx); err != nil {
		return err
	}
	if err := w.createPools(ctx); err != nil {
		return err
	}
	return w.createNodes(ctx)
}

// serve starts the API server and what watches it.
func (w *world) serve(ctx context.Context) error {
	var err error
	if w.server, err = apitest.Open(ctx, w.dir); err != nil {
		return err
	}
	w.api = &api{}
	if w.api.kube, w.api.crds, err = w.server.Clients(); err != nil {
		return err
	}
	w.going.Go(func() { w.record.watch(w.ctx, w.api) })
	w.going.Go(func() { w.collectGarbage(w.ctx) })
	return w.writeConfig()
}

// writeConfig writes the agents' conf.yml.
func (w *world) writeConfig() error {
	return os.WriteFile(w.path("conf.yml"), fmt.Appendf(nil, "holdDown: %s\ncoolDown: %s\n", holdDown, coolDown), 0o600)
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) createNodes(ctx context.Context) error {
	var starting errgroup.Group
	for i := range nodeCount {
		n := newNode(w, fmt.Sprintf("node-%d", i))
		w.nodes = append(w.nodes, n)
		starting.Go(func() error { return n.begin(ctx) })
	}
	return starting.Wait()
}

// close ends everything that was started.
func (w *world) close() {
	w.end()
	for _, n := range w.nodes {
		n.close()
	}
	w.going.Wait()
	if w.server != nil {
		w.server.Close()
	}
}

// dice returns the choices of one actor. They depend on the seed and its name
// alone.
func (w *world) dice(name string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails (hash.Hash)
	return rand.New(rand.NewPCG(w.options.seed, h.Sum64()))
}

// say prints a line with the time since the beginning.
func (w *world) say(format string, args ...any) {
	fmt.Printf("%7.1fs  %s\n", time.Since(w.began).Seconds(), fmt.Sprintf(format, args...))
}

// isCalm reports whether pods are to stay as they are.
func (w *world) isCalm() bool {
	select {
	case <-w.calm:
		return true
	default:
		return false
	}
}

// between returns a duration in [low, high), short ones more often.
func between(dice *rand.Rand, low, high time.Duration) time.Duration {
	f := dice.Float64()
	return low + time.Duration(f*f*float64(high-low))
}
