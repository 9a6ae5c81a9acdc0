package selection_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/agent/selection"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// many are the pools of a large cluster, by name.
type many map[string]*v2beta1.SpiderIPPool

func (m many) Get(name string) (*v2beta1.SpiderIPPool, bool) {
	pool, ok := m[name]
	return pool, ok
}

func (m many) List() []*v2beta1.SpiderIPPool { return slices.Collect(maps.Values(m)) }

// BenchmarkSelect is what an ADD finds out before it asks for an address: by
// name it must not depend on how many pools there are, by wildcard it reads
// all of them.
func BenchmarkSelect(b *testing.B) {
	for _, pools := range []int{1, 10000} {
		for _, c := range []struct{ by, value string }{
			{"name", `{"ipv4":["pool-0"]}`},
			{"wildcard", `{"ipv4":["pool-0*"]}`},
		} {
			b.Run(fmt.Sprintf("by=%s/pools=%d", c.by, pools), func(b *testing.B) {
				in := input(pools, c.value)
				b.ReportAllocs()
				for b.Loop() {
					if s, err := selection.Select(in); err != nil || len(s.IPv4) == 0 {
						b.Fatalf("chosen are %v: %v", s.IPv4, err)
					}
				}
			})
		}
	}
}

// input is a pod whose annotation names pools of so many.
func input(pools int, annotation string) selection.Input {
	all := many{}
	for i := range pools {
		name := fmt.Sprintf("pool-%d", i)
		all[name] = &v2beta1.SpiderIPPool{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       v2beta1.IPPoolSpec{Subnet: "10.6.0.0/16", IPs: v2beta1.Ranges{"10.6.168.1-10.6.168.100"}},
		}
	}
	return selection.Input{
		Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web-0", Annotations: map[string]string{"ipam.spidernet.io/ippool": annotation},
		}},
		Namespace: &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "shop"}},
		Node:      &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "worker-1"}},
		Interface: "eth0", Pools: all, EnableIPv4: true, EnableIPv6: true,
	}
}
