// Command scale measures what many agents cost an API server, and how that
// grows with their number.
//
// At each size it starts one kube-apiserver and etcd, so many Node objects, and
// as many whole agents (agent.Run), all in one process beside its own
// (carrier.go). Each has a client and a connection, a journal and a socket of
// its own, and is the same service account to the API server, as in a
// DaemonSet, so that the server's priority and fairness treats them as it does
// there. The run plays everybody else: kubelets, runtimes, the scheduler, the
// controllers of StatefulSets and of garbage. What each phase does is in
// phases.go.
//
// Requests, watch events and bytes are counted in the agents' own connections
// (transport.go), so what the run asks for itself is not among them. Bytes by
// kind are those of bodies, after decompression: the API server compresses
// large answers and events. What the network bears, TLS and HTTP/2 included, is
// counted in the connections as a whole. The elected agent is told from the
// others by the holder of the election's Lease.
//
// What is not there: kubelets' own traffic (status of nodes, events), other
// controllers, a second API server, disks of their own for nodes and etcd.
// All nodes share this machine with the API server, so latencies and CPU time
// say little about a cluster, while requests, events and bytes say much.
package main
