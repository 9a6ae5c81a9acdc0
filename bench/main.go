package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"k8s.io/klog/v2"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
)

// options are the command's flags.
type options struct {
	pods, rounds int
	concurrency  []int
	systems      []string
	scenarios    []string
	// limit is for how long a stage begins ADDs, peerLimit that of Whereabouts.
	limit, peerLimit time.Duration
	// idle is for how long it is looked at a system that nobody asks, crowded
	// how many pools there are where they are many.
	idle    time.Duration
	crowded int
	quick   bool
	// render only makes the tables of figures that are there.
	render bool
	// bin has the programs, out gets the figures, json what came of judging
	// them, if it is named.
	bin, out, json string
}

func main() {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // only what was measured is news
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop() // not before: what was started and mounted is taken away first
	if err := Main(ctx, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// Main reads the command line and runs what it asks for.
func Main(ctx context.Context, args []string) error {
	app := &cli.App{
		Name:  "bench",
		Usage: "what a pod start waits for, and what it costs, beside the alternatives",
		Flags: flags(),
		Action: func(c *cli.Context) error {
			o, err := parse(c)
			if errors.Is(err, errNotRoot) && o.json != "" {
				return skip(o.json, err)
			}
			if err != nil {
				return err
			}
			if o.render {
				return renderAgain(o, c.App.Writer)
			}
			return Run(c.Context, o)
		},
	}
	return app.RunContext(ctx, args)
}

func flags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "pods", Value: 1000, Usage: "`number` of pods of a scenario"},
		&cli.IntFlag{Name: "rounds", Value: 5, Usage: "`number` of times everything is measured"},
		&cli.IntSliceFlag{Name: "concurrency", Value: cli.NewIntSlice(1, 10, 50), Usage: "`numbers` of ADDs at a time; scenarios but the first use the last"},
		&cli.StringFlag{Name: "systems", Value: strings.Join(names(), ","), Usage: "`list` of what is measured"},
		&cli.StringFlag{Name: "scenarios", Value: strings.Join(scenarioNames(), ","), Usage: "`list` of what is done"},
		&cli.DurationFlag{Name: "limit", Value: 2 * time.Minute, Usage: "`time` after which a stage begins no more ADDs"},
		&cli.DurationFlag{Name: "peer-limit", Value: 5 * time.Second, Usage: "`time` for Whereabouts instead, whose stages take longest"},
		&cli.DurationFlag{Name: "idle", Value: time.Minute, Usage: "`time` for which nothing is asked of a system, in the first round"},
		&cli.IntFlag{Name: "crowd", Value: 10_000, Usage: "`number` of pools where they are many"},
		&cli.BoolFlag{Name: "quick", Usage: "count requests, failures and leaks of Holdfast with few pods, judge them, and tell no times"},
		&cli.BoolFlag{Name: "render", Usage: "measure nothing, and make the tables of the figures in --out"},
		&cli.StringFlag{Name: "bin", Value: apitest.BinDir(), Usage: "`directory` of the programs under measurement"},
		&cli.StringFlag{Name: "json", Usage: "`file` for what came of judging a quick run, as go test -json writes it"},
		&cli.StringFlag{Name: "out", Value: filepath.Join(filepath.Dir(apitest.BinDir()), "bench"), Usage: "`directory` for the figures as JSON and for tables.md"},
	}
}

// quickPods is small enough for seconds, and more than what one block has for
// each node. quickCrowd is enough to see requests that are made for each pool.
const (
	quickPods  = 40
	quickCrowd = 200
)

func parse(c *cli.Context) (options, error) {
	o := options{
		pods: c.Int("pods"), rounds: c.Int("rounds"), concurrency: c.IntSlice("concurrency"),
		systems: strings.Split(c.String("systems"), ","), scenarios: strings.Split(c.String("scenarios"), ","), limit: c.Duration("limit"), peerLimit: c.Duration("peer-limit"),
		idle: c.Duration("idle"), crowded: c.Int("crowd"), quick: c.Bool("quick"), render: c.Bool("render"), json: c.String("json"),
	}
	var err error
	if o.bin, err = filepath.Abs(c.String("bin")); err != nil { // programs start in directories of their own
		return o, err
	}
	if o.out, err = filepath.Abs(c.String("out")); err != nil {
		return o, err
	}
	if o.quick {
		o.rounds, o.concurrency, o.systems = 1, []int{10}, []string{holdfastName}
		o.scenarios = []string{inPlenty, inScarcity, withIdentity, ofSizes, inCrowd}
		if !c.IsSet("pods") {
			o.pods = quickPods
		}
		if !c.IsSet("crowd") {
			o.crowded = quickCrowd
		}
	}
	return o, o.validate(c.NArg())
}

func (o *options) validate(arguments int) error {
	switch {
	case arguments > 0:
		return errors.New("there are only flags: see --help")
	case o.pods < nodeCount || o.pods > maxPods:
		return fmt.Errorf("--pods is %d: want %d to %d, one for each node at least", o.pods, nodeCount, maxPods)
	case o.rounds < 1:
		return fmt.Errorf("--rounds is %d: want at least 1, and 5 to tell a spread", o.rounds)
	case o.limit <= 0:
		return fmt.Errorf("--limit is %s: want more than 0, like 1m", o.limit)
	case o.peerLimit <= 0:
		return fmt.Errorf("--peer-limit is %s: want more than 0, like 20s", o.peerLimit)
	case o.idle <= 0:
		return fmt.Errorf("--idle is %s: want more than 0, like 1m", o.idle)
	case o.crowded < 1 || o.crowded > maxCrowd:
		return fmt.Errorf("--crowd is %d: want 1 to %d", o.crowded, maxCrowd)
	case o.json != "" && !o.quick:
		return errors.New("--json is what came of judging, and only a --quick run is judged: figures go to --out")
	case len(o.concurrency) == 0 || slices.Min(o.concurrency) < 1 || slices.Max(o.concurrency) > maxPods:
		return fmt.Errorf("--concurrency is %v: want numbers from 1 to %d, like 1,10,50", o.concurrency, maxPods)
	}
	for _, name := range o.systems {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("--systems names %q: there are %s", name, strings.Join(names(), ", "))
		}
	}
	for _, name := range o.scenarios {
		if !slices.Contains(scenarioNames(), name) {
			return fmt.Errorf("--scenarios names %q: there are %s", name, strings.Join(scenarioNames(), ", "))
		}
	}
	if o.render {
		return nil
	}
	return o.ready()
}

// limitOf is for how long a stage of the system begins ADDs.
func (o *options) limitOf(system string) time.Duration {
	if system == whereaboutsName || system == slicesName {
		return o.peerLimit
	}
	return o.limit
}

// errNotRoot says that the run may not make what it needs.
var errNotRoot = errors.New("sandboxes are network namespaces, which only root may make: run it with sudo")

// ready returns what the machine lacks.
func (o *options) ready() error {
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	for _, name := range o.programs() {
		if _, err := os.Stat(filepath.Join(o.bin, name)); err != nil {
			return fmt.Errorf("no %s in %s: `make bench` builds it: %w", name, o.bin, err)
		}
	}
	return apitest.Installed()
}

// programs lists what the run executes, apart from the API server's.
func (o *options) programs() []string {
	var all []string
	for _, name := range o.systems {
		all = append(all, programsOf(name)...)
	}
	return all
}
