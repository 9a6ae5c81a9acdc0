package lease_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// lessor is a node with leases on so many addresses, on a disk that takes no
// time, so that what is measured is the lessee. Its clock goes as told.
type lessor struct {
	*lease.Lessee
	pool lease.Pool
	now  time.Time
}

func newLessor(b *testing.B, addresses int) *lessor {
	b.Helper()
	begin := netip.MustParseAddr("10.0.0.0").As4()
	n := &lessor{now: time.Unix(1e9, 0)}
	id := lease.Node{Name: "a", UID: "uid-of-a"}
	cluster := leasetest.NewCluster(nil)
	for i := range addresses / lease.Size {
		begin[2], begin[3] = byte(i/16), byte(i%16*lease.Size)
		block, err := lease.NewBlock(lease.BlockOf(netip.AddrFrom4(begin)))
		if err != nil {
			b.Fatal(err)
		}
		block.Claim(id, block.Claimable())
		if _, err := cluster.PutBlock(b.Context(), block); err != nil {
			b.Fatal(err)
		}
	}
	n.pool = pool("wide", 0, "10.0.0.0-10.0.255.255")
	var err error
	n.Lessee, err = lease.New(lease.Config{
		Node: id, Cluster: cluster, Disk: leasetest.NewDisk(nil).Open(),
		Now: func() time.Time { return n.now }, CoolDown: coolDown,
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := n.Start(cluster.Leases(id.UID), false, nil, 0); err != nil {
		b.Fatal(err)
	}
	n.Trust(n.now.Add(1e6 * time.Hour))
	if free := len(n.Free()); free != addresses {
		b.Fatalf("%d addresses are free, want %d", free, addresses)
	}
	return n
}

// acquire is an ADD that must succeed.
func (n *lessor) acquire(b *testing.B, uid string) []lease.Entry {
	p := pod{name: "web", uid: uid}
	got, err := n.Acquire(b.Context(), p.request("container-of-"+uid, n.pool))
	if err != nil || len(got) != 1 {
		b.Fatalf("got %v, %v", got, err)
	}
	return got
}

// BenchmarkPodComesAndGoes is a stateless pod on a warm node: ADD, DEL, and the
// end of the cool-down.
func BenchmarkPodComesAndGoes(b *testing.B) {
	for _, addresses := range []int{16, 256} {
		b.Run(fmt.Sprintf("addresses=%d", addresses), func(b *testing.B) {
			n := newLessor(b, addresses)
			b.ReportAllocs()
			for b.Loop() {
				n.acquire(b, "uid")
				if _, err := n.Release(lease.Sandbox{Owner: lease.Owner{PodUID: "uid", Interface: ifname}, Container: "container-of-uid"}); err != nil {
					b.Fatal(err)
				}
				n.now = n.now.Add(coolDown)
				if err := n.Tidy(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAcquireAgain is an ADD whose answer was lost: the journal has it,
// among those of many pods.
func BenchmarkAcquireAgain(b *testing.B) {
	for _, pods := range []int{16, 256} {
		b.Run(fmt.Sprintf("pods=%d", pods), func(b *testing.B) {
			n := newLessor(b, pods)
			for i := range pods {
				n.acquire(b, fmt.Sprint(i))
			}
			b.ReportAllocs()
			for b.Loop() {
				n.acquire(b, "0")
			}
		})
	}
}
