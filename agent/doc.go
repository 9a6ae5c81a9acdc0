// Package agent is the process of one node. It answers the CNI plugins on a
// unix socket, and keeps what it needs for that at hand: the node's leases and
// its journal (package lease), its pods, and the pools.
//
// Where to look:
//
//   - server.go: the socket; add.go: an ADD, from the request to the answer;
//   - pods.go, pools.go, node.go, blocks.go: what the agent watches, and what
//     follows from it; an agent watches its own pods, its own Node and the
//     blocks it leases in, never all of a kind that grows with the cluster;
//   - coordination.go: what the coordinator plugin is told;
//   - upkeep.go: what no pod waits for; endpoints.go: the records for people;
//   - selection: which pools a pod may use, as a pure function;
//   - cluster, journal: the two things the protocol stands on, for real;
//   - admission, webhook.go: what is refused when it is applied;
//   - elected: what one agent at a time does for the whole cluster.
//
// A pod start on a warm node is: add.go, [lease.Lessee.Acquire], one write of
// the journal. Everything before and after happens in the background.
package agent
