//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ipam/holdfast/e2e/cluster"
)

// noMultus makes Holdfast the cluster's only network plugin.
const noMultus = "multus.multusCNI.install=false"

// installed upgrades the release with more arguments for helm until the test
// ends.
func installed(t *testing.T, arguments ...string) {
	t.Helper()
	t.Cleanup(func() { upgrade(t) })
	upgrade(t, arguments...)
}

// upgrade installs the release with the values of the scenarios and these
// arguments for helm, and waits until every node works with it.
func upgrade(t *testing.T, arguments ...string) {
	t.Helper()
	c, err := cluster.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Install(context.Background(), arguments...); err != nil {
		t.Fatal(err)
	}
	first := "multus"
	if slices.ContainsFunc(arguments, func(a string) bool { return strings.Contains(a, noMultus) }) {
		first = "holdfast"
	}
	err = cluster.Await(context.Background(), time.Minute, func(ctx context.Context) error {
		return configured(ctx, c, first)
	})
	if err != nil {
		t.Fatalf("the nodes work with %s: %v", first, err)
	}
}

// configured returns an error unless the first configuration on every node is
// named after the plugin: the runtime looks at no other.
func configured(ctx context.Context, c *cluster.Cluster, plugin string) error {
	agents, err := c.Agents(ctx)
	if err != nil {
		return err
	}
	for _, pod := range agents {
		files, err := c.OnNode(ctx, pod.Spec.NodeName, "ls /etc/cni/net.d")
		if err != nil {
			return err
		}
		names := slices.DeleteFunc(strings.Fields(files), func(f string) bool { return !strings.Contains(f, ".conf") })
		if len(names) == 0 || !strings.Contains(names[0], plugin) {
			return fmt.Errorf("the configurations on %s are %q", pod.Spec.NodeName, names)
		}
	}
	return nil
}
