package journal

import (
	"fmt"
	"net/netip"
	"os"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/holdfast-ipam/holdfast/lease"
)

// Journal is an open journal, a [lease.Disk] that is safe for concurrent use.
type Journal struct {
	path   string
	db     *bbolt.DB
	lock   *os.File
	notice *SetAsideError

	commit sync.Mutex // held by the writer that commits for all who wait

	mu      sync.Mutex
	waiting []*batchWrite
}

var _ lease.Disk = (*Journal)(nil)

// batchWrite is one call of Write that waits for a commit. done and err are
// written and read under Journal.commit.
type batchWrite struct {
	puts  []record
	drops [][]byte
	done  bool
	err   error
}

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
// returns when it is synced. An address that is in both is stored.
//
// A sync costs about the same for one write as for fifty. So the writer that
// holds the commit lock commits for all who wait for it, and whoever comes
// meanwhile waits for the next: nobody waits for company, and a crowd shares
// its syncs. (bbolt's own Batch makes a lone writer wait for its delay.)
func (j *Journal) Write(puts []lease.Entry, drops []netip.Addr) error {
	w, err := newBatchWrite(puts, drops)
	if err != nil {
		return fmt.Errorf("write journal %s: %w", j.path, err)
	}
	if len(w.puts)+len(w.drops) == 0 {
		return nil
	}
	j.mu.Lock()
	j.waiting = append(j.waiting, w)
	j.mu.Unlock()

	j.commit.Lock()
	defer j.commit.Unlock()
	if !w.done {
		j.commitWaiting()
	}
	if w.err != nil {
		return fmt.Errorf("write journal %s (is the disk full or read-only?): %w", j.path, w.err)
	}
	return nil
}

func newBatchWrite(puts []lease.Entry, drops []netip.Addr) (*batchWrite, error) {
	w := &batchWrite{}
	for _, e := range puts {
		k, v, err := encode(e)
		if err != nil {
			return nil, err
		}
		w.puts = append(w.puts, record{k, v})
	}
	for _, addr := range drops {
		k, err := key(addr)
		if err != nil {
			return nil, err
		}
		w.drops = append(w.drops, k)
	}
	return w, nil
}

// commitWaiting writes all that waits in one transaction. The caller holds
// the commit lock.
func (j *Journal) commitWaiting() {
	j.mu.Lock()
	all := j.waiting
	j.waiting = nil
	j.mu.Unlock()

	err := j.db.Update(func(tx *bbolt.Tx) error {
		return change(tx, func(b *book) error {
			for _, w := range all {
				if err := w.apply(b); err != nil {
					return err
				}
			}
			return nil
		})
	})
	for _, w := range all {
		w.done, w.err = true, err
	}
}

func (w *batchWrite) apply(b *book) error {
	for _, k := range w.drops {
		if err := b.drop(k); err != nil {
			return fmt.Errorf("drop %x: %w", k, err)
		}
	}
	for _, r := range w.puts {
		if err := b.put(r); err != nil {
			return fmt.Errorf("put %x: %w", r.key, err)
		}
	}
	return nil
}

// Notice returns what [Open] set aside, or nil. It is for the log: the
// journal is in order.
func (j *Journal) Notice() *SetAsideError { return j.notice }

// Close waits for writes under way and gives the file free for the next
// agent. Later calls of the journal's methods fail.
func (j *Journal) Close() error {
	j.commit.Lock()
	defer j.commit.Unlock()
	if err := j.db.Close(); err != nil {
		return fmt.Errorf("close journal: %w", err)
	}
	if err := j.lock.Close(); err != nil { // which unlocks it
		return fmt.Errorf("close journal: %w", err)
	}
	return nil
}
