package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// verdict is what became of one mutant.
type verdict struct {
	caughtBy []string
	missedBy []string
	err      error
	took     time.Duration
}

// caught reports whether no test that ran to its end missed the bug. One that
// did not come to its turn, because the bug made an earlier one panic, has
// missed nothing.
func (v *verdict) caught() bool {
	return v.err == nil && len(v.caughtBy) > 0 && len(v.missedBy) == 0
}

func main() {
	results := flag.String("json", "", "write the verdicts to this `file` as go test -json writes outcomes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	r, err := openRecord(*results)
	if err == nil {
		err = r.end(museum(ctx, flag.Args(), r))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// museum plants the mutants whose names begin with one of only and returns an
// error unless each of them is caught by every test it names.
func museum(ctx context.Context, only []string, r *record) error {
	tree, err := os.Getwd() // `go run ./mutants`, from the top of the tree
	if err != nil {
		return err
	}
	mutants, err := readMutants(filepath.Join(tree, "mutants"), only)
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := sound(ctx, tree, mutants); err != nil {
		return err
	}
	fmt.Printf("Without a bug, every test passes (%.0f s).\n\n", time.Since(begun).Seconds())
	fmt.Printf("%-30s %-7s %5s  %s\n", "BUG", "", "SECS", "WHAT IT IS, AND WHICH TEST SAYS SO")
	r.begin(mutants)
	verdicts := plantAll(ctx, tree, mutants, r)
	missed, broken := 0, 0
	for i, v := range verdicts {
		switch {
		case v.err != nil:
			broken++
			fmt.Fprintf(os.Stderr, "\n%s: %v\n", mutants[i].name, v.err)
		case !v.caught():
			missed++
		}
	}
	fmt.Printf("\n%d bugs, %d caught, %d missed, %d not planted, %.0f s\n",
		len(mutants), len(mutants)-missed-broken, missed, broken, time.Since(begun).Seconds())
	switch {
	case broken > 0:
		return errors.New("mend the patches that could not be planted, see above")
	case missed > 0:
		return errors.New("write the test that catches it beside the code that it breaks, or correct its label")
	}
	return nil
}

// plantAll plants each mutant on one of as many tracks as there are cores,
// and prints and records each verdict when its turn comes.
func plantAll(ctx context.Context, tree string, mutants []mutant, r *record) []verdict {
	verdicts := make([]verdict, len(mutants))
	done := make([]chan struct{}, len(mutants))
	next := make(chan int)
	var tracks sync.WaitGroup
	for i := range mutants {
		done[i] = make(chan struct{})
	}
	for range runtime.NumCPU() {
		tracks.Go(func() {
			for i := range next {
				verdicts[i] = try(ctx, tree, &mutants[i])
				close(done[i])
			}
		})
	}
	tracks.Go(func() {
		for i := range mutants {
			next <- i
		}
		close(next)
	})
	for i := range mutants {
		<-done[i]
		show(&mutants[i], &verdicts[i])
		r.verdict(&mutants[i], &verdicts[i])
	}
	tracks.Wait()
	return verdicts
}

// try plants one mutant and runs its tests.
func try(ctx context.Context, tree string, m *mutant) (v verdict) {
	begun := time.Now()
	defer func() { v.took = time.Since(begun) }()
	overlay, err := m.plant(ctx, tree, filepath.Join(tree, "build", "_mutants"))
	if err != nil {
		return verdict{err: err}
	}
	for _, s := range m.tests {
		o, err := run(ctx, tree, overlay, s)
		if err != nil {
			return verdict{err: err}
		}
		v.caughtBy = append(v.caughtBy, o.failed...)
		v.missedBy = append(v.missedBy, o.passed...)
	}
	return v
}

func show(m *mutant, v *verdict) {
	result := "caught"
	switch {
	case v.err != nil:
		result = "ERROR"
	case !v.caught():
		result = "MISSED"
	}
	fmt.Printf("%-30s %-7s %5.1f  %s\n", m.name, result, v.took.Seconds(), m.bug)
	const indent = 46
	if len(v.caughtBy) > 0 {
		fmt.Printf("%*s%s\n", indent, "", strings.Join(v.caughtBy, ", "))
	}
	if len(v.missedBy) > 0 {
		fmt.Printf("%*smissed by %s\n", indent, "", strings.Join(v.missedBy, ", "))
	}
}
