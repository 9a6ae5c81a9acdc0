package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	// Group is the API group of every kind in this package.
	Group = "holdfast.dev"
	// Version is the only version of the group, served and stored.
	Version = "v1alpha1"
)

// GroupVersion returns group and version of every kind in this package.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: Group, Version: Version}
}

// AddToScheme makes the scheme know the kinds of this package and the options
// that requests for them carry.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion(),
		&IPBlock{}, &IPBlockList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion())
	return nil
}
