// Package selection finds the pools that an interface of a pod may take its
// addresses from. It is a function of objects: no clock, no requests, no
// state. When a user asks why a pod got an address of this pool and not of
// that, the answer is here.
//
// Who names pools is asked in this order, and the first that does decides;
// whether its pools then fit plays no part, so that a pod never gets an
// address from a network it did not ask for:
//
//  1. the pod's annotation ippools, a list by interface (annotation.go)
//  2. the pod's annotation ippool, for any interface
//  3. the namespace's annotations default-ipv4-ippool, default-ipv6-ippool
//  4. the network's configuration, default_ipv4_ippool, default_ipv6_ippool
//  5. the pools themselves, those with spec.default
//
// Names may have wildcards (path.Match). Each pool named is then looked at
// (fit.go): it must be there and not on its way out, of the right IP version,
// and for this node, namespace, pod, network and master. Those left are returned in
// the order they were named; default pools in the order of how closely they
// are bound to the pod, then by name.
package selection

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// Pools looks pools up. A name is looked up by itself, so that one selection
// among ten thousand pools does not read them all.
type Pools interface {
	// Get returns the pool of that name.
	Get(name string) (*v2beta1.SpiderIPPool, bool)
	// List returns all pools, in any order. It is asked for wildcards and for
	// default pools only.
	List() []*v2beta1.SpiderIPPool
}

// Input is everything a selection depends on. Nothing in it is changed.
type Input struct {
	Pod *corev1.Pod
	// Namespace is the pod's.
	Namespace *metav1.PartialObjectMetadata
	// Node is the pod's.
	Node *corev1.Node
	// Interface is CNI_IFNAME, the interface the addresses are for.
	Interface string
	Pools     Pools
	// DefaultIPv4 and DefaultIPv6 are what the network's configuration names.
	DefaultIPv4, DefaultIPv6 []string
	// EnableIPv4 and EnableIPv6 are the cluster's switches. What is named for
	// an IP version that is switched off is passed over.
	EnableIPv4, EnableIPv6 bool
	// ClusterNetwork is namespace/name of the Multus network of first
	// interfaces whose pod names none, and empty without one.
	ClusterNetwork string
	// Master is set if pools must be of one of its subnets.
	Master *Master
	// InstallNamespace is the namespace of names without one in the pools'
	// spec.multusName.
	InstallNamespace string
}

// Selection is the outcome: for each IP version the pools to try, the first
// first. A version without pools is one that nobody asked for.
type Selection struct {
	IPv4, IPv6 []*v2beta1.SpiderIPPool
	// CleanGateway is set if the pod wants no default route here.
	CleanGateway bool
	// Routes are all that the pod asks for. Each belongs to the first
	// interface whose subnet has its gateway.
	Routes []Route
	// Last is set if the pod names no network after this interface's.
	Last bool
	// From tells who named the pools, such as "annotation
	// ipam.spidernet.io/ippool of the pod".
	From string
	// Default is set if nobody named pools, for this pod or for its network.
	Default bool
	// Refused are the pools that were named and do not fit.
	Refused []Refusal
}

// Select returns the pools for an interface. Its errors are for the user and
// tell what to change: an [*InputError] where something is written wrong, a
// [*RefusedError] if no pool named fits, [ErrNoRule] if nobody names one.
func Select(in Input) (Selection, error) {
	routes, err := parseRoutes(in.Pod.Annotations)
	if err != nil {
		return Selection{}, err
	}
	named, err := in.whoNames()
	if err != nil {
		return Selection{}, err
	}
	s := Selection{CleanGateway: named.cleanGateway, Routes: routes, From: named.from, Default: named.byDefault, Last: in.last()}
	if s.IPv4, err = in.choose(&s, 4, named.ipv4); err != nil {
		return Selection{}, err
	}
	if s.IPv6, err = in.choose(&s, 6, named.ipv6); err != nil {
		return Selection{}, err
	}
	if len(s.IPv4)+len(s.IPv6) == 0 {
		return Selection{}, &InputError{Where: s.From, Reason: "it names pools only of the IP version that is switched off in this cluster (ipam.enableIPv4, ipam.enableIPv6)"}
	}
	return s, nil
}

// names is what one of the five says.
type names struct {
	from         string
	ipv4, ipv6   []string
	cleanGateway bool
	byDefault    bool
}

// whoNames asks the five in their order and returns what the first says that
// says anything.
func (in *Input) whoNames() (names, error) {
	for _, ask := range []func() (names, error){in.podList, in.podAnnotation, in.namespaceAnnotations, in.network, in.defaults} {
		said, err := ask()
		if err != nil {
			return names{}, err
		}
		if len(said.ipv4)+len(said.ipv6) > 0 {
			return said, nil
		}
	}
	return names{}, ErrNoRule
}

// network returns what the network's configuration names.
func (in *Input) network() (names, error) {
	return names{
		from: "default_ipv4_ippool, default_ipv6_ippool of the network's configuration",
		ipv4: in.DefaultIPv4, ipv6: in.DefaultIPv6,
	}, nil
}

// defaults returns the default pools that can be used at all, those bound
// closest to the pod first.
func (in *Input) defaults() (names, error) {
	var pools []*v2beta1.SpiderIPPool
	for _, pool := range in.Pools.List() {
		if pool.Spec.Default && in.enabled(pool.Spec.Family()) {
			pools = append(pools, pool)
		}
	}
	slices.SortFunc(pools, func(x, y *v2beta1.SpiderIPPool) int {
		if c := slices.Compare(ties(y), ties(x)); c != 0 {
			return c
		}
		return strings.Compare(x.Name, y.Name)
	})
	said := names{from: "spec.default of the pools", byDefault: true}
	for _, pool := range pools {
		if pool.Spec.Family() == 4 {
			said.ipv4 = append(said.ipv4, pool.Name)
		} else {
			said.ipv6 = append(said.ipv6, pool.Name)
		}
	}
	return said, nil
}

// ties tells what a pool is bound to, the closest first, 1 for bound.
func ties(pool *v2beta1.SpiderIPPool) []int {
	s := &pool.Spec
	var ties []int
	for _, bound := range []bool{
		s.PodAffinity != nil,
		len(s.NodeName) > 0, s.NodeAffinity != nil,
		len(s.NamespaceName) > 0, s.NamespaceAffinity != nil,
		len(s.MultusName) > 0,
	} {
		if bound {
			ties = append(ties, 1)
		} else {
			ties = append(ties, 0)
		}
	}
	return ties
}

func (in *Input) enabled(version int64) bool {
	return version == 4 && in.EnableIPv4 || version == 6 && in.EnableIPv6
}

// choose returns those pools of one IP version, of those named, that fit. It
// adds the others to s.Refused. An IP version that nobody named, or that is
// switched off, has none and needs none.
func (in *Input) choose(s *Selection, version int64, named []string) ([]*v2beta1.SpiderIPPool, error) {
	if len(named) == 0 || !in.enabled(version) {
		return nil, nil
	}
	candidates, err := in.resolve(s.From, version, named)
	if err != nil {
		return nil, err
	}
	var fitting []*v2beta1.SpiderIPPool
	var refused []Refusal
	for _, pool := range candidates {
		if reason := in.unfit(pool, version); reason != "" {
			refused = append(refused, Refusal{Pool: pool.Name, Reason: reason})
			continue
		}
		fitting = append(fitting, pool)
	}
	if len(fitting) == 0 {
		return nil, &RefusedError{Version: version, From: s.From, Refused: refused}
	}
	s.Refused = append(s.Refused, refused...)
	return fitting, nil
}

// resolve returns the pools of the names in their order. A wildcard stands for
// the pools of the IP version that match, by name; those it repeats count
// once. A name twice, or without a pool, is a mistake.
func (in *Input) resolve(from string, version int64, named []string) ([]*v2beta1.SpiderIPPool, error) {
	var pools []*v2beta1.SpiderIPPool
	written := map[string]bool{}
	taken := map[string]bool{}
	take := func(pool *v2beta1.SpiderIPPool) {
		if !taken[pool.Name] {
			taken[pool.Name] = true
			pools = append(pools, pool)
		}
	}
	for _, name := range named {
		if written[name] {
			return nil, &InputError{Where: from, Reason: fmt.Sprintf("it names the IPv%d pool %s twice: name it once", version, quoted(name))}
		}
		written[name] = true
		if isPattern(name) {
			matches, err := in.match(from, version, name)
			if err != nil {
				return nil, err
			}
			for _, pool := range matches {
				take(pool)
			}
			continue
		}
		pool, ok := in.Pools.Get(name)
		if !ok {
			return nil, &InputError{Where: from, Reason: fmt.Sprintf("it names the IPv%d pool %s, which does not exist: create the SpiderIPPool or correct the name", version, quoted(name))}
		}
		take(pool)
	}
	return pools, nil
}
