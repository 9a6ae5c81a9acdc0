package cluster

import (
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/lease"
)

// readError marks the error of a read of the named object: [lease.ErrNotFound]
// or nothing.
func readError(err error, what, name string) error {
	if absent(err, name) {
		return fmt.Errorf("read %s: %w: %w", what, lease.ErrNotFound, err)
	}
	return fmt.Errorf("read %s: %w", what, err)
}

// createError marks the error of a creation.
func createError(err error, what string) error {
	switch {
	case apierrors.IsAlreadyExists(err):
		return fmt.Errorf("create %s: %w: %w", what, lease.ErrConflict, err)
	case apierrors.IsNotFound(err), refused(err): // no such namespace, or kind
		return fmt.Errorf("create %s: %w: %w", what, lease.ErrRefused, err)
	}
	return fmt.Errorf("create %s: %w", what, err)
}

// changeError marks the error of an update or a removal of the named object.
// verb is for people.
func changeError(err error, verb, what, name string) error {
	switch {
	case apierrors.IsConflict(err), absent(err, name):
		return fmt.Errorf("%s %s: %w: %w", verb, what, lease.ErrConflict, err)
	case apierrors.IsNotFound(err), refused(err):
		return fmt.Errorf("%s %s: %w: %w", verb, what, lease.ErrRefused, err)
	}
	return fmt.Errorf("%s %s: %w", verb, what, err)
}

// absent reports whether the API server says that the named object does not
// exist. A 404 from a server that does not serve the kind names no object, or
// is the generic answer that client-go makes of a body it does not know.
func absent(err error, name string) bool {
	var status apierrors.APIStatus
	if !apierrors.IsNotFound(err) || !errors.As(err, &status) {
		return false
	}
	details := status.Status().Details
	return details != nil && details.Name == name &&
		!apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

// refused reports whether the API server has refused a request before it
// touched the store. Everything else may have been stored: timeouts, answers
// of 500 and above, lost connections.
func refused(err error) bool {
	for _, is := range []func(error) bool{
		apierrors.IsInvalid,
		apierrors.IsForbidden,
		apierrors.IsUnauthorized,
		apierrors.IsBadRequest,
		apierrors.IsRequestEntityTooLargeError,
		apierrors.IsTooManyRequests,
		apierrors.IsMethodNotSupported,
		apierrors.IsNotAcceptable,
		apierrors.IsUnsupportedMediaType,
	} {
		if is(err) {
			return true
		}
	}
	return false
}

// errDeleting says that nothing may be built on an object: it will vanish.
func errDeleting(what string, finalizers []string) error {
	return fmt.Errorf("%s is being deleted and finalizers %q hold it: remove them (kubectl patch --type=merge -p '{\"metadata\":{\"finalizers\":null}}')", what, finalizers)
}
