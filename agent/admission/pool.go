package admission

import (
	"fmt"
	"net/netip"
	"slices"

	"go4.org/netipx"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// Pool returns what is wrong with a pool beside the other pools. was is the
// pool before the update, and nil when it is created: then every fault counts,
// and otherwise those that the update adds or makes worse. others may contain
// the pool itself, which is passed over by its name.
//
// That an update drops no address in use is another question, see [Dropped].
func Pool(is, was *v2beta1.SpiderIPPool, others []v2beta1.SpiderIPPool, r Rules) field.ErrorList {
	if was == nil {
		return worse(poolFaults(is, others, r), nil)
	}
	if equality.Semantic.DeepEqual(is.Spec, was.Spec) {
		return nil
	}
	if is.DeletionTimestamp != nil {
		return field.ErrorList{field.Forbidden(field.NewPath("spec"), fmt.Sprintf(
			"pool %q is being deleted and gives out no address any more: wait until its last address is back and create it anew", is.Name))}
	}
	return worse(poolFaults(is, others, r), poolFaults(was, others, r))
}

// Dropped returns the addresses that pods may have from the pool before the
// update and not after it. It is empty where one of the two versions makes no
// sense: then it is not known what is lost.
func Dropped(is, was *v2beta1.SpiderIPPool) *netipx.IPSet {
	before, err := was.Spec.Addresses()
	if err != nil {
		return &netipx.IPSet{}
	}
	after, err := is.Spec.Addresses()
	if err != nil {
		return &netipx.IPSet{}
	}
	return without(before, after)
}

func poolFaults(p *v2beta1.SpiderIPPool, others []v2beta1.SpiderIPPool, r Rules) []fault {
	spec := field.NewPath("spec")
	faults := append(selectorFaults(p, spec), routeFaults(p, spec)...)
	subnet, err := p.Spec.Prefix()
	if err != nil {
		return append(faults, always(err.Error(), field.Invalid(spec.Child("subnet"), p.Spec.Subnet, "want a network like 10.6.0.0/16 or fd00:6::/112")))
	}
	faults = append(faults, familyFaults(p, spec, r)...)
	addrs, err := p.Spec.Addresses()
	if err != nil { // the schema refuses these as well
		faults = append(faults, always(err.Error(), field.Invalid(spec.Child("ips"), field.OmitValueType{}, err.Error())))
	} else if gw, err := netip.ParseAddr(p.Spec.Gateway); err == nil && addrs.Contains(gw) {
		faults = append(faults, always("gateway "+gw.String(), field.Invalid(spec.Child("gateway"), p.Spec.Gateway,
			"gateway is among ips, so that a pod could get the router's address: take it out of ips or put it into excludeIPs")))
	}
	for i := range others {
		if o := &others[i]; o.Name != p.Name {
			faults = append(faults, overlapFaults(subnet, addrs, o)...)
		}
	}
	return faults
}

// familyFaults refuses a pool of which no pod could get an address.
func familyFaults(p *v2beta1.SpiderIPPool, spec *field.Path, r Rules) []fault {
	version := p.Spec.Family()
	if version == 4 && !r.NoIPv4 || version == 6 && !r.NoIPv6 {
		return nil
	}
	return []fault{always("family", field.Forbidden(spec.Child("ipVersion"), fmt.Sprintf(
		"IPv%d is switched off in this cluster: set the chart's value ipam.enableIPv%[1]d to true, or use a subnet of the other family", version)))}
}

// overlapFaults compares a pool with another one. addrs is nil if it is not
// known.
func overlapFaults(subnet netip.Prefix, addrs *netipx.IPSet, other *v2beta1.SpiderIPPool) []fault {
	its, err := other.Spec.Prefix()
	if err != nil || !subnet.Overlaps(its) {
		return nil
	}
	spec, name := field.NewPath("spec"), nameOf(other)
	if its != subnet {
		return []fault{always("subnet "+other.Name, field.Invalid(spec.Child("subnet"), subnet.String(), fmt.Sprintf(
			"overlaps subnet %s of %s, and is not the same: pools of one network have one subnet, so use %[1]s, or a network beside it", its, name)))}
	}
	has, err := other.Spec.Addresses()
	if err != nil || addrs == nil {
		return nil
	}
	both := shared(addrs, has)
	if empty(both) {
		return nil
	}
	return []fault{{rule: "ips " + other.Name, addrs: both, tell: func(both *netipx.IPSet) *field.Error {
		verb, them := "are", "them"
		if single(both) {
			verb, them = "is", "it"
		}
		return field.Invalid(spec.Child("ips"), ranges(both), fmt.Sprintf(
			"%s also in %s: take %s out of one of the two pools, or exclude %[3]s there with excludeIPs", verb, name, them))
	}}}
}

func nameOf(p *v2beta1.SpiderIPPool) string {
	if p.DeletionTimestamp != nil {
		return fmt.Sprintf("pool %q, which is being deleted and goes when its last address is back", p.Name)
	}
	return fmt.Sprintf("pool %q", p.Name)
}

// routeFaults finds two routes to one network that are written differently;
// the schema compares what is written.
func routeFaults(p *v2beta1.SpiderIPPool, spec *field.Path) []fault {
	var faults []fault
	var seen []netip.Prefix
	for i, r := range p.Spec.Routes {
		dst, err := netip.ParsePrefix(r.Dst)
		if err != nil {
			continue // the schema's
		}
		if slices.Contains(seen, dst.Masked()) {
			faults = append(faults, always("route "+dst.Masked().String(), &field.Error{
				Type: field.ErrorTypeDuplicate, Field: spec.Child("routes").Index(i).Child("dst").String(), BadValue: r.Dst,
				Detail: "another route goes to this network: keep one",
			}))
		}
		seen = append(seen, dst.Masked())
	}
	return faults
}

// selectorFaults finds keys and values that no label can have.
func selectorFaults(p *v2beta1.SpiderIPPool, spec *field.Path) []fault {
	var faults []fault
	for _, s := range []struct {
		name     string
		selector *metav1.LabelSelector
	}{
		{"podAffinity", p.Spec.PodAffinity},
		{"namespaceAffinity", p.Spec.NamespaceAffinity},
		{"nodeAffinity", p.Spec.NodeAffinity},
	} {
		if _, err := metav1.LabelSelectorAsSelector(s.selector); err != nil {
			faults = append(faults, always(s.name+err.Error(), field.Invalid(spec.Child(s.name), field.OmitValueType{},
				fmt.Sprintf("%s: write keys and values as labels have them", err))))
		}
	}
	return faults
}
