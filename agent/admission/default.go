package admission

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// Operation is an operation of a JSON Patch (RFC 6902). All here are "add",
// which also replaces what is there.
type Operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

func add(path string, value any) Operation { return Operation{Op: "add", Path: path, Value: value} }

// DefaultPool returns what to add to a pool: the IP version of its subnet, the
// fewest ranges for its addresses, the label that finds pools by subnet, and
// the finalizer that keeps it until its last address is back. A pool on its
// way out gets nothing: it may not take on a finalizer any more.
func DefaultPool(p *v2beta1.SpiderIPPool) []Operation {
	if p.DeletionTimestamp != nil {
		return nil
	}
	var patch []Operation
	if labels := Labels(p); !maps.Equal(labels, p.Labels) {
		patch = append(patch, add("/metadata/labels", labels))
	}
	if !slices.Contains(p.Finalizers, v2beta1.Finalizer) {
		patch = append(patch, add("/metadata/finalizers", append(slices.Clone(p.Finalizers), v2beta1.Finalizer)))
	}
	if family := p.Spec.Family(); family != 0 && p.Spec.IPVersion == nil {
		patch = append(patch, add("/spec/ipVersion", family))
	}
	return append(patch, slices.Concat(merged("/spec/ips", p.Spec.IPs), merged("/spec/excludeIPs", p.Spec.ExcludeIPs))...)
}

// DefaultReservedIP returns what to add to a reservation: the IP version of
// its addresses, and the fewest ranges for them.
func DefaultReservedIP(r *v2beta1.SpiderReservedIP) []Operation {
	if r.DeletionTimestamp != nil {
		return nil
	}
	var patch []Operation
	if family := r.Spec.Family(); family != 0 && r.Spec.IPVersion == nil {
		patch = append(patch, add("/spec/ipVersion", family))
	}
	return append(patch, merged("/spec/ips", r.Spec.IPs)...)
}

// Labels returns the labels that a pool should have: its own, and the one that
// finds pools by subnet, with every . : / as a dash. A subnet that gives no
// label value (one that ends in ::/0, say) goes without.
func Labels(p *v2beta1.SpiderIPPool) map[string]string {
	value := strings.NewReplacer(".", "-", ":", "-", "/", "-").Replace(p.Spec.Subnet)
	if p.Spec.Family() == 0 || len(validation.IsValidLabelValue(value)) > 0 {
		return p.Labels
	}
	labels := maps.Clone(p.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[v2beta1.LabelSubnet] = value
	return labels
}

// merged returns several items in ascending order and as few as possible. Items
// that make no sense are left for the schema to refuse.
func merged(path string, items v2beta1.Ranges) []Operation {
	if len(items) < 2 {
		return nil
	}
	set, err := v2beta1.ParseRanges(items)
	if err != nil {
		return nil
	}
	fewest := v2beta1.FormatRanges(set)
	if slices.Equal(fewest, items) {
		return nil
	}
	return []Operation{add(path, fewest)}
}
