package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// marks remembers which lessees a block's labels name, for the version last
// seen of each block. A merge patch removes a label only by its name, and a
// [lease.Block] has no room for labels.
type marks struct {
	mu      sync.Mutex
	byBlock map[string]mark
}

type mark struct {
	version string
	lessees []string
}

func (m *marks) see(stored *v1alpha1.IPBlock) {
	seen := mark{version: stored.ResourceVersion}
	for label := range stored.Labels {
		if uid, ok := strings.CutPrefix(label, v1alpha1.LesseeLabelPrefix); ok {
			seen.lessees = append(seen.lessees, uid)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byBlock == nil {
		m.byBlock = map[string]mark{}
	}
	m.byBlock[stored.Name] = seen
}

func (m *marks) forget(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.byBlock, name)
}

// at returns the lessees that the labels of a block named at the version.
func (m *marks) at(name, version string) ([]string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen, ok := m.byBlock[name]
	return seen.lessees, ok && seen.version == version
}

// notSent marks the error of a read that an update needed: the update was
// never sent.
func notSent(err error, b *lease.Block) error {
	if errors.Is(err, lease.ErrNotFound) {
		return fmt.Errorf("update block %s: %w: it is gone", b.Name(), lease.ErrConflict)
	}
	return fmt.Errorf("update block %s: %w: it was not sent: %w", b.Name(), lease.ErrRefused, err)
}

// labelChange returns what to change in the labels of a block so that they
// name its lessees, an empty value for each, nil for one that is no more, and
// say whether it has room. When the labels of the version judged are not known
// any more, it reads them.
func (c *Client) labelChange(ctx context.Context, b *lease.Block) (map[string]*string, error) {
	named, known := c.marks.at(b.Name(), b.Version)
	if !known {
		var stored v1alpha1.IPBlock
		if err := c.block(b.Name()).read(ctx, &stored); err != nil {
			return nil, notSent(err, b)
		}
		c.marks.see(&stored)
		if named, known = c.marks.at(b.Name(), b.Version); !known {
			return nil, fmt.Errorf("update block %s: %w: it has version %s, not %s", b.Name(), lease.ErrConflict, stored.ResourceVersion, b.Version)
		}
	}
	change := map[string]*string{roomLabel: room(b)}
	for _, uid := range named {
		change[v1alpha1.LesseeLabelPrefix+uid] = nil
	}
	for _, l := range b.Leases {
		change[v1alpha1.LesseeLabelPrefix+l.Node.UID] = new(string)
	}
	return change, nil
}
