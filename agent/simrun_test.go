package agent

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// Size of a run.
const (
	simSteps      = 1500
	simNodes      = 3
	simStateless  = 5
	simReplicas   = 3
	simOperations = 10
	simNamespace  = "default"
)

// simClients reach the API server of whatever run a request belongs to.
type simClients struct {
	config *rest.Config
	http   *http.Client
	kube   kubernetes.Interface
}

func newSimClients(t *testing.T) *simClients {
	c := &simClients{http: &http.Client{Transport: simLink{}}}
	c.config = cluster.Config(&rest.Config{Host: "http://api"}, "simulation")
	var err error
	if c.kube, err = kubernetes.NewForConfigAndClient(c.config, c.http); err != nil {
		t.Fatal(err)
	}
	return c
}

// sim is one run.
type sim struct {
	*simWorld
	t       *testing.T
	seed    uint64
	random  *rand.Rand
	clients *simClients
	config  Config
	began   time.Time
	observe *cluster.Client

	nodes   []*simNode
	elected []*simElected
	terms   int
	sets    []*simSet
	pods    map[string]*simPod
	created int
	// home is the address of each identity and family that was answered to
	// it, as long as its StatefulSet has wanted it ever since.
	home map[string]netip.Addr
	// untold is the UID of the pod whose endpoint somebody has deleted last, by
	// its name.
	untold map[string]string
	dels   []simDel
	past   []simDel // attachments of sandboxes that are no more
	ops    []*simOp
	// opsBegun and sandboxes count.
	opsBegun, sandboxes int

	// rate is how many of a hundred calls meet a fault.
	rate int
	calm bool
	// inOrder is set when nothing is broken any more.
	inOrder bool
	acts    []simAction
	moods   map[string]int

	steps   int
	faults  map[string]int
	log     []string
	blocks  map[string]lease.Block // by name@version
	history []simEvent
	checked simMoment
	failed  bool
}

// simMoment is how much had changed of objects, and of what sandboxes have.
type simMoment struct {
	version uint64
	events  int
}

// simOp is a call of an agent or the elected one that is under way.
type simOp struct {
	*leasetest.Operation
	n       int
	process *simProcess
	cancel  context.CancelFunc
	cost    *atomic.Int64
}

func newSim(t *testing.T, seed uint64, clients *simClients) *sim {
	h := &sim{
		simWorld: &simWorld{director: &simDirector{}, api: newSimAPI()},
		t:        t, seed: seed, random: rand.New(rand.NewPCG(seed, 1)), clients: clients,
		config: DefaultConfig(), began: time.Now(),
		pods: map[string]*simPod{}, home: map[string]netip.Addr{}, untold: map[string]string{}, moods: map[string]int{},
		faults: map[string]int{}, blocks: map[string]lease.Block{},
	}
	var err error
	if h.observe, err = cluster.New(clients.config, clients.http); err != nil {
		t.Fatal(err)
	}
	// Runs differ in what happens often in them: see Groce and others, "Swarm
	// Testing" (ISSTA 2012).
	h.rate = []int{0, 3, 10, 25}[h.random.IntN(4)]
	h.acts = h.actions()
	for _, a := range h.acts {
		h.moods[a.name] = []int{0, 0, 1, 1, 3}[h.random.IntN(5)]
		if h.rate == 0 && a.fault {
			h.moods[a.name] = 0
		}
		if a.needed {
			h.moods[a.name] = 1
		}
	}
	h.foundCluster()
	return h
}

func (h *sim) logf(format string, args ...any) {
	h.log = append(h.log, fmt.Sprintf("%5d %12s ", h.steps, time.Since(h.began))+fmt.Sprintf(format, args...))
}

// fail notes a violation; the run ends with it.
func (h *sim) fail(format string, args ...any) {
	if h.failed {
		return
	}
	h.failed = true
	h.t.Errorf("seed %d: %s", h.seed, fmt.Sprintf(format, args...))
	h.logf("VIOLATION: "+format, args...)
	h.log = append(h.log, h.String())
}

// count counts a fault by its kind.
func (h *sim) count(kind string) { h.faults[kind]++ }

// begin starts an operation; finish hears of its end in the director's turn.
func (h *sim) begin(p *simProcess, name string, run func(ctx context.Context) error, finish func(error)) *simOp {
	h.opsBegun++
	h.tick()
	op := &simOp{n: h.opsBegun, process: p, cost: &atomic.Int64{}}
	ctx := context.WithValue(p.ctx, simCost{}, op.cost)
	ctx, op.cancel = context.WithCancel(ctx)
	h.ops = append(h.ops, op)
	h.logf("%s #%03d begins: %s", p.name, op.n, name)
	op.Operation = h.director.Begin(func() (end func()) {
		deepStack(-1)
		err := run(ctx)
		return func() {
			op.cancel()
			h.ops = slices.DeleteFunc(h.ops, func(o *simOp) bool { return o == op })
			if p.dead.Load() {
				return // nobody hears of it
			}
			h.logf("%s #%03d ends: %s: %v", p.name, op.n, name, err)
			finish(err)
		}
	})
	h.director.Reap()
	return op
}

// deepStack makes a goroutine's stack as deep as requests and their decoders
// need it, for which it is enough to be called. Grown little by little it took a
// tenth of the time.
//
//go:noinline
func deepStack(i int) byte {
	if i < 0 {
		return 0
	}
	var deep [24 << 10]byte
	return deep[i]
}

// ready returns the gates that may be opened now.
func (h *sim) ready() []*simGate {
	return slices.DeleteFunc(h.director.Waiting(), func(g *simGate) bool {
		onItsWay := g.Call.stage == stageLate || g.Call.who.dead.Load()
		return g.Call.who.paused && !onItsWay
	})
}

// step lets a call go on, or begins something new.
func (h *sim) step() {
	h.steps++
	gates := h.ready()
	if len(gates) > 0 && (h.director.Running() >= simOperations || h.random.IntN(4) > 0) {
		g := gates[h.random.IntN(len(gates))]
		if (g.Call.stage == stageLate || g.Call.who.dead.Load()) && h.random.IntN(6) > 0 {
			g = gates[h.random.IntN(len(gates))] // most that is late is very late
		}
		h.pass(g)
		return
	}
	h.act()
}

// pass lets a call go on, with a fault now and then.
func (h *sim) pass(g *simGate) {
	v := simVerdict{}
	switch {
	case h.calm:
	case g.Call.stage == stageDisk && g.Call.who.dead.Load():
		v.disk = []leasetest.DiskFault{leasetest.CrashUnsynced, leasetest.CrashSynced}[h.random.IntN(2)]
	case h.random.IntN(100) >= h.rate:
	case g.Call.stage == stageDisk:
		v.disk = []leasetest.DiskFault{leasetest.Unsynced, leasetest.SyncedFailed}[h.random.IntN(2)]
		h.count([]string{"", "disk write failed", "disk write stored and failed"}[v.disk])
	case g.Call.stage == stageRequest:
		v.fault = []simFault{
			faultConflict, fault429, fault500, fault504, faultLost, faultAnswerLost, faultLate, faultLate,
		}[h.random.IntN(8)]
		if !g.Call.write && (v.fault == faultConflict || v.fault == faultLate) {
			v.fault = faultLost
		}
		h.count(v.fault.String())
	}
	if g.Call.stage != stageAnswer {
		h.logf("    %s%s", shortKey(g), faultNote(v))
	}
	h.tick()
	h.director.Pass(g, v)
	h.director.Reap()
}

// tick makes every timer that is set from now on differ from those set before:
// in which order timers of one moment fire, the testing clock leaves to chance.
func (h *sim) tick() { time.Sleep(time.Nanosecond) }

func faultNote(v simVerdict) string {
	switch {
	case v.fault != faultNone:
		return ", fault: " + v.fault.String()
	case v.disk != leasetest.Synced:
		return fmt.Sprintf(", fault: disk %d", v.disk)
	}
	return ""
}

// drain lets everything that is under way come to its end.
func (h *sim) drain() {
	for h.calm = true; ; {
		if gates := h.director.Waiting(); len(gates) > 0 {
			h.pass(gates[0])
			continue
		}
		h.director.Reap()
		if h.director.Running() == 0 {
			return
		}
		time.Sleep(time.Second) // synctest's time: somebody waits for a timer
		if h.inOrder {
			h.goOn()
		}
	}
}

// goOn is what goes on by itself every second: watches catch up, and agents
// give up what they do not use.
func (h *sim) goOn() {
	for _, n := range h.nodes {
		if a := n.agent; a != nil && a.serving {
			for _, w := range a.watchers {
				w.hear(h.api, math.MaxInt)
				h.notify(n, w)
			}
			h.upkeep(n)
		}
	}
}

// pause lets time pass: synctest's.
func (h *sim) pause(d time.Duration) {
	time.Sleep(d)
	h.director.Reap()
	h.kubelets()
}

// String is the state of everything.
func (h *sim) String() string {
	var s strings.Builder
	for _, b := range h.storedBlocks() {
		fmt.Fprintf(&s, "%s@%s leases %v pins %v\n", b.Name(), b.Version, b.Leases, b.Pins)
	}
	for _, e := range h.storedEndpoints() {
		fmt.Fprintf(&s, "endpoint %s@%s of uid %s on %s sticky %t: %v\n", e.Pod, e.Version, e.PodUID, e.Node, e.Sticky, e.Addresses)
	}
	for _, n := range h.nodes {
		fmt.Fprintf(&s, "node %s uid %s off %t\n", n.name, n.uid(h), n.off)
		for _, e := range n.disk.Entries() {
			fmt.Fprintf(&s, "  %s %s of %s uid %s %s sandbox %q sticky %t\n",
				e.Addr, e.State, e.Pod, e.Owner.PodUID, e.Owner.Interface, e.Container, e.Sticky)
		}
	}
	for _, name := range h.names() {
		p := h.pods[name]
		fmt.Fprintf(&s, "pod %s uid %s on %s leaving %t sandbox %v\n", name, p.uid, p.nodeName(), p.leaving, p.sandbox)
	}
	return s.String()
}

func (h *sim) names() []string {
	var names []string
	for name := range h.pods {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// some returns a random pod that ok accepts, or nil.
func (h *sim) some(ok func(*simPod) bool) *simPod {
	var of []*simPod
	for _, name := range h.names() {
		if ok(h.pods[name]) {
			of = append(of, h.pods[name])
		}
	}
	if len(of) == 0 {
		return nil
	}
	return of[h.random.IntN(len(of))]
}
