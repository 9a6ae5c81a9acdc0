// Command crash holds real parts against what Holdfast promises: a real API
// server and etcd, and eight real agents with journals on a real disk. It
// plays StatefulSet controller, scheduler, kubelet and garbage collector
// itself, asks the agents over their sockets for the addresses of a hundred
// pods that come and go, and all the while kills agents (kill -9), stops them
// (SIGSTOP), breaks and delays what they ask the API server, pauses and kills
// the API server, and takes nodes away (faults.go, lost.go).
//
// What is checked (check.go):
//
//   - by the answers of the sockets alone (ledger.go): no address in two
//     sandboxes that live, the same answer to the same question, the same
//     address for a StatefulSet's pod whose ordinal was wanted ever since, an
//     address of each pool asked for, and a rest between two pods;
//   - while it goes on (audit.go): journal and block know what is in use;
//   - once more from the record of it all (linearizable.go), by porcupine: the
//     history of each address and of each identity is linearizable;
//   - in the end, when everything is up again (account.go): every address is
//     accounted for, every pool can be used to its last address, and what was
//     deleted leaves nothing behind.
//
// What is not checked: disks that lose what was synced (an agent is killed, its
// kernel is not), networks and kernels of pods (no sandbox is a network
// namespace), clocks that disagree (there is one), deletion by force, pods of
// several interfaces, and fencing by the out-of-service taint.
//
// The seed decides what is done, in which order and after which pause. What
// time things take is real, so a seed does not repeat a run exactly.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
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
	json     string
}

// parse reads the command line.
func parse() (options, error) {
	var o options
	flag.Float64Var(&o.minutes, "minutes", 2, "for how long things are broken, in `minutes`, such as 0.75; the accounting comes on top")
	flag.Uint64Var(&o.seed, "seed", 1, "`number` that decides what is done")
	flag.StringVar(&o.holdfast, "holdfast", filepath.Join(apitest.BinDir(), "holdfast"), "`path` of the program under test")
	flag.StringVar(&o.json, "json", "", "`file` for what came of each check, as `go test -json` writes it")
	flag.Parse()
	if flag.NArg() > 0 || o.minutes <= 0 {
		return o, errors.New("there are only flags, and -minutes is more than 0: see -help")
	}
	var err error
	o.holdfast, err = filepath.Abs(o.holdfast) // agents start in directories of their own
	return o, err
}

func main() {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // failures are on purpose here
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	o, err := parse()
	clean := false
	if err == nil {
		clean, err = run(ctx, o)
	}
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
	if err := announce(o.json); err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp("", "crash") // short: a socket's path has at most 107 bytes
	if err != nil {
		return false, err
	}
	w := newWorld(ctx, o, dir)
	if err = w.open(ctx); err == nil {
		err = w.play(ctx)
	}
	w.close()
	if ctx.Err() != nil {
		return false, errors.Join(errors.New("interrupted"), os.RemoveAll(dir))
	}
	w.ledger.expect(playable, err == nil, netip.Addr{}, "", "%v", err)
	if clean, err = w.report(); clean {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return clean, err
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
	if errors.Is(err, errBroken) || context.Cause(ctx) == errBroken {
		return nil // the report says it
	}
	return err
}

func (w *world) duration() time.Duration {
	return time.Duration(w.options.minutes * float64(time.Minute))
}
