package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-ipam/holdfast/e2e/cluster"
)

// The namespace and the labels of the document's pods, and how long they may
// take to start.
const (
	namespace = "default"
	selector  = "app=test-sts"
	patience  = 90 * time.Second
)

type demo struct {
	cluster *cluster.Cluster
	out     io.Writer
	// held is which address each pod must come back with.
	held map[string]netip.Addr
	// pods are those that ran when they were last looked at.
	pods []corev1.Pod
	// shown is what the demo has proved so far.
	shown []string
}

func newDemo(out io.Writer) (*demo, error) {
	c, err := cluster.Open()
	if err != nil {
		return nil, err
	}
	return &demo{cluster: c, out: out, held: map[string]netip.Addr{}}, nil
}

func (d *demo) run(ctx context.Context) error {
	started := time.Now()
	for _, step := range []func(context.Context) error{
		d.clean, d.install, d.createNetwork, d.createPool, d.createStatefulSet, d.restartTwo,
		d.scaleUp, d.restartThree, d.scaleDown, d.swapNodes, d.ping,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintf(d.out, "\n==> All of it came true, in %d s:\n", int(time.Since(started).Seconds()))
	for _, s := range d.shown {
		fmt.Fprintf(d.out, "    - %s\n", s)
	}
	fmt.Fprintln(d.out, "    The cluster is yours to look around in; `make demo-down` removes it.")
	return nil
}

func (d *demo) chapter(title string) { fmt.Fprintf(d.out, "\n==> %s\n\n", title) }

func (d *demo) proved(format string, args ...any) {
	d.shown = append(d.shown, fmt.Sprintf(format, args...))
}

// typed prints a command as the document does, runs it, and prints what it
// prints.
func (d *demo) typed(ctx context.Context, command string) (string, error) {
	fmt.Fprintf(d.out, "~# %s\n", command)
	var printed bytes.Buffer
	cmd := d.cluster.Command(ctx, "bash", "-c", "set -o pipefail; "+command)
	cmd.Stdout = io.MultiWriter(d.out, &printed)
	cmd.Stderr = cmd.Stdout
	err := cmd.Run()
	fmt.Fprintln(d.out)
	if err != nil {
		return "", fmt.Errorf("%s: %w", firstLine(command), err)
	}
	return printed.String(), nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// await looks at what a command prints, unseen, until is finds nothing wrong
// with it, and then shows it.
func (d *demo) await(ctx context.Context, within time.Duration, command string, is func(table) error) error {
	err := cluster.Await(ctx, within, func(ctx context.Context) error {
		printed, err := d.cluster.Command(ctx, "bash", "-c", command).Output()
		if err != nil {
			return err
		}
		return is(parseTable(string(printed)))
	})
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	_, err = d.typed(ctx, command)
	return err
}

// awaitPods waits for exactly n ready pods, none of them one of old, shows
// them, and compares every address with the one that is held.
func (d *demo) awaitPods(ctx context.Context, n int, old ...corev1.Pod) error {
	pods, err := d.cluster.AwaitPods(ctx, patience, namespace, selector, n, old...)
	if err != nil {
		return err
	}
	if _, err := d.typed(ctx, getPods); err != nil {
		return err
	}
	d.pods = pods
	return hold(d.held, pods)
}
