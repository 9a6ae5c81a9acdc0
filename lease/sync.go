package lease

import (
	"fmt"
	"net/netip"
)

// flush is one write of the journal that several calls wait for.
type flush struct {
	done chan struct{}
	err  error
}

// set changes the journal in memory. The caller holds l.mu and calls
// [Lessee.sync] before it answers anyone.
func (l *Lessee) set(e Entry) {
	l.entries[e.Addr] = e
	l.dirty[e.Addr] = true
}

// drop removes an entry in memory: the address is free, or not this node's
// any more. The caller holds l.mu.
func (l *Lessee) drop(addr netip.Addr) {
	delete(l.entries, addr)
	l.dirty[addr] = true
}

// sync returns when every change of the journal made before the call is on
// disk. Calls that come while a write is under way share the next one, and
// writes follow one another, so the disk never has an older state of an
// address after a newer one. What a failed write left out is written with
// the next.
func (l *Lessee) sync() error {
	l.mu.Lock()
	f, before := l.nextFlush, l.runningFlush
	lead := f == nil
	if lead {
		f = &flush{done: make(chan struct{})}
		l.nextFlush = f
	}
	l.mu.Unlock()
	if !lead {
		<-f.done
		return f.err
	}
	if before != nil {
		<-before.done
	}
	puts, drops := l.beginFlush(f)
	if len(puts)+len(drops) > 0 {
		if err := l.disk.Write(puts, drops); err != nil {
			f.err = fmt.Errorf("write the journal: %w", err)
		}
	}
	l.endFlush(f, puts, drops)
	return f.err
}

func (l *Lessee) beginFlush(f *flush) (puts []Entry, drops []netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nextFlush, l.runningFlush = nil, f
	for addr := range l.dirty {
		if e, ok := l.entries[addr]; ok {
			puts = append(puts, e)
		} else {
			drops = append(drops, addr)
		}
	}
	clear(l.dirty)
	return puts, drops
}

func (l *Lessee) endFlush(f *flush, puts []Entry, drops []netip.Addr) {
	l.mu.Lock()
	if f.err != nil {
		for _, e := range puts {
			l.dirty[e.Addr] = true
		}
		for _, addr := range drops {
			l.dirty[addr] = true
		}
	}
	l.runningFlush = nil
	l.mu.Unlock()
	close(f.done)
}
