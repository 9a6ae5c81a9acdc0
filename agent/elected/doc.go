// Package elected is what one agent at a time does for the whole cluster:
//
//   - gc.go gives pins back that no StatefulSet wants any more, and removes
//     pointers without pins and blocks that say nothing (collector.go is the
//     protocol, judge.go the judgement, gc.go what prompts it);
//   - fencer.go ends the leases of nodes that are gone (fence.go is what prompts
//     it);
//   - poolstatus.go keeps the status of pools (tally.go counts, poolrules.go
//     shows which rules they break and lets a deleted one go), and complete.go
//     fills in what the webhook would have filled in;
//   - certificate.go keeps the certificate of the webhook;
//   - multus.go renders SpiderMultusConfig into NetworkAttachmentDefinition
//     (nad.go is the text);
//   - coordinator.go keeps the status of SpiderCoordinators
//     (coordinatorsurvey.go finds out the cluster's networks,
//     coordinatorsource.go reads where they may be told).
//
// None of it is on the way of a pod start, and none of it relies on being the
// only one: every write is guarded by the version it was judged on, so an
// agent that has lost its election without noticing can only lose races. Being
// elected saves requests, nothing else, and who waits to be elected makes none
// (election.go). While nobody is elected, counts grow
// stale and addresses come back later.
//
// Caches of this package say where to look. What is removed is judged by
// quorum reads alone: an error, an empty list or a cache is never evidence.
package elected
