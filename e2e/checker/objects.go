package checker

import (
	"context"

	"github.com/holdfast-ipam/holdfast/e2e/cluster"
)

// GatherObjects hears only those witnesses that speak through the API server:
// pods, StatefulSets, endpoints, pools and blocks. Nodes and settings are for
// the caller to fill in, who knows where sandboxes and journals are.
func GatherObjects(ctx context.Context, c *cluster.Cluster) Snapshot {
	g := gatherer{cluster: c}
	g.pods(ctx)
	g.statefulSets(ctx)
	g.endpoints(ctx)
	g.pools(ctx)
	g.blocks(ctx)
	return g.snapshot
}
