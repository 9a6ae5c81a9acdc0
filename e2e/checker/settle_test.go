package checker

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestSettleWaitsForStatusToFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		take := func(context.Context) Snapshot {
			s := good()
			if time.Since(start) < 5*time.Second {
				s.Pools[0].AllocatedCount = 0
			}
			return *s
		}
		if found := Settle(t.Context(), 30*time.Second, take); len(found) > 0 {
			t.Errorf("found %v", found)
		}
		if spent := time.Since(start); spent < 5*time.Second || spent > 6*time.Second {
			t.Errorf("returned after %s, want soon after 5s", spent)
		}
	})
}

func TestSettleReportsWhatStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		found := Settle(t.Context(), 30*time.Second, func(context.Context) Snapshot {
			s := good()
			s.Pools[0].TotalCount = 0
			return *s
		})
		if len(found) != 1 || found[0].Rule != "a pool's status tells its use" {
			t.Errorf("found %v", found)
		}
		if spent := time.Since(start); spent < 30*time.Second {
			t.Errorf("gave up after %s, want 30s", spent)
		}
	})
}

func TestSettleDoesNotWaitOutADoubleUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		taken := 0
		found := Settle(t.Context(), 30*time.Second, func(context.Context) Snapshot {
			s := good()
			if taken++; taken == 1 {
				s.Nodes[1].Namespaces[0].Addresses = s.Nodes[0].Namespaces[0].Addresses
			}
			return *s
		})
		if taken != 1 || len(found) == 0 || found[0].Rule != "one address, one pod" {
			t.Errorf("after %d snapshots found %v", taken, found)
		}
	})
}

func TestSettleThatSeesNothingFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		found := Settle(t.Context(), time.Second, func(context.Context) Snapshot { return Snapshot{} })
		if len(found) == 0 {
			t.Error("nothing was seen and nothing was found wrong")
		}
	})
}
