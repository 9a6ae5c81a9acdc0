package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/agent/watch"
	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// lostPeriod is how often blocks are looked for that the watch should have.
const lostPeriod = 30 * time.Second

// blocks are the blocks in which this node holds leases, by a watch on its
// label.
type blocks struct {
	cluster  *cluster.Client
	selector string
	informer watch.Informer[*v1alpha1.IPBlock]
}

func newBlocks(c *cluster.Client, nodeUID string) *blocks {
	b := &blocks{cluster: c, selector: cluster.LesseeSelector(nodeUID)}
	b.informer = watch.New(c.Kinds().IPBlocks(), &v1alpha1.IPBlock{}, watch.Options[*v1alpha1.IPBlock]{
		Narrow: func(o *metav1.ListOptions) { o.LabelSelector = b.selector },
	})
	return b
}

// list returns the blocks by a quorum read.
func (b *blocks) list(ctx context.Context) (lease.Leases, error) {
	list, err := b.cluster.Kinds().IPBlocks().List(ctx, metav1.ListOptions{LabelSelector: b.selector})
	if err != nil {
		return lease.Leases{}, fmt.Errorf("list this node's blocks: %w", err)
	}
	leases := lease.Leases{Version: list.ResourceVersion}
	for i := range list.Items {
		block, err := b.cluster.FromIPBlock(&list.Items[i])
		if err != nil {
			return lease.Leases{}, err
		}
		leases.Blocks = append(leases.Blocks, block)
	}
	return leases, nil
}

// learn tells the lessee which leases the node has and, where the journal was
// lost, which of their addresses are known to be in use.
func (a *Agent) learn(ctx context.Context, lost bool) error {
	leases, err := a.blocks.list(ctx)
	if err != nil {
		return err
	}
	var inUse []lease.Entry
	if lost && len(leases.Blocks) > 0 {
		if inUse, err = a.recollect(ctx, leases.Blocks); err != nil {
			return err
		}
		a.log.Warn("the journal is lost: addresses in doubt stay unused for a while",
			"inUse", len(inUse), "blocks", len(leases.Blocks), "duration", quarantine)
	}
	if err := a.lessee.Start(leases, lost, inUse, quarantine); err != nil {
		return err
	}
	if lost {
		if err := a.complete(); err != nil {
			return err
		}
	}
	a.learned.Store(true)
	return nil
}

// watchBlocks hands what the watch reports to the lessee. A block that the
// watch has lost is read before anything follows from it.
func (a *Agent) watchBlocks(ctx context.Context) error {
	return a.blocks.informer.On(
		func(_, is *v1alpha1.IPBlock) {
			block, err := a.cluster.FromIPBlock(is)
			if err == nil {
				err = a.lessee.Observe(block)
			}
			if err != nil {
				a.log.Error("a block makes no sense: its addresses are not used", "block", is.Name, "err", err)
			}
			a.upkeep.kick()
		},
		func(was *v1alpha1.IPBlock) {
			prefix, err := lease.ParseName(was.Name)
			if err == nil {
				err = a.lessee.Missing(ctx, prefix)
			}
			if err != nil && ctx.Err() == nil {
				a.log.Warn("look for a block that the watch lost", "block", was.Name, "err", err)
			}
			a.upkeep.kick()
		})
}

// findLost reads the blocks in which this node leases by what it knows and
// which the watch does not have. The watch says nothing of a block that it
// never had because it was taken over here and elsewhere again while the watch
// began anew, and says only once what then could not be read.
func (a *Agent) findLost(ctx context.Context) error {
	var errs []error
	for _, prefix := range a.lessee.Leasing() {
		if _, seen := a.blocks.informer.Get(lease.Name(prefix)); !seen {
			errs = append(errs, a.lessee.Missing(ctx, prefix))
			a.upkeep.kick()
		}
	}
	return errors.Join(errs...)
}

// relearn finds out without the watch which leases are left, and writes each
// block as it is. The end of a lease may have been judged while the node was
// out of service and be under way since; to assign an address writes nothing
// that would stop it, but after this write it has lost.
func (a *Agent) relearn(ctx context.Context) error {
	leases, err := a.blocks.list(ctx)
	if err != nil {
		return err
	}
	left := map[netip.Prefix]bool{}
	for _, b := range leases.Blocks {
		stored, err := a.cluster.PutBlock(ctx, b)
		if errors.Is(err, lease.ErrConflict) {
			continue // somebody's write has done the same, and is read below
		}
		if err != nil {
			return fmt.Errorf("write block %s as it is: %w", b.Name(), err)
		}
		left[b.Prefix()] = true
		if err := a.lessee.Observe(stored); err != nil {
			return err
		}
	}
	for _, prefix := range a.lessee.Leasing() {
		if left[prefix] {
			continue
		}
		if err := a.lessee.Missing(ctx, prefix); err != nil {
			return err
		}
	}
	return nil
}
