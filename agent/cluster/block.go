package cluster

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// LesseeSelector selects the blocks in which the node has a lease.
func LesseeSelector(nodeUID string) string { return v1alpha1.LesseeLabelPrefix + nodeUID }

func (c *Client) block(name string) object {
	return object{client: c.kinds.IPBlocks().GetClient(), resource: "ipblocks", name: name, what: "block " + name}
}

// Block is a method of [lease.Cluster].
func (c *Client) Block(ctx context.Context, name string) (lease.Block, error) {
	var stored v1alpha1.IPBlock
	if err := c.block(name).read(ctx, &stored); err != nil {
		return lease.Block{}, err
	}
	return c.FromIPBlock(&stored)
}

// FromIPBlock returns what an IPBlock says. It is an error if that cannot be,
// or if the object is about to vanish; then nothing may be built on it. Blocks
// that come from a watch pass here too, so that [Client.PutBlock] knows which
// labels they carry and need not read them again. The object is not kept.
func (c *Client) FromIPBlock(stored *v1alpha1.IPBlock) (lease.Block, error) {
	if stored.DeletionTimestamp != nil {
		return lease.Block{}, errDeleting("block "+stored.Name, stored.Finalizers)
	}
	b, err := decodeBlock(stored)
	if err != nil {
		return lease.Block{}, fmt.Errorf("block %s cannot be, and its addresses stay unused until it is put right: %w", stored.Name, err)
	}
	c.marks.see(stored)
	return b, nil
}

// PutBlock is a method of [lease.Cluster].
func (c *Client) PutBlock(ctx context.Context, b lease.Block) (lease.Block, error) {
	if !b.Prefix().IsValid() {
		return lease.Block{}, fmt.Errorf("put a block without prefix: %w", lease.ErrRefused)
	}
	if err := b.Validate(); err != nil {
		return lease.Block{}, fmt.Errorf("put block: %w: %w", lease.ErrRefused, err)
	}
	var stored v1alpha1.IPBlock
	err := c.putBlock(ctx, b, &stored)
	if err != nil {
		return lease.Block{}, err
	}
	return c.FromIPBlock(&stored)
}

func (c *Client) putBlock(ctx context.Context, b lease.Block, stored *v1alpha1.IPBlock) error {
	spec := encodeBlock(&b)
	if b.Version == "" {
		labels := map[string]string{}
		for _, l := range b.Leases {
			labels[v1alpha1.LesseeLabelPrefix+l.Node.UID] = ""
		}
		if region := room(&b); region != nil {
			labels[roomLabel] = *region
		}
		return c.block(b.Name()).create(ctx, &v1alpha1.IPBlock{
			ObjectMeta: metav1.ObjectMeta{Name: b.Name(), Labels: labels, Annotations: writeMark()},
			Spec:       spec,
		}, stored)
	}
	labels, err := c.labelChange(ctx, &b)
	if err != nil {
		return err
	}
	return c.block(b.Name()).update(ctx, patch{
		Metadata: patchMeta{ResourceVersion: b.Version, Labels: labels, Annotations: writeMark()},
		Spec:     patchSpecOf(spec),
	}, stored)
}

// DeleteBlock is a method of [lease.Cluster].
func (c *Client) DeleteBlock(ctx context.Context, b lease.Block) error {
	if b.Version == "" {
		return fmt.Errorf("delete block %s: %w: the version it was judged on is missing", b.Name(), lease.ErrRefused)
	}
	if err := c.block(b.Name()).remove(ctx, b.Version); err != nil {
		return err
	}
	c.marks.forget(b.Name())
	return nil
}
