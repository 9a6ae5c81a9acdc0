package elected

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/holdfast-ipam/holdfast/lease"
)

// Collector removes what nobody wants: pins, the endpoints that point to
// them, and blocks that say nothing. It keeps no state. Each method judges
// one object by quorum reads and changes it by guarded updates; after any
// error, an unknown outcome among them, the caller calls again, and the call
// reads and judges anew. Nothing is ever built on an update whose outcome is
// not known.
type Collector struct {
	// Cluster is the shared state.
	Cluster lease.Cluster
	// StatefulSet returns the ordinals that a StatefulSet wants by a quorum
	// read ([lease.ErrNotFound]).
	StatefulSet func(ctx context.Context, namespace, name string) (Window, error)
	// Machine looks a virtual machine up by quorum reads, of which the one of
	// its pods comes first. Without it, what is held for machines is kept.
	Machine func(ctx context.Context, namespace, name string) (Machine, error)
	// Stateless is set when StatefulSets have no claim on addresses: then a
	// pin lasts as long as its pod.
	Stateless bool
}

// Collected is what a call of [Collector.Block] did.
type Collected struct {
	// Removed are the pins that are gone for certain.
	Removed []lease.Pin
	// Waiting are pins that go as soon as the pod of their name does.
	Waiting []lease.Pin
	// Deleted is set when the block said nothing and was deleted.
	Deleted bool
}

// Block removes the pins of a block that nobody wants, in two guarded
// updates: a mark of releasing, then, when pod, StatefulSet and endpoint have
// been looked up once more after the mark had landed, the removal. A lessee
// that confirms a pin reads the block while its pod exists: it either read
// before the mark, so the second look finds its pod, or it finds the mark and
// takes it off, so the removal loses.
//
// A pin that cannot be judged because of an error is kept, and the error is
// returned beside what became of the others.
//
// Only pins for which suspect returns true and those already marked are
// looked up; nil suspects every pin. A block without leases and pins is
// deleted. A block that does not exist is no error.
func (c *Collector) Block(ctx context.Context, name string, suspect func(lease.Pin) bool) (Collected, error) {
	b, err := c.Cluster.Block(ctx, name)
	if errors.Is(err, lease.ErrNotFound) {
		return Collected{}, nil
	}
	if err != nil {
		return Collected{}, fmt.Errorf("read block %s: %w", name, err)
	}
	if b.Empty() {
		if err := c.Cluster.DeleteBlock(ctx, b); err != nil {
			return Collected{}, fmt.Errorf("delete empty block %s: %w", name, err)
		}
		return Collected{Deleted: true}, nil
	}
	pins := slices.DeleteFunc(slices.Clone(b.Pins), func(p lease.Pin) bool {
		return !p.Releasing && suspect != nil && !suspect(p)
	})
	if len(pins) == 0 {
		return Collected{}, nil
	}
	judged, unknown := c.look(ctx, &b, pins)
	fresh, err := c.mark(ctx, &b, pins, judged)
	if err != nil {
		return Collected{}, errors.Join(err, unknown)
	}
	if fresh {
		again, err := c.look(ctx, &b, marked(&b, pins))
		maps.Copy(judged, again)
		unknown = errors.Join(unknown, err)
	}
	done, err := c.settle(ctx, &b, pins, judged)
	return done, errors.Join(err, unknown)
}

// mark is the first update. It reports whether it marked anything, in which
// case b is the block as stored.
func (c *Collector) mark(ctx context.Context, b *lease.Block, pins []lease.Pin, judged map[lease.Pin]verdict) (bool, error) {
	fresh := false
	for _, p := range pins {
		if p.Releasing || judged[p] != release {
			continue
		}
		if err := b.MarkReleasing(p.Addr, p.Identity); err != nil {
			return false, err
		}
		fresh = true
	}
	if !fresh {
		return false, nil
	}
	stored, err := c.Cluster.PutBlock(ctx, *b)
	if err != nil {
		return false, fmt.Errorf("mark pins of block %s as releasing: %w", b.Name(), err)
	}
	*b = stored
	return true, nil
}

// marked returns the pins of b that are marked, as they were before the mark.
// The look that follows a mark keys its verdicts by them.
func marked(b *lease.Block, pins []lease.Pin) []lease.Pin {
	return slices.DeleteFunc(slices.Clone(pins), func(p lease.Pin) bool {
		now, ok := b.PinAt(p.Addr)
		return !ok || now.Identity != p.Identity || !now.Releasing
	})
}

// settle is the second update: each marked pin loses either itself or its
// mark, and the update it makes also ends any earlier one of which the answer
// was lost. The verdicts stem from reads made after b, with its marks, was
// stored.
func (c *Collector) settle(ctx context.Context, b *lease.Block, pins []lease.Pin, judged map[lease.Pin]verdict) (Collected, error) {
	var done Collected
	changed := false
	for _, p := range pins {
		if judged[p] == wait {
			done.Waiting = append(done.Waiting, p)
		}
	}
	for _, p := range marked(b, pins) {
		step := b.Unmark
		if judged[p] == release {
			step = b.Unpin
			done.Removed = append(done.Removed, p)
		}
		if err := step(p.Addr, p.Identity); err != nil {
			return Collected{}, err
		}
		changed = true
	}
	if !changed {
		return done, nil
	}
	if _, err := c.Cluster.PutBlock(ctx, *b); err != nil {
		return Collected{}, fmt.Errorf("remove released pins of block %s: %w", b.Name(), err)
	}
	return done, nil
}

// look judges pins of b by quorum reads. An error leaves the pins of those whom
// it concerns unjudged, which is to keep them: unknown means taken.
func (c *Collector) look(ctx context.Context, b *lease.Block, pins []lease.Pin) (map[lease.Pin]verdict, error) {
	found := c.standings(ctx, pins)
	judged := make(map[lease.Pin]verdict, len(pins))
	var errs []error
	for _, s := range found {
		errs = append(errs, s.err)
	}
	for _, p := range pins {
		judged[p] = keep
		i := slices.IndexFunc(found, func(s *sighting) bool { return s.bearer == bearerOf(p) })
		if found[i].err == nil {
			lessee, _ := b.LesseeOf(p.Addr)
			judged[p] = judge(p, lessee.Name, found[i].standing)
		}
	}
	return judged, errors.Join(errs...)
}

// bearer is whom pins are held for: a pod of a StatefulSet, or a machine.
type bearer struct{ namespace, name, kind string }

func bearerOf(p lease.Pin) bearer {
	return bearer{p.Identity.Namespace, p.Identity.Pod, p.Identity.Kind}
}

// sighting is what was found out about a bearer, or why it was not.
type sighting struct {
	bearer
	standing
	err error
}

// standings looks up whom pins are held for: all pods first, and then whether
// they are wanted. The other way round, a pod that is going away while its
// StatefulSet grows again would be unwanted at the first look and gone at the
// second, and lose its address although it was wanted ever since. A pod created
// in between takes the mark off before it uses an address, so the removal loses
// to it.
func (c *Collector) standings(ctx context.Context, pins []lease.Pin) []*sighting {
	var found []*sighting
	for _, p := range pins {
		key := bearerOf(p)
		if !slices.ContainsFunc(found, func(s *sighting) bool { return s.bearer == key }) {
			found = append(found, c.sight(ctx, key))
		}
	}
	c.want(ctx, found)
	c.follow(ctx, found)
	return found
}

// sight looks up the pod of a name, or all of a machine.
func (c *Collector) sight(ctx context.Context, b bearer) *sighting {
	s := &sighting{bearer: b}
	if b.kind != "" {
		s.standing, s.err = c.machine(ctx, b.namespace, b.name, b.kind)
	} else {
		s.exists, s.podUID, s.node, s.err = c.exists(ctx, b.namespace, b.name)
	}
	return s
}

// want finds out which pods are wanted, by one read of each StatefulSet.
func (c *Collector) want(ctx context.Context, found []*sighting) {
	type set struct{ namespace, name string }
	windows := map[set]Window{}
	errs := map[set]error{}
	for _, s := range found {
		name, ordinal, ok := SplitPodName(s.name)
		if !ok || c.Stateless || s.kind != "" || s.err != nil {
			continue
		}
		of := set{s.namespace, name}
		if _, known := windows[of]; !known {
			windows[of], errs[of] = c.StatefulSet(ctx, of.namespace, of.name)
		}
		switch err := errs[of]; {
		case err == nil:
			s.wanted = windows[of].Wants(ordinal)
		case !errors.Is(err, lease.ErrNotFound):
			s.err = fmt.Errorf("read StatefulSet %s/%s: %w", of.namespace, of.name, err)
		}
	}
}

// follow reads the endpoints of those who are wanted, all of them before the
// blocks that they name, and each block once. Of an endpoint counts what is
// pinned for it.
func (c *Collector) follow(ctx context.Context, found []*sighting) {
	for _, s := range found {
		if !s.wanted || s.err != nil {
			continue
		}
		e, err := c.Cluster.Endpoint(ctx, s.namespace, s.name)
		switch {
		case err == nil:
			s.pointer = &e
		case !errors.Is(err, lease.ErrNotFound):
			s.err = fmt.Errorf("read endpoint %s/%s: %w", s.namespace, s.name, err)
		}
	}
	pinned := c.newPinned()
	for _, s := range found {
		if s.pointer != nil {
			s.pointer.Addresses, s.err = pinned.of(ctx, s.pointer)
		}
	}
}

// errUnknownKind says that nothing tells whether an address is wanted.
var errUnknownKind = errors.New("this agent does not know what it is held for: install the version that wrote it")

// machine is standing for a virtual machine, without the pointer. While two
// pods run it none of them is the one that exists.
func (c *Collector) machine(ctx context.Context, namespace, name, kind string) (standing, error) {
	if kind != KindMachine || c.Machine == nil {
		return standing{}, fmt.Errorf("%s %s/%s: %w", kind, namespace, name, errUnknownKind)
	}
	m, err := c.Machine(ctx, namespace, name)
	if err != nil {
		return standing{}, err
	}
	s := standing{exists: len(m.Pods) > 0, wanted: m.Wanted}
	if len(m.Pods) == 1 {
		s.podUID = m.Pods[0]
	}
	return s, nil
}

func (c *Collector) exists(ctx context.Context, namespace, pod string) (exists bool, uid, node string, err error) {
	at, err := c.Cluster.PodAt(ctx, namespace, pod)
	if errors.Is(err, lease.ErrNotFound) {
		return false, "", "", nil
	}
	if err != nil {
		return true, "", "", fmt.Errorf("read pod %s/%s: %w", namespace, pod, err)
	}
	return true, at.UID, at.Node, nil
}

// Pod is the name of a pod.
type Pod struct{ Namespace, Name string }

// Pointers removes from sticky endpoints, by the names of their pods, the
// addresses that are not pinned for them, and an endpoint itself when none is
// left. It does nothing about one while a pod of the name exists, because that
// pod's agent writes the endpoint then: those are waiting, and nothing else may
// tell of the end of their pods. It returns beside them those that it could not
// judge or change, and why.
//
// The endpoints are read before the blocks and written on that very version. A
// pod placed meanwhile writes the endpoint after its pin, so this write loses.
func (c *Collector) Pointers(ctx context.Context, pods []Pod) (waiting, failed []Pod, err error) {
	pinned := c.newPinned()
	endpoints := map[Pod]*lease.Endpoint{}
	errs := map[Pod]error{}
	for _, p := range pods {
		e, err := c.Cluster.Endpoint(ctx, p.Namespace, p.Name)
		switch {
		case err == nil && e.Sticky:
			endpoints[p] = &e
		case err != nil && !errors.Is(err, lease.ErrNotFound):
			errs[p] = fmt.Errorf("read endpoint %s/%s: %w", p.Namespace, p.Name, err)
		}
	}
	for _, p := range pods {
		if e, ok := endpoints[p]; ok {
			var waits bool
			if waits, errs[p] = c.shorten(ctx, e, pinned); waits {
				waiting = append(waiting, p)
			}
		}
		if errs[p] != nil {
			failed = append(failed, p)
			err = errors.Join(err, errs[p])
		}
	}
	return waiting, failed, err
}

// Pointer is [Collector.Pointers] for one pod.
func (c *Collector) Pointer(ctx context.Context, namespace, pod string) (waits bool, err error) {
	waiting, _, err := c.Pointers(ctx, []Pod{{namespace, pod}})
	return len(waiting) > 0, err
}

// shorten removes from an endpoint what is not pinned for it, unless that waits
// for the end of its pod.
func (c *Collector) shorten(ctx context.Context, e *lease.Endpoint, pinned *pinnedNow) (waits bool, err error) {
	left, err := pinned.of(ctx, e)
	if err != nil || len(left) == len(e.Addresses) && len(left) > 0 {
		return false, err
	}
	if exists, err := c.borne(ctx, e); err != nil || exists {
		return err == nil, err
	}
	if len(left) == 0 {
		if err := c.Cluster.DeleteEndpoint(ctx, *e); err != nil {
			return false, fmt.Errorf("delete endpoint %s/%s: %w", e.Namespace, e.Pod, err)
		}
		return false, nil
	}
	e.Addresses = left
	if _, err := c.Cluster.PutEndpoint(ctx, *e); err != nil {
		return false, fmt.Errorf("write endpoint %s/%s: %w", e.Namespace, e.Pod, err)
	}
	return false, nil
}

// borne reports whether there is a pod of an endpoint that outlives its pods.
func (c *Collector) borne(ctx context.Context, e *lease.Endpoint) (bool, error) {
	if kind := kindOf(e); kind != "" {
		s, err := c.machine(ctx, e.Namespace, e.Pod, kind)
		return s.exists, err
	}
	exists, _, _, err := c.exists(ctx, e.Namespace, e.Pod)
	return exists, err
}

// kindOf returns the kind of the identities that an endpoint is of.
func kindOf(e *lease.Endpoint) string {
	if e.Sticky && e.OwnerKind == KindMachine {
		return KindMachine
	}
	return ""
}

// pinnedNow tells what is pinned for endpoints, all of which have been read
// before the first question, and reads each block once for that.
type pinnedNow struct {
	cluster lease.Cluster
	blocks  map[string]lease.Block
}

func (c *Collector) newPinned() *pinnedNow {
	return &pinnedNow{cluster: c.Cluster, blocks: map[string]lease.Block{}}
}

// of returns the addresses of an endpoint that are pinned for it.
func (n *pinnedNow) of(ctx context.Context, e *lease.Endpoint) ([]lease.EndpointAddress, error) {
	var pinned []lease.EndpointAddress
	for _, a := range e.Addresses {
		name := lease.Name(lease.BlockOf(a.Addr))
		b, ok := n.blocks[name]
		if !ok {
			var err error
			b, err = n.cluster.Block(ctx, name)
			if err != nil && !errors.Is(err, lease.ErrNotFound) {
				return nil, fmt.Errorf("read block %s: %w", name, err)
			}
			n.blocks[name] = b // the zero Block of one that is not there has no pin
		}
		id := lease.Identity{Namespace: e.Namespace, Pod: e.Pod, Interface: a.Interface, Kind: kindOf(e)}
		if p, ok := b.PinAt(a.Addr); ok && p.Identity == id {
			pinned = append(pinned, a)
		}
	}
	return pinned, nil
}
