package cni

import (
	"github.com/containernetworking/cni/pkg/types"
)

// podArgs are the keys of CNI_ARGS that container runtimes for Kubernetes
// pass (containerd, CRI-O, and Multus on their behalf). The field names are
// the keys: types.LoadArgs finds them by name.
type podArgs struct {
	types.CommonArgs
	K8S_POD_NAMESPACE types.UnmarshallableString
	K8S_POD_NAME      types.UnmarshallableString
	K8S_POD_UID       types.UnmarshallableString
	// K8S_POD_INFRA_CONTAINER_ID repeats CNI_CONTAINERID.
	K8S_POD_INFRA_CONTAINER_ID types.UnmarshallableString
	// IP and MAC are requests of a user to other plugins.
	IP  types.UnmarshallableString
	MAC types.UnmarshallableString
}

// ParsePod returns the pod that CNI_ARGS names. K8S_POD_UID may be missing:
// older runtimes do not pass it, and the agent knows the node's pods. Errors
// are *types.Error with ErrInvalidEnvironmentVariables.
func ParsePod(args string) (Pod, error) {
	var parsed podArgs
	if err := types.LoadArgs(args, &parsed); err != nil {
		return Pod{}, types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_ARGS cannot be read", err.Error())
	}
	pod := Pod{
		Namespace: string(parsed.K8S_POD_NAMESPACE),
		Name:      string(parsed.K8S_POD_NAME),
		UID:       string(parsed.K8S_POD_UID),
	}
	if pod.Namespace == "" || pod.Name == "" {
		return Pod{}, types.NewError(types.ErrInvalidEnvironmentVariables,
			"CNI_ARGS names no pod",
			"addresses are for pods: the caller must pass K8S_POD_NAMESPACE and K8S_POD_NAME, as kubelet's runtimes do; got CNI_ARGS="+args)
	}
	return pod, nil
}
