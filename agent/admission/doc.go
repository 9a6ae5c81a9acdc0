// Package admission judges objects when they are applied, by rules that need
// a second object and that the schema therefore cannot have: pools that
// overlap, a pool that would lose an address in use, a network whose name is
// taken. It also fills in what follows from the rest of an object.
//
// [Pool], [Dropped], [ReservedIP], [Network], [DefaultPool] and
// [DefaultReservedIP] are pure functions of objects. [NewHandler] answers the
// API server's questions (admission.k8s.io/v1, AdmissionReview) with them,
// after quorum reads of what they need.
//
// Three things hold for every rule:
//
//   - An update is refused only for what it makes worse. An object that breaks
//     a rule, because it was applied while nobody served this webhook, can be
//     labelled, disabled, shrunk and deleted.
//   - Nothing here is asked on the way of a pod: neither blocks nor endpoints
//     are judged, nor the status of anything.
//   - Two objects that are applied at the same moment do not see each other,
//     and while no agent can be reached everything passes. The elected agent
//     shows what slipped through as a condition of the pool. It is harmless to
//     pods: leases are per address, so two pools that overlap still give each
//     address to one pod.
package admission
