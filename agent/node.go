package agent

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"

	"github.com/holdfast-ipam/holdfast/agent/watch"
)

const (
	// heartbeats is how often in a hold-down the agent reads its own Node.
	heartbeats = 6
	// heartbeatTimeout bounds one such read, and heartbeatRetry is the pause
	// after one that failed.
	heartbeatTimeout = 10 * time.Second
	heartbeatRetry   = 5 * time.Second
	// heartbeatJitter is the greatest part of a pause by which it is longer: the
	// agents of nodes that start as one, or that an API server left as one, do
	// not come back to it as one.
	heartbeatJitter = 0.2
)

// ownNode is the agent's own Node: labels for selection, by a watch, and
// whether it is still in order, by quorum reads.
type ownNode struct {
	client   kubernetes.Interface
	name     string
	informer watch.Informer[*corev1.Node]
}

func newOwnNode(client kubernetes.Interface, name string) *ownNode {
	mine := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	}
	return &ownNode{client: client, name: name, informer: watch.New(client.CoreV1().Nodes(), &corev1.Node{},
		watch.Options[*corev1.Node]{Narrow: mine, Slim: slimNode})}
}

// slimNode drops a node's status: its images alone are kilobytes that change
// every few minutes.
func slimNode(node *corev1.Node) { node.Status = corev1.NodeStatus{} }

// get returns the node as the watch knows it, nil before it does.
func (n *ownNode) get() *corev1.Node {
	node, _ := n.informer.Get(n.name)
	return node
}

// read is a quorum read of the node.
func (n *ownNode) read(ctx context.Context) (*corev1.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	return n.client.CoreV1().Nodes().Get(ctx, n.name, metav1.GetOptions{})
}

// heartbeat keeps the lessee trusted while the node is in order: its object
// exists under the UID this agent began with, and carries no out-of-service
// taint. Half a hold-down without that, and no new assignment is begun; the
// other half is for clocks and for updates under way. It ends with an error
// when the node is another one now.
func (a *Agent) heartbeat(ctx context.Context) error {
	for {
		pause, err := a.beat(ctx)
		if err != nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait.Jitter(pause, heartbeatJitter)):
		}
	}
}

// beat is one heartbeat. It returns when the next one is due, or an error
// when the node is not the one this agent began with.
func (a *Agent) beat(ctx context.Context) (time.Duration, error) {
	pause := a.config.HoldDown.Duration / heartbeats
	begun := a.now()
	node, err := a.nodes.read(ctx)
	switch {
	case ctx.Err() != nil:
	case apierrors.IsNotFound(err):
		return 0, fmt.Errorf("the node's object is gone: start anew")
	case err != nil:
		a.log.Warn("the API server is out of reach", "err", err, "assigningUntil", a.lessee.TrustedUntil())
		pause = heartbeatRetry
	case string(node.UID) != a.node.UID:
		return 0, fmt.Errorf("the node's object has UID %s now and had %s: start anew", node.UID, a.node.UID)
	case outOfService(node):
		a.log.Warn("the node is tainted as out of service: no new assignments", "node", node.Name)
	default:
		if err := a.trust(ctx, begun); err != nil {
			a.log.Warn("read this node's leases before they are used again", "err", err)
			pause = heartbeatRetry
		}
	}
	if a.lessee.Ready() != nil {
		pause = heartbeatRetry // nothing can be assigned until then
	}
	return pause, nil
}

// trust allows new assignments for half a hold-down from when the node was
// found in order. A node that was not trusted until now may have lost leases
// under its own UID, to a taint that came and went, and its watch may not have
// told yet: then the leases are read first. And it is trusted only after it
// has learned its leases, or it would learn those that it had before.
func (a *Agent) trust(ctx context.Context, found time.Time) error {
	if !a.learned.Load() {
		return nil // start will come back
	}
	if a.lessee.Ready() != nil {
		if err := a.relearn(ctx); err != nil {
			return err
		}
	}
	a.lessee.Trust(found.Add(a.config.HoldDown.Duration / 2))
	return nil
}

// kubeletAnswers reports, by a quorum read, whether the node's kubelet has
// answered lately, as far as the node's controller knows.
func (a *Agent) kubeletAnswers(ctx context.Context) (bool, error) {
	node, err := a.nodes.read(ctx)
	if err != nil {
		return false, fmt.Errorf("find out whether this node's kubelet answers: %w", err)
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue, nil
		}
	}
	return false, nil
}

// outOfService reports whether somebody declared the node shut down for good
// (KEP-2268, non-graceful node shutdown).
func outOfService(node *corev1.Node) bool {
	for _, t := range node.Spec.Taints {
		if t.Key == corev1.TaintNodeOutOfService {
			return true
		}
	}
	return false
}

// namespaces are the metadata of all namespaces, by a watch.
type namespaces struct {
	informer watch.Informer[*metav1.PartialObjectMetadata]
}

func newNamespaces(client metadata.Interface) *namespaces {
	return &namespaces{informer: watch.New(client.Resource(corev1.SchemeGroupVersion.WithResource("namespaces")),
		&metav1.PartialObjectMetadata{}, watch.Options[*metav1.PartialObjectMetadata]{})}
}

// get returns a namespace's labels and annotations.
func (n *namespaces) get(name string) (*metav1.PartialObjectMetadata, error) {
	namespace, ok := n.informer.Get(name)
	if !ok {
		return nil, fmt.Errorf("namespace %s has not been seen yet", name)
	}
	return namespace, nil
}
