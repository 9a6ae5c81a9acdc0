package selection

import (
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	// defaultNetworkAnnotation of a pod names the Multus network of its first
	// interface.
	defaultNetworkAnnotation = "v1.multus-cni.io/default-network"
	// networksAnnotation of a pod names those of its further interfaces
	// (network-plumbing working group, multi-network specification 1.3,
	// section 4.1).
	networksAnnotation = "k8s.v1.cni.cncf.io/networks"
	// multusNamespace is where Multus looks for a default network that is
	// named without a namespace.
	multusNamespace = "kube-system"

	firstInterface    = "eth0"
	furtherInterfaces = "net" // net1, net2, ... unless the pod names them
)

// network is one Multus network of a pod.
type network struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Interface string `json:"interface"`
}

func (n network) String() string { return n.Namespace + "/" + n.Name }

// networkOf returns namespace/name of the Multus network of the interface.
func (in *Input) networkOf() (string, error) {
	if in.Interface == firstInterface {
		text, ok := in.Pod.Annotations[defaultNetworkAnnotation]
		if !ok && in.ClusterNetwork == "" {
			return "", fmt.Errorf("the network of %s is not known: name it in the pod's annotation %s", firstInterface, defaultNetworkAnnotation)
		}
		if !ok {
			return in.ClusterNetwork, nil
		}
		networks, err := parseNetworks(defaultNetworkAnnotation, text, multusNamespace)
		if err != nil {
			return "", err
		}
		if len(networks) != 1 {
			return "", fmt.Errorf("the pod's annotation %s names %d networks: name one", defaultNetworkAnnotation, len(networks))
		}
		return networks[0].String(), nil
	}
	networks, err := in.furtherNetworks()
	if err != nil {
		return "", err
	}
	for _, n := range networks {
		if n.Interface == in.Interface {
			return n.String(), nil
		}
	}
	return "", fmt.Errorf("the network of %s is not known: the pod's annotation %s has none for it", in.Interface, networksAnnotation)
}

// Interfaces returns the interfaces that a pod gets, in their order: eth0, then
// those of its networks annotation. An annotation that cannot be read is an
// error.
func Interfaces(pod *corev1.Pod) ([]string, error) {
	in := Input{Pod: pod}
	networks, err := in.furtherNetworks()
	if err != nil {
		return nil, err
	}
	interfaces := []string{firstInterface}
	for _, n := range networks {
		interfaces = append(interfaces, n.Interface)
	}
	return interfaces, nil
}

// furtherNetworks returns the networks of the pod's further interfaces, each
// with its interface: the name that the pod gives it, or net1, net2 and so on
// by its place.
func (in *Input) furtherNetworks() ([]network, error) {
	networks, err := parseNetworks(networksAnnotation, in.Pod.Annotations[networksAnnotation], in.Pod.Namespace)
	for i := range networks {
		if networks[i].Interface == "" {
			networks[i].Interface = fmt.Sprintf("%s%d", furtherInterfaces, i+1)
		}
	}
	return networks, err
}

// parseNetworks reads one of the annotations of Multus: a JSON list or one
// JSON object of networks, or [NAMESPACE/]NAME[@INTERFACE] with commas.
func parseNetworks(key, text, namespace string) (networks []network, err error) {
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return nil, nil
	case text[0] == '[':
		err = json.Unmarshal([]byte(text), &networks)
	case text[0] == '{':
		networks = make([]network, 1)
		err = json.Unmarshal([]byte(text), &networks[0])
	default:
		for _, item := range strings.Split(text, ",") {
			networks = append(networks, parseNetwork(strings.TrimSpace(item)))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the pod's annotation %s has an invalid format: %s", key, plain(err))
	}
	for i := range networks {
		if networks[i].Name == "" {
			return nil, fmt.Errorf("the pod's annotation %s has an invalid format: element %d has no name", key, i+1)
		}
		if networks[i].Namespace == "" {
			networks[i].Namespace = namespace
		}
	}
	return networks, nil
}

func parseNetwork(item string) network {
	name, ifname, _ := strings.Cut(item, "@")
	if namespace, name, ok := strings.Cut(name, "/"); ok {
		return network{Namespace: namespace, Name: name, Interface: ifname}
	}
	return network{Name: name, Interface: ifname}
}
