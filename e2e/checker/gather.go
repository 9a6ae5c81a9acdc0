package checker

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/e2e/cluster"
)

// Gather hears every witness. What it cannot read or understand stands in
// Unseen.
func Gather(ctx context.Context, c *cluster.Cluster) Snapshot {
	g := gatherer{cluster: c}
	g.nodes(ctx)
	g.pods(ctx)
	g.statefulSets(ctx)
	g.endpoints(ctx)
	g.pools(ctx)
	g.blocks(ctx)
	g.settings(ctx)
	return g.snapshot
}

type gatherer struct {
	cluster  *cluster.Cluster
	snapshot Snapshot
}

func (g *gatherer) unseen(what string, err error) {
	g.snapshot.Unseen = append(g.snapshot.Unseen, fmt.Sprintf("%s: %v", what, err))
}

func (g *gatherer) nodes(ctx context.Context) {
	list, err := g.cluster.Kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		g.unseen("nodes", err)
		return
	}
	g.snapshot.Nodes = make([]Node, len(list.Items))
	errs := make([]error, len(list.Items))
	var asked sync.WaitGroup
	for i := range list.Items {
		asked.Go(func() { g.snapshot.Nodes[i], errs[i] = hearNode(ctx, g.cluster, &list.Items[i]) })
	}
	asked.Wait()
	for i, err := range errs {
		if err != nil {
			g.unseen("node "+list.Items[i].Name, err)
		}
	}
}

func (g *gatherer) pods(ctx context.Context) {
	list, err := g.cluster.Kube.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		g.unseen("pods", err)
		return
	}
	for i := range list.Items {
		pod, err := podOf(&list.Items[i])
		if err != nil {
			g.unseen("pod "+pod.key(), err)
		}
		g.snapshot.Pods = append(g.snapshot.Pods, pod)
	}
}

func podOf(from *corev1.Pod) (Pod, error) {
	pod := Pod{
		Namespace:   from.Namespace,
		Name:        from.Name,
		UID:         string(from.UID),
		Node:        from.Spec.NodeName,
		HostNetwork: from.Spec.HostNetwork,
		Running:     from.Status.Phase == corev1.PodRunning && from.DeletionTimestamp == nil,
	}
	if owner := metav1.GetControllerOf(from); owner != nil && owner.Kind == "StatefulSet" && owner.APIVersion == "apps/v1" {
		pod.StatefulSet = owner.Name
	}
	for _, ip := range from.Status.PodIPs {
		addr, err := netip.ParseAddr(ip.IP)
		if err != nil {
			return pod, err
		}
		pod.Addrs = append(pod.Addrs, addr)
	}
	return pod, nil
}

func (g *gatherer) statefulSets(ctx context.Context) {
	list, err := g.cluster.Kube.AppsV1().StatefulSets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		g.unseen("StatefulSets", err)
		return
	}
	for _, from := range list.Items {
		set := StatefulSet{Namespace: from.Namespace, Name: from.Name, Replicas: 1}
		if from.Spec.Replicas != nil {
			set.Replicas = int(*from.Spec.Replicas)
		}
		if from.Spec.Ordinals != nil {
			set.Start = int(from.Spec.Ordinals.Start)
		}
		g.snapshot.StatefulSets = append(g.snapshot.StatefulSets, set)
	}
}

func (g *gatherer) endpoints(ctx context.Context) {
	list, err := g.cluster.CRDs.Endpoints("").List(ctx, metav1.ListOptions{})
	if err != nil {
		g.unseen("endpoints", err)
		return
	}
	for i := range list.Items {
		endpoint, err := endpointOf(&list.Items[i])
		if err != nil {
			g.unseen("endpoint "+endpoint.key(), err)
		}
		g.snapshot.Endpoints = append(g.snapshot.Endpoints, endpoint)
	}
}

func endpointOf(from *v2beta1.SpiderEndpoint) (Endpoint, error) {
	e := Endpoint{
		Namespace: from.Namespace,
		Name:      from.Name,
		PodUID:    from.Status.Current.UID,
		Node:      from.Status.Current.Node,
		OwnerKind: from.Status.OwnerControllerType,
	}
	for _, i := range from.Status.Current.IPs {
		for text, pool := range map[string]string{i.IPv4: i.IPv4Pool, i.IPv6: i.IPv6Pool} {
			if text == "" {
				continue
			}
			prefix, err := netip.ParsePrefix(text)
			if err != nil {
				return e, err
			}
			e.Addresses = append(e.Addresses, EndpointAddress{i.Interface, prefix, pool})
		}
	}
	return e, nil
}

func (g *gatherer) pools(ctx context.Context) {
	list, err := g.cluster.CRDs.IPPools().List(ctx, metav1.ListOptions{})
	if err != nil {
		g.unseen("pools", err)
		return
	}
	for i := range list.Items {
		pool, err := poolOf(&list.Items[i])
		if err != nil {
			g.unseen("pool "+list.Items[i].Name, err)
			continue
		}
		g.snapshot.Pools = append(g.snapshot.Pools, pool)
	}
}

func poolOf(from *v2beta1.SpiderIPPool) (Pool, error) {
	p := Pool{Name: from.Name, AllocatedCount: -1, TotalCount: -1}
	var err error
	if p.Subnet, err = netip.ParsePrefix(from.Spec.Subnet); err != nil {
		return p, err
	}
	if p.Range, err = offer(from.Spec.IPs, from.Spec.ExcludeIPs); err != nil {
		return p, err
	}
	if from.Status.AllocatedIPs != nil {
		if err := json.Unmarshal([]byte(*from.Status.AllocatedIPs), &p.Allocated); err != nil {
			return p, fmt.Errorf("status.allocatedIPs: %w", err)
		}
	}
	if from.Status.AllocatedIPCount != nil {
		p.AllocatedCount = *from.Status.AllocatedIPCount
	}
	if from.Status.TotalIPCount != nil {
		p.TotalCount = *from.Status.TotalIPCount
	}
	return p, nil
}

func (g *gatherer) blocks(ctx context.Context) {
	list, err := g.cluster.CRDs.IPBlocks().List(ctx, metav1.ListOptions{})
	if err != nil {
		g.unseen("blocks", err)
		return
	}
	for i := range list.Items {
		block, err := blockOf(&list.Items[i])
		if err != nil {
			g.unseen("block "+block.Name, err)
		}
		g.snapshot.Blocks = append(g.snapshot.Blocks, block)
	}
}

// blockOf reads a block by itself, not with the agent's own reader: two
// readers with one mistake would agree.
func blockOf(from *v1alpha1.IPBlock) (Block, error) {
	b := Block{Name: from.Name}
	var err error
	if b.Prefix, err = netip.ParsePrefix(from.Spec.CIDR); err != nil {
		return b, err
	}
	for _, l := range from.Spec.Leases {
		addrs, err := addresses(l.Addresses)
		if err != nil {
			return b, err
		}
		b.Leases = append(b.Leases, Lease{Node: l.Node, NodeUID: l.NodeUID, Addrs: addrs})
	}
	for _, p := range from.Spec.Pins {
		addr, err := netip.ParseAddr(p.Address)
		if err != nil {
			return b, err
		}
		b.Pins = append(b.Pins, Pin{Addr: addr, Pod: p.Pod, Interface: p.Interface, Releasing: p.Releasing})
	}
	return b, nil
}

// settings reads what the agents were told about StatefulSets.
func (g *gatherer) settings(ctx context.Context) {
	config, err := g.cluster.Kube.CoreV1().ConfigMaps(cluster.Namespace).Get(ctx, "spiderpool-conf", metav1.GetOptions{})
	if err != nil {
		g.unseen("settings", err)
		return
	}
	settings := struct{ EnableStatefulSet *bool }{}
	if err := yaml.Unmarshal([]byte(config.Data["conf.yml"]), &settings); err != nil {
		g.unseen("settings", err)
		return
	}
	g.snapshot.Sticky = settings.EnableStatefulSet == nil || *settings.EnableStatefulSet
}
