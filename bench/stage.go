package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/bench/process"
)

// stage is what was measured of one step of a scenario, for one system in one
// round.
type stage struct {
	Round       int
	System      string
	Name        string
	Concurrency int
	// Pods is how many were to be done, Done how many were.
	Pods, Done int
	// Add and Del are the times of those that succeeded, in milliseconds.
	Add, Del []float64
	// Seconds is the time from the first to the last of them, tries that
	// failed included, or until what was to be free was free.
	Seconds float64
	// Failed counts ADDs that failed, each try, and Errors what they said.
	Failed int
	Errors map[string]int
	// Doubled counts answers with an address that another pod has.
	Doubled int
	// Kept counts the pods that got the address that they had before.
	Kept int
	// Left counts pods that are gone and hold an address all the same.
	Left int
	// Requests are those that the system made, and Audited how many the API
	// server saw of them, 0 if nobody but it counts.
	Requests []requests
	Audited  int
	// CPU is the time that was used, in seconds, by whom.
	CPU map[string]float64
	// Memory is that of the system's process that has most.
	Memory process.Memory

	mu sync.Mutex
}

// requests is a kind of request and how many there were.
type requests struct {
	request
	Count int
}

// tally returns the requests.
func (s *stage) tally() tally {
	t := tally{}
	for _, r := range s.Requests {
		t[r.request] += r.Count
	}
	return t
}

const (
	// tries is how many sandboxes a kubelet makes for a pod here before the
	// pod counts as one that never starts, retryPause the time between them.
	tries      = 5
	retryPause = time.Second
)

// add starts the pod's sandbox, with as many tries as it takes until ctx ends.
func (b *bench) add(ctx context.Context, s *stage, slot int, p *pod) error {
	for try := range tries {
		if try > 0 && !apitest.Pause(ctx, retryPause) || ctx.Err() != nil {
			return nil // the time is over: the pod is not among those done
		}
		p.container = newID()
		c, err := b.system.plugin(p.node, p.network)
		if err != nil {
			return err
		}
		// A call that has begun is waited for, as the runtime would.
		e, err := c.execute(context.WithoutCancel(ctx), "ADD", b.lab.sandboxes[slot].path(), p)
		if s.note(&s.Add, e, err); err == nil {
			p.address = e.address
			b.note(s, p)
			return nil
		}
	}
	return nil
}

// note judges an answer.
func (b *bench) note(s *stage, p *pod) {
	doubled := b.living.take(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Done++
	if doubled {
		s.Doubled++
	}
	if p.before.IsValid() && p.before == p.address {
		s.Kept++
	}
}

// del ends the pod's sandbox.
func (b *bench) del(ctx context.Context, s *stage, slot int, p *pod) error {
	b.living.leave(p)
	c, err := b.system.plugin(p.node, p.network)
	if err != nil {
		return err
	}
	e, err := c.execute(context.WithoutCancel(ctx), "DEL", b.lab.sandboxes[slot].path(), p)
	s.note(&s.Del, e, err)
	return nil
}

// note takes in one run of a plugin.
func (s *stage) note(times *[]float64, e execution, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.CPU["plugins"] += e.cpu.Seconds()
	if err == nil {
		*times = append(*times, float64(e.took.Microseconds())/1000)
		return
	}
	s.Failed++
	s.Errors[reason(err)]++
}

// reason returns what an error says without what differs between two of a
// kind.
func reason(err error) string {
	vague := regexp.MustCompile(`[0-9a-f]{8,}|[0-9]+`)
	text := vague.ReplaceAllString(err.Error(), "…")
	return text[:min(len(text), 200)]
}

// meters are the readings before a stage.
type meters struct {
	made    tally
	audited int
	cpu     map[string]float64
}

// measure runs one stage and keeps what was measured.
func (b *bench) measure(ctx context.Context, name string, concurrency, pods int, do func(ctx context.Context, s *stage) error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s := &stage{
		Round: b.round, System: b.name, Name: name, Concurrency: concurrency, Pods: pods,
		CPU: map[string]float64{}, Errors: map[string]int{},
	}
	before, err := b.read(ctx)
	if err == nil {
		err = do(ctx, s)
	}
	if err == nil {
		err = b.settle(ctx, settleLimit)
	}
	var after meters
	if err == nil {
		after, err = b.read(ctx)
	}
	if err != nil {
		return fmt.Errorf("%s, %s: %w", b.name, name, err)
	}
	for r, n := range after.made.since(before.made) {
		s.Requests = append(s.Requests, requests{r, n})
	}
	s.Audited = after.audited - before.audited
	for who, seconds := range after.cpu {
		s.CPU[who] += seconds - before.cpu[who]
	}
	if s.Memory, err = process.MemoryOf(b.system.processes()); err != nil {
		return err
	}
	b.report.add(s)
	return nil
}

// timed runs f with the time that a stage has, and notes how long it took.
func (b *bench) timed(ctx context.Context, s *stage, f func(ctx context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, b.options.limitOf(b.name))
	defer cancel()
	began := time.Now()
	err := f(limited)
	s.Seconds = time.Since(began).Seconds()
	return errors.Join(err, ctx.Err())
}

// read reads all meters.
func (b *bench) read(ctx context.Context) (meters, error) {
	m := meters{cpu: map[string]float64{}}
	var err error
	if m.made, err = b.system.traffic(ctx); err != nil {
		return m, err
	}
	if m.cpu[beside], err = process.CPUSeconds(b.system.processes()); err != nil || b.lab.server == nil {
		return m, err
	}
	if err = b.lab.audit.read(); err != nil {
		return m, err
	}
	m.audited = b.lab.audit.total()
	if m.cpu["API server"], err = process.CPUSeconds([]int{b.lab.server.API().PID()}); err != nil {
		return m, err
	}
	m.cpu["etcd"], err = process.CPUSeconds([]int{b.lab.server.Etcd().PID()})
	return m, err
}

// beside is whose CPU time it is when it is not the plugins': agents or
// controllers.
const beside = "agents"

const (
	// quiet is for how long hardly anything may be asked until a stage counts
	// as over, and hardly how many requests that is, those of elections apart.
	quiet  = time.Second
	hardly = 2
	// settleLimit ends the wait for quiet: a stage's work is then cut off.
	settleLimit = 20 * time.Second
)

// settle waits until the work behind a stage is done, or for that long.
func (b *bench) settle(ctx context.Context, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	last := -1
	for b.lab.server != nil && time.Now().Before(deadline) {
		made, err := b.system.traffic(ctx)
		if err != nil {
			return err
		}
		n := 0
		for r, count := range made {
			if !strings.HasPrefix(r.Resource, "leases") {
				n += count
			}
		}
		if last >= 0 && n-last <= hardly {
			return nil
		}
		last = n
		if !apitest.Pause(ctx, quiet) {
			return ctx.Err()
		}
	}
	return nil
}
