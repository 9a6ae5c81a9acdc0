package leasetest

import (
	"fmt"
	"math/rand/v2"
	"sync"
)

// Call is one call of a method of a [Cluster], as its fault function sees it.
type Call struct {
	// N counts the calls of a cluster from 1.
	N int
	// Method is the name of the method: "Block", "PutBlock", and so on.
	Method string
	// Object is the block's name, or "namespace/name" of an endpoint or pod.
	Object string
}

// Write reports whether the call is one that writes.
func (c Call) Write() bool {
	switch c.Method {
	case "PutBlock", "DeleteBlock", "PutEndpoint", "DeleteEndpoint":
		return true
	}
	return false
}

// Kind is what goes wrong in a call.
type Kind int

// The kinds of faults. A read fails with an error that is none of the lease
// package's for every kind but None and Conflict; Conflict does not touch it.
const (
	// None: the call does what it should.
	None Kind = iota
	// Conflict: somebody else changes the object just before the write, which
	// then loses. The change is one of the version only.
	Conflict
	// Refused: the write is refused for a reason that is not its content.
	Refused
	// Lost: the write never reaches the cluster, and nobody tells.
	Lost
	// AnswerLost: the write takes effect, and its answer is lost.
	AnswerLost
	// Late: the answer is lost, and the write takes effect later, if the
	// version it was judged on stands by then: when Fault.After more calls
	// were made, or at [Cluster.Land].
	Late
)

// Fault is what goes wrong in a call, the zero Fault is nothing.
type Fault struct {
	Kind Kind
	// After is, for Late, the number of calls after which the write lands
	// just before the next one, 0 to wait for [Cluster.Land].
	After int
}

// Odds are the chances of each fault from 0 to 1, one after the other.
type Odds struct {
	Conflict, Refused, Lost, AnswerLost, Late float64
	// LateBy is the greatest Fault.After that is drawn, at least 1.
	LateBy int
}

// Seeded returns a fault function for [NewCluster] that draws from a
// generator with the seed. One seed is one sequence of faults.
func Seeded(seed uint64, odds Odds) func(Call) Fault {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 0))
	return func(Call) Fault {
		mu.Lock()
		defer mu.Unlock()
		draw, after := random.Float64(), 1+random.IntN(max(odds.LateBy, 1))
		for _, f := range []struct {
			odds float64
			Fault
		}{
			{odds.Conflict, Fault{Kind: Conflict}},
			{odds.Refused, Fault{Kind: Refused}},
			{odds.Lost, Fault{Kind: Lost}},
			{odds.AnswerLost, Fault{Kind: AnswerLost}},
			{odds.Late, Fault{Kind: Late, After: after}},
		} {
			if draw -= f.odds; draw < 0 {
				return f.Fault
			}
		}
		return Fault{}
	}
}

// errLost is what a caller hears of a call whose outcome it cannot know.
func errLost(c Call) error {
	return fmt.Errorf("%s %s: connection lost before the answer", c.Method, c.Object)
}
