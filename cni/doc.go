// Package cni is what a container runtime starts for every pod: the IPAM
// plugin "spiderpool", and the contract it speaks with the agent of its node.
//
// The plugin decides nothing. It reads the network configuration and the
// environment (CNI specification 0.3.0 to 1.1.0), asks the agent over a unix
// socket, and prints what the agent answers. The path of an ADD:
//
//	Add (ipam.go)  ->  agent's server  ->  lease: acquire  ->  journal: put
//
// With IP conflict or gateway detection on, the plugin probes what it was
// answered on the pod's link before it prints it (unused.go, package detect),
// and tells the agent of addresses that somebody else uses.
//
// [Add], [Del], [Check], [GC] and [Ready] are the five verbs, contract.go is
// the wire, client.go speaks it. There is no Kubernetes client in here, and
// nothing is read that an ADD does not need: a process is started for every
// interface of every pod.
package cni
