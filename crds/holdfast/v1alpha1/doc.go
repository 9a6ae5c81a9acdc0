// Package v1alpha1 holds IPBlock, the object in which nodes claim and yield
// the right to hand out addresses. Agents write it and people only read it;
// what may be written when is told in package lease.
//
// +kubebuilder:object:generate=true
// +groupName=holdfast.dev
package v1alpha1
