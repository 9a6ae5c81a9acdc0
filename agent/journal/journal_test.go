package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

const nodeUID = "0f2c6b1e-0000-4000-8000-000000000001"

// reopened returns the journal's file as it is on disk at this moment: what a
// process finds that starts after this one was killed.
func reopened(t *testing.T, path string) *Journal {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "journal.db")
	if err := os.WriteFile(copied, content, 0o600); err != nil {
		t.Fatal(err)
	}
	j, _ := opened(t, copied, nodeUID)
	if j.Notice() != nil {
		t.Errorf("the journal was not found again: %v", j.Notice())
	}
	return j
}

func opened(t *testing.T, path, node string) (*Journal, bool) {
	t.Helper()
	j, fresh, err := open(path, node, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() }) // a test may have closed it
	return j, fresh
}

func closed(t *testing.T, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func entry(i int) lease.Entry {
	return lease.Entry{
		Addr:  netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}),
		State: lease.Assigned,
		Since: time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC),
		Owner: lease.Owner{PodUID: "52e6f2a0-0000-4000-8000-00000000000a", Interface: "eth0"},
		Pod:   fmt.Sprintf("web-%d", i),
	}
}

func TestJournalIsADisk(t *testing.T) {
	leasetest.DiskSuite(t, func(t *testing.T) leasetest.DiskSubject {
		path := filepath.Join(t.TempDir(), "journal.db")
		j, _ := opened(t, path, nodeUID)
		return leasetest.DiskSubject{Disk: j, Restart: func() lease.Disk { return reopened(t, path) }}
	})
}

func TestJournalIsFreshFromItsCreationUntilItIsComplete(t *testing.T) {
	path := filepath.Join(t.TempDir(), "not", "there", "journal.db")
	j, fresh := opened(t, path, nodeUID)
	if !fresh || j.Notice() != nil {
		t.Errorf("created: fresh %t, notice %v", fresh, j.Notice())
	}
	if err := j.Write([]lease.Entry{entry(1)}, nil); err != nil {
		t.Fatal(err)
	}
	for _, complete := range []bool{false, true, true} {
		if complete {
			if err := j.Complete(); err != nil {
				t.Fatal(err)
			}
		}
		closed(t, j)
		j, fresh = opened(t, path, nodeUID)
		if fresh == complete || j.Notice() != nil {
			t.Errorf("complete %t and opened again: fresh %t, notice %v", complete, fresh, j.Notice())
		}
		if all, err := j.Load(); err != nil || len(all) != 1 {
			t.Errorf("opened again: %v, %v", all, err)
		}
	}
}

func TestJournalOfAnotherNodeUIDIsSetAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j, _ := opened(t, path, "another-uid")
	if err := j.Write([]lease.Entry{entry(1)}, nil); err != nil {
		t.Fatal(err)
	}
	closed(t, j)
	j, fresh := opened(t, path, nodeUID)
	if notice := j.Notice(); !fresh || notice == nil || !errors.Is(notice, errOtherNode) || !strings.Contains(notice.To, ".othernode-") {
		t.Errorf("fresh %t, notice %v", fresh, notice)
	}
	if all, err := j.Load(); err != nil || len(all) != 0 {
		t.Errorf("entries of the other UID: %v, %v", all, err)
	}
	kept, _ := opened(t, j.Notice().To, "another-uid")
	if all, err := kept.Load(); err != nil || len(all) != 1 {
		t.Errorf("the file set aside: %v, %v", all, err)
	}
}

func TestJournalTellsWhoseItIs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	if uid, err := NodeUID(path); err == nil {
		t.Errorf("a journal that does not exist is %q's", uid)
	}
	j, _ := opened(t, path, "some node")
	closed(t, j)
	if uid, err := NodeUID(path); uid != "some node" || err != nil {
		t.Errorf("it is %q's, %v", uid, err)
	}
	if err := os.WriteFile(path, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if uid, err := NodeUID(path); err == nil {
		t.Errorf("garbage is %q's", uid)
	}
}

func TestSecondAgentIsToldThatTheJournalIsHeld(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j, _ := opened(t, path, nodeUID)
	_, _, err := open(path, nodeUID, 0)
	if !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want one that says who holds what", err)
	}
	closed(t, j)
	opened(t, path, nodeUID)
}

func TestNextAgentGetsTheJournalWhenTheFirstLetsGo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j, _ := opened(t, path, nodeUID)
	result := make(chan error)
	go func() {
		next, _, err := open(path, nodeUID, time.Minute)
		if err == nil {
			err = next.Close()
		}
		result <- err
	}()
	closed(t, j)
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestLockOutlivesAFileThatIsSetAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	if err := os.WriteFile(path, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	j, _ := opened(t, path, nodeUID)
	if _, _, err := open(path, nodeUID, 0); !errors.Is(err, ErrHeld) {
		t.Errorf("error %v, want that it is held", err)
	}
	if err := j.Write([]lease.Entry{entry(1)}, nil); err != nil {
		t.Fatal(err)
	}
	if all, err := reopened(t, path).Load(); err != nil || len(all) != 1 {
		t.Errorf("written after setting aside: %v, %v", all, err)
	}
}

// filled returns the content of a journal with many entries.
func filled(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal.db")
	j, _ := opened(t, path, nodeUID)
	for i := range 40 {
		var puts []lease.Entry
		for k := range 16 {
			puts = append(puts, entry(16*i+k))
		}
		if err := j.Write(puts, nil); err != nil {
			t.Fatal(err)
		}
	}
	closed(t, j)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestDamagedJournalIsSetAside(t *testing.T) {
	sound := filled(t)
	page := os.Getpagesize()
	damage := map[string][]byte{
		"empty":        {},
		"text":         []byte("this is no journal\n"),
		"zeros":        make([]byte, len(sound)),
		"ones":         bytes.Repeat([]byte{0xff}, len(sound)),
		"no metas":     append(make([]byte, 2*page), sound[2*page:]...),
		"metas only":   sound[:2*page],
		"cut in half":  sound[:len(sound)/2/page*page],
		"cut mid-page": sound[:len(sound)/2/page*page+100],
		"zeroed pages": append(bytes.Clone(sound[:2*page]), make([]byte, len(sound)-2*page)...),
		"wild pages":   append(bytes.Clone(sound[:2*page]), bytes.Repeat([]byte{0xa5}, len(sound)-2*page)...),
		"broken JSON":  bytes.ReplaceAll(sound, []byte(`"state":"assigned"`), []byte(`"state":"assigned?`)),
		"no state":     bytes.ReplaceAll(sound, []byte(`"state":"assigned"`), []byte(`"xtate":"assigned"`)),
	}
	for name, content := range damage {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal.db")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			j, fresh := opened(t, path, nodeUID)
			notice := j.Notice()
			if !fresh || notice == nil {
				t.Fatalf("fresh %t, notice %v", fresh, notice)
			}
			kept, err := os.ReadFile(notice.To)
			if err != nil || !bytes.Equal(kept, content) {
				t.Errorf("the file was not kept as it was: %v", err)
			}
			if !strings.HasPrefix(notice.To, path+".corrupt-") {
				t.Errorf("set aside as %s", notice.To)
			}
			if err := j.Write([]lease.Entry{entry(1)}, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFlippedBitsNeverLoseAnEntrySilently flips bits all over the file but its
// root pages: the journal either gives all it has or is set aside, and never
// panics.
func TestFlippedBitsNeverLoseAnEntrySilently(t *testing.T) {
	sound := filled(t)
	path := filepath.Join(t.TempDir(), "journal.db")
	for at := 2 * os.Getpagesize(); at < len(sound); at += 3001 {
		content := bytes.Clone(sound)
		content[at] ^= 1 << (at % 8)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		j, fresh := opened(t, path, nodeUID)
		all, err := j.Load()
		if err != nil || !fresh && len(all) != 640 {
			t.Errorf("bit flipped in byte %d: fresh %t, %d entries, %v", at, fresh, len(all), err)
		}
		closed(t, j)
	}
}

func TestUnfinishedOrForeignDatabaseIsSetAside(t *testing.T) {
	for name, test := range map[string]struct {
		make func(*bbolt.Tx) error
		want error
		as   string
	}{
		"no buckets": {func(*bbolt.Tx) error { return nil }, errNoJournal, ".corrupt-"},
		"newer format": {func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucket(bucketEntries())
			meta, merr := tx.CreateBucket(bucketMeta())
			return errors.Join(err, merr, meta.Put(keyFormat(), []byte("2")), meta.Put(keyNode(), []byte(nodeUID)))
		}, errFormat, ".format-"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal.db")
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Update(test.make), db.Close()); err != nil {
				t.Fatal(err)
			}
			j, fresh := opened(t, path, nodeUID)
			if notice := j.Notice(); !fresh || !errors.Is(notice, test.want) || !strings.Contains(notice.To, test.as) {
				t.Errorf("fresh %t, notice %v", fresh, notice)
			}
		})
	}
}

func TestFileSystemErrorSetsNothingAside(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := open(filepath.Join(dir, "file", "journal.db"), nodeUID, 0); err == nil {
		t.Error("a journal below a file was opened")
	}
	if _, _, err := open(filepath.Join(dir, "journal.db"), "", 0); err == nil {
		t.Error("a journal without node UID was opened")
	}
	if _, err := os.Stat(filepath.Join(dir, "journal.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a journal without node UID was created: %v", err)
	}
}

func TestClosedJournalFails(t *testing.T) {
	j, _ := opened(t, filepath.Join(t.TempDir(), "journal.db"), nodeUID)
	closed(t, j)
	if err := j.Write([]lease.Entry{entry(1)}, nil); err == nil {
		t.Error("a closed journal was written")
	}
	if _, err := j.Load(); err == nil {
		t.Error("a closed journal was read")
	}
}

func TestOneBadEntrySpoilsNoOtherWrite(t *testing.T) {
	j, _ := opened(t, filepath.Join(t.TempDir(), "journal.db"), nodeUID)
	bad := entry(2)
	bad.Detail = []byte("{")
	if err := j.Write([]lease.Entry{bad}, nil); err == nil {
		t.Error("an entry with a detail that is no JSON was stored")
	}
	if err := j.Write([]lease.Entry{entry(1)}, nil); err != nil {
		t.Error(err)
	}
	if all, err := j.Load(); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
}

func FuzzRecordDecodesToWhatItEncodes(f *testing.F) {
	for _, e := range []lease.Entry{entry(1), {Addr: netip.MustParseAddr("2001:db8::1"), State: lease.Cooling}} {
		k, v, err := encode(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(k, v)
	}
	f.Add([]byte{1, 2, 3, 4}, []byte(`{"addr":"1.2.3.4","state":"x","since":"0001-01-01T00:00:00Z","detail":{"a":[1]}}`))
	f.Fuzz(func(t *testing.T, k, v []byte) {
		e, err := decode(k, v)
		if err != nil {
			return
		}
		k2, v2, err := encode(e)
		if err != nil {
			t.Fatalf("%+v was decoded but does not encode: %v", e, err)
		}
		if !bytes.Equal(k, k2) {
			t.Fatalf("key %x became %x", k, k2)
		}
		again, err := decode(k2, v2)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(compact(t, e), compact(t, again), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Fatal(diff)
		}
	})
}

// compact returns the entry with its detail in the one form that encoding
// gives it.
func compact(t *testing.T, e lease.Entry) lease.Entry {
	t.Helper()
	_, v, err := encode(e)
	if err != nil {
		t.Fatal(err)
	}
	k, err := key(e.Addr)
	if err != nil {
		t.Fatal(err)
	}
	if e, err = decode(k, v); err != nil {
		t.Fatal(err)
	}
	return e
}
