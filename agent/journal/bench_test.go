package journal

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/holdfast-ipam/holdfast/lease"
)

// BenchmarkWrite measures what a pod start waits for: one entry, synced, or
// those of many pods that start at once, which package lease brings together.
func BenchmarkWrite(b *testing.B) {
	for _, n := range []int{1, 50} {
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			j, _, err := open(filepath.Join(b.TempDir(), "journal.db"), nodeUID, 0)
			if err != nil {
				b.Fatal(err)
			}
			defer j.Close()
			puts := make([]lease.Entry, n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				for k := range puts {
					puts[k] = entry((i*n + k) % 1024)
				}
				if err := j.Write(puts, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
