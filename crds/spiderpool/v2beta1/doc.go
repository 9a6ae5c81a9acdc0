// Package v2beta1 holds the kinds that users write and read: pools, reserved
// addresses, network configurations, the coordinator's settings, and the
// endpoints that tell which pod has which address. Group, version, names,
// defaults and columns are those of Spiderpool, so its manifests apply as they
// are.
//
// The schema (crds/yaml) refuses what one object alone shows to be wrong. What
// takes arithmetic on ranges is in ranges.go, for those who read pools. What
// takes several objects, such as pools that overlap, is nobody's to refuse:
// the protocol in package lease is safe against it.
//
// +kubebuilder:object:generate=true
// +groupName=spiderpool.spidernet.io
package v2beta1
