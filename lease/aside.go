package lease

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"
)

// ErrNotHeld says that a sandbox does not hold an address (any more), so that
// what it says about it is of no account.
var ErrNotHeld = errors.New("the sandbox does not hold the address")

// SetAside takes addresses out of use that a machine of no concern to the
// cluster was found to have. They cool down for rest (or a cool-down, if that
// is longer), durably, and for nobody in particular: their pod's next ADD gets
// others. Meanwhile they stay leased to this node and count as taken, so no
// other node runs into the same machine. What else the owner has of the
// interface, the address of the other family, is given back as by
// [Lessee.Release]: the next ADD finds it again, and never half of a pod's
// addresses.
//
// It reports whether they were set aside, and if not, changes nothing: a sticky
// address is its identity's whoever else uses it, and one that another sandbox
// of the pod has asked for may be in use by that one. Only a sandbox that holds
// each of the addresses may speak of them ([ErrNotHeld]); saying it twice is as
// good as once. It never asks the cluster.
func (l *Lessee) SetAside(ctx context.Context, s Sandbox, addrs []netip.Addr, rest time.Duration) (bool, error) {
	if len(addrs) == 0 || s.Container == "" || s.Container == UnknownSandbox {
		return false, ErrNotHeld
	}
	l.mu.Lock()
	id := l.identityAt(addrs[0])
	l.mu.Unlock()
	// An ADD of the sandbox that is under way decides first.
	done, err := l.takeTurn(ctx, id)
	if err != nil {
		return false, err
	}
	defer done()
	aside, err := l.setAside(s, addrs, rest)
	if err != nil {
		return false, err
	}
	return aside, l.sync()
}

// identityAt returns for whom an address is by the journal. The caller holds
// l.mu.
func (l *Lessee) identityAt(addr netip.Addr) Identity {
	e := l.entries[addr]
	return e.Identity()
}

// setAside judges and changes all entries at once, in memory.
func (l *Lessee) setAside(s Sandbox, addrs []netip.Addr, rest time.Duration) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := l.entries[addrs[0]]
	again := 0
	for _, addr := range addrs {
		e, ok := l.entries[addr]
		switch {
		case !ok || e.Owner.Interface != s.Owner.Interface || e.Identity() != first.Identity():
			return false, ErrNotHeld
		case isAside(&e) && e.Container == s.Container:
			again++
		case e.State != Assigned || e.Owner != first.Owner || e.Container != s.Container && !slices.Contains(e.Others, s.Container):
			return false, ErrNotHeld
		case e.Sticky || len(e.Others) > 0 || l.busy[addr]:
			return false, nil
		}
	}
	if again == len(addrs) {
		return true, nil
	}
	for addr, e := range l.entries {
		if e.Owner != first.Owner || e.State != Assigned {
			continue
		}
		since := l.now()
		if slices.Contains(addrs, addr) {
			since = l.coolingSince(rest)
			e.Owner.PodUID = "" // nobody's next ADD finds it
		} else {
			e.Container = ""
		}
		e.State, e.Since, e.Others = Cooling, since, nil
		l.set(e)
	}
	return true, nil
}

// isAside: of what cools down, only what was set aside names a sandbox.
func isAside(e *Entry) bool {
	return e.State == Cooling && e.Owner.PodUID == "" && e.Container != ""
}
