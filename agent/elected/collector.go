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

// look judges pins of b by quorum reads, one look per pod. An error leaves its
// pod's pins unjudged, which is to keep them: unknown means taken.
func (c *Collector) look(ctx context.Context, b *lease.Block, pins []lease.Pin) (map[lease.Pin]verdict, error) {
	type pod struct{ namespace, name, kind string }
	type found struct {
		standing
		err error
	}
	seen := make(map[pod]found)
	judged := make(map[lease.Pin]verdict, len(pins))
	var errs []error
	for _, p := range pins {
		key := pod{p.Identity.Namespace, p.Identity.Pod, p.Identity.Kind}
		f, ok := seen[key]
		if !ok {
			f.standing, f.err = c.standing(ctx, key.namespace, key.name, key.kind)
			seen[key] = f
			errs = append(errs, f.err)
		}
		judged[p] = keep
		if f.err == nil {
			lessee, _ := b.LesseeOf(p.Addr)
			judged[p] = judge(p, lessee.Name, f.standing)
		}
	}
	return judged, errors.Join(errs...)
}

// standing looks a pod up: the pod first, and then whether it is wanted. The
// other way round, a pod that is going away while its StatefulSet grows again
// would be unwanted at the first look and gone at the second, and lose its
// address although it was wanted ever since. A pod created in between takes
// the mark off before it uses an address, so the removal loses to it.
func (c *Collector) standing(ctx context.Context, namespace, pod, kind string) (standing, error) {
	var s standing
	var err error
	if kind != "" {
		s, err = c.machine(ctx, namespace, pod, kind)
	} else if s.exists, s.podUID, s.node, err = c.exists(ctx, namespace, pod); err == nil {
		s.wanted, err = c.wanted(ctx, namespace, pod)
	}
	if err != nil || !s.wanted {
		return s, err
	}
	s.pointer, err = c.pointer(ctx, namespace, pod)
	return s, err
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

// pointer returns a pod's endpoint with what counts of it, the addresses that
// are pinned for it, or nil if there is none.
func (c *Collector) pointer(ctx context.Context, namespace, pod string) (*lease.Endpoint, error) {
	e, err := c.Cluster.Endpoint(ctx, namespace, pod)
	if errors.Is(err, lease.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read endpoint %s/%s: %w", namespace, pod, err)
	}
	e.Addresses, err = c.pinned(ctx, e)
	return &e, err
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

func (c *Collector) wanted(ctx context.Context, namespace, pod string) (bool, error) {
	name, ordinal, ok := SplitPodName(pod)
	if !ok || c.Stateless {
		return false, nil
	}
	w, err := c.StatefulSet(ctx, namespace, name)
	if errors.Is(err, lease.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return true, fmt.Errorf("read StatefulSet %s/%s: %w", namespace, name, err)
	}
	return w.Wants(ordinal), nil
}

// Pointer removes from a sticky endpoint the addresses that are not pinned
// for it, and the endpoint itself when none is left. It does nothing while a
// pod of the name exists, because that pod's agent writes the endpoint then.
//
// The endpoint is read before the blocks and written on that very version. A
// pod placed meanwhile writes the endpoint after its pin, so this write
// loses.
func (c *Collector) Pointer(ctx context.Context, namespace, pod string) error {
	e, err := c.Cluster.Endpoint(ctx, namespace, pod)
	if errors.Is(err, lease.ErrNotFound) || err == nil && !e.Sticky {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read endpoint %s/%s: %w", namespace, pod, err)
	}
	pinned, err := c.pinned(ctx, e)
	if err != nil || len(pinned) == len(e.Addresses) && len(pinned) > 0 {
		return err
	}
	if exists, err := c.borne(ctx, &e); err != nil || exists {
		return err
	}
	if len(pinned) == 0 {
		if err := c.Cluster.DeleteEndpoint(ctx, e); err != nil {
			return fmt.Errorf("delete endpoint %s/%s: %w", namespace, pod, err)
		}
		return nil
	}
	e.Addresses = pinned
	if _, err := c.Cluster.PutEndpoint(ctx, e); err != nil {
		return fmt.Errorf("write endpoint %s/%s: %w", namespace, pod, err)
	}
	return nil
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

// pinned returns the addresses of an endpoint that are pinned for it.
func (c *Collector) pinned(ctx context.Context, e lease.Endpoint) ([]lease.EndpointAddress, error) {
	var pinned []lease.EndpointAddress
	for _, a := range e.Addresses {
		name := lease.Name(lease.BlockOf(a.Addr))
		b, err := c.Cluster.Block(ctx, name)
		if errors.Is(err, lease.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read block %s: %w", name, err)
		}
		id := lease.Identity{Namespace: e.Namespace, Pod: e.Pod, Interface: a.Interface, Kind: kindOf(&e)}
		if p, ok := b.PinAt(a.Addr); ok && p.Identity == id {
			pinned = append(pinned, a)
		}
	}
	return pinned, nil
}
