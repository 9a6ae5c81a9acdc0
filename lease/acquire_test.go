package lease_test

import (
	"sync"
	"testing"
	"time"

	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// A pod asks again for the address that is cooling down for it, together with
// one of the other family that takes a while to come. The end of the cool-down
// meanwhile gives the first one to nobody else.
func TestAddressOfAnAddUnderWayIsNotFreed(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		v4, v6 := pool("v4", 0, "10.0.0.1-10.0.0.1"), pool("v6", 0, "fd00::1-fd00::1")
		web := w.pod("web", a)
		s := a.add(web, v4)
		a.del(s)
		w.pass(coolDown - time.Second)

		stuck := make(chan struct{})
		w.fault = func(c leasetest.Call) leasetest.Fault {
			if c.Method == "PutBlock" {
				<-stuck
			}
			return leasetest.Fault{}
		}
		var add sync.WaitGroup
		add.Go(func() {
			again, err := a.tryAdd(w.Context(), web, v4, v6)
			if err != nil || len(again.addrs) != 2 {
				w.Errorf("got %v, %v", again.addrs, err)
			}
		})
		w.settle()
		w.pass(2 * time.Second)
		a.tidy()
		other, err := a.tryAdd(w.Context(), w.pod("other", a), v4)
		if !isExhausted(err) {
			w.Errorf("another pod got %v, %v: an ADD under way has it", other.addrs, err)
		}
		close(stuck)
		add.Wait()
	})
}
