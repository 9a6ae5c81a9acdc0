package elected

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/holdfast-ipam/holdfast/lease"
)

// KindMachine is what KubeVirt calls a virtual machine that runs, or has run
// (kubevirt.io/api/core/v1), and the kind of its identities.
const KindMachine = "VirtualMachineInstance"

// KubeVirt's API group, and how it marks the pods that run a machine.
const (
	kubevirtGroup = "kubevirt.io"
	launcherLabel = "kubevirt.io"
	launcher      = "virt-launcher"
)

// Machine is what becomes of a virtual machine, by quorum reads.
type Machine struct {
	// Pods are the UIDs of the pods that run it, in whatever phase: two while
	// it moves, and more that have finished.
	Pods []string
	// Wanted is set while the VirtualMachineInstance is there and not being
	// deleted, or a VirtualMachine of its name is, which makes it anew.
	Wanted bool
}

// FindMachine returns what looks virtual machines up for a [Collector], by the
// client of any API group. Of KubeVirt's objects nothing but metadata is
// looked at. Where addresses are not held for machines, these are not asked
// for, and only their pods want them.
func FindMachine(client rest.Interface, held bool) func(ctx context.Context, namespace, name string) (Machine, error) {
	return machines{client, held}.find
}

type machines struct {
	client rest.Interface
	held   bool
}

// find looks a machine up: its pods first, as [Collector] does with those of
// StatefulSets.
func (m machines) find(ctx context.Context, namespace, name string) (Machine, error) {
	var found Machine
	var err error
	if found.Pods, err = m.pods(ctx, namespace, name); err != nil {
		return Machine{}, fmt.Errorf("list the pods of virtual machine %s/%s: %w", namespace, name, err)
	}
	if !m.held {
		return found, nil
	}
	for _, kind := range []string{"virtualmachineinstances", "virtualmachines"} {
		if found.Wanted, err = m.stays(ctx, kind, namespace, name); err != nil {
			return Machine{}, fmt.Errorf("read %s %s/%s: %w", kind, namespace, name, err)
		}
		if found.Wanted {
			break
		}
	}
	return found, nil
}

// isMachine reports whether an owner is a VirtualMachineInstance.
func isMachine(owner *metav1.OwnerReference) bool {
	group, _, _ := strings.Cut(owner.APIVersion, "/")
	return owner.Kind == KindMachine && group == kubevirtGroup
}

// MachineOf returns the name of the VirtualMachineInstance that a pod runs.
// What does not carry KubeVirt's label as well is not found when the instance
// has gone, so it is a pod like any other.
func MachineOf(pod metav1.Object) (name string, ok bool) {
	owner := metav1.GetControllerOf(pod)
	if owner == nil || !isMachine(owner) || pod.GetLabels()[launcherLabel] != launcher {
		return "", false
	}
	return owner.Name, true
}

func (m machines) pods(ctx context.Context, namespace, name string) ([]string, error) {
	var list metav1.PartialObjectMetadataList
	err := m.read(ctx, "List", "", &list, "/api/v1/namespaces", namespace, "pods")
	if err != nil {
		return nil, err
	}
	var uids []string
	for i := range list.Items {
		owner := metav1.GetControllerOf(&list.Items[i])
		if owner != nil && isMachine(owner) && owner.Name == name {
			uids = append(uids, string(list.Items[i].UID))
		}
	}
	return uids, nil
}

// stays reports whether an object of a kind is there and not on its way out.
func (m machines) stays(ctx context.Context, kind, namespace, name string) (bool, error) {
	var object metav1.PartialObjectMetadata
	err := m.read(ctx, "", name, &object, "/apis", kubevirtGroup, "v1", "namespaces", namespace, kind, name)
	if err == nil {
		return object.DeletionTimestamp == nil, nil
	}
	if errors.Is(err, lease.ErrNotFound) {
		return false, nil
	}
	if !apierrors.IsNotFound(err) {
		return true, err
	}
	// The API server does not serve the kind. Only where it is not defined
	// there is no object of it.
	definition := kind + "." + kubevirtGroup
	undefined := m.read(ctx, "", definition, &object, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
	if errors.Is(undefined, lease.ErrNotFound) {
		return false, nil
	}
	return true, errors.Join(err, undefined)
}

// read is a quorum read of metadata, of an object by its name or of a list of
// launchers. Where the answer is that the named object is not there, the error
// is [lease.ErrNotFound].
func (m machines) read(ctx context.Context, list, name string, into any, path ...string) error {
	request := m.client.Get().AbsPath(path...).
		SetHeader("Accept", "application/json;as=PartialObjectMetadata"+list+";g=meta.k8s.io;v=v1")
	if list != "" {
		request = request.Param("labelSelector", launcherLabel+"="+launcher)
	}
	result := request.Do(ctx)
	err := result.Error()
	var status apierrors.APIStatus
	if apierrors.IsNotFound(err) && errors.As(err, &status) {
		d := status.Status().Details
		if d != nil && d.Name == name && name != "" && !apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse) {
			return fmt.Errorf("%w: %w", lease.ErrNotFound, err)
		}
	}
	if err != nil {
		return err
	}
	raw, err := result.Raw()
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
}
