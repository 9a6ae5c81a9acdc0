//go:debug randseednop=0

package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
)

// The simulation plays whole clusters: agents as they are, down to their HTTP
// requests, the elected one's collector and fencer, and around them an API
// server, disks, clocks, controllers, kubelets and runtimes that do what real
// ones may do at their worst. One seed is one run, and the same run each time.
//
//	make sim                  what CI runs
//	make sim SEEDS=100000     seeds from 0, on all cores
//	make sim SEED=4711        one seed, with its history
//
// Where to look: simrun_test.go is a run and how it moves, simact_test.go what
// may happen in it, simcheck_test.go what must hold. simapi, simlink and
// simwatch are the API server and the ways to it and from it, simnode is a
// machine with its agent, simkube the rest of Kubernetes.
//
// Left out: client-go's own reflectors and queues, leader election, the loops
// that call what is called here step by step, and the caches by which the
// elected agent finds out where to look; those run in e2e.

// unitSeeds is how many runs a test without SEEDS plays: with the race detector
// some seconds' worth.
const unitSeeds = 6

// TestSimulation plays runs.
func TestSimulation(t *testing.T) {
	seed, one := number(t, "SEED")
	n, many := number(t, "SEEDS")
	first, of, inParent := simShare(t)
	switch {
	case one:
		playAll(t, []uint64{seed}, true, func(simFigures) {})
	case inParent:
		var mine []uint64
		for s := first; s < n; s += of {
			mine = append(mine, s)
		}
		playAll(t, mine, false, func(f simFigures) {
			line, err := json.Marshal(f)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Printf("%s%s\n", simFiguresLine, line)
		})
	case many:
		playOnAllCores(t, n)
	default:
		var few []uint64
		for s := range uint64(unitSeeds) {
			few = append(few, s)
		}
		playAll(t, few, false, func(simFigures) {})
	}
}

// A failing seed is worth nothing if it does not fail again. On a busy machine
// the Go scheduler interrupts now and then, and two goroutines that may run go
// on in another order; so a seed gets some tries. With the race detector it
// chooses the order at random, on purpose.
func TestSeedIsTheSameRunEachTime(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector shuffles what may run: make sim plays seeds without it")
	}
	const tries = 5
	for seed := range uint64(5) {
		var first []string
		playAll(t, []uint64{seed}, false, func(f simFigures) { first = f.log })
		var diff string
		for range tries {
			var again []string
			playAll(t, []uint64{seed}, false, func(f simFigures) { again = f.log })
			if diff = firstDifference(first, again); diff == "" {
				break
			}
		}
		if diff != "" {
			t.Errorf("seed %d is another run each time: %s", seed, diff)
		}
	}
}

func firstDifference(x, y []string) string {
	for i := range max(len(x), len(y)) {
		if i >= len(x) || i >= len(y) || x[i] != y[i] {
			return fmt.Sprintf("from line %d on:\n%s\nand then:\n%s", i, strings.Join(x[i:min(i+1, len(x))], ""), strings.Join(y[i:min(i+1, len(y))], ""))
		}
	}
	return ""
}

func number(t *testing.T, name string) (n uint64, ok bool) {
	text := os.Getenv(name)
	if text == "" {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q is no number", name, text)
	}
	return n, true
}

// simFigures are the figures of some runs.
type simFigures struct {
	Seeds, Steps int
	Faults       map[string]int
	log          []string
}

func (f *simFigures) add(more simFigures) {
	f.Seeds += more.Seeds
	f.Steps += more.Steps
	for kind, n := range more.Faults {
		f.Faults[kind] += n
	}
}

// playAll plays the seeds one after the other, until one fails, and tells of
// each.
func playAll(t *testing.T, seeds []uint64, print bool, tell func(simFigures)) {
	// One thread, so that a seed is one run: what moves at once moves in the
	// scheduler's order.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	// And no collector amid a run, because it interrupts what runs.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	clients := newSimClients(t)
	for _, seed := range seeds {
		runtime.GC()
		synctest.Test(t, func(t *testing.T) {
			// Pauses between retries are drawn from the global generator.
			mathrand.Seed(int64(seed)) //lint:ignore SA1019 backoff has no generator of its own
			h := newSim(t, seed, clients)
			h.play()
			if print || h.failed {
				fmt.Println(strings.Join(h.log, "\n"))
			}
			if h.failed {
				t.Logf("play it again with: make sim SEED=%d", seed)
			}
			tell(simFigures{Seeds: 1, Steps: h.steps, Faults: h.faults, log: h.log})
		})
		if t.Failed() {
			return
		}
	}
}

// play is one run.
func (h *sim) play() {
	defer h.stop()
	for range simSteps {
		h.step()
		h.check()
		if h.failed {
			return
		}
	}
	for _, phase := range []func(){h.quiet, h.settle, h.serve, h.rest, h.agree, h.finish, h.checkHistories} {
		if phase(); h.failed {
			return
		}
	}
}

// A worker plays every n-th seed, in a process of its own because a process
// has one thread for it. Its parent passes its share by the environment, from
// which seed on and how many seeds on from each to the next, and gets the figures
// on lines that begin so. Where a seed fails, another process goes on behind it,
// simFailures times at most.
const (
	simShareVariable = "HOLDFAST_SIM_SHARE"
	simFiguresLine   = "figures: "
	simFailures      = 5
)

func simShare(t *testing.T) (first, of uint64, ok bool) {
	text := os.Getenv(simShareVariable)
	if text == "" {
		return 0, 0, false
	}
	if _, err := fmt.Sscanf(text, "%d/%d", &first, &of); err != nil || of == 0 {
		t.Fatalf("%s=%q", simShareVariable, text)
	}
	return first, of, true
}

// playOnAllCores plays seeds 0 to n-1 and prints what came of it.
func playOnAllCores(t *testing.T, n uint64) {
	workers := uint64(runtime.NumCPU())
	figures := make(chan simFigures)
	var group errgroup.Group
	for i := range workers {
		group.Go(func() error { return simWorker(t.Context(), i, workers, n, figures) })
	}
	result := make(chan error, 1)
	go func() {
		result <- group.Wait()
		close(figures)
	}()
	total, began := simFigures{Faults: map[string]int{}}, time.Now()
	progress := began
	for f := range figures {
		total.add(f)
		if time.Since(progress) > 10*time.Second {
			progress = time.Now()
			fmt.Fprintf(os.Stderr, "    %d of %d seeds\n", total.Seeds, n)
		}
	}
	if err := <-result; err != nil {
		t.Errorf("seeds have failed, their histories are above: %v", err)
	}
	fmt.Print(total.table(time.Since(began), workers))
}

// simWorker plays a share of the seeds below n.
func simWorker(ctx context.Context, first, of, n uint64, figures chan<- simFigures) error {
	var failed error
	for failures := 0; first < n && failures < simFailures; failures++ {
		played, err := simStretch(ctx, first, of, figures)
		if err == nil {
			break
		}
		failed = errors.Join(failed, err)
		first += max(played, 1) * of
	}
	return failed
}

// simStretch plays seeds in a process until one fails, and returns how many.
func simStretch(ctx context.Context, first, of uint64, figures chan<- simFigures) (played uint64, err error) {
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestSimulation$", "-test.timeout=0", "-test.v")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d/%d", simShareVariable, first, of))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if text, ok := strings.CutPrefix(line, simFiguresLine); ok {
			var f simFigures
			if err := json.Unmarshal([]byte(text), &f); err != nil {
				return played, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
			}
			played++
			figures <- f
		} else if len(line) > 0 {
			fmt.Print(line)
		}
		if err != nil { // io.EOF when the process has ended
			return played, cmd.Wait()
		}
	}
}

// table is the figures as people read them.
func (f *simFigures) table(took time.Duration, workers uint64) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%d seeds, %d steps, %.0f steps per second on %d cores\n",
		f.Seeds, f.Steps, float64(f.Steps)/took.Seconds(), workers)
	for _, kind := range slices.Sorted(maps.Keys(f.Faults)) {
		fmt.Fprintf(&s, "  %-32s %d\n", kind, f.Faults[kind])
	}
	return s.String()
}

// stop ends everything, so that the bubble can end.
func (h *sim) stop() {
	h.calm = true
	for _, n := range h.nodes {
		h.crash(n)
	}
	for _, e := range h.elected {
		e.process.dead.Store(true)
		e.process.end()
	}
	h.drain()
	time.Sleep(time.Hour) // synctest's time: beyond every timer
	h.drain()
}
