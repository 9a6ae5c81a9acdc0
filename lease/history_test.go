package lease_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// Size of a random history.
const (
	histories      = 200
	historySteps   = 500
	historyNodes   = 3
	maxStateless   = 5
	maxReplicas    = 3
	mostOperations = 8
	maxLag         = 20 // versions
)

// TestRandomHistoriesKeepThePromises plays seeded histories of three nodes
// and a collector on a cluster that loses races and answers, with disks that
// fail and processes that crash, in which every call of the cluster and the
// disk waits its turn. SEED=n plays one again and prints it, HISTORIES=n plays
// more of them.
func TestRandomHistoriesKeepThePromises(t *testing.T) {
	// One thread, so that a seed is one history: what runs at once runs in
	// the scheduler's order.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if seed := os.Getenv("SEED"); seed != "" {
		n, err := strconv.ParseUint(seed, 10, 64)
		if err != nil {
			t.Fatalf("SEED=%q is no number", seed)
		}
		t.Log(strings.Join(play(t, n), "\n"))
		return
	}
	n := histories
	if more := os.Getenv("HISTORIES"); more != "" {
		var err error
		if n, err = strconv.Atoi(more); err != nil {
			t.Fatalf("HISTORIES=%q is no number", more)
		}
	}
	for seed := range uint64(n) {
		if play(t, seed); t.Failed() {
			return
		}
	}
}

// play plays one history and returns what happened.
func play(t *testing.T, seed uint64) (log []string) {
	synctest.Test(t, func(t *testing.T) {
		h := newSim(t, seed)
		for range historySteps {
			h.step()
			h.check()
		}
		h.quiet()
		h.check()
		h.finish()
		log = h.log
	})
	return log
}

// sim is one random history.
type sim struct {
	*wires
	t        *testing.T
	seed     uint64
	random   *rand.Rand
	nodes    []*simNode
	gc       *process
	pools    []lease.Pool
	pods     map[string]*simPod
	created  int
	replicas int
	// home is the address of each identity and family that was answered to
	// it, as long as its StatefulSet has wanted it ever since.
	home map[string]netip.Addr
	// aside is what a node has set aside.
	aside map[netip.Addr]simAside
	// opsBegun and sandboxes count.
	opsBegun, sandboxes int
	dels                []simDel
	calm                bool
	log                 []string
}

// simNode is a node: the disk outlives the process.
type simNode struct {
	*lease.Lessee
	id      lease.Node
	disk    *leasetest.Disk
	process *process
	// running is process for the disk, which is another goroutine's.
	running atomic.Pointer[process]
	boots   int
	// seen is the version up to which the watch has told.
	seen uint64
	busy map[string]bool // upkeep that runs once at a time
}

// simPod is a pod, from its creation to the end of its object.
type simPod struct {
	pod
	node     *simNode
	families int
	leaving  bool
	sandbox  *simSandbox
	adding   *operation
}

// simSandbox is a container with addresses.
type simSandbox struct {
	container string
	addrs     []netip.Addr
}

// simDel is a DEL that is still to come.
type simDel struct {
	node    *simNode
	sandbox lease.Sandbox
}

// operation is a call of a lessee or the collector.
type operation struct {
	*leasetest.Operation
	n       int
	name    string
	process *process
	cancel  context.CancelFunc
}

func newSim(t *testing.T, seed uint64) *sim {
	h := &sim{
		wires: &wires{}, t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 1)),
		gc: &process{name: "gc"}, pods: map[string]*simPod{}, home: map[string]netip.Addr{}, aside: map[netip.Addr]simAside{},
	}
	h.cluster = leasetest.NewCluster(func(leasetest.Call) leasetest.Fault {
		if f := h.next.Load(); f != nil {
			return *f
		}
		return leasetest.Fault{}
	})
	plenty := []int{0, 0, 3}[h.random.IntN(3)]
	h.pools = []lease.Pool{
		pool("four", plenty, "10.0.0.12-10.0.0.18"),
		pool("overlapping", plenty, "10.0.0.10-10.0.0.13"),
		pool("six", plenty, "fd00::d-fd00::12"),
	}
	for i := range historyNodes {
		name := string(rune('a' + i))
		n := &simNode{id: lease.Node{Name: name, UID: "uid-of-" + name}, busy: map[string]bool{}}
		n.disk = leasetest.NewDisk(func(w leasetest.DiskWrite) leasetest.DiskFault {
			p := n.running.Load()
			return h.director.Wait(fmt.Sprintf("%s disk %d", p.name, w.N), call{who: p, disk: true}).disk
		})
		h.nodes = append(h.nodes, n)
		h.boot(n)
	}
	return h
}

func (h *sim) logf(format string, args ...any) {
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

func (h *sim) fatalf(format string, args ...any) {
	h.t.Helper()
	// Calls that still wait would keep the test from ending.
	h.t.Errorf("seed %d: %s\n\n%s\n\n%s", h.seed, fmt.Sprintf(format, args...), strings.Join(h.log, "\n"), h)
	h.calm = true
	h.drain()
	h.t.FailNow()
}

// boot begins a process on the node and tells it its leases.
func (h *sim) boot(n *simNode) {
	n.boots++
	n.process = &process{name: fmt.Sprintf("%s%d", n.id.Name, n.boots)}
	n.running.Store(n.process)
	l, err := lease.New(lease.Config{
		Node: n.id, Cluster: &link{wires: h.wires, process: n.process},
		Disk: n.disk.Open(), Now: time.Now, CoolDown: coolDown,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := l.Start(h.cluster.Leases(n.id.UID), false, nil, 0); err != nil {
		h.t.Fatal(err)
	}
	l.Trust(time.Now().Add(1000 * time.Hour))
	n.Lessee, n.busy = l, map[string]bool{}
	n.seen = h.version() - min(h.version(), h.random.Uint64N(maxLag)) // a watch may begin with an old state
}

// version is the version of the last change.
func (h *sim) version() uint64 {
	changes := h.cluster.Changes(0)
	if len(changes) == 0 {
		return 0
	}
	return changes[len(changes)-1].Version
}

// begin starts an operation; finish hears of its end in the director's turn.
func (h *sim) begin(p *process, name string, run func(ctx context.Context) error, finish func(error)) *operation {
	h.opsBegun++
	n := h.opsBegun
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), opKey{}, n))
	h.logf("%s #%03d begins: %s", p.name, n, name)
	op := h.director.Begin(func() (end func()) {
		err := run(ctx)
		return func() {
			cancel()
			h.logf("%s #%03d ends: %s: %v", p.name, n, name, err)
			finish(err)
		}
	})
	h.director.Reap()
	return &operation{op, n, name, p, cancel}
}

// step lets a call go on, or begins something new.
func (h *sim) step() {
	gates := h.director.Waiting()
	if len(gates) > 0 && (h.director.Running() >= mostOperations || h.random.IntN(4) > 0) {
		h.pass(gates[h.random.IntN(len(gates))])
		return
	}
	h.act()
}

// pass lets a call go on, with a fault now and then.
func (h *sim) pass(g *gate) {
	v := verdict{}
	switch draw := h.random.IntN(100); {
	case h.calm || g.Call.answer:
	case g.Call.disk && g.Call.who.dead.Load():
		v.disk = []leasetest.DiskFault{leasetest.CrashUnsynced, leasetest.CrashSynced}[draw%2]
	case g.Call.disk && draw < 4:
		v.disk = []leasetest.DiskFault{leasetest.Unsynced, leasetest.SyncedFailed}[draw%2]
	case g.Call.disk:
	case g.Call.who.dead.Load():
		v.call.Kind = []leasetest.Kind{leasetest.Lost, leasetest.None, leasetest.Late}[draw%3]
	case draw < 24:
		v.call.Kind = []leasetest.Kind{
			leasetest.Conflict, leasetest.Refused, leasetest.Lost, leasetest.AnswerLost, leasetest.Late, leasetest.Late,
		}[draw%6]
	}
	if !g.Call.answer {
		h.logf("    %s, fault %d %d", g.Key, v.call.Kind, v.disk)
	}
	h.director.Pass(g, v)
	h.director.Reap()
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
	}
}

// String is the state of everything.
func (h *sim) String() string {
	var s strings.Builder
	s.WriteString(h.cluster.String())
	for _, n := range h.nodes {
		for _, e := range n.Entries() {
			fmt.Fprintf(&s, "%s: %s %s of %s uid %s sandbox %q sticky %t\n",
				n.process.name, e.Addr, e.State, e.Pod, e.Owner.PodUID, e.Container, e.Sticky)
		}
	}
	for _, name := range h.names() {
		p := h.pods[name]
		fmt.Fprintf(&s, "pod %s uid %s on %s leaving %t sandbox %+v\n", name, p.uid, p.node.id.Name, p.leaving, p.sandbox)
	}
	return s.String()
}
