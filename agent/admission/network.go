package admission

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// annotationNADName is the annotation of a SpiderMultusConfig with the name of
// what is rendered from it.
const annotationNADName = "multus.spidernet.io/cr-name"

// Render tells why nothing can be rendered from a SpiderMultusConfig, in an
// error that begins with the field at fault, "spec.customCNI ...", or with
// "annotation KEY: ...", or returns nil.
type Render func(*v2beta1.SpiderMultusConfig) error

// DefinitionName returns the name of the NetworkAttachmentDefinition that is
// rendered from a SpiderMultusConfig.
func DefinitionName(smc *v2beta1.SpiderMultusConfig) string {
	if name := smc.Annotations[annotationNADName]; name != "" {
		return name
	}
	return smc.Name
}

// Network returns what is wrong with a SpiderMultusConfig beside the others of
// its namespace and the NetworkAttachmentDefinition that has its name, nil if
// none has. was is nil when it is created. others may contain it, which is
// passed over by its name.
func Network(is, was *v2beta1.SpiderMultusConfig, others []v2beta1.SpiderMultusConfig, definition *metav1.PartialObjectMetadata, render Render) field.ErrorList {
	if was == nil {
		return once(append(worse(nameFaults(is, others, definition), nil), worse(renderFaults(is, render), nil)...))
	}
	if equality.Semantic.DeepEqual(is.Spec, was.Spec) && maps.Equal(is.Annotations, was.Annotations) {
		return nil
	}
	var errs field.ErrorList
	switch {
	case DefinitionName(is) == DefinitionName(was):
		// Whoever else has the name, this update changes nothing about that.
	case len(nameFaults(was, others, nil)) > 0: // nothing was rendered under it
		errs = worse(nameFaults(is, others, definition), nil)
	default:
		errs = append(errs, field.Forbidden(annotation(annotationNADName), fmt.Sprintf(
			"the NetworkAttachmentDefinition of this SpiderMultusConfig is called %q and keeps the name, because pods may name it: create another SpiderMultusConfig for the name %q",
			DefinitionName(was), DefinitionName(is))))
	}
	return once(append(errs, worse(renderFaults(is, render), renderFaults(was, render))...))
}

// once keeps the first error of each field: what is no name cannot be rendered
// either.
func once(errs field.ErrorList) field.ErrorList {
	var kept field.ErrorList
	for _, err := range errs {
		if !slices.ContainsFunc(kept, func(k *field.Error) bool { return k.Field == err.Field }) {
			kept = append(kept, err)
		}
	}
	return kept
}

func annotation(key string) *field.Path { return field.NewPath("metadata", "annotations").Key(key) }

// renderFaults says what cannot be rendered, at the field or annotation that
// the error begins with.
func renderFaults(smc *v2beta1.SpiderMultusConfig, render Render) []fault {
	err := render(smc)
	if err == nil {
		return nil
	}
	told := &field.Error{Type: field.ErrorTypeInvalid, Field: "spec", BadValue: field.OmitValueType{}, Detail: err.Error()}
	if at, _, _ := strings.Cut(err.Error(), " "); strings.HasPrefix(at, "spec.") {
		told.Field = strings.TrimRight(at, ":,")
	}
	if key, detail, ok := strings.Cut(strings.TrimPrefix(err.Error(), "annotation "), ": "); ok && smc.Annotations[key] != "" {
		told.Field, told.BadValue, told.Detail = annotation(key).String(), smc.Annotations[key], detail
	}
	return []fault{always(err.Error(), told)}
}

// nameFaults judges the name of the definition.
func nameFaults(smc *v2beta1.SpiderMultusConfig, others []v2beta1.SpiderMultusConfig, definition *metav1.PartialObjectMetadata) []fault {
	name := DefinitionName(smc)
	at := field.NewPath("metadata", "name")
	if smc.Annotations[annotationNADName] != "" {
		at = annotation(annotationNADName)
	}
	if reasons := validation.IsDNS1123Subdomain(name); len(reasons) > 0 {
		return []fault{always("name "+name, field.Invalid(at, name, strings.Join(reasons, "; ")))}
	}
	for i := range others {
		o := &others[i]
		if o.Name != smc.Name && (DefinitionName(o) == name || owns(o, definition)) {
			return []fault{always("name "+name+" of "+o.Name, &field.Error{
				Type: field.ErrorTypeDuplicate, Field: at.String(), BadValue: name,
				Detail: fmt.Sprintf("the NetworkAttachmentDefinition of this name belongs to SpiderMultusConfig %q: choose another name", o.Name),
			})}
		}
	}
	return nil
}

// owns reports whether the definition was rendered from the SpiderMultusConfig.
func owns(smc *v2beta1.SpiderMultusConfig, definition *metav1.PartialObjectMetadata) bool {
	if definition == nil {
		return false
	}
	owner := metav1.GetControllerOf(definition)
	return owner != nil && owner.UID == smc.UID
}
