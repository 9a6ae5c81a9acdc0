package elected

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-ipam/holdfast/agent/admission"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// completer writes into objects of a kind what the webhook fills in, where
// they were applied while no agent served it. The rules are the webhook's own,
// so that the two never undo each other's work, and what they fill in leaves
// nothing to fill in.
type completer[T metav1.Object] struct {
	client patcher[T]
	// missing returns what is missing from an object.
	missing func(T) []admission.Operation

	mu sync.Mutex
	// left are objects, by name, that stay as they are.
	left map[string]state
}

// patcher is a client of the kind.
type patcher[T any] interface {
	Get(ctx context.Context, name string, o metav1.GetOptions) (T, error)
	Patch(ctx context.Context, name string, kind types.PatchType, patch []byte, o metav1.PatchOptions, subresources ...string) (T, error)
}

// state is a version of an object's spec, and where something is missing, of
// the metadata as well.
type state struct {
	uid        types.UID
	generation int64
	missing    string
}

func stateOf(object metav1.Object, missing []admission.Operation) state {
	s := state{uid: object.GetUID(), generation: object.GetGeneration()}
	for _, o := range missing {
		s.missing += o.Path + " "
	}
	return s
}

func newCompleter[T metav1.Object](client patcher[T], missing func(T) []admission.Operation) *completer[T] {
	return &completer[T]{client: client, missing: missing, left: make(map[string]state)}
}

// complete fills in what is missing from a cached object, in one guarded
// update, and returns it as it is then. What the schema refuses, because
// something else is wrong with the object, stays as it is.
func (c *completer[T]) complete(ctx context.Context, object T) (T, error) {
	missing := c.missing(object)
	name, at := object.GetName(), stateOf(object, missing)
	if len(missing) == 0 || c.leaves(name, at) {
		return object, nil
	}
	// The cache has no managed fields.
	is, err := c.client.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return object, fmt.Errorf("complete %s: %w", name, guarded(err))
	}
	missing = slices.DeleteFunc(c.missing(is), func(o admission.Operation) bool { return applied(is, o.Path) })
	if len(missing) == 0 {
		c.leave(name, at)
		return object, nil
	}
	guard := admission.Operation{Op: "add", Path: "/metadata/resourceVersion", Value: is.GetResourceVersion()}
	patch, err := json.Marshal(append(missing, guard))
	if err != nil {
		return object, fmt.Errorf("complete %s: %w", name, err)
	}
	completed, err := c.client.Patch(ctx, name, types.JSONPatchType, patch, metav1.PatchOptions{})
	if apierrors.IsInvalid(err) {
		c.leave(name, at)
		return object, nil
	}
	if err != nil {
		return object, fmt.Errorf("complete %s: %w", name, guarded(err))
	}
	return completed, nil
}

func (c *completer[T]) leaves(name string, s state) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left[name] == s
}

func (c *completer[T]) leave(name string, s state) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left[name] = s
}

// forget is for an object that is gone.
func (c *completer[T]) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.left, name)
}

// applied reports whether a user applies the field of the spec at a JSON
// pointer with server-side apply, and so owns how it is written: changed, it
// would be a conflict for the user's next apply.
func applied(object metav1.Object, path string) bool {
	field, ok := strings.CutPrefix(path, "/spec/")
	if !ok {
		return false
	}
	return slices.ContainsFunc(object.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool {
		var owned struct {
			Spec map[string]json.RawMessage `json:"f:spec"`
		}
		if m.Operation != metav1.ManagedFieldsOperationApply || m.FieldsV1 == nil || json.Unmarshal(m.FieldsV1.GetRawBytes(), &owned) != nil {
			return false
		}
		_, ok := owned.Spec["f:"+field]
		return ok
	})
}

// reservedChanged has pools counted, because what a SpiderReservedIP reserves
// is not left for pods, and the SpiderReservedIP completed.
func (s *poolStatus) reservedChanged(_, is *v2beta1.SpiderReservedIP) {
	s.allLater()
	s.reservations.Add(is.Name)
}

func (s *poolStatus) reservedGone(was *v2beta1.SpiderReservedIP) {
	s.completeReserved.forget(was.Name)
	s.allLater()
}

// doReserved completes a SpiderReservedIP.
func (s *poolStatus) doReserved(ctx context.Context, name string) (again bool, err error) {
	if r, ok := s.reserved.Get(name); ok {
		_, err = s.completeReserved.complete(ctx, r)
	}
	return false, err
}
