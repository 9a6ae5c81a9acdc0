package elected

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"
)

// Where the cluster's settings are. The chart's permissions name them too.
const (
	// kubeadmConfig is the ConfigMap that kubeadm keeps (kubeadm.k8s.io/v1beta4,
	// ClusterConfiguration).
	kubeadmConfig = metav1.NamespaceSystem + "/kubeadm-config"
	// controllerManagerPods are the static pods of kubeadm and its like.
	controllerManagerPods = "component=kube-controller-manager"
	// defaultCiliumConfig is Cilium's ConfigMap as its chart is usually installed.
	defaultCiliumConfig = metav1.NamespaceSystem + "/cilium-config"
	flannelConfig       = "kube-flannel-cfg"
)

// What a setting of the cluster tells the networks of.
const (
	ofPods     = "pods"
	ofServices = "services"
)

// errFromCluster says that Cilium takes the networks of pods from the cluster's
// own settings.
var errFromCluster = unfound("Cilium takes the networks of pods from the cluster's settings")

// sources are the places in the cluster that tell networks.
type sources struct {
	kube kubernetes.Interface
	// ciliumConfig is namespace/name of Cilium's ConfigMap.
	ciliumConfig string
}

// source is one place. What is not there says nothing, and is no error.
type source struct {
	name string
	read func(context.Context) ([]netip.Prefix, error)
}

// serviceCIDRs are the objects that services get their addresses from
// (KEP-1880), those on their way out too: services may have addresses of them.
func (s sources) serviceCIDRs() source {
	return source{"ServiceCIDRs", func(ctx context.Context) ([]netip.Prefix, error) {
		list, err := s.kube.NetworkingV1().ServiceCIDRs().List(ctx, metav1.ListOptions{})
		if apierrors.IsNotFound(err) {
			return nil, nil // the API server does not serve the kind
		}
		if err != nil {
			return nil, err
		}
		var all []netip.Prefix
		for _, item := range list.Items {
			networks, err := parse("ServiceCIDR "+item.Name, strings.Join(item.Spec.CIDRs, ","))
			if err != nil {
				return nil, err
			}
			all = append(all, networks...)
		}
		return all, nil
	}}
}

func (s sources) kubeadm(of string) source {
	return source{"ConfigMap " + kubeadmConfig + " of " + of, func(ctx context.Context) ([]netip.Prefix, error) {
		data, err := s.configMap(ctx, kubeadmConfig)
		if data == nil || err != nil {
			return nil, err
		}
		var config struct {
			Networking struct{ PodSubnet, ServiceSubnet string }
		}
		if err := yaml.Unmarshal([]byte(data["ClusterConfiguration"]), &config); err != nil {
			return nil, unfound("ConfigMap %s has a ClusterConfiguration that is not YAML: correct it: %s", kubeadmConfig, err)
		}
		if of == ofServices {
			return parse("networking.serviceSubnet in ConfigMap "+kubeadmConfig, config.Networking.ServiceSubnet)
		}
		return parse("networking.podSubnet in ConfigMap "+kubeadmConfig, config.Networking.PodSubnet)
	}}
}

func (s sources) controllerManager(of string) source {
	flag := "--cluster-cidr"
	if of == ofServices {
		flag = "--service-cluster-ip-range"
	}
	return source{"kube-controller-manager's " + flag, func(ctx context.Context) ([]netip.Prefix, error) {
		list, err := s.kube.CoreV1().Pods(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{LabelSelector: controllerManagerPods})
		if err != nil {
			return nil, err
		}
		for _, pod := range list.Items {
			if value := flagOf(&pod, flag); value != "" {
				return parse(fmt.Sprintf("%s of pod %s/%s", flag, pod.Namespace, pod.Name), value)
			}
		}
		return nil, nil
	}}
}

// flagOf returns the value of a flag in a pod's command lines, also of one that
// a shell is given as a whole. The last one counts.
func flagOf(pod *corev1.Pod, flag string) (value string) {
	for _, c := range pod.Spec.Containers {
		words := strings.Fields(strings.Join(append(c.Command, c.Args...), " "))
		for i, word := range words {
			if rest, ok := strings.CutPrefix(word, flag+"="); ok {
				value = strings.Trim(rest, `"'`)
			} else if word == flag && i+1 < len(words) {
				value = strings.Trim(words[i+1], `"'`)
			}
		}
	}
	return value
}

// calico are Calico's pools for pods: of the datastore, or of clusters that
// store version 3 itself. One that is disabled has pods still.
func (s sources) calico() source {
	return source{"Calico's IPPools", func(ctx context.Context) ([]netip.Prefix, error) {
		var all []netip.Prefix
		for _, path := range []string{"/apis/crd.projectcalico.org/v1/ippools", "/apis/projectcalico.org/v3/ippools"} {
			var list struct {
				Items []struct {
					Metadata metav1.ObjectMeta
					Spec     struct {
						CIDR        string
						AllowedUses []string
					}
				}
			}
			if err := s.list(ctx, path, &list); err != nil {
				return nil, err
			}
			for _, pool := range list.Items {
				if !forPods(pool.Spec.AllowedUses) {
					continue
				}
				networks, err := parse("spec.cidr of Calico's IPPool "+pool.Metadata.Name, pool.Spec.CIDR)
				if err != nil {
					return nil, err
				}
				all = append(all, networks...)
			}
			if len(all) > 0 {
				break
			}
		}
		return all, nil
	}}
}

// forPods tells of the uses of a Calico pool; without any it is for pods too.
func forPods(uses []string) bool {
	for _, use := range uses {
		if use == "Workload" {
			return true
		}
	}
	return len(uses) == 0
}

// cilium reads what Cilium was configured with. Modes in which pods have
// addresses of a cloud's network have no networks to tell.
func (s sources) cilium() source {
	return source{"ConfigMap " + s.ciliumConfig, func(ctx context.Context) ([]netip.Prefix, error) {
		data, err := s.configMap(ctx, s.ciliumConfig)
		if data == nil || err != nil {
			return nil, err
		}
		var networks []netip.Prefix
		switch mode := data["ipam"]; mode {
		case "kubernetes":
			return nil, errFromCluster
		case "multi-pool":
			networks, err = s.ciliumPools(ctx)
		case "", "cluster-pool", "cluster-pool-v2beta":
			networks, err = s.clusterPool(data)
		default:
			err = unfound("Cilium's IPAM mode %q has no networks that could be told: set spec.podCIDRType to none and name the networks of pods in spec.hijackCIDR", mode)
		}
		if err == nil && len(networks) == 0 {
			err = unfound("Cilium (ConfigMap %s) names no network of pods: configure one there, or set spec.podCIDRType to none and name them in spec.hijackCIDR", s.ciliumConfig)
		}
		return networks, err
	}}
}

// clusterPool are the networks that Cilium's operator divides among nodes.
func (s sources) clusterPool(data map[string]string) (all []netip.Prefix, err error) {
	for _, family := range []string{"ipv4", "ipv6"} {
		if data["enable-"+family] == "false" {
			continue
		}
		key := "cluster-pool-" + family + "-cidr"
		networks, err := parse(key+" in ConfigMap "+s.ciliumConfig, data[key])
		if err != nil {
			return nil, err
		}
		all = append(all, networks...)
	}
	return all, nil
}

// ciliumPools are the networks of all CiliumPodIPPools.
func (s sources) ciliumPools(ctx context.Context) (all []netip.Prefix, err error) {
	for _, version := range []string{"v2", "v2alpha1"} {
		type family struct{ CIDRs []string }
		var list struct {
			Items []struct {
				Metadata metav1.ObjectMeta
				Spec     struct{ IPv4, IPv6 family }
			}
		}
		if err := s.list(ctx, "/apis/cilium.io/"+version+"/ciliumpodippools", &list); err != nil {
			return nil, err
		}
		for _, pool := range list.Items {
			networks, err := parse("CiliumPodIPPool "+pool.Metadata.Name, strings.Join(append(pool.Spec.IPv4.CIDRs, pool.Spec.IPv6.CIDRs...), ","))
			if err != nil {
				return nil, err
			}
			all = append(all, networks...)
		}
		if len(all) > 0 {
			break
		}
	}
	return all, nil
}

// flannel reads net-conf.json, in the namespace of today's manifest or of older
// ones.
func (s sources) flannel() source {
	return source{"flannel's ConfigMap", func(ctx context.Context) ([]netip.Prefix, error) {
		for _, namespace := range []string{"kube-flannel", metav1.NamespaceSystem} {
			name := namespace + "/" + flannelConfig
			data, err := s.configMap(ctx, name)
			if err != nil {
				return nil, err
			}
			if data == nil {
				continue
			}
			var conf struct{ Network, IPv6Network string }
			if err := json.Unmarshal([]byte(data["net-conf.json"]), &conf); err != nil {
				return nil, unfound("ConfigMap %s has a net-conf.json that is not JSON: correct it: %s", name, err)
			}
			return parse("net-conf.json in ConfigMap "+name, conf.Network+","+conf.IPv6Network)
		}
		return nil, nil
	}}
}

// nodes tells no network, but that there are some which nothing else tells: those
// that nodes divide among themselves, as with k3s. One node is as good as all.
func (s sources) nodes() source {
	return source{"Nodes", func(ctx context.Context) ([]netip.Prefix, error) {
		list, err := s.kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{Limit: 1})
		if err != nil || len(list.Items) == 0 || list.Items[0].Spec.PodCIDR == "" {
			return nil, err
		}
		node := list.Items[0]
		return nil, unfound("nodes have networks for pods (%s has %s), and nothing tells those of the whole cluster: set spec.podCIDRType to none and name them in spec.hijackCIDR", node.Name, node.Spec.PodCIDR)
	}}
}

// configMap returns the data of a ConfigMap, namespace/name, nil where there is
// none.
func (s sources) configMap(ctx context.Context, name string) (map[string]string, error) {
	namespace, name, _ := strings.Cut(name, "/")
	config, err := s.kube.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if config.Data == nil {
		return map[string]string{}, nil
	}
	return config.Data, nil
}

// list reads objects of another project's kind. Where it is not installed there
// are none.
func (s sources) list(ctx context.Context, path string, into any) error {
	raw, err := s.kube.Discovery().RESTClient().Get().AbsPath(path).DoRaw(ctx)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return unfound("%s answers with what is no list: %s", path, err)
	}
	return nil
}

// parse returns the networks in a text, with commas or blanks between them. An
// empty text has none.
func parse(where, text string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' }) {
		p, err := netip.ParsePrefix(word)
		if err != nil || p.Addr().Is4In6() {
			return nil, unfound("%s says %q, which is no network: correct it to one like 10.244.0.0/16", where, word)
		}
		all = append(all, p.Masked())
	}
	return all, nil
}
