package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	cnitypes "github.com/containernetworking/cni/pkg/types"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/holdfast-ipam/holdfast/agent/selection"
	"github.com/holdfast-ipam/holdfast/agent/watch"
	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/crds"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

const (
	// coordinatorDefault is the name of the SpiderCoordinator that counts where
	// there are several.
	coordinatorDefault = "default"
	// defaultRouteAnnotation is with which a pod names the interface that keeps
	// its default route.
	defaultRouteAnnotation = "ipam.spidernet.io/default-route-nic"
	// coordinationFailed begins every error of the coordinator's settings.
	coordinationFailed = "the coordinator's settings cannot be told"
)

// errSoon marks what an agent or the elected one among them gets to know
// within seconds: the plugin asks again by itself.
var errSoon = errors.New("not known yet")

// coordinators are the SpiderCoordinators of the cluster, one or a few. What is
// told of them to the plugin comes from the cache alone: a pod start waits for
// no API server.
type coordinators struct {
	informer watch.Informer[*v2beta1.SpiderCoordinator]
}

func newCoordinators(clients *crds.Clients) *coordinators {
	return &coordinators{watch.New(clients.Coordinators(), &v2beta1.SpiderCoordinator{}, watch.Options[*v2beta1.SpiderCoordinator]{})}
}

// counting returns the SpiderCoordinator that counts: the one named default, or
// the first by name. One on its way out counts no more. Nil: there is none.
func (c *coordinators) counting() *v2beta1.SpiderCoordinator {
	var first *v2beta1.SpiderCoordinator
	for _, sc := range c.informer.All() {
		switch {
		case sc.DeletionTimestamp != nil:
		case sc.Name == coordinatorDefault:
			return sc
		case first == nil || sc.Name < first.Name:
			first = sc
		}
	}
	return first
}

// coordination answers what the coordinator plugin has to know, from caches.
func (a *Agent) coordination(ctx context.Context, q *cni.CoordinationRequest) (*cni.Coordination, error) {
	if !a.coordinators.informer.HasSynced() || !a.pods.informer.HasSynced() {
		return nil, soon("the agent has just started and has not read the cluster's SpiderCoordinator yet")
	}
	result, err := settings(a.coordinators.counting(), q.Mode)
	if err != nil {
		return nil, err
	}
	pod, ok := a.pods.seen(ctx, q.Pod)
	if !ok {
		return nil, soon(fmt.Sprintf("the agent's watch has not brought pod %s/%s with UID %q", q.Pod.Namespace, q.Pod.Name, q.Pod.UID))
	}
	// Multus says what is wrong with an annotation. Without Multus nobody reads it.
	if interfaces, err := selection.Interfaces(pod); err == nil {
		result.Interfaces = interfaces
	}
	result.DefaultRouteInterface = strings.TrimSpace(pod.Annotations[defaultRouteAnnotation])
	return result, nil
}

// seen returns the pod that the runtime names, and waits for the watch to bring
// it. By then the pod has got its addresses, so it is nearly always there.
func (p *pods) seen(ctx context.Context, want cni.Pod) (pod *corev1.Pod, ok bool) {
	err := wait.PollUntilContextTimeout(ctx, podPoll, podWait, true, func(context.Context) (bool, error) {
		pod, ok = p.cached(want.Namespace, want.Name)
		return ok && (want.UID == "" || uidOf(pod) == want.UID), nil
	})
	return pod, err == nil
}

// settings returns what a SpiderCoordinator says, for a network configuration
// with the mode. Nil is one that says nothing.
func settings(sc *v2beta1.SpiderCoordinator, mode string) (*cni.Coordination, error) {
	if sc == nil {
		return &cni.Coordination{Mode: "auto"}, nil
	}
	result, err := specOf(&sc.Spec)
	if err != nil {
		return nil, refused(sc, err)
	}
	if err := found(sc); err != nil {
		if cmp.Or(mode, result.Mode) == cni.ModeDisabled {
			return result, nil // nobody will look at the networks
		}
		return nil, err
	}
	if result.PodCIDR, err = prefixes("status.overlayPodCIDR", sc.Status.OverlayPodCIDR); err != nil {
		return nil, refused(sc, err)
	}
	if result.ServiceCIDR, err = prefixes("status.serviceCIDR", sc.Status.ServiceCIDR); err != nil {
		return nil, refused(sc, err)
	}
	return result, nil
}

// found returns why the networks in the status are not to be used. A pod that
// started without them would lack routes, for as long as it lives, and nobody
// would see why.
func found(sc *v2beta1.SpiderCoordinator) error {
	switch sc.Status.Phase {
	case v2beta1.CoordinatorSynced:
		return nil
	case "":
		return soon(fmt.Sprintf("the cluster's networks are not in the status of SpiderCoordinator %s yet: the elected agent writes them", sc.Name))
	}
	return &cni.Error{
		Code:    uint(cnitypes.ErrTryAgainLater),
		Message: coordinationFailed,
		Details: fmt.Sprintf("SpiderCoordinator %s is %s: %s", sc.Name, sc.Status.Phase, cmp.Or(sc.Status.Reason, "its status does not say why")),
	}
}

// soon is the error of what is known within seconds.
func soon(why string) error {
	return fmt.Errorf("%w: %w", errSoon, &cni.Error{Code: uint(cnitypes.ErrTryAgainLater), Message: coordinationFailed, Details: why})
}

// refused is the error of a SpiderCoordinator that cannot be understood. One
// that is older than the schema, which refuses such, may say anything.
func refused(sc *v2beta1.SpiderCoordinator, err error) error {
	return &cni.Error{
		Code:    uint(cnitypes.ErrInvalidNetworkConfig),
		Message: coordinationFailed,
		Details: fmt.Sprintf("correct SpiderCoordinator %s: %s", sc.Name, err),
	}
}

// specOf returns what a spec says, in the plugin's words.
func specOf(spec *v2beta1.CoordinatorSpec) (*cni.Coordination, error) {
	c := &cni.Coordination{
		Mode:               cmp.Or(spec.Mode, "auto"),
		PodMACPrefix:       spec.PodMACPrefix,
		TunePodRoutes:      spec.TunePodRoutes,
		PodDefaultRouteNIC: spec.PodDefaultRouteNIC,
		HostRuleTable:      spec.HostRuleTable,
		PodRPFilter:        spec.PodRPFilter,
		TxQueueLen:         spec.TxQueueLen,
		VethMTU:            spec.VethMTU,
	}
	var err error
	if c.HijackCIDR, err = prefixes("spec.hijackCIDR", spec.HijackCIDR); err != nil {
		return nil, err
	}
	if spec.VethLinkAddress != "" {
		if c.VethLinkAddress, err = address("spec.vethLinkAddress", spec.VethLinkAddress); err != nil {
			return nil, err
		}
	}
	for i, r := range spec.PolicyRoutes {
		route, err := policyRoute(fmt.Sprintf("spec.policyRoutes[%d]", i), r)
		if err != nil {
			return nil, err
		}
		c.PolicyRoutes = append(c.PolicyRoutes, route)
	}
	return c, nil
}

func policyRoute(field string, r v2beta1.PolicyRoute) (route cni.PolicyRoute, err error) {
	if route.Destination, err = prefix(field+".dst", r.Dst); err != nil {
		return route, err
	}
	if route.Gateway, err = address(field+".gw", r.Gw); err != nil {
		return route, err
	}
	if route.Gateway.Is4() != route.Destination.Addr().Is4() {
		return route, fmt.Errorf("%s leads to %s through %s: both must be IPv4 or both IPv6", field, r.Dst, r.Gw)
	}
	return route, nil
}

func prefixes(field string, texts []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for i, text := range texts {
		p, err := prefix(fmt.Sprintf("%s[%d]", field, i), text)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// prefix returns a network, or the network of one address.
func prefix(field, text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" && !addr.Is4In6() {
		return addr.Prefix(addr.BitLen())
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return p, fmt.Errorf("%s is %q: want an address or a network, like 10.6.0.0/16", field, text)
	}
	return p.Masked(), nil
}

func address(field, text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" || addr.Is4In6() {
		return addr, fmt.Errorf("%s is %q: want an address, like 10.6.0.2", field, text)
	}
	return addr, nil
}
