package lease_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go4.org/netipx"

	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

const (
	coolDown  = 5 * time.Second
	namespace = "default"
	ifname    = "eth0"
)

// world is one cluster with its nodes. Its time is synctest's, so retries and
// cool-downs take none.
type world struct {
	*testing.T
	cluster *leasetest.Cluster
	// fault is what goes wrong in the calls to come, nil for nothing.
	fault func(leasetest.Call) leasetest.Fault
	nodes []*node
}

// node is a node with its disk and the process that runs on it.
type node struct {
	*lease.Lessee
	w         *world
	id        lease.Node
	disk      *leasetest.Disk
	diskFault func(leasetest.DiskWrite) leasetest.DiskFault
	sandboxes int
}

// history runs a test in a world of its own.
func history(t *testing.T, play func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t}
		w.cluster = leasetest.NewCluster(func(c leasetest.Call) leasetest.Fault {
			if w.fault == nil {
				return leasetest.Fault{}
			}
			return w.fault(c)
		})
		play(w)
	})
}

// node adds a node and starts it.
func (w *world) node(name string) *node {
	w.Helper()
	n := &node{w: w, id: lease.Node{Name: name, UID: "uid-of-" + name}}
	n.disk = leasetest.NewDisk(func(d leasetest.DiskWrite) leasetest.DiskFault {
		if n.diskFault == nil {
			return leasetest.Synced
		}
		return n.diskFault(d)
	})
	w.nodes = append(w.nodes, n)
	n.boot()
	n.start()
	return n
}

// boot begins a process with what the disk has.
func (n *node) boot() {
	n.w.Helper()
	l, err := lease.New(lease.Config{
		Node: n.id, Cluster: n.w.cluster, Disk: n.disk.Open(), Now: time.Now, CoolDown: coolDown,
	})
	if err != nil {
		n.w.Fatal(err)
	}
	n.Lessee = l
}

// start tells a process which leases its node has.
func (n *node) start() {
	n.w.Helper()
	if err := n.Start(n.leases(), false, nil, 0); err != nil {
		n.w.Fatal(err)
	}
	n.Trust(time.Now().Add(24 * time.Hour))
}

// restart crashes the process and begins another one.
func (n *node) restart() {
	n.w.Helper()
	n.disk.Crash()
	n.diskFault = nil
	n.boot()
	n.start()
}

// leases are those of the node.
func (n *node) leases() lease.Leases { return n.w.cluster.Leases(n.id.UID) }

// pass lets time go by.
func (w *world) pass(d time.Duration) { time.Sleep(d) } // synctest's time

// pool returns a pool of the ranges, "10.0.0.1-10.0.0.9".
func pool(name string, plenty int, ranges ...string) lease.Pool {
	var b netipx.IPSetBuilder
	for _, r := range ranges {
		b.AddRange(netipx.MustParseIPRange(r))
	}
	set, err := b.IPSet()
	if err != nil {
		panic(err)
	}
	return lease.Pool{Name: name, Ranges: set, Plenty: plenty, Detail: func(a netip.Addr) json.RawMessage {
		return json.RawMessage(fmt.Sprintf(`{"from":%q}`, name))
	}}
}

// pod is a pod of a name.
type pod struct {
	name, uid string
	sticky    bool
	// machine is that of a pod that runs one.
	machine string
}

// pod creates a stateless pod bound to the node.
func (w *world) pod(name string, n *node) pod {
	return pod{name: name, uid: w.cluster.SetPod(namespace, name, n.id.Name, false)}
}

// member creates a StatefulSet's pod bound to the node. An earlier pod of the
// name is gone.
func (w *world) member(name string, n *node) pod {
	p := w.pod(name, n)
	p.sticky = true
	return p
}

func (p pod) owner() lease.Owner { return lease.Owner{PodUID: p.uid, Interface: ifname} }

func (p pod) identity() lease.Identity {
	if p.machine != "" {
		return lease.Identity{Namespace: namespace, Pod: p.machine, Interface: ifname, Kind: "Machine"}
	}
	return lease.Identity{Namespace: namespace, Pod: p.name, Interface: ifname}
}

// request asks for an address of one pool for each family.
func (p pod) request(container string, pools ...lease.Pool) lease.Request {
	r := lease.Request{
		Owner: p.owner(), Container: container, Namespace: namespace, Pod: p.name,
		Network: "net", Sticky: p.sticky,
	}
	if p.machine != "" {
		r.Pod, r.Kind, r.Bearer = p.machine, "Machine", p.name
	}
	for _, pool := range pools {
		r.Families = append(r.Families, []lease.Pool{pool})
	}
	return r
}

// sandbox is a container with addresses.
type sandbox struct {
	pod
	id    string
	addrs []netip.Addr
}

// tryAdd is an ADD for a new sandbox of the pod.
func (n *node) tryAdd(ctx context.Context, p pod, pools ...lease.Pool) (sandbox, error) {
	n.sandboxes++
	s := sandbox{pod: p, id: fmt.Sprintf("%s-%s-%d", n.id.Name, p.name, n.sandboxes)}
	entries, err := n.Acquire(ctx, p.request(s.id, pools...))
	for _, e := range entries {
		s.addrs = append(s.addrs, e.Addr)
	}
	return s, err
}

// add is an ADD that must succeed.
func (n *node) add(p pod, pools ...lease.Pool) sandbox {
	n.w.Helper()
	s, err := n.tryAdd(n.w.Context(), p, pools...)
	if err != nil {
		n.w.Fatalf("ADD of %s on %s: %v\n%s", p.name, n.id.Name, err, n.w)
	}
	return s
}

// del is a DEL, which always succeeds.
func (n *node) del(s sandbox) []lease.Entry {
	n.w.Helper()
	released, err := n.Release(lease.Sandbox{Owner: s.owner(), Container: s.id})
	if err != nil {
		n.w.Fatalf("DEL of %s on %s: %v", s.id, n.id.Name, err)
	}
	return released
}

// tidy is a Tidy that must finish.
func (n *node) tidy() {
	n.w.Helper()
	if err := n.Tidy(n.w.Context()); err != nil {
		n.w.Fatalf("Tidy on %s: %v\n%s", n.id.Name, err, n.w)
	}
}

// entry is what the node's journal has for an address.
func (n *node) entry(addr netip.Addr) (lease.Entry, bool) {
	for _, e := range n.Entries() {
		if e.Addr == addr {
			return e, true
		}
	}
	return lease.Entry{}, false
}

// wantNoRecall fails if the journal alone answers for the pod.
func (n *node) wantNoRecall(p pod) {
	n.w.Helper()
	if got, err := n.Recall(n.w.Context(), p.request("next")); err != nil || len(got) != 0 {
		n.w.Errorf("recalled %v, %v", got, err)
	}
}

// wantState fails unless the journal says so of the address; "" is no entry.
func (n *node) wantState(addr netip.Addr, want lease.State) {
	n.w.Helper()
	if e, _ := n.entry(addr); e.State != want {
		n.w.Fatalf("journal of %s says %q of %s, want %q\n%s", n.id.Name, e.State, addr, want, n.w)
	}
}

// wantAddrs fails unless two answers are the same.
func (w *world) wantAddrs(got, want []netip.Addr) {
	w.Helper()
	if !slices.Equal(got, want) {
		w.Fatalf("got %v, want %v\n%s", got, want, w)
	}
}

// wantErr fails unless err is what was asked for.
func (w *world) wantErr(err, want error) {
	w.Helper()
	if !errors.Is(err, want) {
		w.Fatalf("got error %v, want %v", err, want)
	}
}

// costs runs f and fails unless the cluster saw just these calls.
func (w *world) costs(f func(), want ...string) {
	w.Helper()
	before := len(w.cluster.Calls())
	f()
	var got []string
	for _, c := range w.cluster.Calls()[before:] {
		got = append(got, c.Method)
	}
	if !slices.Equal(got, want) {
		w.Fatalf("cost %q, want %q", got, want)
	}
}

// block returns the block of an address as the cluster has it.
func (w *world) block(addr netip.Addr) lease.Block {
	for _, b := range w.cluster.Blocks() {
		if b.Prefix() == lease.BlockOf(addr) {
			return b
		}
	}
	b, err := lease.NewBlock(lease.BlockOf(addr))
	if err != nil {
		w.Fatal(err)
	}
	return b
}

// change is a guarded update by somebody else.
func (w *world) change(addr netip.Addr, change func(*lease.Block) error) {
	w.Helper()
	b := w.block(addr)
	if err := change(&b); err != nil {
		w.Fatal(err)
	}
	if _, err := w.cluster.PutBlock(w.Context(), b); err != nil {
		w.Fatal(err)
	}
}

// watch hands the node everything that changed in its blocks after a version.
func (n *node) watch(after uint64) {
	n.w.Helper()
	for _, c := range n.w.cluster.Changes(after) {
		if c.Block == nil {
			continue
		}
		var err error
		if c.Deleted || c.Block.LeasedTo(n.id.UID) == 0 {
			err = n.Missing(n.w.Context(), c.Block.Prefix())
		} else {
			err = n.Observe(*c.Block)
		}
		if err != nil {
			n.w.Fatal(err)
		}
	}
}

// String is the state of everything, for the message of a failing test.
func (w *world) String() string {
	var s strings.Builder
	s.WriteString(w.cluster.String())
	for _, n := range w.nodes {
		for _, e := range n.Entries() {
			fmt.Fprintf(&s, "%s: %s %s of %s uid %s sandbox %q sticky %t\n",
				n.id.Name, e.Addr, e.State, e.Pod, e.Owner.PodUID, e.Container, e.Sticky)
		}
	}
	return s.String()
}

// once returns a fault for the n-th call of the method from now on.
func once(method string, n int, kind leasetest.Kind) func(leasetest.Call) leasetest.Fault {
	return func(c leasetest.Call) leasetest.Fault {
		if c.Method != method {
			return leasetest.Fault{}
		}
		if n--; n != 0 {
			return leasetest.Fault{}
		}
		return leasetest.Fault{Kind: kind}
	}
}

// always returns a fault for every call of the method, "" for all methods.
func always(method string, kind leasetest.Kind) func(leasetest.Call) leasetest.Fault {
	return func(c leasetest.Call) leasetest.Fault {
		if method != "" && c.Method != method {
			return leasetest.Fault{}
		}
		return leasetest.Fault{Kind: kind}
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// settle waits until every goroutine of the history waits for something.
func (w *world) settle() {
	w.Helper()
	synctest.Wait()
}
