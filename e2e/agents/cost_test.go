//go:build e2e

package agents

import (
	"fmt"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/holdfast-ipam/holdfast/cni"
)

// limit is a row of the design's table: the most requests that a pod start
// may cost, those made ahead of ADD included.
type limit struct {
	name string
	// ahead and waited are reads and writes before ADD and while it waits.
	ahead, waited, both [2]int
}

// noLimit is no limit of its own: the sum counts.
const noLimit = 1 << 20

var limits = []limit{
	{"stateless, warm", [2]int{0, 0}, [2]int{0, 0}, [2]int{0, 0}},
	{"StatefulSet pod, first time", [2]int{1, 0}, [2]int{1, 2}, [2]int{1, 2}},
	{"StatefulSet pod, same UID again", [2]int{0, 0}, [2]int{0, 0}, [2]int{0, 0}},
	{"StatefulSet pod recreated on the same node", [2]int{1, 0}, [2]int{0, 0}, [2]int{1, 0}},
	{"StatefulSet pod, moved", [2]int{noLimit, noLimit}, [2]int{noLimit, noLimit}, [2]int{3, 1}},
	{"DEL", [2]int{0, 0}, [2]int{0, 0}, [2]int{0, 0}},
}

func TestPodStartsCostWhatTheDesignSays(t *testing.T) {
	c := newCluster(t)
	a, b := c.addNode(t, "node-a"), c.addNode(t, "node-b")
	// The first pod of each node pays for the leases of those that follow.
	a.add(t, c.pod(t, "warm-up-a", "node-a", ""), "c0")
	b.add(t, c.pod(t, "warm-up-b", "node-b", ""), "c0")

	var got []limit
	measure := func(name string, on *node, do func(before counts)) {
		before := on.counts(t)
		do(before)
		got = append(got, on.since(t, name, before))
	}

	stateless := c.pod(t, "stateless", "node-a", "")
	measure(limits[0].name, a, func(counts) { a.add(t, stateless, "c1") })

	var web cni.Pod
	var first, again, recreated, moved string
	measure(limits[1].name, a, func(before counts) {
		web = c.pod(t, "web-0", "node-a", "web")
		a.prepared(t, before, "get", "spiderendpoints")
		first = a.add(t, web, "c2")
	})
	a.del(t, web, "c2") // the sandbox is replaced
	measure(limits[2].name, a, func(counts) { again = a.add(t, web, "c3") })
	measure(limits[5].name, a, func(counts) { a.del(t, web, "c3") })
	c.deletePod(t, "web-0")
	measure(limits[3].name, a, func(before counts) {
		web = c.pod(t, "web-0", "node-a", "web")
		a.prepared(t, before, "get", "ipblocks")
		recreated = a.add(t, web, "c4")
	})
	a.del(t, web, "c4")
	c.deletePod(t, "web-0")
	measure(limits[4].name, b, func(before counts) {
		web = c.pod(t, "web-0", "node-b", "web")
		b.prepared(t, before, "patch", "ipblocks")
		moved = b.add(t, web, "c5")
	})
	if first != again || first != recreated || first != moved {
		t.Errorf("the address did not hold: %s, then %s, %s and %s", first, again, recreated, moved)
	}
	judge(t, got)
}

// Not even a node's first pod waits for a claim if its annotation names the pool.
func TestPoolThatABoundPodNamesIsLeasedAheadOfItsADD(t *testing.T) {
	c := newCluster(t)
	a := c.addNode(t, "node-a")
	c.annotation = `{"ipv4":["wide"]}`
	claims := requestKey{"create", "ipblocks", "background"}
	before := a.counts(t)
	pod := c.pod(t, "first", "node-a", "")
	eventually(t, "addresses are leased ahead", func() bool { return a.counts(t)[claims] > before[claims] })
	a.add(t, pod, "c1")
	if got := a.since(t, "first", before); got.both != [2]int{} {
		t.Errorf("the ADD waited for %d reads and %d writes, want none", got.both[0], got.both[1])
	}
}

// The first endpoints are read, as long as the agent's watch of them is not full.
func TestEndpointOfAPodWithoutAClaimIsWrittenUnread(t *testing.T) {
	c := newCluster(t)
	a := c.addNode(t, "node-a")
	get, create := requestKey{"get", "spiderendpoints", "background"}, requestKey{"create", "spiderendpoints", "background"}
	started := 0
	eventually(t, "an endpoint is written and was not read", func() bool {
		before := a.counts(t)
		pod := c.pod(t, fmt.Sprintf("web-%c", 'a'+started), "node-a", "")
		started++
		a.add(t, pod, pod.Name)
		eventually(t, "the endpoint of "+pod.Name+" is written", func() bool { return a.counts(t)[create] > before[create] })
		return a.counts(t)[get] == before[get]
	})
}

func TestEndpointOfAnEarlierPodOfTheNameIsWrittenOver(t *testing.T) {
	c := newCluster(t)
	a, b := c.addNode(t, "node-a"), c.addNode(t, "node-b")
	earlier := c.pod(t, "web", "node-a", "")
	a.add(t, earlier, "c1")
	a.endpointsWritten(t, []cni.Pod{earlier})
	c.deletePod(t, "web") // no controller deletes the endpoint here
	later := c.pod(t, "web", "node-b", "")
	b.add(t, later, "c2")
	b.endpointsWritten(t, []cni.Pod{later})
}

// judge compares with the limits and prints the table.
func judge(t *testing.T, got []limit) {
	t.Helper()
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "CASE\tAHEAD OF ADD (READS, WRITES)\tWAITED FOR\tTOGETHER\tALLOWED")
	for _, l := range limits {
		for _, g := range got {
			if g.name != l.name {
				continue
			}
			fmt.Fprintf(w, "%s\t%d, %d\t%d, %d\t%d, %d\t%d, %d\n", g.name, g.ahead[0], g.ahead[1],
				g.waited[0], g.waited[1], g.both[0], g.both[1], l.both[0], l.both[1])
			for i, what := range []string{"reads", "writes"} {
				if g.ahead[i] > l.ahead[i] || g.waited[i] > l.waited[i] || g.both[i] > l.both[i] {
					t.Errorf("%s: %s are %d ahead, %d waited for, %d together; allowed are %d, %d, %d",
						g.name, what, g.ahead[i], g.waited[i], g.both[i], l.ahead[i], l.waited[i], l.both[i])
				}
			}
		}
	}
	if len(got) != len(limits) {
		t.Errorf("%d of %d cases were measured", len(got), len(limits))
	}
	w.Flush()
	t.Logf("requests to the API server, per pod\n%s", table.String())
}
