// Command demo runs statefulset.md on the kind cluster of `make kind-up`: it
// types every command of the document, prints what the document prints, and
// fails when an address changes that should not. Then it goes beyond the
// document and moves pods between nodes.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d, err := newDemo(os.Stdout)
	if err == nil {
		err = d.run(ctx)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "\n!!! The demo failed: %v\n", err)
		os.Exit(1)
	}
}
