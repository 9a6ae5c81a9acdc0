// Package cluster is [lease.Cluster] on a Kubernetes API server.
//
// # What makes a write guarded
//
// An update is a JSON merge patch (RFC 7386) that carries the
// metadata.resourceVersion it was judged on; the API server answers 409 when
// the object has another by then. A patch and not a PUT, because a PUT removes
// what it does not name: labels and annotations that somebody else put on the
// object stay. A creation is a POST, a removal a DELETE with the
// resourceVersion as precondition. No UID is needed with it: a
// resourceVersion is never used twice, so it names the object too.
//
// Each write changes an annotation ([WriteAnnotation]). An API server does not
// store an update that changes nothing, and leaves the resourceVersion as it
// is; then an earlier update whose answer was lost could still land after one
// that was to settle it.
//
// # What an answer means
//
// Writes are sent once, and again only after a 429: then they have not been let
// in. client-go would send them again after a 5xx with Retry-After too, which
// an API server also answers when etcd was too slow to say that it had stored
// them: the second would meet the first and report a conflict, which the lease
// package takes for "never took effect".
//
// 404 counts as an answer about the object only when it names the object. The
// same status without it comes from an API server that does not serve the
// kind (yet), and says nothing.
//
// # No finalizers
//
// Neither blocks nor endpoints carry one: an object must not wait for one
// node to come back. An endpoint of a pod that is no StatefulSet's is owned by
// its pod instead, and garbage collection removes it.
package cluster
