package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	nadv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-ipam/holdfast/agent/selection"
	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// simSet is a StatefulSet.
type simSet struct {
	name            string
	exists          bool
	start, replicas int32
}

// simPod is a pod, from its creation to the end of its object.
type simPod struct {
	name, uid string
	set       *simSet // nil for a stateless pod
	node      *simNode
	// v4 and v6 are the families it asks for, interfaces what it has.
	v4, v6     bool
	interfaces []string
	// named is set if it names the pools of its first interface itself, as its
	// network would. Then its node prepares for it.
	named    bool
	leaving  bool // deletionTimestamp is set
	finished bool // succeeded: no container runs or ever will
	sandbox  *simSandbox
	told     *simSandbox // the one that its status says it has
	adding   *simOp
}

func (p *simPod) sticky() bool { return p.set != nil }

func (p *simPod) nodeName() string {
	if p.node == nil {
		return ""
	}
	return p.node.name
}

func (p *simPod) families() int {
	if p.v4 && p.v6 {
		return 2
	}
	return 1
}

// simSandbox is a container's network: interfaces get their addresses one
// after the other, and use them from then on until it dies.
type simSandbox struct {
	container string
	nodeUID   string // of the Node as its agent knew it
	begun     time.Time
	addrs     map[string][]netip.Addr
}

// whole reports whether every interface has its addresses.
func (s *simSandbox) whole(p *simPod) bool { return s != nil && len(s.addrs) == len(p.interfaces) }

// simDel is an interface of a sandbox that is no more.
type simDel struct {
	node    *simNode
	request cni.AddRequest
}

// foundCluster makes what there is before anything happens.
func (h *sim) foundCluster() {
	h.api.put("namespaces", &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: simNamespace}})
	h.putPool("four", "10.0.0.0/16", []string{usual("four"), usual("four"), "10.0.0.0-10.0.0.127"}[h.random.IntN(3)])
	h.putPool("overlapping", "10.0.0.0/16", usual("overlapping"))
	h.putPool("six", "fd00::/64", usual("six"))
	for i := range simNodes {
		h.boot(h.addNode(string(rune('a' + i))))
	}
	for range 2 {
		h.elect()
	}
	for _, name := range []string{"web", "db"} {
		h.sets = append(h.sets, &simSet{name: name})
	}
	h.scale(h.sets[0], 0, 2)
}

// usual is what a pool has at least, as long as nobody edits it.
func usual(pool string) string {
	return map[string]string{
		"four": "10.0.0.12-10.0.0.18", "overlapping": "10.0.0.10-10.0.0.13", "six": "fd00::d-fd00::14",
	}[pool]
}

// founded is the version of a cluster in which the namespaces and pools are.
func (h *sim) founded() uint64 { return 4 }

func (h *sim) putPool(name, subnet string, ranges ...string) {
	pool := &v2beta1.SpiderIPPool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v2beta1.IPPoolSpec{Subnet: subnet, IPs: ranges}}
	if old := simGet[*v2beta1.SpiderIPPool](h.api, "spiderippools", name); old != nil {
		pool.UID, pool.Generation = old.UID, old.Generation+1
	}
	h.api.put("spiderippools", pool)
}

// editPool changes a pool: what its addresses are, whether it gives any out,
// whether it is there.
func (h *sim) editPool() {
	name := []string{"four", "overlapping"}[h.random.IntN(2)]
	h.logf("pool %s is edited", name)
	h.count("pool edited")
	switch h.random.IntN(5) {
	case 0:
		h.api.remove("spiderippools", name)
		return
	case 1:
		h.putPool(name, "10.0.0.0/16", "10.0.0.12-10.0.0.14")
	case 2:
		h.putPool(name, "10.0.0.0/16", "10.0.0.10-10.0.0.18")
	default:
		h.putPool(name, "10.0.0.0/16", "10.0.0.15-10.0.0.20")
	}
	if pool := simGet[*v2beta1.SpiderIPPool](h.api, "spiderippools", name); h.random.IntN(4) == 0 {
		pool = pool.DeepCopy()
		pool.Spec.Disable = true
		h.api.put("spiderippools", pool)
	}
}

// scale changes what a StatefulSet wants, and creates it if it is not there.
func (h *sim) scale(s *simSet, start, replicas int32) {
	h.logf("StatefulSet %s wants %d from %d", s.name, replicas, start)
	set := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: simNamespace, Name: s.name},
		Spec:       appsv1.StatefulSetSpec{Replicas: &replicas, Ordinals: &appsv1.StatefulSetOrdinals{Start: start}},
	}
	if old := simGet[*appsv1.StatefulSet](h.api, "statefulsets", keyOf(set)); old != nil {
		set.UID = old.UID
	}
	s.exists, s.start, s.replicas = true, start, replicas
	h.api.put("statefulsets", set)
	h.forgetHomes()
}

// deleteSet deletes a StatefulSet; its controller is gone with it, so the
// pods go by the garbage collector.
func (h *sim) deleteSet(s *simSet) {
	h.logf("StatefulSet %s is deleted", s.name)
	s.exists = false
	h.api.remove("statefulsets", simNamespace+"/"+s.name)
	h.forgetHomes()
}

// forgetHomes drops the claims of identities that are not wanted any more.
func (h *sim) forgetHomes() {
	maps.DeleteFunc(h.home, func(key string, _ netip.Addr) bool { return !h.wanted(strings.Fields(key)[0]) })
}

// wanted reports whether a StatefulSet wants the pod.
func (h *sim) wanted(name string) bool {
	set, ordinal, _ := strings.Cut(name, "-")
	for _, s := range h.sets {
		n, err := strconv.Atoi(ordinal)
		if s.name == set && s.exists && err == nil && int32(n) >= s.start && int32(n) < s.start+s.replicas {
			return true
		}
	}
	return false
}

// control is the StatefulSet controller: it creates a pod that is missing, or
// tells one to leave that nobody wants.
func (h *sim) control() {
	s := h.sets[h.random.IntN(len(h.sets))]
	for i := range int32(2 * simReplicas) {
		name := fmt.Sprintf("%s-%d", s.name, i)
		p := h.pods[name]
		switch {
		case p == nil && h.wanted(name):
			// What an identity asks for does not change.
			h.create(&simPod{name: name, set: s, v4: true, v6: i%2 == 1, interfaces: []string{"eth0", "net1"}[:1+int(i+int32(h.seed))%2]})
			return
		case p != nil && !h.wanted(name) && !p.leaving:
			h.leave(p)
			return
		}
	}
}

func (h *sim) createStateless() {
	alive := 0
	for _, p := range h.pods {
		if !p.sticky() {
			alive++
		}
	}
	if alive == simStateless {
		return
	}
	h.created++
	p := &simPod{name: fmt.Sprintf("one-%d", h.created), v4: true, interfaces: []string{"eth0", "net1"}[:1+h.random.IntN(4)/3]}
	switch h.random.IntN(4) {
	case 0:
		p.v6 = true
	case 1:
		p.v4, p.v6 = false, true
	}
	h.create(p)
}

// create creates a pod that is bound to no node.
func (h *sim) create(p *simPod) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: simNamespace, Name: p.name, CreationTimestamp: metav1.NewTime(time.Now())},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}},
	}
	if p.sticky() {
		controller := true
		pod.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "apps/v1", Kind: "StatefulSet", Name: p.set.name, UID: types.UID("set"), Controller: &controller,
		}}
	}
	pod.Annotations = map[string]string{}
	if len(p.interfaces) > 1 {
		pod.Annotations[nadv1.NetworkAttachmentAnnot] = "net1"
	}
	if p.named = h.random.IntN(2) == 0; p.named {
		pod.Annotations[selection.PoolAnnotation] = p.naming()
	}
	p.uid = string(h.api.put("pods", pod).GetUID())
	h.pods[p.name] = p
	h.logf("pod %s is created, uid %s", p.name, p.uid)
}

// naming is the annotation of a pod that names its pools.
func (p *simPod) naming() string {
	pools := map[string][]string{}
	if p.v4 {
		pools["ipv4"] = []string{"four", "overlapping"}
	}
	if p.v6 {
		pools["ipv6"] = []string{"six"}
	}
	text, err := json.Marshal(pools)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// update changes a pod's object.
func (h *sim) update(p *simPod, change func(*corev1.Pod)) {
	pod := simGet[*corev1.Pod](h.api, "pods", simNamespace+"/"+p.name).DeepCopy()
	change(pod)
	h.api.put("pods", pod)
}

// schedule binds a pod to a node.
func (h *sim) schedule() {
	p := h.some(func(p *simPod) bool { return p.node == nil })
	n := h.nodes[h.random.IntN(len(h.nodes))]
	if p == nil || !n.fit(h) || n.cut() {
		return
	}
	h.logf("pod %s is bound to %s", p.name, n.name)
	p.node = n
	h.update(p, func(pod *corev1.Pod) {
		pod.Spec.NodeName = n.name
		pod.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(time.Now()),
		}}
	})
}

// leave sets a pod's deletionTimestamp.
func (h *sim) leave(p *simPod) {
	h.logf("pod %s has to leave", p.name)
	p.leaving = true
	if p.node == nil {
		h.gone(p)
		return
	}
	h.update(p, func(pod *corev1.Pod) {
		now := metav1.NewTime(time.Now())
		pod.DeletionTimestamp = &now
	})
}

func (h *sim) evict() {
	if p := h.some(func(p *simPod) bool { return !p.leaving }); p != nil {
		h.leave(p)
	}
}

// gone removes a pod's object.
func (h *sim) gone(p *simPod) {
	h.logf("pod %s is gone", p.name)
	if simGet[*v2beta1.SpiderEndpoint](h.api, "spiderendpoints", simNamespace+"/"+p.name) == nil {
		// Somebody has deleted it, and its agent was away all the while: no
		// other node can follow.
		maps.DeleteFunc(h.home, func(key string, _ netip.Addr) bool { return strings.Fields(key)[0] == p.name })
	}
	h.api.remove("pods", simNamespace+"/"+p.name)
	delete(h.pods, p.name)
}

// complete lets a stateless pod's containers end.
func (h *sim) complete() {
	p := h.some(func(p *simPod) bool { return !p.sticky() && p.sandbox.whole(p) && p.adding == nil && !p.node.cut() })
	if p == nil {
		return
	}
	h.logf("pod %s has succeeded", p.name)
	p.finished = true
	h.kill(p)
	h.update(p, func(pod *corev1.Pod) {
		pod.Status.Phase = corev1.PodSucceeded
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
			Name: "c", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}},
		}}
	})
}

// kubelet makes one step with one pod: an interface of its sandbox, its
// status, its end.
func (h *sim) kubelet() {
	p := h.some(func(p *simPod) bool { return p.sticky() && h.due(p) })
	if p == nil || h.random.IntN(3) == 0 {
		p = h.some(h.due)
	}
	if p != nil {
		h.lookAfter(p)
	}
}

// lookAfter is one step of a kubelet with a pod that is due.
func (h *sim) lookAfter(p *simPod) {
	switch {
	case p.leaving && !p.node.cut() && p.sandbox != nil:
		h.kill(p)
	case p.leaving && !p.node.cut():
		h.gone(p)
	case !p.finished:
		h.nextInterface(p)
	}
}

func (h *sim) due(p *simPod) bool {
	if p.node == nil || p.node.off || p.adding != nil {
		return false
	}
	return p.leaving && !p.node.cut() || !p.sandbox.whole(p) && !p.finished
}

// nextInterface sends the ADD for the next interface of a pod's sandbox.
func (h *sim) nextInterface(p *simPod) {
	a := p.node.agent
	if a == nil || !a.serving || a.process.paused {
		return
	}
	if p.sandbox == nil {
		h.sandboxes++
		p.sandbox = &simSandbox{container: fmt.Sprintf("s%d", h.sandboxes), nodeUID: a.node.UID, begun: time.Now(), addrs: map[string][]netip.Addr{}}
	}
	s, ifname := p.sandbox, p.interfaces[len(p.sandbox.addrs)]
	q, begun := h.request(p, s.container, ifname), h.steps
	free := h.warm(p, a, q)
	var mine *simOp
	op := h.add(p, q, func(got *cni.AddResult, err error) {
		if p.adding != mine || mine == nil && p.adding != nil {
			return // nobody waits any more
		}
		p.adding = nil
		if err != nil {
			h.addFailed(p)
			return
		}
		h.answered(p, s, ifname, got, begun)
		h.report(p)
		h.checkCost(p, mine, free)
	})
	if mine = op; !op.Ended() {
		p.adding = op
	}
}

// request is the ADD for one interface, with the network's pools in one order
// or the other, or in that in which the pod names them.
func (h *sim) request(p *simPod, container, ifname string) *cni.AddRequest {
	q := &cni.AddRequest{
		Attachment: cni.Attachment{
			ContainerID: container, Interface: ifname,
			Pod: cni.Pod{Namespace: simNamespace, Name: p.name, UID: p.uid},
		},
		Network: "net",
	}
	if p.v4 {
		q.DefaultIPv4Pools = []string{"four", "overlapping"}
		if !p.named && h.random.IntN(2) == 0 {
			slices.Reverse(q.DefaultIPv4Pools)
		}
	}
	if p.v6 {
		q.DefaultIPv6Pools = []string{"six"}
	}
	return q
}

// addFailed is the end of a sandbox that could not be made.
func (h *sim) addFailed(p *simPod) {
	p.adding = nil
	h.kill(p)
}

// kill ends a pod's sandbox. DELs follow, sooner or later.
func (h *sim) kill(p *simPod) {
	s := p.sandbox
	if s == nil {
		return
	}
	h.logf("sandbox %s of %s is dead", s.container, p.name)
	p.sandbox = nil
	h.ended(s)
	for _, ifname := range p.interfaces {
		d := simDel{p.node, *h.request(p, s.container, ifname)}
		h.dels, h.past = append(h.dels, d), append(h.past, d)
	}
}

// tearDown ends a sandbox whose pod stays.
func (h *sim) tearDown() {
	if p := h.some(func(p *simPod) bool { return p.sandbox != nil && p.adding == nil }); p != nil {
		h.kill(p)
	}
}

// report writes a pod's first addresses into its status, or that it has no
// sandbox any more, as its kubelet does as soon as it can, and all addresses of
// one with several interfaces beside it, as Multus does. Those of its last
// sandbox stay there until it has others.
func (h *sim) report(p *simPod) {
	whole := p.sandbox.whole(p)
	if p.node == nil || p.node.off || p.node.cut() || h.away.Load() || p.finished || p.told == p.sandbox || !whole && p.told == nil {
		return
	}
	h.update(p, func(pod *corev1.Pod) {
		if p.told = nil; whole {
			p.told = p.sandbox
			pod.Status.Phase, pod.Status.PodIPs = corev1.PodRunning, nil
			for _, addr := range p.sandbox.addrs["eth0"] {
				pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: addr.String()})
			}
			pod.Status.PodIP = pod.Status.PodIPs[0].IP
			if len(p.interfaces) > 1 {
				pod.Annotations[nadv1.NetworkStatusAnnot] = p.networkStatus()
			}
		}
		setReady(pod, whole)
	})
}

// networkStatus is what Multus writes on a pod (multi-network specification
// 1.3, section 5).
func (p *simPod) networkStatus() string {
	var statuses []nadv1.NetworkStatus
	for _, ifname := range p.interfaces {
		s := nadv1.NetworkStatus{Name: "net", Interface: ifname, Default: ifname == "eth0"}
		for _, addr := range p.sandbox.addrs[ifname] {
			s.IPs = append(s.IPs, addr.String())
		}
		statuses = append(statuses, s)
	}
	text, err := json.Marshal(statuses)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// setReady says whether a pod has a sandbox (KEP-3085).
func setReady(pod *corev1.Pod, ready bool) {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	conditions := slices.DeleteFunc(slices.Clone(pod.Status.Conditions), func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReadyToStartContainers
	})
	pod.Status.Conditions = append(conditions, corev1.PodCondition{
		Type: corev1.PodReadyToStartContainers, Status: status, LastTransitionTime: metav1.NewTime(time.Now()),
	})
}

// kubelets do what they do when time passes: they report what they could not
// report before, and give up a sandbox that is not whole after two minutes
// (runtimeRequestTimeout).
func (h *sim) kubelets() {
	for _, name := range h.names() {
		p := h.pods[name]
		h.report(p)
		if p.sandbox != nil && !p.sandbox.whole(p) && time.Since(p.sandbox.begun) >= 2*time.Minute {
			h.abandon(p)
		}
	}
}

// deliverDel is a DEL, sooner or later, once, twice or never.
func (h *sim) deliverDel() {
	if len(h.dels) == 0 {
		return
	}
	i := h.random.IntN(len(h.dels))
	d := h.dels[i]
	a := d.node.agent
	if a == nil || !a.serving || a.process.paused || d.node.off {
		return
	}
	if h.rate == 0 || h.random.IntN(5) > 0 {
		h.dels = slices.Delete(h.dels, i, i+1)
	} else {
		h.count("DEL repeated")
	}
	if h.rate > 0 && h.random.IntN(12) == 0 {
		h.count("DEL never sent")
		return
	}
	h.del(a, d)
}

func (h *sim) del(a *simAgent, d simDel) {
	q := &cni.DelRequest{Attachment: d.request.Attachment}
	var op *simOp
	op = h.begin(a.process, "DEL "+q.ContainerID+" "+q.Interface, func(ctx context.Context) error {
		_, err := a.del(ctx, q)
		return err
	}, func(error) {
		if op != nil && op.cost.Load() > 0 {
			h.fail("a DEL made %d requests to the API server", op.cost.Load())
		}
	})
}

// giveUp is a runtime that waits no longer for an ADD.
func (h *sim) giveUp() {
	if p := h.some(func(p *simPod) bool { return p.adding != nil }); p != nil {
		h.abandon(p)
	}
}

func (h *sim) abandon(p *simPod) {
	op := p.adding
	h.addFailed(p)
	if op != nil {
		h.logf("%s #%03d is given up", op.process.name, op.n)
		h.count("ADD given up")
		op.cancel()
		h.director.Reap()
	}
}

// addAgain repeats an ADD of a sandbox that runs: it gets the same answer, unless
// the Node was made anew since. Its agent begins with an empty journal, and knows
// of such a sandbox what status and endpoint tell, which may be nothing yet.
func (h *sim) addAgain() {
	p := h.some(func(p *simPod) bool { return p.sandbox.whole(p) && p.adding == nil && !p.node.off })
	if p == nil || p.node.agent == nil || !p.node.agent.serving || p.node.agent.process.paused {
		return
	}
	s, ifname := p.sandbox, p.interfaces[h.random.IntN(len(p.interfaces))]
	h.count("ADD repeated")
	var mine *simOp
	op := h.add(p, h.request(p, s.container, ifname), func(got *cni.AddResult, err error) {
		if p.adding == mine {
			p.adding = nil
		}
		if err != nil || p.sandbox != s {
			return
		}
		addrs := addressesIn(got)
		if !slices.Equal(addrs, s.addrs[ifname]) && s.nodeUID == p.node.uid(h) && !h.mayLose(p) {
			h.fail("interface %s of %s had %v and is told %v", ifname, s.container, s.addrs[ifname], addrs)
		}
		if h.rate == 0 && mine != nil && mine.cost.Load() > 0 {
			h.fail("the ADD of %s, which has its address, waited for %d requests", p.name, mine.cost.Load())
		}
	})
	if mine = op; !op.Ended() {
		p.adding = op
	}
}

// lateAdd is an ADD of a sandbox that is long dead. Nobody uses its answer.
func (h *sim) lateAdd() {
	if len(h.past) == 0 {
		return
	}
	d := h.past[h.random.IntN(len(h.past))]
	a := d.node.agent
	if a == nil || !a.serving || a.process.paused || d.node.off {
		return
	}
	h.count("ADD of a dead sandbox")
	q := d.request
	h.begin(a.process, "late ADD "+q.ContainerID+" "+q.Interface, func(ctx context.Context) error {
		_, err := a.add(withCause(ctx, "add"), &q)
		return err
	}, func(error) { h.dels = append(h.dels, d) })
}

// validate is CNI GC: the runtime names the sandboxes there are, while it has
// no ADD under way.
func (h *sim) validate(n *simNode) {
	q := &cni.GCRequest{Network: "net"}
	for _, name := range h.names() {
		p := h.pods[name]
		if p.node != n {
			continue
		}
		if p.adding != nil {
			return
		}
		if p.sandbox != nil {
			for _, ifname := range p.interfaces {
				q.Valid = append(q.Valid, cni.ValidAttachment{ContainerID: p.sandbox.container, Interface: ifname})
			}
		}
	}
	h.alone(n, "GC", func(ctx context.Context, a *Agent) error {
		_, err := a.gc(ctx, q)
		return err
	}, nil)
}

func addressesIn(r *cni.AddResult) []netip.Addr {
	var addrs []netip.Addr
	for _, a := range r.Addresses {
		addrs = append(addrs, a.Prefix.Addr())
	}
	return addrs
}
