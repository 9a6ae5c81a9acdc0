package lease_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/holdfast-ipam/holdfast/lease"
)

// collector is the least that takes pins and endpoints back which nobody
// wants, by the two guarded updates of the protocol.
type collector struct {
	lease.Cluster
	// wants is a quorum read of whether the StatefulSet wants the pod.
	wants func(ctx context.Context, pod string) (bool, error)
}

// block removes the pins of a block that nobody wants.
func (c *collector) block(ctx context.Context, name string) error {
	b, err := c.Block(ctx, name)
	if err != nil {
		return ignoreNotFound(err)
	}
	if b.Empty() {
		return c.DeleteBlock(ctx, b)
	}
	marked := false
	for _, p := range b.Pins {
		if garbage, err := c.garbage(ctx, p); err != nil {
			return err
		} else if garbage && !p.Releasing {
			marked = true
			if err := b.MarkReleasing(p.Addr, p.Identity); err != nil {
				return err
			}
		}
	}
	if marked {
		if b, err = c.PutBlock(ctx, b); err != nil {
			return err
		}
	}
	changed := b.Clone()
	for _, p := range b.Pins {
		if !p.Releasing {
			continue
		}
		garbage, err := c.garbage(ctx, p) // once more, after the mark
		if err != nil {
			return err
		}
		step := changed.Unmark
		if garbage {
			step = changed.Unpin
		}
		if err := step(p.Addr, p.Identity); err != nil {
			return err
		}
	}
	if changed.Equal(&b) {
		return nil
	}
	_, err = c.PutBlock(ctx, changed)
	return err
}

// garbage reports whether nobody wants a pin: its pod is looked for last.
func (c *collector) garbage(ctx context.Context, p lease.Pin) (bool, error) {
	wanted, err := c.wants(ctx, p.Identity.Pod)
	if err != nil {
		return false, err
	}
	named := false
	if e, err := c.Endpoint(ctx, p.Identity.Namespace, p.Identity.Pod); err == nil {
		for _, a := range e.Addresses {
			named = named || a.Addr == p.Addr
		}
	} else if !errors.Is(err, lease.ErrNotFound) {
		return false, err
	}
	_, err = c.PodAt(ctx, p.Identity.Namespace, p.Identity.Pod)
	if !errors.Is(err, lease.ErrNotFound) {
		return false, err
	}
	return !wanted || !named, nil
}

// pointer removes from an endpoint what is not pinned for it.
func (c *collector) pointer(ctx context.Context, pod string) error {
	e, err := c.Endpoint(ctx, namespace, pod)
	if err != nil {
		return ignoreNotFound(err)
	}
	var pinned []lease.EndpointAddress
	for _, a := range e.Addresses {
		b, err := c.Block(ctx, lease.Name(lease.BlockOf(a.Addr)))
		if err != nil && !errors.Is(err, lease.ErrNotFound) {
			return err
		}
		p, ok := b.PinAt(a.Addr)
		if ok && p.Identity == (lease.Identity{Namespace: namespace, Pod: pod, Interface: a.Interface}) {
			pinned = append(pinned, a)
		}
	}
	if len(pinned) == len(e.Addresses) {
		return nil
	}
	if _, err := c.PodAt(ctx, namespace, pod); !errors.Is(err, lease.ErrNotFound) {
		return err
	}
	if len(pinned) == 0 {
		return c.DeleteEndpoint(ctx, e)
	}
	e.Addresses = pinned
	_, err = c.PutEndpoint(ctx, e)
	return err
}

func ignoreNotFound(err error) error {
	if errors.Is(err, lease.ErrNotFound) {
		return nil
	}
	return fmt.Errorf("collect: %w", err)
}
