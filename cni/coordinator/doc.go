// Package coordinator is the chained CNI plugin "coordinator", which stands
// behind the main plugin: it connects a pod on the network of its node's card
// (macvlan, SR-IOV) with the node itself and, through it, with services and
// with pods on other networks; and it lets a pod with several interfaces
// answer on the one that it was asked on.
//
// What an operator sees, of an underlay pod with 10.6.168.101 on a node with
// 10.6.0.11, services in 10.96.0.0/12, and a second interface net1:
//
//	NODE                                      POD
//	ip link   veth<container ID> ============ veth0        eth0    net1
//	          (no address)                    (none, or vethLinkAddress)
//	ip rule   1000 from all lookup 500        1000 fwmark 0x1 lookup 100
//	                                          1100 from 10.6.168.101 lookup 99
//	                                          1100 from 10.7.0.9 lookup 101
//	ip route  table 500 (hostRuleTable)       table main
//	            10.6.168.101 dev veth...        10.6.0.11 dev veth0
//	            10.7.0.9     dev veth...        10.96.0.0/12 via 10.6.0.11 dev veth0
//	                                            default via 10.6.0.1 dev eth0
//	                                          table 100  default via 10.6.0.11 dev veth0
//	                                          table 99   all of eth0, and the node
//	                                          table 101  all of net1, and the node
//	ip neigh  10.6.168.101 PERMANENT          10.6.0.11 PERMANENT on veth0
//	nft       table holdfast: what pods ask   table holdfast: what begins on veth0
//	          of services gets the node's     gets mark 1, and so do its answers
//	          address
//
// All routes and rules have "proto 72". Tables 99 and 101 on are there only
// with several interfaces and tunePodRoutes. In mode overlay the pod's first
// interface and its peer serve in place of the pair, nothing is marked, and
// table 100 is that of the first interface.
//
//	coordinator.go  the verbs               config.go  what is asked for
//	plan.go         what a pod needs        tables.go  with several interfaces
//	hosts.go        the node's addresses    view.go    all this as plain values
//	space.go        reads a namespace       apply.go, pair.go, marks.go,
//	                masquerade.go, sysctls.go, nft.go change it
//	check.go        compares                remove.go  DEL and GC
//
// The agent is asked for what the network configuration leaves out, and for
// what it found out about the cluster. A plan is a pure function of that and of
// what the two namespaces have; it is carried out step by step, and each step
// leaves what is there already. So an ADD may be repeated after any other.
//
// The node's end is found by its name, the others by what they belong to, so
// DEL needs neither the agent nor the pod. Hardware addresses of the pair
// follow from the container ID, and no route of the node has one of its
// addresses in it: neighbours and routes outlive a change of either.
//
// What it does not do: a pod learns of addresses that its node gets later only
// when it starts anew (it can answer them at once, but not connect to them
// without its router's help). Answers over UDP to clients that the pod has no
// route to are lost, as the kernel asks for a route before it marks them; with a
// default route there are none such. An ipvlan interface cannot have
// podMACPrefix.
package coordinator
