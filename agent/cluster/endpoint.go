package cluster

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

func (c *Client) endpoint(namespace, name string) object {
	return object{
		client:    c.kinds.Endpoints(namespace).GetClient(),
		resource:  "spiderendpoints",
		namespace: namespace,
		name:      name,
		what:      "endpoint " + namespace + "/" + name,
	}
}

// Endpoint is a method of [lease.Cluster].
func (c *Client) Endpoint(ctx context.Context, namespace, pod string) (lease.Endpoint, error) {
	var stored v2beta1.SpiderEndpoint
	if err := c.endpoint(namespace, pod).read(ctx, &stored); err != nil {
		return lease.Endpoint{}, err
	}
	return FromSpiderEndpoint(&stored)
}

// FromSpiderEndpoint returns what a SpiderEndpoint says. It is an error if
// that cannot be understood, or if the object is about to vanish; then
// nothing may be built on it.
func FromSpiderEndpoint(stored *v2beta1.SpiderEndpoint) (lease.Endpoint, error) {
	what := "endpoint " + stored.Namespace + "/" + stored.Name
	if stored.DeletionTimestamp != nil {
		return lease.Endpoint{}, errDeleting(what, stored.Finalizers)
	}
	e := lease.Endpoint{
		Namespace: stored.Namespace,
		Pod:       stored.Name,
		Version:   stored.ResourceVersion,
		PodUID:    stored.Status.Current.UID,
		Node:      stored.Status.Current.Node,
		Sticky:    true,
		OwnerKind: stored.Status.OwnerControllerType,
		OwnerName: stored.Status.OwnerControllerName,
	}
	for _, owner := range stored.OwnerReferences {
		if owner.Kind == "Pod" && owner.APIVersion == "v1" {
			e.Sticky = false
		}
	}
	for i, ifc := range stored.Status.Current.IPs {
		addrs, err := decodeInterface(ifc)
		if err != nil {
			return lease.Endpoint{}, fmt.Errorf("%s: status.current.ips[%d]: %w", what, i, err)
		}
		e.Addresses = append(e.Addresses, addrs...)
	}
	return e, nil
}

// PutEndpoint is a method of [lease.Cluster]. An endpoint that is not sticky
// is owned by its pod and goes with it; for that its PodUID must be known. The
// owners of an endpoint are ours: what else is written there is lost.
func (c *Client) PutEndpoint(ctx context.Context, e lease.Endpoint) (lease.Endpoint, error) {
	status, err := encodeStatus(&e)
	if err != nil {
		return lease.Endpoint{}, fmt.Errorf("put endpoint %s/%s: %w: %w", e.Namespace, e.Pod, lease.ErrRefused, err)
	}
	owners := []metav1.OwnerReference{}
	if !e.Sticky {
		owners = append(owners, metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: e.Pod, UID: types.UID(e.PodUID)})
	}
	var stored v2beta1.SpiderEndpoint
	if e.Version == "" {
		err = c.endpoint(e.Namespace, e.Pod).create(ctx, &v2beta1.SpiderEndpoint{
			ObjectMeta: metav1.ObjectMeta{Namespace: e.Namespace, Name: e.Pod, Annotations: writeMark(), OwnerReferences: owners},
			Status:     status,
		}, &stored)
	} else {
		err = c.endpoint(e.Namespace, e.Pod).update(ctx, patch{
			Metadata: patchMeta{ResourceVersion: e.Version, Annotations: writeMark(), OwnerReferences: &owners},
			Status:   status,
		}, &stored)
	}
	if err != nil {
		return lease.Endpoint{}, err
	}
	return FromSpiderEndpoint(&stored)
}

// DeleteEndpoint is a method of [lease.Cluster].
func (c *Client) DeleteEndpoint(ctx context.Context, e lease.Endpoint) error {
	if e.Version == "" {
		return fmt.Errorf("delete endpoint %s/%s: %w: the version it was judged on is missing", e.Namespace, e.Pod, lease.ErrRefused)
	}
	return c.endpoint(e.Namespace, e.Pod).remove(ctx, e.Version)
}
