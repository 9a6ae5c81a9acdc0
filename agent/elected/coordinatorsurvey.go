package elected

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// unfoundError says what cannot be found out about the cluster, and what to do
// about it. Asking again at once would not help.
type unfoundError struct{ reason string }

func (e *unfoundError) Error() string { return e.reason }

func unfound(format string, args ...any) error { return &unfoundError{fmt.Sprintf(format, args...)} }

// survey is what was found out about the cluster at one time. Each source is
// read when it is first needed, and once.
type survey struct {
	sources sources
	known   map[string]finding
	// failed is set when a source could not be read.
	failed bool
}

// finding is what a source says: nothing, networks, or why they cannot be told.
type finding struct {
	networks []netip.Prefix
	err      error
}

func newSurvey(s sources) *survey { return &survey{sources: s, known: map[string]finding{}} }

// ask returns what a source says. What it says is kept; that it did not answer
// is not.
func (s *survey) ask(ctx context.Context, name string, source func(context.Context) ([]netip.Prefix, error)) ([]netip.Prefix, error) {
	if f, ok := s.known[name]; ok {
		return f.networks, f.err
	}
	networks, err := source(ctx)
	if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		err = unfound("this agent may not ask: %s: helm upgrade gives it the permission", err)
	}
	var known *unfoundError
	if err != nil && !errors.As(err, &known) {
		s.failed = true
		return nil, fmt.Errorf("ask %s: %w", name, err)
	}
	s.known[name] = finding{distinct(networks), err}
	return s.known[name].networks, err
}

// first asks sources in their order until one of them knows something.
func (s *survey) first(ctx context.Context, of ...source) ([]netip.Prefix, error) {
	for _, source := range of {
		networks, err := s.ask(ctx, source.name, source.read)
		if err != nil || len(networks) > 0 {
			return networks, err
		}
	}
	return nil, nil
}

// networks returns the networks of the cluster's pods, by a podCIDRType, and
// those of its services.
func (s *survey) networks(ctx context.Context, podCIDRType string) (pods, services []netip.Prefix, err error) {
	if pods, err = s.pods(ctx, podCIDRType); err != nil {
		return nil, nil, err
	}
	services, err = s.first(ctx, s.sources.serviceCIDRs(), s.sources.kubeadm(ofServices), s.sources.controllerManager(ofServices))
	if err == nil && len(services) == 0 {
		err = unfound("nothing tells the networks of services: there is no ServiceCIDR, ConfigMap %s has no networking.serviceSubnet, and no pod of kube-controller-manager has --service-cluster-ip-range. Set networking.serviceSubnet in the ConfigMap", kubeadmConfig)
	}
	return pods, services, err
}

func (s *survey) pods(ctx context.Context, podCIDRType string) ([]netip.Prefix, error) {
	switch podCIDRType {
	case "none":
		return nil, nil
	case "auto":
		return s.auto(ctx)
	case "cluster":
		return s.cluster(ctx)
	case "calico":
		networks, err := s.first(ctx, s.sources.calico())
		if err == nil && len(networks) == 0 {
			err = unfound("podCIDRType is calico, and Calico has no IPPool for pods: create one, or set spec.podCIDRType to auto")
		}
		return networks, err
	case "cilium":
		networks, err := s.cilium(ctx)
		if err == nil && len(networks) == 0 {
			err = unfound("podCIDRType is cilium, and there is no ConfigMap %s: set the chart's global.ciliumConfigMap to Cilium's, or spec.podCIDRType to auto", s.sources.ciliumConfig)
		}
		return networks, err
	}
	return nil, unfound("podCIDRType is %q: set spec.podCIDRType to auto, cluster, calico, cilium or none", podCIDRType)
}

// cluster returns the networks of pods by the cluster's own settings.
func (s *survey) cluster(ctx context.Context) ([]netip.Prefix, error) {
	networks, err := s.first(ctx, s.sources.kubeadm(ofPods), s.sources.controllerManager(ofPods))
	if err == nil && len(networks) == 0 {
		err = unfound("the cluster's settings do not tell the networks of pods: ConfigMap %s has no networking.podSubnet, and no pod of kube-controller-manager has --cluster-cidr. Set spec.podCIDRType to none and name the networks in spec.hijackCIDR", kubeadmConfig)
	}
	return networks, err
}

// cilium returns the networks of Cilium's pods, none where Cilium is not there.
func (s *survey) cilium(ctx context.Context) ([]netip.Prefix, error) {
	networks, err := s.first(ctx, s.sources.cilium())
	if errors.Is(err, errFromCluster) {
		return s.cluster(ctx)
	}
	return networks, err
}

// auto returns the networks of Calico and of Cilium, if they are there: what is
// left of one of them does no harm beside the other. Else the cluster's own
// settings tell, or flannel's; and where nobody says anything, nor nodes have a
// share of something, pods have no network but those of their pools.
//
// Which network plugin a node runs lies in files of the node. The elected agent
// has only its own node's, so it goes by what the plugins leave in the API.
func (s *survey) auto(ctx context.Context) ([]netip.Prefix, error) {
	calico, err := s.first(ctx, s.sources.calico())
	if err != nil {
		return nil, err
	}
	cilium, err := s.cilium(ctx)
	if err != nil {
		return nil, err
	}
	if found := distinct(slices.Concat(calico, cilium)); len(found) > 0 {
		return found, nil
	}
	return s.first(ctx, s.sources.kubeadm(ofPods), s.sources.controllerManager(ofPods), s.sources.flannel(), s.sources.nodes())
}

// distinct returns each network once, in the order of their sources.
func distinct(networks []netip.Prefix) []netip.Prefix {
	var once []netip.Prefix
	for _, n := range networks {
		if !slices.Contains(once, n) {
			once = append(once, n)
		}
	}
	return once
}
