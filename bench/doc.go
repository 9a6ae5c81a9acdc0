// Command bench measures what a pod start waits for and what it costs, for
// Holdfast and, in the same run on the same machine, for what a user would
// pick instead: host-local (one node, files: the floor) and Whereabouts
// (cluster-wide, an object of the API server for each change).
//
// Each round starts, for each system in turn, a kube-apiserver and an etcd of
// its own (lab.go) with ten nodes, and the processes that the system needs. Pods
// are objects bound to the nodes. The run does what a container runtime does
// (plugin.go): it executes the plugin's binary, with the environment and the
// network configuration of the CNI specification, for a sandbox that is a
// network namespace. What is done is in scenario.go and sizes.go, what it is to
// show in goals.go. docs/performance.md tells users how to read it.
//
// The pods of a scenario are bound before the first ADD of it, as a kubelet
// sees a pod some time before its runtime asks for an address; what a system
// does meanwhile is in its CPU time and its requests, not in its latencies.
// Only a rebuild asks right behind the binding.
//
// What is not measured: the main plugin (no interface is made), kubelet and
// runtime, image pulls, and Kubernetes' garbage collector, which in a cluster
// deletes one SpiderEndpoint for each stateless pod that is gone. Every node is
// on this machine, so all systems share its cores with the API server; etcd has
// a file system in memory instead of a disk of its own.
package main
