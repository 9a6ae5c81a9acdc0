package elected_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/holdfast-ipam/holdfast/agent/elected"
	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

var (
	worker  = lease.Node{Name: "worker-1", UID: "node-1"}
	addr101 = netip.MustParseAddr("10.6.168.101")
	block   = lease.Name(lease.BlockOf(addr101))
)

// history is a cluster with a StatefulSet "default/web" and what happens at
// its calls.
type history struct {
	*leasetest.Cluster
	t      *testing.T
	window *elected.Window
	err    error
	// on is run at the nth call of a method.
	on   map[string]func() leasetest.Fault
	seen map[string]int
	// armed, if any, decides instead.
	armed func(leasetest.Call) leasetest.Fault
}

func newHistory(t *testing.T, replicas int32) *history {
	h := &history{
		t: t, window: &elected.Window{Replicas: replicas},
		on: map[string]func() leasetest.Fault{}, seen: map[string]int{},
	}
	h.Cluster = leasetest.NewCluster(h.fault)
	return h
}

func (h *history) fault(call leasetest.Call) leasetest.Fault {
	if h.armed != nil {
		return h.armed(call)
	}
	h.seen[call.Method]++
	key := fmt.Sprintf("%s %d", call.Method, h.seen[call.Method])
	f := h.on[key]
	delete(h.on, key)
	if f == nil {
		return leasetest.Fault{}
	}
	return f()
}

func (h *history) collector() *elected.Collector {
	return &elected.Collector{
		Cluster: h.Cluster,
		StatefulSet: func(_ context.Context, namespace, name string) (elected.Window, error) {
			switch {
			case h.err != nil:
				return elected.Window{}, h.err
			case h.window == nil || namespace != "default" || name != "web":
				return elected.Window{}, lease.ErrNotFound
			}
			return *h.window, nil
		},
	}
}

func identity(pod string) lease.Identity {
	return lease.Identity{Namespace: "default", Pod: pod, Interface: "eth0"}
}

// place gives the pod's identity an address, as its node's agent would.
func (h *history) place(pod string, addr netip.Addr) {
	h.t.Helper()
	h.change(func(b *lease.Block) error {
		b.Claim(worker, 1<<lease.Offset(addr))
		return b.Pin(worker.UID, addr, identity(pod))
	})
	_, err := h.PutEndpoint(h.t.Context(), lease.Endpoint{
		Namespace: "default", Pod: pod, Sticky: true,
		Addresses: []lease.EndpointAddress{{Interface: "eth0", Addr: addr}},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	clear(h.seen)
}

func (h *history) change(how func(*lease.Block) error) {
	h.t.Helper()
	b, err := h.Block(h.t.Context(), block)
	if errors.Is(err, lease.ErrNotFound) {
		b, err = lease.NewBlock(lease.BlockOf(addr101))
	}
	if err == nil {
		err = how(&b)
	}
	if err == nil {
		_, err = h.PutBlock(h.t.Context(), b)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *history) pin(addr netip.Addr) (lease.Pin, bool) {
	for _, b := range h.Blocks() {
		if p, ok := b.PinAt(addr); ok {
			return p, true
		}
	}
	return lease.Pin{}, false
}

func (h *history) wantPinned(pod string, addr netip.Addr) {
	h.t.Helper()
	want := lease.Pin{Addr: addr, Identity: identity(pod)}
	got, _ := h.pin(addr)
	if diff := cmp.Diff(want, got, cmp.Comparer(func(x, y netip.Addr) bool { return x == y })); diff != "" {
		h.t.Errorf("pin of %s (-want +got):\n%s\n%s", addr, diff, h)
	}
}

func (h *history) wantUnpinned(addr netip.Addr) {
	h.t.Helper()
	if p, ok := h.pin(addr); ok {
		h.t.Errorf("%s is still pinned: %+v\n%s", addr, p, h)
	}
}

// collect calls the collector until it has no error, at most ten times.
func (h *history) collect() elected.Collected {
	h.t.Helper()
	var err error
	for range 10 {
		var done elected.Collected
		if done, err = h.collector().Block(h.t.Context(), block, nil); err == nil {
			return done
		}
	}
	h.t.Fatalf("the collector does not come to an end: %v", err)
	return elected.Collected{}
}

func TestScaleDownGivesPinAndEndpointBack(t *testing.T) {
	h := newHistory(t, 1)
	h.place("web-1", addr101)
	done := h.collect()
	h.wantUnpinned(addr101)
	if len(done.Removed) != 1 || done.Removed[0].Identity != identity("web-1") {
		t.Errorf("removed %v, want the pin of web-1", done.Removed)
	}
	if _, err := h.collector().Pointer(t.Context(), "default", "web-1"); err != nil {
		t.Fatal(err)
	}
	if es := h.Endpoints(); len(es) != 0 {
		t.Errorf("endpoints left: %v", es)
	}
	if got := h.Blocks()[0].LeasedTo(worker.UID).Len(); got != 1 {
		t.Errorf("%d addresses leased, want 1: the lease stays with its node", got)
	}
}

// Half of sixteen pods in one block: each pod is looked for in both looks and
// before its endpoint goes, and what they share is read once for all of them.
func TestScaleDownCostsFiveRequestsAPodAndAFewForAll(t *testing.T) {
	h := newHistory(t, 8)
	first := lease.BlockOf(addr101).Addr()
	for i, addr := 0, first; i < lease.Size; i, addr = i+1, addr.Next() {
		h.place(fmt.Sprintf("web-%d", i), addr)
	}
	c, sets := h.collector(), 0
	window := c.StatefulSet
	c.StatefulSet = func(ctx context.Context, namespace, name string) (elected.Window, error) {
		sets++
		return window(ctx, namespace, name)
	}
	before := len(h.Calls())
	done, err := c.Block(t.Context(), block, func(p lease.Pin) bool {
		_, ordinal, _ := elected.SplitPodName(p.Identity.Pod)
		return ordinal >= 8
	})
	if err != nil || len(done.Removed) != 8 {
		t.Fatalf("removed %v, %v", done.Removed, err)
	}
	var gone []elected.Pod
	for _, p := range done.Removed {
		gone = append(gone, elected.Pod{Namespace: p.Identity.Namespace, Name: p.Identity.Pod})
	}
	if _, failed, err := c.Pointers(t.Context(), gone); err != nil || len(failed) > 0 {
		t.Fatalf("failed %v, %v", failed, err)
	}
	cost := map[string]int{}
	for _, call := range h.Calls()[before:] {
		cost[call.Method]++
	}
	want := map[string]int{"PodAt": 3 * 8, "Endpoint": 8, "DeleteEndpoint": 8, "Block": 2, "PutBlock": 2}
	if diff := cmp.Diff(want, cost); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if sets != 2 {
		t.Errorf("the StatefulSet was read %d times, want once in each look", sets)
	}
}

// An error says nothing of those whom it does not concern.
func TestUnreadableEndpointLeavesTheOthers(t *testing.T) {
	h := newHistory(t, 0)
	for _, pod := range []string{"web-0", "web-1", "web-2"} {
		h.place(pod, addr101)
		h.change(func(b *lease.Block) error { b.Pins = nil; return nil })
	}
	h.on["Endpoint 2"] = func() leasetest.Fault { return leasetest.Fault{Kind: leasetest.Lost} }
	_, failed, err := h.collector().Pointers(t.Context(), []elected.Pod{{"default", "web-0"}, {"default", "web-1"}, {"default", "web-2"}})
	if diff := cmp.Diff([]elected.Pod{{Namespace: "default", Name: "web-1"}}, failed); diff != "" || err == nil {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
	if es := h.Endpoints(); len(es) != 1 || es[0].Pod != "web-1" {
		t.Errorf("left are %v, want web-1", es)
	}
}

func TestWantedPinCostsNoWrite(t *testing.T) {
	h := newHistory(t, 2)
	h.place("web-1", addr101)
	before := h.Blocks()[0].Version
	h.collect()
	if _, err := h.collector().Pointer(t.Context(), "default", "web-1"); err != nil {
		t.Fatal(err)
	}
	h.wantPinned("web-1", addr101)
	if after := h.Blocks()[0].Version; after != before || len(h.Endpoints()) != 1 {
		t.Errorf("block went from version %s to %s, want no write\n%s", before, after, h)
	}
}

func TestPodAboveReplicaCountKeepsItsAddressUntilItIsGone(t *testing.T) {
	for _, finished := range []bool{false, true} {
		h := newHistory(t, 1)
		h.place("web-1", addr101)
		h.SetPod("default", "web-1", worker.Name, finished)
		before := h.Blocks()[0].Version
		done := h.collect()
		if after := h.Blocks()[0].Version; len(done.Waiting) != 1 || after != before {
			t.Errorf("finished %v: waiting for %v, version %s to %s, want to wait without a write", finished, done.Waiting, before, after)
		}
		h.wantPinned("web-1", addr101)
		h.DeletePod("default", "web-1")
		h.collect()
		h.wantUnpinned(addr101)
	}
}

func TestScaleUpBehindScaleDownKeepsAddress(t *testing.T) {
	h := newHistory(t, 1)
	h.place("web-1", addr101)
	h.on["PutBlock 1"] = func() leasetest.Fault { // the mark is on its way
		h.window.Replicas = 2
		return leasetest.Fault{}
	}
	h.collect()
	h.wantPinned("web-1", addr101)
}

func TestPodCreatedBehindTheMarkKeepsAddress(t *testing.T) {
	h := newHistory(t, 1)
	h.place("web-1", addr101)
	h.on["PodAt 2"] = func() leasetest.Fault { // the second look begins
		h.SetPod("default", "web-1", worker.Name, false)
		return leasetest.Fault{}
	}
	h.collect()
	h.wantPinned("web-1", addr101)
}

// The pod was there, though nobody wants it, before the mark landed: it had
// read its pin without one and was answered.
func TestPodConfirmedBeforeTheMarkKeepsAddress(t *testing.T) {
	h := newHistory(t, 1)
	h.place("web-1", addr101)
	h.on["PutBlock 1"] = func() leasetest.Fault { // the first look found no pod
		h.SetPod("default", "web-1", worker.Name, false)
		h.wantPinned("web-1", addr101)
		return leasetest.Fault{}
	}
	h.collect()
	h.wantPinned("web-1", addr101)
}

// The pod is on its way out when the second look begins, its StatefulSet
// grows again, and then the pod is gone: at every moment somebody wanted the
// address.
func TestPodGoingAwayWhileItsSetGrowsAgainKeepsAddress(t *testing.T) {
	h := newHistory(t, 1)
	h.place("web-1", addr101)
	h.on["PutBlock 1"] = func() leasetest.Fault { // the first look found no pod
		h.SetPod("default", "web-1", worker.Name, false)
		return leasetest.Fault{}
	}
	h.on["PodAt 2"] = func() leasetest.Fault {
		h.window.Replicas = 2
		h.DeletePod("default", "web-1")
		return leasetest.Fault{}
	}
	h.collect()
	h.wantPinned("web-1", addr101)
}

// An endpoint that gives the pod another address counts only where that one
// is pinned for it.
func TestPinStaysWhenTheAddressItWasLeftForIsNotPinned(t *testing.T) {
	h := newHistory(t, 1)
	h.place("web-0", addr101)
	e, err := h.Endpoint(t.Context(), "default", "web-0")
	if err != nil {
		t.Fatal(err)
	}
	e.PodUID = h.SetPod("default", "web-0", worker.Name, false)
	e.Addresses[0].Addr = addr101.Next()
	if _, err := h.PutEndpoint(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	h.collect()
	h.wantPinned("web-0", addr101)
}

func TestUnpinLosesToConfirmingRead(t *testing.T) {
	h := newHistory(t, 1)
	h.place("web-1", addr101)
	h.on["PutBlock 2"] = func() leasetest.Fault { // the second look found no pod
		h.window.Replicas = 2
		h.SetPod("default", "web-1", worker.Name, false)
		h.change(func(b *lease.Block) error { return b.Unmark(addr101, identity("web-1")) })
		return leasetest.Fault{}
	}
	_, err := h.collector().Block(t.Context(), block, nil)
	if !errors.Is(err, lease.ErrConflict) {
		t.Errorf("removal ended with %v, want a conflict", err)
	}
	h.wantPinned("web-1", addr101)
	h.collect()
	h.wantPinned("web-1", addr101)
}

func TestLateRemovalIsEndedByTheNextUpdate(t *testing.T) {
	h := newHistory(t, 1)
	h.place("web-1", addr101)
	h.on["PutBlock 2"] = func() leasetest.Fault { return leasetest.Fault{Kind: leasetest.Late} }
	if _, err := h.collector().Block(t.Context(), block, nil); err == nil {
		t.Fatal("the answer was lost, and the collector reports success")
	}
	h.window.Replicas = 2 // and the removal is still under way
	h.collect()
	if landed := h.Land(); landed != 0 {
		t.Errorf("%d late updates took effect", landed)
	}
	h.wantPinned("web-1", addr101)
}

func TestLateMarkIsTakenOffAgain(t *testing.T) {
	h := newHistory(t, 1)
	h.place("web-1", addr101)
	h.on["PutBlock 1"] = func() leasetest.Fault { return leasetest.Fault{Kind: leasetest.Late} }
	if _, err := h.collector().Block(t.Context(), block, nil); err == nil {
		t.Fatal("the answer was lost, and the collector reports success")
	}
	h.window.Replicas = 2
	h.collect()
	if h.Land() != 1 {
		t.Fatal("the mark did not land, the history is not the one meant")
	}
	h.collect()
	h.wantPinned("web-1", addr101)
}

func TestErrorIsNoEvidence(t *testing.T) {
	for _, method := range []string{"Block", "PodAt", "PutBlock"} {
		for n := 1; n <= 2; n++ {
			key := fmt.Sprintf("%s %d", method, n)
			if key == "Block 2" {
				continue // the second look reads no block
			}
			h := newHistory(t, 1)
			h.place("web-1", addr101)
			h.on[key] = func() leasetest.Fault { return leasetest.Fault{Kind: leasetest.Lost} }
			if _, err := h.collector().Block(t.Context(), block, nil); err == nil {
				t.Errorf("%s lost: the collector reports success", key)
			}
			if _, ok := h.pin(addr101); !ok {
				t.Errorf("%s lost: the pin is gone", key)
			}
		}
	}
	h := newHistory(t, 1)
	h.place("web-1", addr101)
	h.err = errors.New("the API server is not there")
	if _, err := h.collector().Block(t.Context(), block, nil); !errors.Is(err, h.err) {
		t.Errorf("StatefulSet unreadable: %v", err)
	}
	h.wantPinned("web-1", addr101)
}

// TestNoHistoryLosesAnAddressInUse plays random scale-downs, scale-ups and
// pod starts against a cluster that fails in every way it can, with a lessee
// that keeps the protocol's rules, and checks after every step that a pod
// which was given its address still has it pinned.
func TestNoHistoryLosesAnAddressInUse(t *testing.T) {
	for seed := range uint64(3000) {
		playHistory(t, seed)
	}
}

func TestAddressLeftBehindComesBackWhileThePodRuns(t *testing.T) {
	h := newHistory(t, 1)
	h.place("web-0", addr101)
	uid := h.SetPod("default", "web-0", worker.Name, false)
	next := addr101.Next()
	h.change(func(b *lease.Block) error {
		b.Claim(worker, 1<<lease.Offset(next))
		return b.Pin(worker.UID, next, identity("web-0"))
	})
	h.collect()
	h.wantPinned("web-0", addr101) // for all the endpoint tells, the pod has it
	e := h.Endpoints()[0]
	e.PodUID = uid
	e.Addresses = []lease.EndpointAddress{{Interface: "eth0", Addr: next}}
	if _, err := h.PutEndpoint(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	h.collect()
	h.wantUnpinned(addr101)
	h.wantPinned("web-0", next)
}

func TestErrorKeepsItsOwnPodsPinsOnly(t *testing.T) {
	h := newHistory(t, 0)
	h.place("web-0", addr101)
	h.place("web-1", addr101.Next())
	h.on["PodAt 1"] = func() leasetest.Fault { return leasetest.Fault{Kind: leasetest.Lost} }
	done, err := h.collector().Block(t.Context(), block, nil)
	if err == nil || len(done.Removed) != 1 {
		t.Errorf("removed %v, %v, want one pin gone and an error of the other", done.Removed, err)
	}
	h.wantPinned("web-0", addr101)
	h.wantUnpinned(addr101.Next())
	h.collect()
	h.wantUnpinned(addr101)
}

func TestPointerWithoutPinGoes(t *testing.T) {
	h := newHistory(t, 2)
	h.place("web-1", addr101)
	e, err := h.Endpoint(t.Context(), "default", "web-1")
	if err != nil {
		t.Fatal(err)
	}
	kept := e.Addresses
	e.Addresses = append(e.Addresses, lease.EndpointAddress{Interface: "net1", Addr: netip.MustParseAddr("10.7.0.1")})
	if _, err := h.PutEndpoint(t.Context(), e); err != nil {
		t.Fatal(err)
	}

	h.SetPod("default", "web-1", worker.Name, false)
	if waits, err := h.collector().Pointer(t.Context(), "default", "web-1"); err != nil || !waits {
		t.Fatalf("it waits for the end of its pod: %t, %v", waits, err)
	}
	if got := h.Endpoints(); len(got) != 1 || len(got[0].Addresses) != 2 {
		t.Errorf("endpoints %v, want no change while a pod of the name exists", got)
	}
	h.DeletePod("default", "web-1")
	if waits, err := h.collector().Pointer(t.Context(), "default", "web-1"); err != nil || waits {
		t.Fatalf("it waits without a pod: %t, %v", waits, err)
	}
	if got := h.Endpoints(); len(got) != 1 || len(got[0].Addresses) != 1 || got[0].Addresses[0].Addr != kept[0].Addr {
		t.Errorf("endpoints %v, want the one that names the pinned %s only", got, addr101)
	}
}

func TestPointerLosesToPlacement(t *testing.T) {
	h := newHistory(t, 2)
	h.place("web-1", addr101)
	h.change(func(b *lease.Block) error {
		if err := b.MarkReleasing(addr101, identity("web-1")); err != nil {
			return err
		}
		return b.Unpin(addr101, identity("web-1"))
	})
	h.on["DeleteEndpoint 1"] = func() leasetest.Fault {
		h.SetPod("default", "web-1", worker.Name, false)
		h.change(func(b *lease.Block) error { return b.Pin(worker.UID, addr101, identity("web-1")) })
		e := h.Endpoints()[0]
		e.PodUID = "new"
		if _, err := h.PutEndpoint(t.Context(), e); err != nil {
			t.Error(err)
		}
		return leasetest.Fault{}
	}
	if _, err := h.collector().Pointer(t.Context(), "default", "web-1"); !errors.Is(err, lease.ErrConflict) {
		t.Errorf("deletion ended with %v, want a conflict", err)
	}
	if len(h.Endpoints()) != 1 {
		t.Error("the endpoint of a pod that was placed meanwhile is gone")
	}
}

func TestEndpointOfStatelessPodIsLeftAlone(t *testing.T) {
	h := newHistory(t, 0)
	if _, err := h.PutEndpoint(t.Context(), lease.Endpoint{Namespace: "default", Pod: "nginx-x2x4z"}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.collector().Pointer(t.Context(), "default", "nginx-x2x4z"); err != nil {
		t.Fatal(err)
	}
	if len(h.Endpoints()) != 1 {
		t.Error("the endpoint is gone")
	}
}

func TestEmptyBlockGoes(t *testing.T) {
	h := newHistory(t, 0)
	h.change(func(*lease.Block) error { return nil })
	if done := h.collect(); !done.Deleted || len(h.Blocks()) != 0 {
		t.Errorf("%+v, blocks left: %v", done, h.Blocks())
	}
	if done := h.collect(); done.Deleted {
		t.Error("a block that does not exist was deleted")
	}
}

func TestEmptyBlockClaimedMeanwhileStays(t *testing.T) {
	h := newHistory(t, 0)
	h.change(func(*lease.Block) error { return nil })
	h.on["DeleteBlock 1"] = func() leasetest.Fault {
		h.change(func(b *lease.Block) error { b.Claim(worker, 1); return nil })
		return leasetest.Fault{}
	}
	h.collect()
	if len(h.Blocks()) != 1 {
		t.Error("a block with a lease was deleted")
	}
}

func TestStatelessPinLastsAsLongAsItsPod(t *testing.T) {
	h := newHistory(t, 2)
	h.place("web-1", addr101)
	h.SetPod("default", "web-1", worker.Name, false)
	c := h.collector()
	c.Stateless = true
	for _, exists := range []bool{true, false} {
		if !exists {
			h.DeletePod("default", "web-1")
		}
		if _, err := c.Block(t.Context(), block, nil); err != nil {
			t.Fatal(err)
		}
		if _, pinned := h.pin(addr101); pinned != exists {
			t.Errorf("pod exists %v, pinned %v", exists, pinned)
		}
	}
}

func playHistory(t *testing.T, seed uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	h := newHistory(t, 1)
	h.place("web-0", addr101)
	confirmed := false // a pod of web-0 was told that the address is its own
	happen := func() {
		switch random.IntN(6) {
		case 0:
			h.window.Replicas = 0
		case 1:
			h.window.Replicas = 1
		case 2: // a pod ends in good order: nothing uses the address any more
			h.DeletePod("default", "web-0")
			confirmed = false
		case 3:
			if h.window.Replicas == 1 && len(h.Pods()) == 0 {
				h.SetPod("default", "web-0", worker.Name, false)
			}
		case 4:
			if len(h.Pods()) == 1 && !confirmed {
				confirmed = confirm(h)
			}
		}
	}
	faults := leasetest.Seeded(seed, leasetest.Odds{Lost: 0.1, AnswerLost: 0.1, Late: 0.2, Conflict: 0.05, LateBy: 8})
	busy := false
	fault := func(call leasetest.Call) leasetest.Fault {
		if busy { // the lessee's own calls
			return leasetest.Fault{}
		}
		busy = true
		for range random.IntN(6) {
			happen()
		}
		busy = false
		return faults(call)
	}
	armed := false
	h.armed = func(call leasetest.Call) leasetest.Fault {
		if !armed {
			return leasetest.Fault{}
		}
		return fault(call)
	}
	removed := false
	for range 40 {
		armed = true
		_, _ = h.collector().Block(t.Context(), block, nil) // an error is followed by the next call
		armed = false
		happen()
		p, pinned := h.pin(addr101)
		if confirmed && (!pinned || p.Identity != identity("web-0")) {
			t.Fatalf("seed %d: a running pod lost its address\n%s", seed, h)
		}
		if !pinned {
			removed = true
			break
		}
	}
	if removed && confirmed {
		t.Fatalf("seed %d: removed while in use\n%s", seed, h)
	}
}

// confirm is what a lessee does once for a pod UID: it reads the block, and
// takes a mark off before it answers.
func confirm(h *history) bool {
	b, err := h.Block(h.t.Context(), block)
	if err != nil {
		return false
	}
	p, ok := b.PinAt(addr101)
	if !ok || p.Identity != identity("web-0") {
		return false
	}
	if !p.Releasing {
		return true
	}
	if err := b.Unmark(addr101, p.Identity); err != nil {
		return false
	}
	_, err = h.PutBlock(h.t.Context(), b)
	return err == nil
}
