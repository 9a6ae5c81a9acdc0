package leasetest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-ipam/holdfast/lease"
)

// SetPod creates a pod and returns its UID, which no pod had before. An
// earlier pod of the name is gone with it.
func (c *Cluster) SetPod(namespace, name, node string, finished bool) (uid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.uids++
	uid = fmt.Sprintf("pod-uid-%d", c.uids)
	c.pods[namespace+"/"+name] = lease.PodAt{UID: uid, Node: node, Finished: finished}
	return uid
}

// UpdatePod changes a pod that exists, keeping its UID, and reports whether
// it does.
func (c *Cluster) UpdatePod(namespace, name, node string, finished bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.pods[namespace+"/"+name]
	if ok {
		c.pods[namespace+"/"+name] = lease.PodAt{UID: at.UID, Node: node, Finished: finished}
	}
	return ok
}

// DeletePod removes the pod. Removing what is not there is no error.
func (c *Cluster) DeletePod(namespace, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pods, namespace+"/"+name)
}

// Blocks returns all blocks as stored, sorted by name. It counts as no call
// and meets no fault: it is for judging a run.
func (c *Cluster) Blocks() []lease.Block {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []lease.Block
	for _, name := range slices.Sorted(maps.Keys(c.blocks)) {
		b := c.blocks[name]
		all = append(all, b.Clone())
	}
	return all
}

// Leases returns what a quorum read says of a node. Like [Cluster.Blocks] it
// counts as no call.
func (c *Cluster) Leases(nodeUID string) lease.Leases {
	c.mu.Lock()
	defer c.mu.Unlock()
	leases := lease.Leases{Version: strconv.FormatUint(c.version, 10)}
	for _, name := range slices.Sorted(maps.Keys(c.blocks)) {
		if b := c.blocks[name]; b.LeasedTo(nodeUID) != 0 {
			leases.Blocks = append(leases.Blocks, b.Clone())
		}
	}
	return leases
}

// Endpoints returns all endpoints as stored, sorted by namespace and name.
// Like [Cluster.Blocks] it counts as no call.
func (c *Cluster) Endpoints() []lease.Endpoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []lease.Endpoint
	for _, key := range slices.Sorted(maps.Keys(c.endpoints)) {
		all = append(all, cloneEndpoint(c.endpoints[key]))
	}
	return all
}

// Pods returns all pods by "namespace/name". Like [Cluster.Blocks] it counts
// as no call.
func (c *Cluster) Pods() map[string]lease.PodAt {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.pods)
}

// Changes returns what changed after the version, in order; 0 asks for
// everything. A watch that lags is one that hands these on later. The values
// are shared: do not change them.
func (c *Cluster) Changes(after uint64) []Change {
	c.mu.Lock()
	defer c.mu.Unlock()
	from, _ := slices.BinarySearchFunc(c.changes, after+1, func(ch Change, v uint64) int {
		return int(ch.Version) - int(v)
	})
	return slices.Clone(c.changes[from:])
}

// Subject returns the cluster as [ClusterSuite] wants it.
func (c *Cluster) Subject() ClusterSubject {
	return ClusterSubject{
		Cluster:   c,
		SetPod:    c.SetPod,
		DeletePod: c.DeletePod,
		Detail:    opaqueDetail,
	}
}

// String returns the state in lines, for the message of a failing test.
func (c *Cluster) String() string {
	var s strings.Builder
	for _, b := range c.Blocks() {
		fmt.Fprintf(&s, "%s@%s leases %v pins %v\n", b.Name(), b.Version, b.Leases, b.Pins)
	}
	for _, e := range c.Endpoints() {
		fmt.Fprintf(&s, "%s/%s@%s pod %s on %s: %v\n", e.Namespace, e.Pod, e.Version, e.PodUID, e.Node, e.Addresses)
	}
	return s.String()
}
