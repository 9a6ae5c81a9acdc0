package elected

import (
	"log/slog"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/holdfast-ipam/holdfast/crds"
	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/lease"
)

func TestNodeThatCameAndWentIsSeenBack(t *testing.T) {
	w := newWard(t)
	kinds := new(crds.Clients)
	f := &fence{
		blocks: newCache(kinds.IPBlocks(), &v1alpha1.IPBlock{}, cache.TypedIndexers[*v1alpha1.IPBlock]{indexLessee: lessees}),
		// Never started, so it lists nothing.
		nodes:  newCache(kinds.IPBlocks(), &corev1.Node{}, nil),
		fencer: Fencer{HoldDown: holdDown, Now: w.Now},
		queue:  newQueue[lease.Node]("test"),
		log:    slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	defer f.queue.ShutDown()
	gone, back := nodeOf("a", outOfService), nodeOf("a")
	gone.Name, back.Name = "a", "a"
	// The events come after both changes have reached the cache.
	if err := f.nodes.GetStore().Add(gone); err != nil {
		t.Fatal(err)
	}
	f.changed(nil, gone)
	w.now = w.now.Add(holdDown)
	f.changed(gone, back)
	f.changed(back, gone)
	if done, err := f.fencer.Fence(t.Context(), w.lessee, nil); done.Rest != holdDown || err != nil {
		t.Errorf("%s of the hold-down are left, %v, want all of it", done.Rest, err)
	}
}
