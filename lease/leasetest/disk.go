package leasetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/holdfast-ipam/holdfast/lease"
)

// ErrCrashed is the answer of a disk whose process is no more.
var ErrCrashed = errors.New("the process has crashed")

// errDisk is the answer of a disk that fails.
var errDisk = errors.New("input/output error")

// Disk is what a node's disk holds. It outlives the processes that use it:
// each gets a [lease.Disk] of its own from [Disk.Open], good until the next
// [Disk.Crash]. A write is all or nothing, as a transaction of bbolt is.
// Make one with [NewDisk].
type Disk struct {
	fault func(DiskWrite) DiskFault

	mu      sync.Mutex
	entries map[netip.Addr]lease.Entry
	process int // the number of crashes so far
	writes  int
}

// DiskWrite is a write under way, as the fault function sees it: the disk has
// heard of it and has not synced it.
type DiskWrite struct {
	// N counts the writes of a disk from 1.
	N     int
	Puts  []lease.Entry
	Drops []netip.Addr
}

// DiskFault is what goes wrong in a write.
type DiskFault int

// The faults of a disk.
const (
	// Synced: nothing goes wrong.
	Synced DiskFault = iota
	// Unsynced: the write fails and nothing of it is stored.
	Unsynced
	// SyncedFailed: the write is stored, and fails nevertheless.
	SyncedFailed
	// CrashUnsynced: the process crashes before the sync.
	CrashUnsynced
	// CrashSynced: the process crashes after the sync, before the answer.
	CrashSynced
)

// NewDisk returns an empty disk. The fault function, if any, is called in
// every write before its sync and without a lock; it may call Crash, and the
// write is lost.
func NewDisk(fault func(DiskWrite) DiskFault) *Disk {
	return &Disk{fault: fault, entries: map[netip.Addr]lease.Entry{}}
}

// Open returns the disk as a process sees it that starts now.
func (d *Disk) Open() lease.Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &openDisk{disk: d, process: d.process}
}

// Crash ends the processes that have the disk open. Their writes that were
// not synced are lost, and whatever they still try fails.
func (d *Disk) Crash() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.process++
}

// Replace crashes, and puts an empty disk in place.
func (d *Disk) Replace() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.process++
	clear(d.entries)
}

// Entries returns what is stored, sorted by address, whoever has it open.
func (d *Disk) Entries() []lease.Entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := slices.SortedFunc(maps.Values(d.entries), func(a, b lease.Entry) int { return a.Addr.Compare(b.Addr) })
	for i := range all {
		all[i] = cloneEntry(all[i])
	}
	return all
}

// openDisk is the disk in the hands of one process.
type openDisk struct {
	disk    *Disk
	process int
}

// Load is a method of [lease.Disk].
func (o *openDisk) Load() ([]lease.Entry, error) {
	o.disk.mu.Lock()
	crashed := o.process != o.disk.process
	o.disk.mu.Unlock()
	if crashed {
		return nil, fmt.Errorf("load the journal: %w", ErrCrashed)
	}
	return o.disk.Entries(), nil
}

// Write is a method of [lease.Disk].
func (o *openDisk) Write(puts []lease.Entry, drops []netip.Addr) error {
	write := DiskWrite{Drops: slices.Clone(drops)}
	for _, e := range puts {
		if !e.Addr.IsValid() {
			return errors.New("write the journal: an entry without address")
		}
		write.Puts = append(write.Puts, cloneEntry(e))
	}
	if err := o.sync(write); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	return nil
}

func (o *openDisk) sync(write DiskWrite) error {
	d := o.disk
	d.mu.Lock()
	d.writes++
	write.N = d.writes
	d.mu.Unlock()

	fault := Synced
	if d.fault != nil {
		fault = d.fault(write)
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	if o.process != d.process {
		return ErrCrashed
	}
	if fault == Synced || fault == SyncedFailed || fault == CrashSynced {
		for _, addr := range write.Drops {
			delete(d.entries, addr)
		}
		for _, e := range write.Puts {
			d.entries[e.Addr] = e
		}
	}
	switch fault {
	case Unsynced, SyncedFailed:
		return errDisk
	case CrashUnsynced, CrashSynced:
		d.process++
		return ErrCrashed
	}
	return nil
}

// cloneEntry returns what a reader of the disk gets: the wall clock of Since
// without monotonic reading, and bytes of its own.
func cloneEntry(e lease.Entry) lease.Entry {
	e.Since = e.Since.Round(0)
	e.Detail = json.RawMessage(slices.Clone(e.Detail))
	e.Others = slices.Clone(e.Others)
	return e
}
