package admission

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// ReservedIP returns what is wrong with an update of a reservation. Of one
// that is created the schema knows everything, and was is nil.
func ReservedIP(is, was *v2beta1.SpiderReservedIP) field.ErrorList {
	if was == nil || equality.Semantic.DeepEqual(is.Spec, was.Spec) {
		return nil
	}
	if is.DeletionTimestamp != nil {
		return field.ErrorList{field.Forbidden(field.NewPath("spec"), fmt.Sprintf(
			"SpiderReservedIP %q is being deleted and reserves nothing any more: create it anew when it is gone", is.Name))}
	}
	before, after := was.Spec.Family(), is.Spec.Family()
	if before != 0 && after != 0 && before != after {
		return field.ErrorList{field.Invalid(field.NewPath("spec", "ips"), is.Spec.IPs[0], fmt.Sprintf(
			"IPv%d cannot be changed to IPv%d: create another SpiderReservedIP for IPv%[2]d", before, after))}
	}
	return nil
}
