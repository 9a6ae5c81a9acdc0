package leasetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/holdfast-ipam/holdfast/lease"
)

// ClusterSubject is a cluster under test, with what is done to it from
// outside.
type ClusterSubject struct {
	lease.Cluster
	// SetPod creates a pod in namespace "default", bound to the node unless
	// that is empty, and returns its UID. An earlier pod of the name is gone.
	SetPod func(namespace, name, node string, finished bool) (uid string)
	// DeletePod removes a pod at once.
	DeletePod func(namespace, name string)
	// Detail returns a detail such as the cluster can keep with the address.
	// Two that differ only in JSON's white space or order are the same.
	Detail func(netip.Addr) json.RawMessage
}

// opaqueDetail is a detail for a cluster that keeps any.
func opaqueDetail(addr netip.Addr) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"of":%q}`, addr))
}

// ClusterSuite checks what the lease protocol expects of a [lease.Cluster].
// Each test opens a cluster without blocks, endpoints and pods of its own.
func ClusterSuite(t *testing.T, open func(t *testing.T) ClusterSubject) {
	for name, test := range map[string]func(*testing.T, ClusterSubject){
		"WhatWasNeverWrittenIsNotFound":            notFound,
		"BlockReadsAsItWasWritten":                 blockRoundTrip,
		"BlockIsCreatedOnce":                       blockCreatedOnce,
		"OldVersionLeavesBlockUnchanged":           blockOldVersion,
		"UpdateOfRemovedBlockConflicts":            blockUpdateRemoved,
		"BlockCreatedAgainIsAnotherOne":            blockCreatedAgain,
		"RemovalOfBlockNeedsTheVersionJudged":      blockRemovalGuarded,
		"RemovalWithoutVersionIsRefused":           removalWithoutVersion,
		"PutWithoutChangeKillsOlderWrites":         putWithoutChange,
		"ImpossibleBlockIsRefused":                 impossibleBlock,
		"OneOfManyCreatorsWins":                    oneCreatorWins,
		"OneUpdaterWinsPerVersion":                 oneUpdaterWins,
		"ClaimsOfManyNodesNeverMeet":               claimsNeverMeet,
		"RoomIsToldWhereThereIsSome":               roomTold,
		"EndpointReadsAsItWasWritten":              endpointRoundTrip,
		"EndpointIsCreatedOnce":                    endpointCreatedOnce,
		"OldVersionLeavesEndpointUnchanged":        endpointOldVersion,
		"EndpointFollowsItsPod":                    endpointFollows,
		"RemovalOfEndpointNeedsTheVersionJudged":   endpointRemovalGuarded,
		"EndpointsOfOneNameInTwoNamespacesDiffer":  endpointNamespaces,
		"PodTellsWhereItLives":                     podTells,
		"PodOfTheSameNameIsAnotherPod":             podRecreated,
		"CancelledCallIsNeitherConflictNorRefusal": cancelled,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// worker1 and worker2 are the nodes of the suites.
func worker1() lease.Node {
	return lease.Node{Name: "worker-1", UID: "0f2c6b1e-0000-4000-8000-000000000001"}
}

func worker2() lease.Node {
	return lease.Node{Name: "worker-2", UID: "0f2c6b1e-0000-4000-8000-000000000002"}
}

// alike compares blocks, endpoints and entries by what they say.
func alike() cmp.Options {
	return cmp.Options{
		cmp.AllowUnexported(lease.Block{}),
		cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}),
		cmpopts.EquateEmpty(),
		cmpopts.SortSlices(func(a, b lease.EndpointAddress) bool {
			if a.Interface != b.Interface {
				return a.Interface < b.Interface
			}
			return a.Addr.Less(b.Addr)
		}),
		cmp.FilterValues(func(a, b json.RawMessage) bool { return len(a)+len(b) > 0 }, cmp.Comparer(sameJSON)),
	}
}

// sameJSON reports whether both are valid JSON and say the same.
func sameJSON(a, b json.RawMessage) bool {
	var va, vb any
	return json.Unmarshal(a, &va) == nil && json.Unmarshal(b, &vb) == nil && reflect.DeepEqual(va, vb)
}

func same(t *testing.T, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got, alike()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
	for _, other := range []error{lease.ErrNotFound, lease.ErrConflict, lease.ErrRefused} {
		if other != want && errors.Is(err, other) {
			t.Errorf("error %v is %v and %v at once", err, want, other)
		}
	}
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// block returns a block with a few leases and pins in the prefix.
func block(t *testing.T, prefix string) lease.Block {
	t.Helper()
	b := must[lease.Block](t)(lease.NewBlock(netip.MustParsePrefix(prefix)))
	b.Claim(worker1(), 0b0000_0000_1110_0001)
	b.Claim(worker2(), 0b1000_0001_0000_0000)
	for _, pin := range []struct {
		node   lease.Node
		offset int
		id     lease.Identity
	}{
		{worker1(), 5, lease.Identity{Namespace: "default", Pod: "web-0", Interface: "eth0"}},
		{worker2(), 8, lease.Identity{Namespace: "default", Pod: "web-0", Interface: "net1"}},
		{worker2(), 15, lease.Identity{Namespace: "shop", Pod: "db-17", Interface: "eth0"}},
	} {
		if err := b.Pin(pin.node.UID, b.Addr(pin.offset), pin.id); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.MarkReleasing(b.Addr(8), b.Pins[1].Identity); err != nil {
		t.Fatal(err)
	}
	b.Fence(worker2().UID, nil) // pins survive their node
	b.Claim(worker2(), 0b0110_0000_0000_0000)
	return b
}

func notFound(t *testing.T, c ClusterSubject) {
	_, err := c.Block(t.Context(), "192.0.2.0-28")
	wantErr(t, err, lease.ErrNotFound)
	_, err = c.Endpoint(t.Context(), "default", "nobody")
	wantErr(t, err, lease.ErrNotFound)
	_, err = c.PodAt(t.Context(), "default", "nobody")
	wantErr(t, err, lease.ErrNotFound)
}

func podTells(t *testing.T, c ClusterSubject) {
	for _, want := range []lease.PodAt{
		{Node: ""}, {Node: "worker-1"}, {Node: "worker-2", Finished: true},
	} {
		name := fmt.Sprintf("pod-at-%s-%t", "x"+want.Node, want.Finished)
		want.UID = c.SetPod("default", name, want.Node, want.Finished)
		same(t, want, must[lease.PodAt](t)(c.PodAt(t.Context(), "default", name)))
	}
}

func podRecreated(t *testing.T, c ClusterSubject) {
	first := c.SetPod("default", "again-0", "worker-1", false)
	second := c.SetPod("default", "again-0", "worker-1", false)
	if first == second {
		t.Fatalf("both pods have UID %s", first)
	}
	if at := must[lease.PodAt](t)(c.PodAt(t.Context(), "default", "again-0")); at.UID != second {
		t.Errorf("UID %s, want the second pod's %s", at.UID, second)
	}
	c.DeletePod("default", "again-0")
	_, err := c.PodAt(t.Context(), "default", "again-0")
	wantErr(t, err, lease.ErrNotFound)
}

func cancelled(t *testing.T, c ClusterSubject) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.PutBlock(ctx, block(t, "192.0.2.0/28"))
	if err == nil || errors.Is(err, lease.ErrConflict) || errors.Is(err, lease.ErrRefused) {
		t.Errorf("PutBlock: error %v, want one that says nothing of the outcome", err)
	}
	_, err = c.Block(ctx, "192.0.2.0-28")
	if err == nil || errors.Is(err, lease.ErrNotFound) {
		t.Errorf("Block: error %v, want one that says nothing of what is there", err)
	}
}
