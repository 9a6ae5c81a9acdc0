// Command crash holds real parts against what Holdfast promises: a real API
// server and etcd, and eight real agents with journals on a real disk. It
// plays StatefulSet controller, scheduler, kubelet and garbage collector
// itself, asks the agents over their sockets for the addresses of a hundred
// pods that come and go, and all the while kills agents, stops them, takes the
// API server away and deletes nodes.
//
// The judge (ledger.go) goes by the answers of the sockets alone: no address
// in two sandboxes that live, and the same address again for a StatefulSet's
// pod whose ordinal was wanted ever since. In the end, when everything is up
// again, every address has to be accounted for (account.go).
//
// The seed decides what is done, in which order and after which pause. What
// time things take is real, so a seed does not repeat a run exactly.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/klog/v2"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
)

// options are the command's flags.
type options struct {
	minutes  float64
	seed     uint64
	holdfast string
}

func main() {
	var o options
	flag.Float64Var(&o.minutes, "minutes", 2, "for how long things are broken, in `minutes`; the accounting comes on top")
	flag.Uint64Var(&o.seed, "seed", 1, "`number` that decides what is done")
	flag.StringVar(&o.holdfast, "holdfast", filepath.Join(apitest.BinDir(), "holdfast"), "`path` of the program under test")
	flag.Parse()
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // failures are on purpose here
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	clean, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
	}
	if err != nil || !clean {
		os.Exit(1)
	}
}

// run is one run, from nothing to the last figure. It reports whether no
// promise was broken.
func run(ctx context.Context, o options) (clean bool, err error) {
	if err := apitest.Installed(); err != nil {
		return false, err
	}
	if _, err := os.Stat(o.holdfast); err != nil {
		return false, fmt.Errorf("the agent's program is missing, run `make build`: %w", err)
	}
	dir, err := os.MkdirTemp("", "crash") // short: a socket's path has at most 107 bytes
	if err != nil {
		return false, err
	}
	w, err := open(ctx, o, dir)
	if err != nil {
		return false, fmt.Errorf("%w (files are in %s)", err, dir)
	}
	err = w.play(ctx)
	w.close()
	clean = w.report()
	if err != nil || !clean {
		return false, err
	}
	return true, os.RemoveAll(dir)
}

// play is the run: a time of faults under load, then calm, then the account.
// It ends early when a promise is broken.
func (w *world) play(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(w.ledger.broken, func() { cancel(errBroken) })
	defer stop()
	w.say("seed %d: breaking things for %s", w.options.seed, w.duration())
	err := w.trouble(ctx)
	if err == nil {
		w.say("everything is up again: waiting until every address is accounted for")
		err = w.account(ctx)
	}
	if context.Cause(ctx) == errBroken {
		return nil // the report says it
	}
	return err
}

func (w *world) duration() time.Duration {
	return time.Duration(w.options.minutes * float64(time.Minute))
}
