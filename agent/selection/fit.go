package selection

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// unfit returns why the pool is not for this interface, and nothing if it is.
// Whether the pool has an address left is not looked at: that changes faster
// than any cache, and the next pool is tried then.
func (in *Input) unfit(pool *v2beta1.SpiderIPPool, version int64) string {
	if pool.DeletionTimestamp != nil {
		return "is being deleted"
	}
	if pool.Spec.Disable {
		return "is disabled (spec.disable)"
	}
	switch family := pool.Spec.Family(); family {
	case version:
	case 0:
		return fmt.Sprintf("has no usable subnet (spec.subnet is %q)", pool.Spec.Subnet)
	default:
		return fmt.Sprintf("is an IPv%d pool (spec.subnet is %s)", family, pool.Spec.Subnet)
	}
	for _, check := range []func(*v2beta1.IPPoolSpec) string{in.unfitNode, in.unfitNamespace, in.unfitPod, in.unfitNetwork, in.unfitMaster} {
		if reason := check(&pool.Spec); reason != "" {
			return reason
		}
	}
	return ""
}

func (in *Input) unfitNode(pool *v2beta1.IPPoolSpec) string {
	if len(pool.NodeName) > 0 {
		return unlisted("nodeName", pool.NodeName, "node", in.Node.Name)
	}
	return unmatched("nodeAffinity", pool.NodeAffinity, "node", in.Node.Name, in.Node.Labels)
}

func (in *Input) unfitNamespace(pool *v2beta1.IPPoolSpec) string {
	if len(pool.NamespaceName) > 0 {
		return unlisted("namespaceName", pool.NamespaceName, "namespace", in.Pod.Namespace)
	}
	return unmatched("namespaceAffinity", pool.NamespaceAffinity, "namespace", in.Pod.Namespace, in.Namespace.Labels)
}

func (in *Input) unfitPod(pool *v2beta1.IPPoolSpec) string {
	return unmatched("podAffinity", pool.PodAffinity, "pod", in.Pod.Name, in.Pod.Labels)
}

func (in *Input) unfitNetwork(pool *v2beta1.IPPoolSpec) string {
	if len(pool.MultusName) == 0 {
		return ""
	}
	network, err := in.networkOf()
	if err != nil {
		return "is only for networks of spec.multusName, and " + err.Error()
	}
	var listed []string
	for _, name := range pool.MultusName {
		if !strings.Contains(name, "/") {
			name = in.InstallNamespace + "/" + name
		}
		listed = append(listed, name)
	}
	return unlisted("multusName", listed, "network", network)
}

func unlisted(field string, listed []string, what, name string) string {
	if slices.Contains(listed, name) {
		return ""
	}
	return fmt.Sprintf("is not for %s %s (spec.%s)", what, name, field)
}

func unmatched(field string, selector *metav1.LabelSelector, what, name string, of map[string]string) string {
	if selector == nil {
		return ""
	}
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return fmt.Sprintf("has a spec.%s that makes no sense: %s", field, err)
	}
	if s.Matches(labels.Set(of)) {
		return ""
	}
	return fmt.Sprintf("is not for %s %s, whose labels do not match (spec.%s)", what, name, field)
}
