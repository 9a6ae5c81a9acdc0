package agent

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-ipam/holdfast/agent/selection"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
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

	bind := func(name string, annotations map[string]string) *corev1.Pod {
		t.Helper()
		pod := s.podWith(t, "node", name, annotations)
		eventually(t, func() bool { _, ok := a.pods.cached(pod.Namespace, name); return ok }, "the agent sees pod %s", name)
		a.prepare(t.Context(), pod)
		return pod
	}
	add := func(pod *corev1.Pod) {
		t.Helper()
		if _, err := attempt(t.Context(), a, pod, pod.Name, "eth0"); err != nil {
			t.Fatal(err)
		}
	}

	bind("without-annotation", nil)
	expect("a pod that may never ask for an address", 0, false)
	use := map[string]string{selection.PoolAnnotation: `{"ipv4":["named"]}`}
	first := bind("first", use)
	expect("a pod is bound that names its pool", 0, true)
	round()
	expect("the round behind it", claim, false)

	add(first)
	for i := range claim/2 - 1 {
		add(s.podWith(t, "node", fmt.Sprintf("pod-%d", i), use))
	}
	expect("half a claim is left", claim/2, false)
	add(s.podWith(t, "node", "last", use))
	expect("less is left", claim/2-1, true)
	round()
	expect("the round behind that", claim/2-1+claim, false)

	var together []*corev1.Pod
	for i := range 3 * claim {
		together = append(together, bind(fmt.Sprintf("together-%d", i), use))
	}
	expect("more pods are bound than there are addresses at hand", claim/2-1+claim, true)
	round()
	stocked := len(a.lessee.Free())
	if stocked < 3*claim+claim/2 {
		t.Fatalf("the round behind them left %d addresses free", stocked)
	}
	for _, pod := range together {
		add(pod)
	}
	expect("each has its address", stocked-3*claim, false)
}

func TestPodIsExpectedUntilItAsksOrForAWhile(t *testing.T) {
	now := time.Unix(1000, 0)
	p := &pools{now: func() time.Time { return now }, expected: map[string]expectation{}}
	families := [][]lease.Pool{{{Name: "full", LeasedOut: true}, {Name: "four"}}, {{Name: "six"}}}
	counts := func(when string, want int) {
		t.Helper()
		for pool, want := range map[string]int{"full": 0, "four": want, "six": want} {
			if n := p.waitingFor(pool); n != want {
				t.Errorf("%s: %d pods are expected to ask for an address of pool %s, want %d", when, n, pool, want)
			}
		}
	}
	p.expect("a", families)
	p.expect("b", families)
	p.expect("b", families)
	counts("two are bound", 2)
	p.met("b")
	counts("one has asked", 1)
	now = now.Add(expectFor)
	counts("the other one has not, for long", 0)
}
