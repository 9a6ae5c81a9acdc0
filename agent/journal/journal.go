package journal

import (
	"fmt"
	"net/netip"
	"os"

	"go.etcd.io/bbolt"

	"github.com/holdfast-ipam/holdfast/lease"
)

// Journal is an open journal, a [lease.Disk] that is safe for concurrent use.
type Journal struct {
	path   string
	db     *bbolt.DB
	lock   *os.File
	notice *SetAsideError
}

var _ lease.Disk = (*Journal)(nil)

type record struct{ key, value []byte }

// Load returns all entries in the order of their keys.
func (j *Journal) Load() ([]lease.Entry, error) {
	var all []lease.Entry
	err := j.db.View(func(tx *bbolt.Tx) (err error) {
		all, err = entries(tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("load journal %s: %w", j.path, err)
	}
	return all, nil
}

// Write stores puts and removes the entries at drops in one transaction and
// returns when it is synced. An address that is in both is stored. Writes
// follow one another; package lease brings together what can share one.
func (j *Journal) Write(puts []lease.Entry, drops []netip.Addr) error {
	if len(puts)+len(drops) == 0 {
		return nil
	}
	var notStored error
	err := j.db.Update(func(tx *bbolt.Tx) error {
		return change(tx, func(b *book) error {
			notStored = b.apply(puts, drops)
			return notStored
		})
	})
	switch {
	case notStored != nil:
		return fmt.Errorf("write journal %s: %w", j.path, notStored)
	case err != nil:
		return fmt.Errorf("write journal %s (is the disk full or read-only?): %w", j.path, err)
	}
	return nil
}

func (b *book) apply(puts []lease.Entry, drops []netip.Addr) error {
	for _, addr := range drops {
		k, err := key(addr)
		if err != nil {
			return err
		}
		if err := b.drop(k); err != nil {
			return fmt.Errorf("drop %s: %w", addr, err)
		}
	}
	for _, e := range puts {
		k, v, err := encode(e)
		if err != nil {
			return err
		}
		if err := b.put(record{k, v}); err != nil {
			return fmt.Errorf("put %s: %w", e.Addr, err)
		}
	}
	return nil
}

// Complete says that a fresh journal now has all there is to know of earlier
// assignments, durably: the next [Open] finds it not fresh any more. For one
// that is not fresh it changes nothing.
func (j *Journal) Complete() error {
	err := j.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta()).Delete(keyFresh()) })
	if err != nil {
		return fmt.Errorf("complete journal %s: %w", j.path, err)
	}
	return nil
}

// Notice returns what [Open] set aside, or nil. It is for the log: the
// journal is in order.
func (j *Journal) Notice() *SetAsideError { return j.notice }

// Close waits for writes under way and gives the file free for the next
// agent. Later calls of the journal's methods fail.
func (j *Journal) Close() error {
	if err := j.db.Close(); err != nil {
		return fmt.Errorf("close journal: %w", err)
	}
	if err := j.lock.Close(); err != nil { // which unlocks it
		return fmt.Errorf("close journal: %w", err)
	}
	return nil
}
