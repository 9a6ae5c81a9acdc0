package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"
	cnitypes "github.com/containernetworking/cni/pkg/types"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/agent/selection"
	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/lease"
)

const (
	// exhaustedWait is how long an ADD waits for an address to come free before
	// it tells the runtime to try again. It is well below what the plugin waits
	// ([cni.AddTimeout]), and enough for an address that is given back to cool
	// down, to be yielded by its node, and to be claimed, more than once over.
	exhaustedWait = 20 * time.Second
	// exhaustedPause is the mean pause between two looks without news, of which
	// the first tenth passes with news as well. Each is drawn, so that those who
	// wait do not look all at once.
	exhaustedPause = time.Second
)

// add answers ADD. The path of an address is: cni.Add, this function,
// [lease.Lessee.Acquire], the journal.
func (a *Agent) add(ctx context.Context, q *cni.AddRequest) (*cni.AddResult, error) {
	// Another Node's pods are for that one's agent: who fences this one takes a
	// pod that was bound to the other and has not run yet for one without address.
	if node := a.nodes.get(); node != nil && string(node.UID) != a.node.UID {
		return nil, a.replaced()
	}
	// A pod that has addresses gets them again without asking anybody.
	entries, err := a.lessee.Recall(ctx, lease.Request{
		Owner:     sandbox(q.Attachment).Owner,
		Container: q.ContainerID, Network: q.Network,
		Namespace: q.Pod.Namespace, Pod: q.Pod.Name,
	})
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		if entries, err = a.assign(ctx, q); err != nil {
			return nil, err
		}
	}
	a.endpoints.enqueue(q.Pod.Namespace, q.Pod.Name)
	result, err := addResult(entries)
	if err != nil {
		return nil, err
	}
	a.detection(q, result)
	return result, nil
}

// assign finds out whose address it is and from which pools, and gets one. A
// StatefulSet pod that has an address keeps it also when its pools cannot be
// told any more: disabled, deleted, or misspelled in an annotation.
func (a *Agent) assign(ctx context.Context, q *cni.AddRequest) ([]lease.Entry, error) {
	// Before the caches are full, a pool looks like one that does not exist.
	if err := a.lessee.Ready(); errors.Is(err, lease.ErrNotStarted) {
		return nil, err
	}
	pod, err := a.pods.find(ctx, q.Pod)
	if err != nil {
		return nil, err
	}
	r := a.identify(pod, q)
	chosen, err := a.choose(pod, q)
	var refused *cni.Error
	if err != nil && !errors.As(err, &refused) {
		return nil, err // it says nothing of pools, and will pass
	}
	if err == nil {
		r.Families, err = a.families(r.Owner, chosen)
	}
	if err == nil {
		entries, err := a.acquire(ctx, r)
		if err == nil {
			a.upkeep.supply(r.Families)
			a.warnOfRoutes(ctx, pod, r.Owner, chosen)
		}
		return entries, withReasons(err, chosen)
	}
	if r.Sticky && !r.OnlyFrom {
		entries, none := a.lessee.Resume(ctx, r)
		if len(entries) > 0 || none != nil {
			return entries, none
		}
	}
	return nil, err
}

// families returns the pools that were selected, with those of the pod's
// routes that are left for the interface.
func (a *Agent) families(owner lease.Owner, chosen selection.Selection) ([][]lease.Pool, error) {
	left, err := a.notTaken(owner, chosen.Routes)
	if err != nil {
		return nil, err
	}
	chosen.Routes = left
	return a.pools.families(chosen)
}

// withReasons adds to the error of pools that are used out why the others
// that were named did not come into question, and what to do.
func withReasons(err error, chosen selection.Selection) error {
	var exhausted *lease.ExhaustedError
	if !errors.As(err, &exhausted) {
		return err
	}
	others := ""
	if len(chosen.Refused) > 0 {
		others = "; " + selection.Reasons(chosen.Refused)
	}
	return fmt.Errorf("%w%s; all are named by %s: add addresses to spec.ips of a pool, name another pool, or wait until a pod gives one back",
		err, others, chosen.From)
}

// acquire waits for an address to come free where there is none, because the
// agents of other nodes yield what they do not use when a pool is scarce. It
// looks again when one may have come free here, and otherwise once a second, for
// what other nodes give back.
func (a *Agent) acquire(ctx context.Context, r lease.Request) ([]lease.Entry, error) {
	defer a.pools.wait(r.Families)()
	a.pools.met(r.Owner.PodUID)
	pauses := backoff.NewExponentialBackOff(backoff.WithInitialInterval(exhaustedPause),
		backoff.WithMaxInterval(exhaustedPause), backoff.WithMaxElapsedTime(exhaustedWait))
	waits := false
	for {
		freed := a.lessee.Freed()
		entries, err := a.lessee.Acquire(ctx, r)
		var exhausted *lease.ExhaustedError
		if !errors.As(err, &exhausted) && !errors.Is(err, lease.ErrSearching) || void(exhausted, r.Families) {
			return entries, err
		}
		if !waits {
			waits = true
			defer a.lessee.Await(r.Owner, lacking(exhausted, r.Families))()
		}
		if exhausted != nil && a.pools.usedOut(exhausted.Pools) {
			a.upkeep.kick() // from now on what is surplus is judged otherwise
		}
		pause := pauses.NextBackOff()
		if pause == backoff.Stop || !sleep(ctx, pause/10, nil) || !sleep(ctx, pause-pause/10, freed) {
			return nil, err
		}
	}
}

// void reports whether the pools that are used out have no address at all, so
// that none can come free: the pools say so, or everything is reserved.
func void(exhausted *lease.ExhaustedError, families [][]lease.Pool) bool {
	if exhausted == nil {
		return false
	}
	return !slices.ContainsFunc(slices.Concat(families...), func(p lease.Pool) bool {
		return slices.Contains(exhausted.Pools, p.Name) && len(p.Ranges.Ranges()) > 0
	})
}

// lacking returns the pools that are used out, or while that is not known all
// that were asked for.
func lacking(exhausted *lease.ExhaustedError, families [][]lease.Pool) (pools []string) {
	if exhausted != nil {
		return exhausted.Pools
	}
	for _, family := range families {
		for _, p := range family {
			pools = append(pools, p.Name)
		}
	}
	return pools
}

// sleep waits for news or until the pause is over. It reports whether ctx still
// lasts.
func sleep(ctx context.Context, pause time.Duration, news <-chan struct{}) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-news:
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// choose selects the pools for an interface of a pod, from caches. That none
// fits is a [cni.Error].
func (a *Agent) choose(pod *corev1.Pod, q *cni.AddRequest) (selection.Selection, error) {
	namespace, err := a.namespaces.get(pod.Namespace)
	if err != nil {
		return selection.Selection{}, err
	}
	node := a.nodes.get()
	if node == nil || string(node.UID) != a.node.UID {
		return selection.Selection{}, a.replaced()
	}
	chosen, err := selection.Select(selection.Input{
		Pod: pod, Namespace: namespace, Node: node, Interface: q.Interface,
		Pools:       a.pools,
		DefaultIPv4: q.DefaultIPv4Pools, DefaultIPv6: q.DefaultIPv6Pools,
		EnableIPv4: a.config.EnableIPv4, EnableIPv6: a.config.EnableIPv6,
		ClusterNetwork: a.config.ClusterNetwork, InstallNamespace: a.options.Namespace,
		Master: masterOf(q),
	})
	if err != nil {
		return selection.Selection{}, &cni.Error{
			Code: uint(cnitypes.ErrInvalidNetworkConfig), Message: cni.AddFailed, Details: err.Error(),
		}
	}
	chosen.CleanGateway = chosen.CleanGateway || q.CleanGateway
	return chosen, nil
}

// replaced says that this agent is one of a Node that is no more.
func (a *Agent) replaced() error {
	return fmt.Errorf("node %s has no object with UID %s any more: the agent starts anew within a minute", a.options.NodeName, a.node.UID)
}

// identify says whose address it is.
func (a *Agent) identify(pod *corev1.Pod, q *cni.AddRequest) lease.Request {
	kind, name := topOwner(pod)
	b := a.bearing(pod)
	uid := q.Pod.UID
	if uid == "" { // the runtime did not tell
		uid = uidOf(pod)
	}
	return lease.Request{
		Owner:     lease.Owner{PodUID: uid, Interface: q.Interface},
		Container: q.ContainerID, Network: q.Network,
		Namespace: pod.Namespace, Pod: b.name, Kind: b.kind, Bearer: b.pod,
		Sticky:    b.sticky,
		OnlyFrom:  a.config.StatefulSetPoolChange == poolChangeSwitch,
		OwnerKind: kind, OwnerName: name,
	}
}

// addResult turns journal entries into the answer of ADD.
func addResult(entries []lease.Entry) (*cni.AddResult, error) {
	result := &cni.AddResult{}
	for _, e := range entries {
		if e.Detail == nil {
			return nil, fmt.Errorf("nothing tells of what pool %s is, which the pod had when the journal was lost: delete the pod", e.Addr)
		}
		d, err := cluster.DecodeDetail(e.Detail)
		if err != nil {
			return nil, fmt.Errorf("journal entry of %s: %w", e.Addr, err)
		}
		result.Addresses = append(result.Addresses, cni.Address{
			Prefix: d.Prefix, Gateway: d.Gateway, Pool: d.Pool,
		})
		result.Routes = append(result.Routes, routes(d)...)
	}
	return result, nil
}

// routes returns the routes that come with an address: its own, and the
// default route unless the network asks for none.
func routes(d cluster.Detail) []cni.Route {
	var routes []cni.Route
	add := func(r cni.Route) {
		if !slices.Contains(routes, r) { // the kernel takes a route only once
			routes = append(routes, r)
		}
	}
	for _, r := range d.Routes {
		add(cni.Route{Destination: r.Destination, Gateway: r.Gateway})
	}
	if d.Gateway.IsValid() && !d.CleanGateway {
		everything := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if d.Gateway.Is6() {
			everything = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		add(cni.Route{Destination: everything, Gateway: d.Gateway})
	}
	return routes
}
