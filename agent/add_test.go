package agent

import (
	"testing"
	"time"

	"github.com/holdfast-ipam/holdfast/agent/selection"
	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// TestAddWaitsForAnAddressThatAnotherNodeGivesBack has one address and two
// agents on a real API server. The clock is the test's, so that nothing but the
// test lets an address cool down.
func TestAddWaitsForAnAddressThatAnotherNodeGivesBack(t *testing.T) {
	s, clock := startServer(t), newTestTime()
	gives, waits := s.readyAgentAt(t, "gives", clock), s.readyAgentAt(t, "waits", clock)
	s.pool(t, gives, "last", v2beta1.IPPoolSpec{Subnet: "10.41.0.0/16", IPs: v2beta1.Ranges{"10.41.0.1"}})
	eventually(t, func() bool { _, ok := waits.pools.Get("last"); return ok }, "the other agent sees the pool")
	use := map[string]string{selection.PoolAnnotation: `{"ipv4":["last"]}`}
	before, next := s.podWith(t, "gives", "before", use), s.podWith(t, "waits", "next", use)
	if _, err := attempt(t.Context(), gives, before, "before", "eth0"); err != nil {
		t.Fatal(err)
	}
	type answer struct {
		result *cni.AddResult
		err    error
	}
	answered := make(chan answer, 1)
	go func() {
		got, err := attempt(t.Context(), waits, next, "next", "eth0")
		answered <- answer{got["eth0"], err}
	}()
	eventually(t, func() bool { return waits.pools.waitingFor("last") == 1 }, "the ADD waits")
	giveBack(t, gives, before, "before", "eth0")
	clock.pass(retryRest) // the pod was not up yet, as its status says
	if err := gives.upkeep.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got answer
	eventually(t, func() bool {
		clock.pass(5 * time.Millisecond) // about as much as goes by between two looks
		select {
		case got = <-answered:
			return true
		default:
			return false
		}
	}, "the ADD is answered")
	if got.err != nil || got.result.Addresses[0].Prefix.String() != "10.41.0.1/16" {
		t.Errorf("got %+v, %v", got.result, got.err)
	}
	if n := waits.pools.waitingFor("last"); n != 0 {
		t.Errorf("%d pods wait after it", n)
	}
}
