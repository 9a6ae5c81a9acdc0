package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
)

// Run measures everything and prints the tables.
func Run(ctx context.Context, o options) error {
	if err := announce(o.json); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench") // short: a socket's path has at most 107 bytes
	if err != nil {
		return err
	}
	r := newReport(o)
	r.Versions, err = versions(ctx, &o)
	for round := 1; round <= o.rounds && err == nil; round++ {
		// The order changes, so that nobody is always the first.
		order := slices.Clone(o.systems)
		for range (round - 1) % len(order) {
			order = append(order[1:], order[0])
		}
		for _, name := range order {
			if err = runOne(ctx, &o, r, round, name, filepath.Join(dir, fmt.Sprintf("%d%s", round, name))); err != nil {
				break
			}
		}
	}
	// What was measured until a failure is of use.
	err = errors.Join(err, r.save(), r.print(os.Stdout, (*table).text))
	if err == nil && o.quick {
		err = r.judge()
	}
	if err != nil {
		return fmt.Errorf("%w (logs are in %s)", err, dir)
	}
	return os.RemoveAll(dir)
}

// runOne measures one system once, each scenario in a lab of its own.
func runOne(ctx context.Context, o *options, r *report, round int, name, dir string) error {
	r.say("round %d of %d: %s", round, o.rounds, name)
	for i, play := range o.chosen(name, round) {
		s, err := newSystem(name)
		if err != nil {
			return err
		}
		l, err := newLab(ctx, o, fmt.Sprintf("%s%d", dir, i), slices.Max(o.concurrency), !onOneNode(name))
		if err != nil {
			return err
		}
		b := &bench{
			options: o, report: r, round: round, name: name, system: s, lab: l,
			living: living{by: map[netip.Addr]*pod{}},
		}
		if err = s.open(ctx, l); err == nil {
			err = b.settle(ctx, settleLimit) // what a start costs is not asked here
		}
		if err == nil {
			err = play(ctx, b)
		}
		s.close()
		if err = errors.Join(err, l.close()); err != nil {
			return err
		}
	}
	return nil
}
