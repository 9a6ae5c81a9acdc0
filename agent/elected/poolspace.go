package elected

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/gaissmai/bart"
)

// space finds pools by their subnets. What a question costs follows the pools
// that are near, not how many there are.
type space struct {
	mu      sync.Mutex
	pools   bart.Table[[]string]
	subnets map[string]netip.Prefix
}

func newSpace() *space { return &space{subnets: map[string]netip.Prefix{}} }

// put notes the subnet of a pool. The zero Prefix is none.
func (s *space) put(pool string, subnet netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.subnets[pool]
	if was == subnet {
		return
	}
	s.drop(pool, was)
	if !subnet.IsValid() {
		return
	}
	s.subnets[pool] = subnet
	s.pools.Modify(subnet, func(names []string, _ bool) ([]string, bool) {
		return append(names, pool), false
	})
}

// drop removes a pool from its subnet. The caller holds s.mu.
func (s *space) drop(pool string, subnet netip.Prefix) {
	delete(s.subnets, pool)
	s.pools.Modify(subnet, func(names []string, _ bool) ([]string, bool) {
		names = slices.DeleteFunc(names, func(name string) bool { return name == pool })
		return names, len(names) == 0
	})
}

// near returns the pools whose subnets overlap a prefix, ordered by name.
func (s *space) near(prefix netip.Prefix) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var near []string
	for _, names := range s.pools.Subnets(prefix) {
		near = append(near, names...)
	}
	for subnet, names := range s.pools.Supernets(prefix) {
		if subnet != prefix.Masked() { // which is among the subnets
			near = append(near, names...)
		}
	}
	slices.Sort(near)
	return near
}
