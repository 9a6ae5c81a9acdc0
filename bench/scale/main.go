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
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"k8s.io/klog/v2"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
)

// options are the command's flags.
type options struct {
	agents                      []int
	idle, holdDown, quiet       time.Duration
	pods, rate, batch, replicas int
	// dir is where files go while it runs, out gets the figures.
	dir, out string
}

func main() {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // only what was measured is news
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop() // not before: what was started is ended first
	if err := Main(ctx, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

// Main reads the command line and runs what it asks for.
func Main(ctx context.Context, args []string) error {
	app := &cli.App{
		Name:  "scale",
		Usage: "what many agents cost an API server, and how that grows with their number",
		Flags: flags(),
		Action: func(c *cli.Context) error {
			o, err := parse(c)
			if err != nil {
				return err
			}
			return Run(c.Context, o)
		},
		Commands: []*cli.Command{{
			Name: carryCommand, Hidden: true, // only this program calls it
			Flags:  []cli.Flag{&cli.StringFlag{Name: "dir"}, &cli.StringFlag{Name: "kubeconfig"}},
			Action: func(c *cli.Context) error { return carry(c.Context, c.String("dir"), c.String("kubeconfig")) },
		}},
	}
	return app.RunContext(ctx, args)
}

// The waits that a run of few agents may shorten.
const (
	defaultHoldDown = time.Minute
	defaultQuiet    = 8 * time.Second
)

func flags() []cli.Flag {
	return []cli.Flag{
		&cli.IntSliceFlag{Name: "agents", Value: cli.NewIntSlice(100, 300, 1000), Usage: "`numbers` of agents, one after the other"},
		&cli.DurationFlag{Name: "idle", Value: time.Minute, Usage: "`time` in which nothing happens"},
		&cli.IntFlag{Name: "pods", Value: 3000, Usage: "`number` of stateless pods, at least one for each agent"},
		&cli.IntFlag{Name: "rate", Value: 100, Usage: "`number` of pods that start or end in a second"},
		&cli.IntFlag{Name: "batch", Value: 10, Usage: "`number` of agents that are upgraded at a time"},
		&cli.IntFlag{Name: "replicas", Value: 5000, Usage: "`number` of the StatefulSet's pods"},
		&cli.DurationFlag{Name: "hold-down", Value: defaultHoldDown, Usage: "`time` after which lost nodes lose their leases, from the upgrade on; until then it is the product's own"},
		&cli.DurationFlag{Name: "quiet", Value: defaultQuiet, Usage: "`time` without a request after which a phase is over; an address cools down for 5s"},
		&cli.StringFlag{Name: "dir", Value: os.TempDir(), Usage: "`directory` for journals and the API server's files while it runs"},
		&cli.StringFlag{Name: "out", Value: filepath.Join(filepath.Dir(apitest.BinDir()), "bench"), Usage: "`directory` for the figures as JSON"},
	}
}

func parse(c *cli.Context) (options, error) {
	o := options{
		agents: c.IntSlice("agents"), idle: c.Duration("idle"), holdDown: c.Duration("hold-down"), quiet: c.Duration("quiet"),
		pods: c.Int("pods"), rate: c.Int("rate"), batch: c.Int("batch"), replicas: c.Int("replicas"),
		dir: c.String("dir"), out: c.String("out"),
	}
	return o, o.validate(c.NArg())
}

// maxAgents is how many names of nodes there are.
const maxAgents = 9999

func (o *options) validate(arguments int) error {
	switch {
	case arguments > 0:
		return errors.New("there are only flags: see --help")
	case len(o.agents) == 0 || slices.Min(o.agents) < 2 || slices.Max(o.agents) > maxAgents:
		return fmt.Errorf("--agents is %v: want numbers from 2 to %d, like 100,300,1000", o.agents, maxAgents)
	case !slices.IsSorted(o.agents):
		return fmt.Errorf("--agents is %v: want the smallest first", o.agents)
	case o.pods < slices.Max(o.agents):
		return fmt.Errorf("--pods is %d: want at least %d, one for each agent", o.pods, slices.Max(o.agents))
	case o.rate < 1 || o.batch < 1 || o.replicas < 1:
		return errors.New("--rate, --batch and --replicas: want at least 1 of each")
	case o.idle <= 0 || o.holdDown <= 0 || o.quiet <= 0:
		return errors.New("--idle, --hold-down and --quiet: want more than 0, like 1m")
	}
	return apitest.Installed()
}

// Run measures all sizes and prints the tables.
func Run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp(o.dir, "scale") // short: a socket's path has at most 107 bytes
	if err != nil {
		return err
	}
	r := newReport(o)
	for _, agents := range o.agents {
		err = atSize(ctx, &o, r, dir, agents)
		// What was measured until a failure is of use.
		if err = errors.Join(err, r.save(o.out)); err != nil {
			break
		}
	}
	err = errors.Join(err, r.print(os.Stdout), r.judge())
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%w\n(logs are in %s)", err, dir)
	}
	return errors.Join(err, os.RemoveAll(dir))
}
