package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/agent/inspect"
	"github.com/holdfast-ipam/holdfast/e2e/checker"
	"github.com/holdfast-ipam/holdfast/e2e/cluster"
	"github.com/holdfast-ipam/holdfast/lease"
)

// audit looks, while everything moves, at what must hold at every moment for a
// sandbox that lives: its node's journal has it, and the block of its address
// says that its node may use it for this pod. Both are read between two looks
// at the ledger, and a sandbox that did not live all the while is left out.
func (w *world) audit(ctx context.Context) {
	dice := w.dice("audit")
	for apitest.Pause(ctx, between(dice, 200*time.Millisecond, 2*time.Second)) {
		w.auditJournal(ctx, w.nodes[dice.IntN(len(w.nodes))])
		w.auditBlocks(ctx)
	}
}

// journalOf asks an agent for its journal.
func (n *node) journalOf(ctx context.Context) ([]lease.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, delLimit)
	defer cancel()
	var text bytes.Buffer
	if err := inspect.Journal(ctx, n.socket(), true, time.Now(), &text); err != nil {
		return nil, err
	}
	entries := []lease.Entry{}
	return entries, json.Unmarshal(text.Bytes(), &entries)
}

func (w *world) auditJournal(ctx context.Context, n *node) {
	before := w.ledger.living(n)
	entries, err := n.journalOf(ctx)
	if err != nil {
		w.tally.add("journals that did not answer")
		return
	}
	w.tally.add("journals audited")
	for _, s := range before {
		for _, prefix := range s.prefixes {
			said := hasAssigned(s, prefix.Addr(), entries)
			if w.ledger.lives(s) {
				w.ledger.expect(journaled, said == "", prefix.Addr(), n.name, "%s lives with %s, and the journal of %s %s", s, prefix, n.name, said)
			}
		}
	}
}

// hasAssigned returns what a journal says instead of having assigned the
// address to the sandbox, or nothing.
func hasAssigned(s *sandbox, addr netip.Addr, entries []lease.Entry) string {
	i := slices.IndexFunc(entries, func(e lease.Entry) bool { return e.Addr == addr })
	if i < 0 {
		return "has no entry"
	}
	e := entries[i]
	if e.State == lease.Assigned && e.Owner.PodUID == s.pod.uid && e.Container == s.container {
		return ""
	}
	return fmt.Sprintf("has %s for pod %s, container %s", e.State, e.Owner.PodUID, e.Container)
}

func (w *world) auditBlocks(ctx context.Context) {
	before := w.ledger.living(nil)
	ctx, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	snapshot := checker.GatherObjects(ctx, w.objects())
	if len(snapshot.Unseen) > 0 {
		w.tally.add("blocks that could not be read")
		return
	}
	w.tally.add("blocks audited")
	for _, v := range checker.Compare(snapshot) {
		if v.Never {
			w.ledger.violate(leased, addrIn(v.Detail), "", "%s", v)
		}
	}
	for _, s := range before {
		for _, prefix := range s.prefixes {
			said := mayUse(s, prefix.Addr(), &snapshot)
			if w.ledger.lives(s) {
				w.ledger.expect(leased, said == "", prefix.Addr(), s.pod.node.name, "%s lives with %s, and its block %s", s, prefix, said)
			}
		}
	}
}

// mayUse returns why a sandbox may not use its address, by its block, or
// nothing.
func mayUse(s *sandbox, addr netip.Addr, in *checker.Snapshot) string {
	i := slices.IndexFunc(in.Blocks, func(b checker.Block) bool { return b.Prefix.Contains(addr) })
	if i < 0 {
		return "does not exist"
	}
	b := in.Blocks[i]
	lessee := slices.IndexFunc(b.Leases, func(l checker.Lease) bool { return slices.Contains(l.Addrs, addr) })
	if lessee < 0 {
		return "leases it to nobody"
	}
	if uid := s.pod.node.currentUID(); b.Leases[lessee].NodeUID != uid {
		return fmt.Sprintf("leases it to %s with UID %s, not %s", b.Leases[lessee].Node, b.Leases[lessee].NodeUID, uid)
	}
	pin := slices.IndexFunc(b.Pins, func(p checker.Pin) bool { return p.Addr == addr })
	switch {
	case s.pod.set == nil && pin >= 0:
		return "pins it for " + b.Pins[pin].Pod
	case s.pod.set != nil && pin < 0:
		return "has no pin of it"
	case s.pod.set != nil && b.Pins[pin].Pod != namespace+"/"+s.pod.name:
		return "pins it for " + b.Pins[pin].Pod
	}
	return ""
}

// objects is the API server as the checker wants it.
func (w *world) objects() *cluster.Cluster {
	return &cluster.Cluster{Kube: w.api.kube, CRDs: w.api.crds}
}

func (n *node) currentUID() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.uid
}

// snapshot is what every witness says: the ledger about sandboxes, the agents
// about their journals, the API server about the rest.
func (w *world) snapshot(ctx context.Context) checker.Snapshot {
	s := checker.GatherObjects(ctx, w.objects())
	s.Sticky = true
	for _, n := range w.nodes {
		now, err := w.api.kube.CoreV1().Nodes().Get(ctx, n.name, metav1.GetOptions{})
		if err != nil {
			s.Unseen = append(s.Unseen, fmt.Sprintf("node %s: %v", n.name, err))
			continue
		}
		seen := checker.Node{Name: n.name, UID: string(now.UID), Namespaces: []checker.Namespace{}}
		if seen.Journal, err = n.journalOf(ctx); err != nil {
			s.Unseen = append(s.Unseen, fmt.Sprintf("journal of %s: %v", n.name, err))
		}
		for _, sandbox := range w.ledger.living(n) {
			seen.Namespaces = append(seen.Namespaces, sandbox.seen())
		}
		s.Nodes = append(s.Nodes, seen)
	}
	return s
}

// seen is the sandbox as its kernel would show it.
func (s *sandbox) seen() checker.Namespace {
	seen := checker.Namespace{
		Path: s.container, Sandbox: s.container, Namespace: namespace, Pod: s.pod.name, PodUID: s.pod.uid,
	}
	for _, prefix := range s.prefixes {
		seen.Addresses = append(seen.Addresses, checker.InterfaceAddress{Interface: ifname, Prefix: prefix})
	}
	return seen
}
