package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-ipam/holdfast/e2e/cluster"
)

// clean removes what an earlier run left.
func (d *demo) clean(ctx context.Context) error {
	d.chapter("Removing what an earlier demo left, if any")
	if _, err := d.cluster.Kubectl(ctx, "", "uncordon", "--selector", "kubernetes.io/os=linux"); err != nil {
		return err
	}
	if _, err := d.typed(ctx, deleteStatefulSet); err != nil {
		return err
	}
	if _, err := d.cluster.AwaitPods(ctx, patience, namespace, selector, 0); err != nil {
		return err
	}
	if installed, err := d.cluster.Installed(ctx); err != nil || !installed {
		return err
	}
	_, err := d.typed(ctx, deletePool)
	return err
}

func (d *demo) install(ctx context.Context) error {
	d.chapter("Installing Holdfast (usually 40 s, 10 s when it is there)")
	if err := d.cluster.RenewCRDs(ctx); err != nil {
		return err
	}
	if _, err := d.typed(ctx, "helm "+strings.Join(cluster.InstallArguments(), " ")); err != nil {
		return err
	}
	if err := d.cluster.RestartOutdated(ctx); err != nil {
		return err
	}
	for _, wait := range []string{
		"kubectl -n kube-system rollout status ds/holdfast --timeout 2m",
		"kubectl wait nodes --all --for condition=Ready --timeout 2m",
		"kubectl -n kube-system rollout status deploy/coredns --timeout 2m",
	} {
		if _, err := d.typed(ctx, wait); err != nil {
			return err
		}
	}
	_, err := d.typed(ctx, getNodes)
	return err
}

func (d *demo) createNetwork(ctx context.Context) error {
	d.chapter("statefulset.md, Install CNI: a macvlan network on ens192")
	if _, err := d.typed(ctx, createNetwork); err != nil {
		return err
	}
	for _, command := range []string{getMultusConfigs, getAttachments} {
		if err := d.await(ctx, 30*time.Second, command, wants("NAME AGE", "macvlan-ens192")); err != nil {
			return err
		}
	}
	d.proved("a SpiderMultusConfig becomes the NetworkAttachmentDefinition that Multus reads")
	return nil
}

func (d *demo) createPool(ctx context.Context) error {
	d.chapter("statefulset.md, Create an IP pool: ten addresses")
	_, err := d.typed(ctx, createPool)
	return err
}

func (d *demo) createStatefulSet(ctx context.Context) error {
	d.chapter("statefulset.md, Create StatefulSet applications: two replicas")
	if _, err := d.typed(ctx, createStatefulSet); err != nil {
		return err
	}
	if _, err := d.cluster.AwaitPods(ctx, patience, namespace, selector, 2); err != nil {
		return err
	}
	if err := d.awaitPool(ctx, 2); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "(default-v4-ippool is where CoreDNS has its addresses from.)\n\n")
	if err := d.awaitPods(ctx, 2); err != nil {
		return err
	}
	d.proved("two StatefulSet pods have %s and %s from the pool", d.held["test-sts-0"], d.held["test-sts-1"])
	return nil
}

// awaitPool waits until the pool's row is the document's, with the number of
// addresses in use.
func (d *demo) awaitPool(ctx context.Context, used int) error {
	return d.await(ctx, 30*time.Second, getPools, wants("NAME VERSION SUBNET ALLOCATED-IP-COUNT TOTAL-IP-COUNT DEFAULT",
		"test-ippool", "4", "10.6.0.0/16", fmt.Sprint(used), "10", "false"))
}

func (d *demo) restartTwo(ctx context.Context) error {
	d.chapter("statefulset.md: each pod keeps its address when it is restarted")
	return d.restart(ctx, "both pods were deleted at once and came back with their addresses")
}

func (d *demo) restart(ctx context.Context, proof string) error {
	if _, err := d.typed(ctx, restart); err != nil {
		return err
	}
	if err := d.awaitPods(ctx, len(d.pods), d.pods...); err != nil {
		return err
	}
	d.proved("%s", proof)
	return nil
}

func (d *demo) scaleUp(ctx context.Context) error {
	d.chapter("statefulset.md: scaling up leaves the others alone (it says \"scale deploy\", a slip)")
	before := d.pods
	if _, err := d.typed(ctx, scaleUp); err != nil {
		return err
	}
	if err := d.awaitPods(ctx, 3); err != nil {
		return err
	}
	for i := range before {
		if before[i].UID != d.pods[i].UID {
			return fmt.Errorf("scaling up replaced %s", before[i].Name)
		}
	}
	d.proved("a third replica got %s, the others were left alone", d.held["test-sts-2"])
	return nil
}

func (d *demo) restartThree(ctx context.Context) error {
	return d.restart(ctx, "all three were deleted at once and came back with their addresses")
}

func (d *demo) scaleDown(ctx context.Context) error {
	d.chapter("statefulset.md: scaling down gives the address back")
	if _, err := d.typed(ctx, scaleDown); err != nil {
		return err
	}
	if err := d.awaitPods(ctx, 2); err != nil {
		return err
	}
	if err := d.awaitPool(ctx, 2); err != nil {
		return err
	}
	d.proved("after scaling down %s is the pool's again", d.held["test-sts-2"])
	delete(d.held, "test-sts-2")
	return nil
}

// swapNodes moves both pods, one after the other, so that they end on two
// nodes, neither of them where it was.
func (d *demo) swapNodes(ctx context.Context) error {
	d.chapter("Beyond the document: the pods move to another node and take their addresses along")
	if _, err := d.typed(ctx, getBlocks); err != nil {
		return err
	}
	first, second := d.pods[0].Spec.NodeName, d.pods[1].Spec.NodeName
	if err := d.moveAway(ctx, "test-sts-0", first); err != nil {
		return err
	}
	if first != second {
		second = d.node("test-sts-0")
	}
	if err := d.moveAway(ctx, "test-sts-1", second); err != nil {
		return err
	}
	_, err := d.typed(ctx, getBlocks)
	return err
}

// moveAway makes a pod come back on another node than from.
func (d *demo) moveAway(ctx context.Context, pod, from string) error {
	if d.node(pod) != from {
		return nil
	}
	if _, err := d.typed(ctx, "kubectl cordon "+from); err != nil {
		return err
	}
	moving := d.pods[slices.IndexFunc(d.pods, func(p corev1.Pod) bool { return p.Name == pod })]
	if _, err := d.typed(ctx, "kubectl delete pod "+pod); err != nil {
		return err
	}
	if err := d.awaitPods(ctx, 2, moving); err != nil {
		return err
	}
	if _, err := d.typed(ctx, "kubectl uncordon "+from); err != nil {
		return err
	}
	if d.node(pod) == from {
		return fmt.Errorf("%s came back on %s, which was cordoned", pod, from)
	}
	d.proved("%s moved from %s to %s and kept %s", pod, from, d.node(pod), d.held[pod])
	return nil
}

func (d *demo) node(pod string) string {
	for i := range d.pods {
		if d.pods[i].Name == pod {
			return d.pods[i].Spec.NodeName
		}
	}
	return ""
}

func (d *demo) ping(ctx context.Context) error {
	d.chapter("Beyond the document: the pods reach each other across nodes")
	if d.node("test-sts-0") == d.node("test-sts-1") {
		return errors.New("both pods are on one node, so a ping across nodes would show nothing")
	}
	for _, pair := range [][2]string{{"test-sts-0", "test-sts-1"}, {"test-sts-1", "test-sts-0"}} {
		from, to := pair[0], pair[1]
		if _, err := d.typed(ctx, fmt.Sprintf("kubectl exec %s -- ping -c 3 -i 0.3 -w 20 %s", from, d.held[to])); err != nil {
			return fmt.Errorf("%s does not reach %s at %s: %w", from, to, d.held[to], err)
		}
	}
	d.proved("%s and %s, on two nodes, ping each other", d.held["test-sts-0"], d.held["test-sts-1"])
	return nil
}
