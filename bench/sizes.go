package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
)

// The stages that tell whether it matters how large a pool is, and how many
// there are. Each is compared with the first of its kind.
const (
	ofSmallPools = "pools of a /28"
	ofPools8     = "pools of an IPv4 /8"
	ofPools48    = "pools of an IPv6 /48"
	alone        = "the only pool"
	oneOfMany    = "one of many pools"
)

// comparedWith returns the name of the stage that one is compared with in the same
// system, or nothing.
func comparedWith(name string) string {
	for _, pair := range [][2]string{{ofPools8, ofSmallPools}, {ofPools48, ofSmallPools}, {oneOfMany, alone}} {
		if of, ok := strings.CutPrefix(name, pair[0]); ok {
			return pair[1] + of
		}
	}
	return ""
}

// sizePods is how many pods start from pools of each size at most: what serves
// a pool's first pods is the question, not how many there are.
const sizePods = 100

// sizes starts pods from small pools and from large ones. Each pool serves one
// pod of each node, so that every start has to lease from it, one after the
// other, so that they do not meet in the one block that a small pool is.
func (b *bench) sizes(ctx context.Context) error {
	all := []struct {
		name string
		six  bool
		at   func(i int) netip.Prefix
	}{
		{ofSmallPools, false, func(i int) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64, byte(i >> 4), byte(i << 4)}), 28)
		}},
		{ofPools8, false, func(i int) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(11 + i)}), 8)
		}},
		{ofPools48, true, func(i int) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0, 0, 0, byte(i)}), 48)
		}},
	}
	for i := range all {
		size := all[(i+b.round-1)%len(all)] // nobody is always the first
		pods := newPods(fmt.Sprintf("size%d", (i+b.round-1)%len(all)), "", "", min(b.options.pods, sizePods))
		for first := 0; first < len(pods); first += nodeCount {
			b.offers++
			network := fmt.Sprintf("net-%d", b.offers)
			if err := b.system.offer(ctx, network, allOf(size.at(first/nodeCount))); err != nil {
				return err
			}
			for _, p := range pods[first:min(first+nodeCount, len(pods))] {
				p.network, p.six = network, size.six
			}
		}
		err := b.startAndStop(ctx, size.name, 1, pods)
		if err == nil {
			err = b.rest(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// yieldTime is longer than it takes until Holdfast yields what nobody uses: an
// address rests, is free for a while, and is seen by a round of upkeep.
const yieldTime = 12 * time.Second

// rest waits until a system has done what it does some time after pods are gone,
// so that it is not counted in the next stage.
func (b *bench) rest(ctx context.Context) error {
	if warms(b.name) && !apitest.Pause(ctx, yieldTime) {
		return ctx.Err()
	}
	return b.settle(ctx, settleLimit)
}

// startAndStop starts pods, and ends them.
func (b *bench) startAndStop(ctx context.Context, name string, concurrency int, pods []*pod) error {
	if err := b.start(ctx, name, concurrency, pods); err != nil {
		return err
	}
	return b.stop(ctx, name+deleted, concurrency, pods)
}

const (
	// maxCrowd is how many pools there can be that no pod asks for.
	maxCrowd = 100_000
	// crowdLimit is how long a system may take to look at all those pools.
	crowdLimit = 5 * time.Minute
)

// crowd starts pods from a pool while there is no other, and while there are
// many others.
func (b *bench) crowd(ctx context.Context, concurrency int) error {
	for _, name := range []string{alone, oneOfMany} {
		if name == oneOfMany {
			if err := b.gather(ctx); err != nil {
				return err
			}
		}
		network, err := b.offer(ctx, false)
		if err != nil {
			return err
		}
		pods := newPods("pod-"+network, "", network, b.options.pods)
		err = b.startAndStop(ctx, name, concurrency, pods)
		if err == nil {
			err = b.again(ctx, name, concurrency, pods)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// gather makes pools that no pod asks for, each of a /28, and waits until the
// system has looked at them.
func (b *bench) gather(ctx context.Context) error {
	began := time.Now()
	var others []int
	for i := range b.options.crowded {
		others = append(others, i)
	}
	err := each(ctx, crew, others, func(_, i int) error {
		subnet := netip.AddrFrom4([4]byte{11, byte(i >> 12), byte(i >> 4), byte(i << 4)})
		return b.system.offer(ctx, fmt.Sprintf("other-%d", i), allOf(netip.PrefixFrom(subnet, 28)))
	})
	if err == nil {
		err = b.settle(ctx, crowdLimit)
	}
	b.report.say("%s: %d pools more, and all is quiet again after %.1f s", b.name, len(others), time.Since(began).Seconds())
	return err
}
