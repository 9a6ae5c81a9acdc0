package agent

import (
	"fmt"
	"testing"

	"github.com/holdfast-ipam/holdfast/agent/selection"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// TestPoolIsSuppliedBeforeAPodWaits has an agent on a real API server whose
// upkeep makes its rounds when the test says so, and whose watches ask for none.
func TestPoolIsSuppliedBeforeAPodWaits(t *testing.T) {
	s := startServer(t)
	a := s.readyAgentAt(t, "node", newTestTime())
	const claim = 256 / plentyShare
	s.pool(t, a, "named", v2beta1.IPPoolSpec{Subnet: "10.42.0.0/16", IPs: v2beta1.Ranges{"10.42.0.0-10.42.0.255"}})
	s.pool(t, a, "default", v2beta1.IPPoolSpec{Subnet: "10.43.0.0/16", IPs: v2beta1.Ranges{"10.43.0.0-10.43.0.255"}, Default: true})
	expect := func(when string, free int, asks bool) {
		t.Helper()
		asked := false
		select {
		case <-a.upkeep.wake:
			asked = true
		default:
		}
		if n := len(a.lessee.Free()); n != free || asked != asks {
			t.Fatalf("%s: %d addresses are free, want %d; a round is asked for: %t, want %t", when, n, free, asked, asks)
		}
	}
	round := func() {
		t.Helper()
		if err := a.upkeep.round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	a.prepare(t.Context(), s.podWith(t, "node", "without-annotation", nil))
	expect("a pod that may never ask for an address", 0, false)
	use := map[string]string{selection.PoolAnnotation: `{"ipv4":["named"]}`}
	a.prepare(t.Context(), s.podWith(t, "node", "first", use))
	expect("a pod is bound that names its pool", 0, true)
	round()
	expect("the round behind it", claim, false)

	for i := range claim / 2 {
		name := fmt.Sprintf("pod-%d", i)
		if _, err := attempt(t.Context(), a, s.podWith(t, "node", name, use), name, "eth0"); err != nil {
			t.Fatal(err)
		}
	}
	expect("half a claim is left", claim/2, false)
	if _, err := attempt(t.Context(), a, s.podWith(t, "node", "last", use), "last", "eth0"); err != nil {
		t.Fatal(err)
	}
	expect("less is left", claim/2-1, true)
	round()
	expect("the round behind that", claim/2-1+claim, false)
}
