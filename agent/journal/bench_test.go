package journal

import (
	"path/filepath"
	"testing"

	"github.com/holdfast-ipam/holdfast/lease"
)

// BenchmarkWrite measures what a pod start waits for: one entry, synced.
func BenchmarkWrite(b *testing.B) {
	j, _, err := open(filepath.Join(b.TempDir(), "journal.db"), nodeUID, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	for i := 0; b.Loop(); i++ {
		if err := j.Write([]lease.Entry{entry(i % 1024)}, nil); err != nil {
			b.Fatal(err)
		}
	}
}
