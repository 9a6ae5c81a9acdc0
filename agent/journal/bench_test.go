package journal

import (
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/holdfast-ipam/holdfast/lease"
)

// BenchmarkWrite measures a write of one entry: alone, and with fifty writers
// at once.
func BenchmarkWrite(b *testing.B) {
	for name, writers := range map[string]int{"1Writer": 1, "50Writers": 50} {
		b.Run(name, func(b *testing.B) {
			j, _, err := open(filepath.Join(b.TempDir(), "journal.db"), nodeUID, 0)
			if err != nil {
				b.Fatal(err)
			}
			defer j.Close()
			var n atomic.Int64
			var all sync.WaitGroup
			b.ResetTimer()
			for range writers {
				all.Go(func() {
					for i := int(n.Add(1)); i <= b.N; i = int(n.Add(1)) {
						if err := j.Write([]lease.Entry{entry(i % 1024)}, nil); err != nil {
							b.Error(err)
						}
					}
				})
			}
			all.Wait()
		})
	}
}
