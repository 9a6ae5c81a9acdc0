package admission

import (
	"fmt"
	"maps"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// The annotations of a SpiderMultusConfig that are judged: the name of what is
// rendered from it, and the version of its CNI configuration.
const (
	annotationNADName    = "multus.spidernet.io/cr-name"
	annotationCNIVersion = "multus.spidernet.io/cni-version"
)

// Render tells why nothing can be rendered from a SpiderMultusConfig, in an
// error that begins with the field at fault, or returns nil.
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
		return append(worse(renderFaults(is, render), nil), worse(nameFaults(is, others, definition), nil)...)
	}
	if equality.Semantic.DeepEqual(is.Spec, was.Spec) && maps.Equal(is.Annotations, was.Annotations) {
		return nil
	}
	errs := worse(renderFaults(is, render), renderFaults(was, render))
	if DefinitionName(is) == DefinitionName(was) {
		return errs
	}
	if len(nameFaults(was, others, nil)) > 0 { // nothing was rendered under it
		return append(errs, worse(nameFaults(is, others, definition), nil)...)
	}
	return append(errs, field.Forbidden(annotation(annotationNADName), fmt.Sprintf(
		"the NetworkAttachmentDefinition of this SpiderMultusConfig is called %q and keeps the name, because pods may name it: create another SpiderMultusConfig for the name %q",
		DefinitionName(was), DefinitionName(is))))
}

func annotation(key string) *field.Path { return field.NewPath("metadata", "annotations").Key(key) }

func renderFaults(smc *v2beta1.SpiderMultusConfig, render Render) []fault {
	if err := render(smc); err != nil {
		return []fault{always(err.Error(), renderFault(smc, err, render))}
	}
	return nil
}

// renderFault finds the field at fault: the annotation with the CNI version if
// all is well without it, and otherwise the one that the error begins with.
func renderFault(smc *v2beta1.SpiderMultusConfig, err error, render Render) *field.Error {
	if version, ok := smc.Annotations[annotationCNIVersion]; ok {
		plain := smc.DeepCopy()
		delete(plain.Annotations, annotationCNIVersion)
		if render(plain) == nil {
			return field.Invalid(annotation(annotationCNIVersion), version, err.Error())
		}
	}
	if name, _, ok := strings.Cut(err.Error(), " "); ok && strings.HasPrefix(name, "spec.") {
		return &field.Error{Type: field.ErrorTypeInvalid, Field: strings.TrimRight(name, ":,"), BadValue: field.OmitValueType{}, Detail: err.Error()}
	}
	return field.Invalid(field.NewPath("spec"), field.OmitValueType{}, err.Error())
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
