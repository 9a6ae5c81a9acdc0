package selection

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// The annotations that a selection reads. Their values are JSON; keys that
// mean nothing here are passed over, as Spiderpool does.
const (
	// PoolListAnnotation of a pod names pools by interface:
	// [{"interface":"eth0","ipv4":["a"],"ipv6":["b"],"cleangateway":false}].
	// Without interface in any element, the first is for eth0, the second for
	// the pod's first further network, and so on.
	PoolListAnnotation = "ipam.spidernet.io/ippools"
	// PoolAnnotation of a pod names pools for whatever interface:
	// {"ipv4":["a"],"ipv6":["b"]}.
	PoolAnnotation = "ipam.spidernet.io/ippool"
	// RoutesAnnotation of a pod asks for routes:
	// [{"dst":"10.7.0.0/16","gw":"10.6.0.2"}].
	RoutesAnnotation = "ipam.spidernet.io/routes"
	// NamespaceIPv4Annotation and NamespaceIPv6Annotation of a namespace name
	// pools for its pods: ["a"].
	NamespaceIPv4Annotation = "ipam.spidernet.io/default-ipv4-ippool"
	NamespaceIPv6Annotation = "ipam.spidernet.io/default-ipv6-ippool"

	subnetAnnotation     = "ipam.spidernet.io/subnet"
	subnetListAnnotation = "ipam.spidernet.io/subnets"
)

// The values expected, for errors.
const (
	wantPoolList = `[{"interface":"eth0","ipv4":["POOL"]}]`
	wantPool     = `{"ipv4":["POOL"]}`
	wantNames    = `["POOL"]`
	wantRoutes   = `[{"dst":"10.7.0.0/16","gw":"10.6.0.2"}]`
)

// Route is a route that a pod asks for.
type Route struct {
	// Destination is a network, its host bits zero.
	Destination netip.Prefix
	// Gateway is of the same IP version.
	Gateway netip.Addr
}

func ofPod(key string) string { return "annotation " + key + " of the pod" }

// podAnnotation returns what the pod's annotation ippool names. One that is
// there must name something.
func (in *Input) podAnnotation() (names, error) {
	text, ok := in.Pod.Annotations[PoolAnnotation]
	if !ok {
		return names{}, nil
	}
	from := ofPod(PoolAnnotation)
	var value struct {
		IPv4 []string `json:"ipv4"`
		IPv6 []string `json:"ipv6"`
	}
	if err := decode(from, text, wantPool, &value); err != nil {
		return names{}, err
	}
	said := names{from: from, ipv4: value.IPv4, ipv6: value.IPv6}
	return said, said.validate(wantPool)
}

// interfacePools is an element of the annotation ippools.
type interfacePools struct {
	Interface    string   `json:"interface"`
	IPv4         []string `json:"ipv4"`
	IPv6         []string `json:"ipv6"`
	CleanGateway bool     `json:"cleangateway"`
}

// podList returns what the pod's annotation ippools names for the interface.
// One that is there must name something for every interface.
func (in *Input) podList() (names, error) {
	for _, key := range []string{subnetListAnnotation, subnetAnnotation} {
		if _, ok := in.Pod.Annotations[key]; ok {
			return names{}, &InputError{Where: ofPod(key), Reason: "pools are not made from subnets here: create a SpiderIPPool and name it in the annotation " + PoolAnnotation}
		}
	}
	text, ok := in.Pod.Annotations[PoolListAnnotation]
	if !ok {
		return names{}, nil
	}
	from := ofPod(PoolListAnnotation)
	var list []interfacePools
	if err := decode(from, text, wantPoolList, &list); err != nil {
		return names{}, err
	}
	element, reason := in.elementFor(list)
	if reason != "" {
		return names{}, &InputError{Where: from, Reason: reason}
	}
	said := names{from: from, ipv4: element.IPv4, ipv6: element.IPv6, cleanGateway: element.CleanGateway}
	return said, said.validate(wantPoolList)
}

// elementFor returns the element for the interface, or why there is none.
func (in *Input) elementFor(list []interfacePools) (element interfacePools, reason string) {
	seen := map[string]bool{}
	for _, e := range list {
		if e.Interface != "" && seen[e.Interface] {
			return element, fmt.Sprintf("interface %q is there twice: put its pools into one element", e.Interface)
		}
		seen[e.Interface] = true
		if e.Interface == in.Interface {
			element = e
		}
	}
	switch unnamed := seen[""]; {
	case len(list) == 0:
		return element, "the list is empty: want " + wantPoolList
	case unnamed && (len(seen) > 1):
		return element, "some elements have an interface and some have none: name all interfaces or none"
	case !unnamed && element.Interface == "":
		return element, fmt.Sprintf("no element is for interface %q: add one", in.Interface)
	case !unnamed:
		return element, ""
	}
	n, ok := in.place()
	if !ok {
		return element, fmt.Sprintf("the elements are without interface, and the place of interface %q is not known: name the interfaces", in.Interface)
	}
	if n >= len(list) {
		return element, fmt.Sprintf("it has %d elements, but interface %q is the pod's number %d: add an element for it", len(list), in.Interface, n+1)
	}
	return list[n], ""
}

// place returns which of the pod's interfaces this is: 0 for eth0, 1 for that
// of the first further network.
func (in *Input) place() (int, bool) {
	if in.Interface == firstInterface {
		return 0, true
	}
	if n, err := in.furtherNetworks(); err == nil {
		for i, network := range n {
			if network.Interface == in.Interface {
				return i + 1, true
			}
		}
	}
	digits, ok := strings.CutPrefix(in.Interface, furtherInterfaces)
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil && n > 0
}

// last reports whether no interface comes after this one.
func (in *Input) last() bool {
	n, ok := in.place()
	networks, err := in.furtherNetworks()
	return ok && err == nil && n >= len(networks)
}

// namespaceAnnotations returns what the namespace names.
func (in *Input) namespaceAnnotations() (names, error) {
	said := names{from: "annotation " + NamespaceIPv4Annotation + " or " + NamespaceIPv6Annotation + " of namespace " + in.Pod.Namespace}
	for key, list := range map[string]*[]string{NamespaceIPv4Annotation: &said.ipv4, NamespaceIPv6Annotation: &said.ipv6} {
		text, ok := in.Namespace.Annotations[key]
		if !ok {
			continue
		}
		if err := decode("annotation "+key+" of namespace "+in.Pod.Namespace, text, wantNames, list); err != nil {
			return names{}, err
		}
	}
	return said, nil
}

// validate refuses to name nothing.
func (n *names) validate(want string) error {
	if len(n.ipv4)+len(n.ipv6) == 0 {
		return &InputError{Where: n.from, Reason: "it names no pool: want " + want}
	}
	return nil
}

// parseRoutes returns the routes that a pod asks for.
func parseRoutes(annotations map[string]string) ([]Route, error) {
	text, ok := annotations[RoutesAnnotation]
	if !ok {
		return nil, nil
	}
	from := ofPod(RoutesAnnotation)
	var list []struct {
		Dst string `json:"dst"`
		Gw  string `json:"gw"`
	}
	if err := decode(from, text, wantRoutes, &list); err != nil {
		return nil, err
	}
	var routes []Route
	for i, r := range list {
		dst, err := netip.ParsePrefix(r.Dst)
		if err != nil || dst.Addr().Is4In6() {
			return nil, &InputError{Where: from, Reason: fmt.Sprintf("invalid format: dst of element %d is %q: want a network like 10.7.0.0/16", i+1, r.Dst)}
		}
		gw, err := netip.ParseAddr(r.Gw)
		if err != nil || gw.Zone() != "" || gw.Is4In6() {
			return nil, &InputError{Where: from, Reason: fmt.Sprintf("invalid format: gw of element %d is %q: want an address like 10.6.0.2", i+1, r.Gw)}
		}
		if dst.Addr().Is4() != gw.Is4() {
			return nil, &InputError{Where: from, Reason: fmt.Sprintf("invalid format: dst and gw of element %d (%s, %s) are of two IP versions", i+1, dst, gw)}
		}
		routes = append(routes, Route{Destination: dst.Masked(), Gateway: gw})
	}
	return routes, nil
}

// decode parses JSON and tells in the user's words what is wrong with it.
func decode(from, text, want string, into any) error {
	err := json.Unmarshal([]byte(text), into)
	if err == nil {
		return nil
	}
	return &InputError{Where: from, Reason: fmt.Sprintf("invalid format: %s: want JSON like %s", plain(err), want)}
}

// plain tells what is wrong with JSON without the names of types.
func plain(err error) string {
	wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
	switch {
	case !ok:
		return err.Error()
	case wrong.Field == "":
		return "unexpected " + wrong.Value
	}
	return "unexpected " + wrong.Value + " for " + wrong.Field
}
