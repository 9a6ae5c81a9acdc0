package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// WriteAnnotation is changed by each write of a block or an endpoint, so that
// each moves the resourceVersion. Its value means nothing.
const WriteAnnotation = "holdfast.dev/write"

// writeMark returns a value for [WriteAnnotation] that differs from the last.
func writeMark() map[string]string {
	return map[string]string{WriteAnnotation: strconv.FormatUint(rand.Uint64(), 36)}
}

// The pauses before a write is sent again that an API server had no room for:
// at least the second that its Retry-After asks for, doubled up to roomPause, and
// given up after a time that is no longer than a runtime gives an ADD.
const (
	firstRoomPause = 2 * time.Second // less or more by up to half
	roomPause      = 8 * time.Second
	roomGiveUp     = 30 * time.Second
)

// whenThereIsRoom sends a write, and again if the API server answers 429: its
// priority and fairness (KEP-1040) has not let the write in. A pod waits less
// that way than if its sandbox were made anew. The error is that of the last
// time, also if ctx ends meanwhile.
func whenThereIsRoom(ctx context.Context, send func() error) error {
	pauses := backoff.NewExponentialBackOff(backoff.WithInitialInterval(firstRoomPause), backoff.WithMultiplier(2),
		backoff.WithMaxInterval(roomPause), backoff.WithMaxElapsedTime(roomGiveUp))
	var last error
	_ = backoff.Retry(func() error {
		if last = send(); apierrors.IsTooManyRequests(last) {
			return last
		}
		return nil
	}, backoff.WithContext(pauses, ctx))
	return last
}

// object is one object of a kind on the API server.
type object struct {
	client    rest.Interface
	resource  string
	namespace string // empty for a kind without
	name      string
	what      string // for messages
}

// read gets the object by a quorum read: without a resourceVersion, the API
// server asks etcd.
func (o object) read(ctx context.Context, into runtime.Object) error {
	err := o.client.Get().
		NamespaceIfScoped(o.namespace, o.namespace != "").
		Resource(o.resource).Name(o.name).
		Do(ctx).Into(into)
	if err != nil {
		return readError(err, o.what, o.name)
	}
	return nil
}

// create stores the object if it does not exist, and reads it as stored.
func (o object) create(ctx context.Context, from, into runtime.Object) error {
	err := whenThereIsRoom(ctx, func() error {
		return o.client.Post().
			NamespaceIfScoped(o.namespace, o.namespace != "").
			Resource(o.resource).
			Body(from).MaxRetries(0).
			Do(ctx).Into(into)
	})
	if err != nil {
		return createError(err, o.what)
	}
	return nil
}

// patch is a JSON merge patch of an object: null removes a value, a list
// replaces a list, what is not named stays.
type patch struct {
	Metadata patchMeta `json:"metadata"`
	Spec     any       `json:"spec,omitempty"`
	Status   any       `json:"status,omitempty"`
}

type patchMeta struct {
	ResourceVersion string             `json:"resourceVersion"`
	Labels          map[string]*string `json:"labels,omitempty"`
	Annotations     map[string]string  `json:"annotations"`
	// OwnerReferences is left alone when nil and removed when it points to
	// nothing.
	OwnerReferences *[]metav1.OwnerReference `json:"ownerReferences,omitempty"`
}

// update changes the object if it has the resourceVersion of the patch, and
// reads it as stored.
func (o object) update(ctx context.Context, p patch, into runtime.Object) error {
	body, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("update %s: %w", o.what, err)
	}
	err = whenThereIsRoom(ctx, func() error {
		return o.client.Patch(types.MergePatchType).
			NamespaceIfScoped(o.namespace, o.namespace != "").
			Resource(o.resource).Name(o.name).
			Body(body).MaxRetries(0).
			Do(ctx).Into(into)
	})
	if err != nil {
		return changeError(err, "update", o.what, o.name)
	}
	return nil
}

// remove deletes the object if it has the resourceVersion. What it owns, were
// there anything, is no reason to keep it.
func (o object) remove(ctx context.Context, version string) error {
	background := metav1.DeletePropagationBackground
	err := whenThereIsRoom(ctx, func() error {
		return o.client.Delete().
			NamespaceIfScoped(o.namespace, o.namespace != "").
			Resource(o.resource).Name(o.name).
			Body(&metav1.DeleteOptions{
				Preconditions:     &metav1.Preconditions{ResourceVersion: &version},
				PropagationPolicy: &background,
			}).MaxRetries(0).
			Do(ctx).Error()
	})
	if err != nil {
		return changeError(err, "delete", o.what, o.name)
	}
	return nil
}
