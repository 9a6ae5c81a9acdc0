package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/lease"
)

// quarantine is how long an address that a lost journal may have assigned
// stays unused, when neither a pod's status nor an endpoint names it.
const quarantine = 10 * time.Minute

// recollection is an address that something tells a pod has.
type recollection struct {
	entry lease.Entry
	pod   *corev1.Pod
	// outlived is set when other pods are told to have the address as well,
	// and this one's has ended.
	outlived bool
	// status is set when the pod's status tells, last when it does so of a
	// sandbox that is no more, and version is that of the endpoint which tells.
	status, last bool
	version      string
}

// recollect returns what endpoints and the status of this node's pods tell
// about addresses in use, for a node that leases in blocks and has lost its
// journal. A pinned address is its identity's alone. Of several pods that are
// told to have one address, because endpoint and status stay as they are when
// their pod gives an address back, one that has not ended has it, and of these
// the one whose status says so of a sandbox that is there, or the one whose
// endpoint was written last. The pods are listed by a quorum read: a watch may
// begin with what a lagging cache has, and an address of a pod that it does not
// show yet would be free when the quarantine is over.
func (a *Agent) recollect(ctx context.Context, blocks []lease.Block) ([]lease.Entry, error) {
	var all []recollection
	pods, err := cluster.PodsOn(ctx, a.kube.CoreV1(), a.node.Name)
	if err != nil {
		return nil, fmt.Errorf("list this node's pods: %w", err)
	}
	for i := range pods {
		if pods[i].Spec.HostNetwork {
			continue
		}
		told, err := a.toldOf(ctx, &pods[i])
		if err != nil {
			return nil, err
		}
		told = slices.DeleteFunc(told, func(r recollection) bool { return !fits(&r.entry, blocks) })
		preferStatus(told)
		all = append(all, told...)
	}
	if err := a.outlive(ctx, all); err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, worthMore)
	known := map[netip.Addr]bool{}
	var inUse []lease.Entry
	for _, r := range all {
		if !known[r.entry.Addr] {
			known[r.entry.Addr] = true
			inUse = append(inUse, r.entry)
		}
	}
	return inUse, nil
}

// outlive finds out by quorum reads which of the pods that are told to have one
// address have ended. An address that one pod alone is told to have is that
// pod's: its sandbox may be there yet.
func (a *Agent) outlive(ctx context.Context, all []recollection) error {
	tellers := map[netip.Addr]int{}
	for _, r := range all {
		tellers[r.entry.Addr]++
	}
	for i := range all {
		r := &all[i]
		if tellers[r.entry.Addr] == 1 {
			continue
		}
		at, err := a.cluster.PodAt(ctx, r.pod.Namespace, r.pod.Name)
		if err != nil && ignoreNotFound(err) != nil {
			return err
		}
		r.outlived = err != nil || at.UID != string(r.pod.UID) || at.Finished
	}
	return nil
}

// toldOf returns the addresses that the pod's endpoint and status tell of.
func (a *Agent) toldOf(ctx context.Context, pod *corev1.Pod) ([]recollection, error) {
	ep, err := a.cluster.Endpoint(ctx, pod.Namespace, a.bearing(pod).name)
	if err != nil && ignoreNotFound(err) != nil {
		return nil, err
	}
	return a.collate(pod, ep, a.pools.detailOf), nil
}

// collate is [Agent.toldOf] for an endpoint, which may be of an earlier pod of
// the name.
func (a *Agent) collate(pod *corev1.Pod, ep lease.Endpoint, detailOf func(netip.Addr) json.RawMessage) []recollection {
	status := cluster.Told(pod)
	_, last := cluster.WithoutSandbox(pod)
	var told []recollection
	for _, e := range ep.Addresses {
		// An address may have been another interface's in an earlier sandbox.
		i := slices.IndexFunc(status, func(s lease.EndpointAddress) bool { return s.Addr == e.Addr && s.Interface == e.Interface })
		// What is written of an earlier pod of the name counts where the status
		// says that this one has the address too: its pool may be gone.
		if i < 0 && ep.PodUID != string(pod.UID) {
			continue
		}
		r := recollection{entry: a.recollected(pod, e.Interface, e.Addr), pod: pod, status: i >= 0, last: last, version: ep.Version}
		r.entry.Detail = e.Detail
		told = append(told, r)
		if i >= 0 {
			status = slices.Delete(status, i, i+1)
		}
	}
	for _, s := range status {
		r := recollection{entry: a.recollected(pod, s.Interface, s.Addr), pod: pod, status: true, last: last}
		r.entry.Detail = detailOf(s.Addr)
		told = append(told, r)
	}
	return told
}

// preferStatus settles which address of a family an interface goes on with
// where its endpoint and its status name different ones, because one of them is
// from an earlier sandbox: the status's, and the first of its two, since what
// Multus has written comes second. The other one may be in use as well, so it
// stays the pod's until its end, without detail, which no sandbox is answered
// with.
func preferStatus(told []recollection) {
	for i := range told {
		of := &told[i]
		if of.entry.Detail == nil {
			continue
		}
		for j := range told {
			e := &told[j].entry
			worse := of.status && !told[j].status || of.status == told[j].status && i < j
			if worse && e.Owner == of.entry.Owner && e.Addr.Is4() == of.entry.Addr.Is4() {
				e.Detail = nil
			}
		}
	}
}

// recollected returns the entry of an address whose sandbox is not known.
func (a *Agent) recollected(pod *corev1.Pod, ifname string, addr netip.Addr) lease.Entry {
	b := a.bearing(pod)
	return lease.Entry{
		Addr: addr, State: lease.Assigned, Since: a.now(),
		Owner: lease.Owner{PodUID: uidOf(pod), Interface: ifname}, Container: lease.UnknownSandbox,
		Namespace: pod.Namespace, Pod: b.name, Kind: b.kind, Bearer: b.pod, Sticky: b.sticky,
	}
}

// fits reports whether the pins of the blocks allow that the entry's pod has
// its address.
func fits(e *lease.Entry, blocks []lease.Block) bool {
	for i := range blocks {
		if blocks[i].Prefix().Contains(e.Addr) {
			pin, pinned := blocks[i].PinAt(e.Addr)
			return pinned == e.Sticky && (!pinned || pin.Identity == e.Identity())
		}
	}
	return false // not leased here
}

// worthMore orders what is told of one address, the best first. Versions of
// one kind of object are decimal numbers that grow (KEP-5504).
func worthMore(x, y recollection) int {
	return cmp.Or(
		x.entry.Addr.Compare(y.entry.Addr),
		cmp.Compare(rank(x.outlived), rank(y.outlived)),
		-cmp.Compare(rank(x.status && !x.last), rank(y.status && !y.last)),
		-cmp.Compare(len(x.version), len(y.version)),
		-cmp.Compare(x.version, y.version))
}

func rank(claim bool) int {
	if claim {
		return 1
	}
	return 0
}
