package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// record is every version of every block that a watch brought, to tell what
// happened when something has.
type record struct {
	began time.Time

	mu     sync.Mutex
	blocks map[string][]string
	seen   map[string]string
}

func newRecord(began time.Time) *record {
	return &record{began: began, blocks: map[string][]string{}, seen: map[string]string{}}
}

// watch records until ctx ends. A watch that breaks begins anew with what
// there is: versions in between are lost.
func (r *record) watch(ctx context.Context, a *api) {
	for ctx.Err() == nil {
		list, err := a.crds.IPBlocks().List(ctx, metav1.ListOptions{})
		if err == nil {
			for i := range list.Items {
				r.note("", &list.Items[i])
			}
			err = r.follow(ctx, a, list.ResourceVersion)
		}
		if err != nil {
			apitest.Pause(ctx, 200*time.Millisecond)
		}
	}
}

func (r *record) follow(ctx context.Context, a *api, from string) error {
	w, err := a.crds.IPBlocks().Watch(ctx, metav1.ListOptions{ResourceVersion: from})
	if err != nil {
		return err
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		b, ok := event.Object.(*v1alpha1.IPBlock)
		if !ok {
			return fmt.Errorf("the watch ended")
		}
		what := ""
		if event.Type == watch.Deleted {
			what = "deleted "
		}
		r.note(what, b)
	}
	return nil
}

func (r *record) note(what string, b *v1alpha1.IPBlock) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen[b.Name] == b.ResourceVersion {
		return
	}
	r.seen[b.Name] = b.ResourceVersion
	var text strings.Builder
	fmt.Fprintf(&text, "%9.3fs  %sversion %s:", time.Since(r.began).Seconds(), what, b.ResourceVersion)
	for _, l := range b.Spec.Leases {
		fmt.Fprintf(&text, " %s(%.4s)%v", l.Node, l.NodeUID, l.Addresses)
	}
	for _, p := range b.Spec.Pins {
		fmt.Fprintf(&text, " %s=%s", p.Address, p.Pod)
		if p.Releasing {
			text.WriteString("(releasing)")
		}
	}
	r.blocks[b.Name] = append(r.blocks[b.Name], text.String())
}

// of returns the last versions of the block of an address.
func (r *record) of(addr netip.Addr, last int) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.blocks[lease.Name(lease.BlockOf(addr))]
	return all[max(0, len(all)-last):]
}
