package main

import (
	"context"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/bench/process"
)

// stage is what was measured of a phase at one size.
type stage struct {
	Agents int
	Name   string
	// Doing is how long the phase took in seconds, Seconds the same with the
	// work behind it, until nobody asked for anything without being asked.
	Doing, Seconds float64
	// Pods is how many pods it was about, and Rate how many of them started or
	// ended in a second. It is lower than asked for where the machine does not
	// keep up.
	Pods int
	Rate float64
	// Elected is what the agents have asked for that were elected at some time
	// of the phase, Others the rest.
	Elected, Others share
	// CPU is the time that was used, in seconds, by whom.
	CPU map[string]float64
	// Memory is that of the process of all agents after the phase, Server that
	// of the API server, and Resident what the agents' process has, in KiB.
	Memory           Memory
	Server, Resident int
	// Adds are the milliseconds of ADDs: their median, the 99th of a hundred,
	// and the longest.
	Adds [3]float64
}

// share is what some of the agents have asked for.
type share struct {
	Agents int
	Kinds  []figure
	// Sent and Received are the bytes of their connections.
	Sent, Received int64
}

// figure is one kind, for JSON.
type figure struct {
	kind
	count
}

// tally returns the share's kinds.
func (s *share) tally() tally {
	t := tally{}
	for _, f := range s.Kinds {
		t[f.kind] = f.count
	}
	return t
}

// all is what all agents have asked for.
func (s *stage) all() tally {
	t := s.Elected.tally()
	t.add(s.Others.tally())
	return t
}

// The names of processes.
const (
	ofAgents = "agents"
	ofServer = "API server"
	ofEtcd   = "etcd"
	ofRun    = "this program"
)

func (l *lab) processes() map[string]int {
	return map[string]int{
		ofAgents: l.carrier.PID(), ofServer: l.server.API().PID(), ofEtcd: l.server.Etcd().PID(), ofRun: os.Getpid(),
	}
}

// meters are the readings of one moment.
type meters struct {
	at     time.Time
	agents Reading
	cpu    map[string]float64
}

func (l *lab) read(ctx context.Context) (meters, error) {
	m := meters{cpu: map[string]float64{}}
	if err := l.call(ctx, "Read", struct{}{}, &m.agents); err != nil {
		return m, err
	}
	m.at = time.Now()
	for who, pid := range l.processes() {
		var err error
		if m.cpu[who], err = process.CPUSeconds([]int{pid}); err != nil {
			return m, err
		}
	}
	return m, nil
}

// measure runs a phase and keeps what was measured.
func (r *run) measure(ctx context.Context, name string, pods int, do func(context.Context) error) error {
	r.report.say("%d agents: %s", r.agents, name)
	r.elected.begin()
	r.achieved = 0
	before, err := r.lab.read(ctx)
	if err != nil {
		return err
	}
	if err := do(ctx); err != nil {
		return err
	}
	doing := time.Since(before.at)
	if err := r.settle(ctx); err != nil {
		return err
	}
	after, err := r.lab.read(ctx)
	if err != nil {
		return err
	}
	s := &stage{
		Agents: r.agents, Name: name, Pods: pods,
		Doing: doing.Seconds(), Seconds: after.at.Sub(before.at).Seconds(), CPU: map[string]float64{},
	}
	s.Rate = r.achieved
	for who := range after.cpu {
		s.CPU[who] = after.cpu[who] - before.cpu[who]
	}
	s.divide(&before.agents, &after.agents, r.elected.since())
	s.Adds = quantiles(r.adds.take())
	for _, text := range after.agents.Fell[len(before.agents.Fell):] {
		r.trouble.note("an agent ended by itself", errorText(text))
	}
	if err := r.weigh(ctx, s); err != nil {
		return err
	}
	r.report.add(s)
	return ctx.Err()
}

// errorText is an error that another process had.
type errorText string

func (e errorText) Error() string { return string(e) }

// divide divides what was asked between the elected agents and the others.
func (s *stage) divide(before, after *Reading, elected map[string]bool) {
	kinds := map[bool]tally{false: {}, true: {}}
	for name, t := range after.Kinds {
		part := &s.Others
		if elected[name] {
			part = &s.Elected
		}
		part.Agents++
		part.Sent += after.Sent[name] - before.Sent[name]
		part.Received += after.Received[name] - before.Received[name]
		kinds[elected[name]].add(t.since(before.Kinds[name]))
	}
	s.Elected.Kinds, s.Others.Kinds = figures(kinds[true]), figures(kinds[false])
}

// figures lists a tally, the most frequent requests first.
func figures(t tally) []figure {
	return slices.SortedFunc(func(yield func(figure) bool) {
		for k, c := range t {
			if !yield(figure{k, c}) {
				return
			}
		}
	}, func(x, y figure) int {
		if x.Requests != y.Requests {
			return y.Requests - x.Requests
		}
		return compareKinds(x.kind, y.kind)
	})
}

// weigh reads the memory of processes.
func (r *run) weigh(ctx context.Context, s *stage) error {
	if err := r.lab.call(ctx, "Weigh", struct{}{}, &s.Memory); err != nil {
		return err
	}
	for who, to := range map[string]*int{ofServer: &s.Server, ofAgents: &s.Resident} {
		m, err := process.MemoryOf([]int{r.lab.processes()[who]})
		if err != nil {
			return err
		}
		*to = m.Own
	}
	return nil
}

const (
	// settleLimit ends the wait for quiet: a phase's work is then cut off.
	settleLimit = 2 * time.Minute
	// hardly is how many requests may be made while it is quiet, beside one
	// for a hundred agents.
	hardly = 2
)

// settle waits until agents have asked for hardly anything for a while. The
// while must be longer than an address cools down.
func (r *run) settle(ctx context.Context) error {
	deadline := time.Now().Add(settleLimit)
	last := -1
	for time.Now().Before(deadline) {
		var n int
		if err := r.lab.call(ctx, "Busy", struct{}{}, &n); err != nil {
			return err
		}
		if last >= 0 && n-last <= hardly+r.agents/100 {
			return nil
		}
		last = n
		if !apitest.Pause(ctx, r.options.quiet) {
			return ctx.Err()
		}
	}
	r.report.say("%d agents: it is not quiet after %s, and goes on", r.agents, settleLimit)
	return nil
}

// quantiles returns the median, the 99th of a hundred, and the longest, in
// milliseconds; zeros without any.
func quantiles(all []time.Duration) (q [3]float64) {
	if len(all) == 0 {
		return q
	}
	slices.Sort(all)
	for i, share := range []float64{0.5, 0.99, 1} {
		at := min(int(share*float64(len(all))), len(all)-1)
		q[i] = float64(all[at].Microseconds()) / 1000
	}
	return q
}

// electedAgents knows the nodes whose agents have been elected.
type electedAgents struct {
	mu sync.Mutex
	// now is who is, and since whoever was since begin.
	now  string
	seen map[string]bool
}

func (e *electedAgents) begin() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen = map[string]bool{}
	if e.now != "" {
		e.seen[e.now] = true
	}
}

func (e *electedAgents) note(node string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.now = node; node != "" {
		e.seen[node] = true
	}
}

func (e *electedAgents) since() map[string]bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.seen)
}

// electionStep is how often the run looks who is elected. A term that is
// shorter goes unnoticed.
const electionStep = 500 * time.Millisecond

// follow notes who is elected, until ctx ends.
func (r *run) follow(ctx context.Context) {
	for apitest.Pause(ctx, electionStep) {
		l, err := r.lab.kube.CoordinationV1().Leases(systemNamespace).Get(ctx, electionLease, metav1.GetOptions{})
		if err != nil {
			continue // there is none yet, or the next look will tell
		}
		holder := ""
		if l.Spec.HolderIdentity != nil && *l.Spec.HolderIdentity != "" {
			holder = nodeOf(*l.Spec.HolderIdentity)
		}
		r.elected.note(holder)
	}
}

// electionLease is the name of the Lease by which agents elect one of them.
const electionLease = "holdfast"
