// Package lease is the protocol by which nodes share a pool of addresses: who
// may hand out which address, and who has it. It knows nothing of Kubernetes,
// CNI or files. What it stands on are two interfaces, [Cluster] (an API
// server) and [Disk] (the node's journal), and the package leasetest has
// versions of both that lose races, answers and unsynced writes.
//
// # Words
//
//   - A block is an aligned range of 16 addresses (IPv4 /28, IPv6 /124) and one
//     object of the cluster, named from its address ([Name]). It belongs to no
//     pool, so pools that overlap meet in the same object.
//   - A lease is a node's right to hand out certain addresses of a block. Nodes
//     claim and yield leases. The node that has one is the lessee of these
//     addresses, and [Lessee] is its side of the protocol.
//   - An identity ([Identity]) is one interface of one StatefulSet pod. It is a
//     name, and outlives each pod that bears it. What it has is sticky. There
//     are identities of another kind, such as virtual machines, whose pods have
//     names of their own.
//   - A pin is the mark in a block that one identity owns an address, whether a
//     pod of it runs or not. A pinned address may be leased to nobody.
//   - An endpoint ([Endpoint]) is named like the pod, and for an identity it is
//     the pointer from its name to its addresses.
//   - The journal is a node's own durable record of what became of the
//     addresses it leases. Pods acquire and release addresses.
//   - A sandbox is what has the address in the end: a network namespace, known
//     by its container ID. An owner ([Owner]) is an interface of a pod, by the
//     pod's UID; it has one sandbox after another.
//
// # Four facts
//
// Everything rests on these; each is kept by the one place that is named.
//
//  1. An address has at most one lessee. Every change of a block is one guarded
//     update: it names the version it was judged on, or creates a block that
//     must not exist. Who loses reads again and judges again (amend.go).
//  2. A lessee gives an address to at most one owner, and the journal entry is
//     on disk before anyone is answered (sync.go). The same owner gets the same
//     answer; a DEL that names another sandbox than the entry changes nothing
//     (lessee.go).
//  3. A pinned address goes only to its identity, and to a pod UID that the
//     journal does not know only after the lessee has read the block from the
//     cluster and found pin and lease there (confirm, in place.go).
//  4. A lease leaves a node in three ways: the node yields what its journal says
//     is free (tidy.go); the node where a pinned identity's pod now lives takes
//     that one address over (takeOver, in place.go); or the node is fenced
//     ([Block.Fence]), which is its caller's judgement and not this package's.
//     No lease ends by the passing of time.
//
// # Rules that follow
//
// Unknown means taken. An error, an empty list or an old view is never evidence
// that an address is free. What gives an address up was read from the cluster
// by a quorum read after the question arose, or it is the node's own journal.
//
// Journal first when taking, cluster first when giving back. A crash in between
// leaves an address that its node finds again, never one that two have.
//
// A node may not have heard of the newest state, but it never goes back: of
// each block in which it has ever leased it remembers the latest version it
// saw, its own writes included, and an older one is not looked at (view.go);
// nor is one from before its process read which leases it has ([Leases]).
// So a watch may lag behind without end and repeat itself. A block in which
// the node leases nothing is watched by nobody and read before it is judged.
// Where such a block has room is told by a question that any cache may answer
// ([Cluster].Roomy): it says where to look, and the read says what is there.
//
// A pin counts only together with the pointer to it, and a pointer only with
// its pin. The exception is a lessee that finds in its own journal what it gave
// to an earlier pod of the identity: then pin and lease are enough, and the
// endpoint is not read.
//
// A pin is removed in two updates, a mark and the removal, whoever does it. In
// between, the mark shows: who wants the pin back has to take it off by an
// update of its own, and with that the removal has lost. A removal on behalf
// of a StatefulSet looks once more, after the mark, that there is no pod; a
// lessee withdraws pins in its own lease, that no endpoint names, without
// (withdraw, in tidy.go).
//
// # Who may write what
//
//	lease of a node in a block   the node: claim, yield
//	                             the node of the identity's pod: take over one pinned address
//	                             who fences: end it, when the node is gone, but for what pods hold
//	pin                          the lessee: make it, unmark it, withdraw one no endpoint names
//	                             the node of the identity's pod: unmark it in taking over
//	                             the collector: mark, then remove or unmark, when no pod is left,
//	                             or no endpoint names it and the address is nobody's lease, or the
//	                             endpoint leaves it out and another node than the pod's leases it
//	endpoint of an identity      the node of its pod: create it, add addresses to it
//	                             the lessee: create one anew that is missing, for a pin it retains
//	                             the collector: delete it, when its pins and its pod are gone
//	block                        who claims in it first: create it
//	                             the collector: delete an empty one
//	journal                      its node alone
//
// The collector and who fences are not in this package; they use the same
// [Block] methods on the same guarded updates, so being the only one is not a
// condition for being right.
//
// # An address on its node
//
// A leased address without journal entry is free or, when pinned, as good as
// Retained. The states of an entry ([State]) and what changes them:
//
//	                   claim                 ADD
//	not this node's ----------> free -----------------> Assigned
//	       ^                    |  ^                        |
//	       | update             |  | time                   | DEL
//	       | settled      Yield |  +---------- Cooling <----+
//	       |                    v
//	       +---------------- Yielding
//
// and for an identity
//
//	         ADD            pin and pointer are written
//	free ----------> Placing -------------------------> Assigned <--- taken over from
//	                  |   |                              |    ^       another node
//	     no pointer   |   | there is                 DEL |    | ADD: same UID, or
//	     to it        |   | a pointer                    v    | confirmed by a read
//	                  |   +--------------------------> Retained
//	                  v                                  |  |
//	               Cooling <-----------------------------+  +---> not this node's:
//	                            the pin is gone                   taken over by another
//
// In detail, with the order of the disk (D) and the cluster (C):
//
//	free      -> Assigned   ADD                         D, then the answer
//	free      -> Placing    ADD of an identity          D, then C: pin, C: endpoint
//	Placing   -> Assigned   both are certain            D, then the answer
//	Assigned  -> Retained   DEL, sticky                 D, then the answer
//	Assigned  -> Cooling    DEL, otherwise              D, then the answer
//	Retained  -> Assigned   same UID: nothing to ask    D, then the answer
//	Retained  -> Assigned   other UID: C, a read        C, D, then the answer
//	(none)    -> Retained   to be taken over            D, then C: an update
//	Retained  -> Assigned   taken over                  D, then the answer
//	Retained  -> Cooling    C: the pin is gone          C, D
//	Placing   -> Cooling    C: the pin is withdrawn     C, D
//	Assigned  -> Cooling    set aside, not sticky       D, then the answer
//	Cooling   -> free       time                        D with the next write
//	free      -> Yielding   Yield                       D, then C: the lease ends
//	Yielding  -> (none)     that update is settled      D
//
// A DEL leaves a Placing entry in its state: whether there is a pin is not
// known, so the next pod of the identity takes it up, or [Lessee.Tidy] finds
// out after a minute's grace.
//
// An address that a stranger to the cluster was found to use is set aside
// ([Lessee.SetAside]): it cools down for longer, for nobody in particular, and
// on this node, so that the others do not run into the same stranger. A sticky
// one stays with its identity.
//
// An ADD may be that of a sandbox which is no more, from a plugin that its
// runtime has lost. Which of a pod's sandboxes lives is not known here, so an
// entry knows all that have asked, and the last DEL of them is the one that
// counts.
//
// # What ADD costs
//
//	free address here, no identity       0 reads, 0 writes
//	same pod UID again                   0 reads, 0 writes
//	identity's address retained here     1 read, by Prepare ahead of ADD
//	identity moved                       3 reads, 1 write, by Prepare ahead of ADD
//	  to where others of its block are   2 reads, 1 write
//	identity placed for the first time   1 read, 2 writes
//	nothing free: a claim                1 read, 1 write, shared by all who wait
//	nothing to claim: where there is     1 list, shared by all who wait
//
// Conflicts, marks and answers that were lost cost more. DEL asks nobody. While
// pods wait for a pool that is used out, their node asks where there is room
// twice a second at most, reads two full blocks a second at most, and claims
// where it was told of room: a read and a write for each block, and for each that
// another node emptied first a read, or a write that fails and two reads. It is
// as much for one pod as for fifty, and for a pool of any size.
//
// # What settles a lost answer
//
// An update without an answer may have taken effect, may be under way and land
// later as long as its version stands, or may never land. A read tells which
// only when it shows a later version. Because using a leased address writes
// nothing, nothing else would move the version of its block: an old yield could
// land on an address that is in use. So such an update is settled by another
// guarded update of the same object. Its success has killed the lost one; its
// conflict means that somebody's update landed, so read and judge again. Until
// then nothing is built on it:
//
//	yield       the entry stays Yielding, over a crash as well; the address is
//	            not free
//	claim       it is not this node's until a read or a watch shows the lease
//	pin         the entry stays Placing; the address goes to no other identity
//	endpoint    the next attempt is a guarded write of the same endpoint
//	take-over   sent again on the version that the next read shows
//	withdrawal  the mark shows, or the pin is whole; the entry stays
//	unmarking   no answer for the pod before it is certain
//
// An update that would change nothing is not sent. That is safe where what it
// wanted was read from the cluster after the question arose, and the rules
// above see to it: a pin that might be on its way out carries its mark.
//
// # What runs at once
//
// Calls for one identity (or, of other pods, for one name and interface) take
// turns, [Lessee.Tidy] included, and so do those that take over addresses of one
// block; all others run side by side (turns.go). [Lessee.Release] waits for
// nobody. An address about which a call is making up its mind is busy
// and is neither picked nor released nor freed meanwhile. Changes of one block
// that wait for each other go into one update (amend.go), pods that wait for
// the same pools share one claim (claim.go), and calls that wait for the disk
// share one write (sync.go). No lock is held while anyone is waited for.
//
// # What is not guaranteed
//
//   - Two pods of one identity at once. The cluster promises that a StatefulSet
//     pod is gone before its name is used again; who deletes it by force while
//     its node still runs it can see one address in two containers, as with
//     volumes. An ADD for the earlier of two pods is refused where the node has
//     to look, and not where its own journal answers.
//   - One pod of an identity of another kind than a StatefulSet's. A virtual
//     machine that moves has two, and both have its address: the later takes the
//     lease over, and the node of the earlier is left with an entry that gives
//     nothing to anybody. Nobody else gets the address while a pod is left,
//     because the pin stays until then.
//   - Anything against people. A block deleted or edited by hand takes leases
//     away that are in use. An endpoint deleted by hand lets its identity lose
//     its address if the pod moves, or the journal is lost, before the lessee has
//     written it anew. What an earlier Node of the pod's leases then stays leased
//     as long as that pod is there, since nothing tells all that it has.
//   - A lost journal. Addresses in use that nobody remembers when [Lessee.Start]
//     is called are safe for the length of the quarantine and no longer. Those
//     that are remembered have an [UnknownSandbox]: no DEL gives them back, the
//     end of their pod does.
//   - Fencing. A fenced node goes on with what it has assigned; that no pod of
//     it is left is for the one who fences to know. The node's part is to stop
//     new assignments when it has not heard from the cluster ([Lessee.Trust]),
//     and, before it is trusted anew, to write each of its blocks as it is: the
//     end of its lease may have been judged before and be under way. Who fences
//     reads the block before the node, so it sees the node back or loses.
//   - That the lease of a pinned address is where its pod lives. A take-over that
//     is under way when its pod goes may land after a later pod of the identity
//     has confirmed the address on the node before. The pin keeps everybody else
//     away from it, and that pod's next ADD takes it back.
//   - Fairness between nodes. Of a pool that is used out, what a node gives back
//     goes to the node that asks at the right moment, and what comes free on a
//     node where pods wait stays there. On one node they are served in the order
//     in which they came ([Lessee.Await]).
//   - That one call searches a large pool to its end: a claim looks at 64 blocks
//     that it does not know to be full, says so ([ErrSearching]), and the next
//     one goes on from there.
//   - Clocks. The wall clock rules how long addresses cool down, and nothing
//     else that is written down; a clock set back makes them cool longer.
//
// # Reading
//
// Begin with block.go (what is shared), journal.go (what is the node's) and
// cluster.go (what can go wrong); then lessee.go (ADD and DEL), place.go
// (identities), claim.go and tidy.go; room.go and line.go are for pools that are
// used out. The tests are named as claims, and
// history_test.go plays random histories against the promises; package agent
// simulates whole clusters (sim_test.go), and model/ checks small ones in every
// order of events.
package lease
