package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/cni"
)

// pod is a pod bound to a node, and its sandbox.
type pod struct {
	name string
	node *node
	// set is the StatefulSet's UID, or empty.
	set       string
	uid       string
	container string
	address   netip.Prefix
}

// newPods returns so many pods, spread over the nodes.
func newPods(prefix, set string, nodes []*node, n int) []*pod {
	var pods []*pod
	for i := range n {
		pods = append(pods, &pod{name: fmt.Sprintf("%s-%d", prefix, i), node: nodes[i%len(nodes)], set: set})
	}
	return pods
}

const (
	// sandboxPause is between the binding of a pod and its first ADD. A kubelet
	// has to see the pod, and its runtime to make a sandbox, before.
	sandboxPause = 500 * time.Millisecond
	// underWay is how many pods start or end at a time at most. When the
	// machine cannot keep up with the rate, it is this many at a time.
	underWay = 512
	// tries is how many sandboxes a kubelet makes for a pod here before the
	// pod counts as one that never starts, retryPause the time between them.
	tries      = 5
	retryPause = time.Second
)

// paced does something for each pod, so many a second, and returns when it is
// done for all of them.
func paced(ctx context.Context, rate int, pods []*pod, f func(context.Context, *pod) error) error {
	group, going := errgroup.WithContext(ctx) // the first error ends it
	group.SetLimit(underWay)
	began := time.Now()
	for i, p := range pods {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(rate))
		if !apitest.Pause(going, time.Until(due)) {
			break
		}
		group.Go(func() error { return f(going, p) })
	}
	return errors.Join(group.Wait(), ctx.Err())
}

// paced is the function of that name at the rate of the run. It notes the rate
// that came about.
func (r *run) paced(ctx context.Context, pods []*pod, f func(context.Context, *pod) error) error {
	began := time.Now()
	err := paced(ctx, r.options.rate, pods, f)
	r.achieved = float64(len(pods)) / time.Since(began).Seconds()
	return err
}

// start starts the pod as scheduler, runtime and kubelet do together: object, ADD,
// status.
func (r *run) start(ctx context.Context, p *pod) error {
	if err := r.lab.create(ctx, p); err != nil {
		return err
	}
	for try := range tries {
		wait := sandboxPause
		if try > 0 {
			wait = retryPause
		}
		if !apitest.Pause(ctx, wait) {
			return ctx.Err()
		}
		if r.add(ctx, p) {
			return r.lab.report(ctx, p)
		}
	}
	return ctx.Err() // it is among the failures
}

// add makes a sandbox and reports whether it got an address.
func (r *run) add(ctx context.Context, p *pod) bool {
	p.container = rand.Text()
	limited, cancel := context.WithTimeout(ctx, cni.AddTimeout)
	defer cancel()
	began := time.Now()
	client := cni.Client{Socket: p.node.socket, Patience: cni.AddPatience}
	result, err := client.Add(limited, cni.AddRequest{Attachment: p.attachment(), Network: pool})
	switch {
	case ctx.Err() != nil:
		return false
	case err == nil && len(result.Addresses) != 1:
		err = fmt.Errorf("%d addresses were given, and 1 was asked for", len(result.Addresses))
	}
	if err != nil {
		r.trouble.note("an ADD failed", err)
		return false
	}
	r.adds.note(time.Since(began))
	p.address = result.Addresses[0].Prefix
	if other := r.living.take(p); other != nil {
		r.trouble.note("two pods have one address", fmt.Errorf("%s has %s of %s", p.name, p.address, other.name))
	}
	return true
}

func (p *pod) attachment() cni.Attachment {
	return cni.Attachment{
		ContainerID: p.container, Interface: "eth0",
		Pod: cni.Pod{Namespace: namespace, Name: p.name, UID: p.uid},
	}
}

// end ends the pod as whoever deletes it, the runtime, the kubelet and the
// garbage collector do together.
func (r *run) end(ctx context.Context, p *pod) error {
	if err := r.lab.remove(ctx, p, nil); err != nil {
		return err
	}
	r.living.leave(p)
	limited, cancel := context.WithTimeout(ctx, cni.DelTimeout)
	defer cancel()
	client := cni.Client{Socket: p.node.socket, Patience: cni.DelPatience}
	if err := client.Del(limited, cni.DelRequest{Attachment: p.attachment()}); err != nil && ctx.Err() == nil {
		r.trouble.note("a DEL failed", err)
	}
	return r.vanish(ctx, p)
}

// vanish has the pod's object removed, and what it owns.
func (r *run) vanish(ctx context.Context, p *pod) error {
	now := int64(0)
	if err := r.lab.remove(ctx, p, &now); err != nil {
		return err
	}
	r.gone.note(p)
	if p.set != "" {
		return nil // its endpoint is no pod's
	}
	_, err := r.lab.dispose(ctx, p.name)
	return err
}
