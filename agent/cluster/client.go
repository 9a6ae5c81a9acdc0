package cluster

import (
	"context"
	"fmt"
	"net/http"

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
