package cluster

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/holdfast-ipam/holdfast/crds"
	"github.com/holdfast-ipam/holdfast/lease"
)

// Client is a [lease.Cluster] on a Kubernetes API server. Make one with [New].
// It is safe for concurrent use.
type Client struct {
	kinds *crds.Clients
	pods  typedcorev1.PodsGetter
	marks marks
}

var _ lease.Cluster = (*Client)(nil)

// Config returns a copy of base as an agent wants it: with the user agent, and
// without a rate limit of the client's own. client-go's five requests a second
// would make pods wait for nothing; the API server's priority and fairness
// (KEP-1040) is what keeps order.
func Config(base *rest.Config, userAgent string) *rest.Config {
	config := rest.CopyConfig(base)
	config.UserAgent = userAgent
	config.QPS = -1
	config.RateLimiter = nil
	return config
}

// New returns a client for the API server of config, see [Config]. It sends
// through httpClient ([rest.HTTPClientFor] makes one), or one of its own if
// that is nil. To see each request, use [rest.Config.Wrap] before.
func New(config *rest.Config, httpClient *http.Client) (*Client, error) {
	if httpClient == nil {
		var err error
		if httpClient, err = rest.HTTPClientFor(config); err != nil {
			return nil, fmt.Errorf("make an HTTP client for the API server: %w", err)
		}
	}
	kinds, err := crds.NewClients(config, httpClient)
	if err != nil {
		return nil, err
	}
	core, err := typedcorev1.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("make a client for pods: %w", err)
	}
	return &Client{kinds: kinds, pods: core}, nil
}

// Kinds returns the typed clients that c uses.
func (c *Client) Kinds() *crds.Clients { return c.kinds }

// PodAt is a method of [lease.Cluster]: a quorum read of the pod.
func (c *Client) PodAt(ctx context.Context, namespace, name string) (lease.PodAt, error) {
	pod, err := c.pods.Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return lease.PodAt{}, readError(err, "pod "+namespace+"/"+name, name)
	}
	return lease.PodAt{UID: string(pod.UID), Node: pod.Spec.NodeName, Finished: Finished(pod)}, nil
}

// WithoutSandbox reports whether the pod's kubelet says that it has no sandbox
// (KEP-3085), and since when, by that kubelet's clock. Its status goes on to
// name the addresses of the last one.
func WithoutSandbox(pod *corev1.Pod) (since metav1.Time, without bool) {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReadyToStartContainers {
			return c.LastTransitionTime, c.Status == corev1.ConditionFalse
		}
	}
	return metav1.Time{}, false
}

// Finished reports whether no container of the pod runs or ever will. The
// phase alone does not tell: the pod garbage collector sets it to Failed on
// pods whose node is unreachable, where containers may still run. So each
// container must be known to have ended as well; a pod that says nothing of a
// container counts as running.
func Finished(pod *corev1.Pod) bool {
	if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
		return false
	}
	ended := map[string]bool{}
	for _, s := range pod.Status.ContainerStatuses {
		ended[s.Name] = s.State.Terminated != nil
	}
	for _, container := range pod.Spec.Containers {
		if !ended[container.Name] {
			return false
		}
	}
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses) {
		if s.State.Running != nil {
			return false
		}
	}
	return true
}
