package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/lease"
)

// roomLabel is the label of a block in which something can be claimed. Its value
// is the block's region, named as a block is ([lease.Name]). A block that an
// earlier version wrote last has none yet; it is found by searching.
const roomLabel = "room.holdfast.dev/region"

// room returns the value of the label of room for a block, nil for a full one.
func room(b *lease.Block) *string {
	if b.Claimable() == 0 {
		return nil
	}
	region := lease.Name(lease.RegionOf(b.Prefix()))
	return &region
}

// Roomy is a method of [lease.Cluster]: one list, which the API server answers
// from its cache.
func (c *Client) Roomy(ctx context.Context, regions []netip.Prefix) ([]lease.Block, error) {
	var names []string
	for _, r := range regions {
		names = append(names, lease.Name(r))
	}
	list, err := c.kinds.IPBlocks().List(ctx, metav1.ListOptions{
		LabelSelector: fmt.Sprintf("%s in (%s)", roomLabel, strings.Join(names, ",")), ResourceVersion: "0",
	})
	if err != nil {
		return nil, fmt.Errorf("list blocks that have addresses left: %w", err)
	}
	var roomy []lease.Block
	for i := range list.Items {
		// What makes no sense is nowhere to look, and what it says of labels may
		// be old: it is read again before anything follows from it.
		b, err := decodeBlock(&list.Items[i])
		if err == nil && list.Items[i].DeletionTimestamp == nil {
			roomy = append(roomy, b)
		}
	}
	return roomy, nil
}
