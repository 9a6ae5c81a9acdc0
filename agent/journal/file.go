package journal

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bberrors "go.etcd.io/bbolt/errors"

	"github.com/holdfast-ipam/holdfast/lease"
)

func bucketEntries() []byte { return []byte("entries") }
func bucketMeta() []byte    { return []byte("meta") }
func keyFormat() []byte     { return []byte("format") }
func keyNode() []byte       { return []byte("nodeUID") }
func keyTally() []byte      { return []byte("tally") }

// keyFresh is there as long as nobody has said that the journal is complete.
func keyFresh() []byte { return []byte("fresh") }

// The reasons to set a file aside that is a sound database.
var (
	errOtherNode = errors.New("it belongs to another node UID: the Node object was created again, and leases under its old UID are not ours")
	errFormat    = errors.New("its records have a format that this version does not read")
	errNoJournal = errors.New("it is no journal")
	errTally     = errors.New("it does not hold what was written")
)

// options are for opening a file. The lock file is ours by then: whoever has
// the file itself open is a tool, and a second is enough to say so.
func options(readOnly bool) *bbolt.Options {
	return &bbolt.Options{Timeout: time.Second, ReadOnly: readOnly}
}

// NodeUID returns for which node the journal at path was written last. It is
// for an agent that starts while nobody else can tell.
func NodeUID(path string) (uid string, err error) {
	err = view(path, func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta())
		if meta == nil {
			return errNoJournal
		}
		uid = string(meta.Get(keyNode()))
		return nil
	})
	return uid, err
}

// read returns the entries of the file at path and whether there may have been
// more, or why it is not to be used.
func read(path, nodeUID string) (all []lease.Entry, fresh bool, err error) {
	err = view(path, func(tx *bbolt.Tx) error {
		if err := checkMeta(tx, nodeUID); err != nil {
			return err
		}
		all, err = entries(tx)
		fresh = tx.Bucket(bucketMeta()).Get(keyFresh()) != nil
		return err
	})
	if err != nil {
		return nil, false, err
	}
	return all, fresh, nil
}

// view runs f on the file at path, which may be damaged, and changes nothing.
func view(path string, f func(*bbolt.Tx) error) error {
	var db *bbolt.DB
	err := guarded(func() (err error) {
		if db, err = bbolt.Open(path, 0o600, options(true)); err != nil {
			return err
		}
		return db.View(f)
	})
	if errors.Is(err, bberrors.ErrTimeout) {
		err = fmt.Errorf("%w: a tool has the file open", ErrHeld)
	}
	if db != nil {
		err = errors.Join(err, guarded(db.Close))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func checkMeta(tx *bbolt.Tx, nodeUID string) error {
	meta := tx.Bucket(bucketMeta())
	if meta == nil || tx.Bucket(bucketEntries()) == nil {
		return errNoJournal
	}
	if got := string(meta.Get(keyFormat())); got != format {
		return fmt.Errorf("%w (%q, not %q)", errFormat, got, format)
	}
	if got := string(meta.Get(keyNode())); got != nodeUID {
		return fmt.Errorf("%w (%s, not %s)", errOtherNode, got, nodeUID)
	}
	return nil
}

// entries returns all entries, if they are what the tally says.
func entries(tx *bbolt.Tx) ([]lease.Entry, error) {
	want, err := decodeTally(tx.Bucket(bucketMeta()).Get(keyTally()))
	if err != nil {
		return nil, err
	}
	var got tally
	var all []lease.Entry
	err = tx.Bucket(bucketEntries()).ForEach(func(k, v []byte) error {
		got.add(k, v)
		e, err := decode(k, v)
		all = append(all, e)
		return err
	})
	if err == nil && got != want {
		err = fmt.Errorf("%w: %d entries, or others than the %d it should have", errTally, got.count, want.count)
	}
	return all, err
}

// guarded turns into an error what a damaged file does to bbolt: it panics
// on pages that make no sense, and pages beyond the end of the file are a
// fault of the memory map.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it is damaged: %v", p)
		}
	}()
	return f()
}

// create makes a journal of the entries, complete before it takes its place
// at path.
func create(path, nodeUID string, kept []lease.Entry, fresh bool) (*bbolt.DB, error) {
	next := path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("create %s: remove what an earlier start left: %w", next, err)
	}
	db, err := bbolt.Open(next, 0o600, options(false))
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", next, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return fill(tx, nodeUID, kept, fresh) })
	if err == nil {
		err = os.Rename(next, path)
	}
	if err == nil {
		err = syncDir(path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create %s (is the disk full or read-only?): %w", path, err), db.Close())
	}
	return db, nil
}

func fill(tx *bbolt.Tx, nodeUID string, kept []lease.Entry, fresh bool) error {
	meta, err := tx.CreateBucket(bucketMeta())
	if err != nil {
		return err
	}
	if _, err := tx.CreateBucket(bucketEntries()); err != nil {
		return err
	}
	err = errors.Join(
		meta.Put(keyFormat(), []byte(format)),
		meta.Put(keyNode(), []byte(nodeUID)),
		meta.Put(keyTally(), new(tally).encode()))
	if fresh {
		err = errors.Join(err, meta.Put(keyFresh(), []byte("yes")))
	}
	if err != nil {
		return err
	}
	return change(tx, func(b *book) error { return b.apply(kept, nil) })
}

// book is the entries bucket in a transaction that changes it.
type book struct {
	bucket *bbolt.Bucket
	tally  tally
}

// change runs f on the entries bucket and brings the tally up to date.
func change(tx *bbolt.Tx, f func(*book) error) error {
	meta := tx.Bucket(bucketMeta())
	t, err := decodeTally(meta.Get(keyTally()))
	if err != nil {
		return err
	}
	b := &book{bucket: tx.Bucket(bucketEntries()), tally: t}
	if err := f(b); err != nil {
		return err
	}
	return meta.Put(keyTally(), b.tally.encode())
}

func (b *book) drop(k []byte) error {
	if old := b.bucket.Get(k); old != nil {
		b.tally.remove(k, old)
	}
	return b.bucket.Delete(k)
}

func (b *book) put(r record) error {
	if old := b.bucket.Get(r.key); old != nil {
		b.tally.remove(r.key, old)
	}
	b.tally.add(r.key, r.value)
	return b.bucket.Put(r.key, r.value)
}
