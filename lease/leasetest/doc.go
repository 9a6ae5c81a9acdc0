// Package leasetest has the two things the lease protocol stands on, as bad
// as they can be: a [Cluster] that really loses races and answers, and a
// [Disk] that really loses what was not synced. Both are in memory, safe for
// concurrent use, and deterministic: without concurrent calls, the same calls
// and the same faults give the same run.
//
// [ClusterSuite] and [DiskSuite] say what the protocol expects of them. Every
// real one must pass the same suites, so what is proved against the fakes
// holds for a Kubernetes API server and a bbolt file.
package leasetest
