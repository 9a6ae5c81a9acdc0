package selection

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPoolListIsReadByInterface(t *testing.T) {
	const (
		byName  = `[{"interface":"net1","ipv4":["b"],"cleangateway":true},{"interface":"eth0","ipv4":["a"],"ipv6":["a6"]}]`
		byPlace = `[{"ipv4":["a"],"ipv6":["a6"]},{"ipv4":["b"],"cleangateway":true}]`
	)
	for _, list := range []string{byName, byPlace} {
		in := newInput(t)
		in.Pod.Annotations[PoolListAnnotation] = list
		if s := checkNames(t, in, "a/a6"); s.CleanGateway {
			t.Error("eth0 has no default route")
		}
		in.Interface = "net1"
		if s := checkNames(t, in, "b/"); !s.CleanGateway {
			t.Error("net1 has a default route")
		}
	}
	in := newInput(t)
	in.Pod.Annotations[PoolListAnnotation] = byPlace
	in.Pod.Annotations[networksAnnotation] = "macvlan@lan"
	in.Interface = "lan"
	checkNames(t, in, "b/")
}

// TestWrongInputTellsWhereWhatAndHow is the list of what users get wrong.
func TestWrongInputTellsWhereWhatAndHow(t *testing.T) {
	for name, test := range map[string]struct {
		key, value string
		ifname     string
		want       []string
	}{
		"no JSON":                   {PoolAnnotation, `{ipv4:["a"]}`, "eth0", []string{"invalid format: invalid character 'i'", `want JSON like {"ipv4":["POOL"]}`}},
		"empty":                     {PoolAnnotation, ``, "eth0", []string{"invalid format: unexpected end"}},
		"a string for a list":       {PoolAnnotation, `{"ipv4":"a"}`, "eth0", []string{"invalid format: unexpected string for ipv4"}},
		"a list for an object":      {PoolAnnotation, `["a"]`, "eth0", []string{"invalid format: unexpected array"}},
		"no pool":                   {PoolAnnotation, `{}`, "eth0", []string{"it names no pool"}},
		"null":                      {PoolAnnotation, `null`, "eth0", []string{"it names no pool"}},
		"misspelt key":              {PoolAnnotation, `{"ip4":["a"]}`, "eth0", []string{"it names no pool"}},
		"pool that is not there":    {PoolAnnotation, `{"ipv4":["a","nope"]}`, "eth0", []string{`the IPv4 pool "nope", which does not exist: create`}},
		"pool twice":                {PoolAnnotation, `{"ipv4":["a","a"]}`, "eth0", []string{`the IPv4 pool "a" twice`}},
		"wildcard without pool":     {PoolAnnotation, `{"ipv6":["b*"]}`, "eth0", []string{`no IPv6 pool has a name like "b*"`}},
		"wildcard that is none":     {PoolAnnotation, `{"ipv4":["[a"]}`, "eth0", []string{`"[a" is no pattern`}},
		"list: no JSON":             {PoolListAnnotation, `[`, "eth0", []string{"invalid format"}},
		"list: object":              {PoolListAnnotation, `{"ipv4":["a"]}`, "eth0", []string{"invalid format"}},
		"list: empty":               {PoolListAnnotation, `[]`, "eth0", []string{"the list is empty"}},
		"list: no pool":             {PoolListAnnotation, `[{"interface":"eth0"}]`, "eth0", []string{"it names no pool"}},
		"list: interface twice":     {PoolListAnnotation, `[{"interface":"eth0","ipv4":["a"]},{"interface":"eth0","ipv4":["b"]}]`, "eth0", []string{`interface "eth0" is there twice`}},
		"list: some with interface": {PoolListAnnotation, `[{"interface":"eth0","ipv4":["a"]},{"ipv4":["b"]}]`, "eth0", []string{"name all interfaces or none"}},
		"list: none for this one":   {PoolListAnnotation, `[{"interface":"net1","ipv4":["a"]}]`, "eth0", []string{`no element is for interface "eth0"`}},
		"list: too short":           {PoolListAnnotation, `[{"ipv4":["a"]}]`, "net1", []string{`"net1" is the pod's number 2`}},
		"list: unknown place":       {PoolListAnnotation, `[{"ipv4":["a"]}]`, "lan", []string{`place of interface "lan" is not known`}},
		"subnet":                    {"ipam.spidernet.io/subnet", `{"ipv4":["s"]}`, "eth0", []string{"create a SpiderIPPool"}},
		"subnets":                   {"ipam.spidernet.io/subnets", `[]`, "eth0", []string{"create a SpiderIPPool"}},
		"pool with an endless name": {PoolAnnotation, `{"ipv4":["` + strings.Repeat("a", 1<<17) + `"]}`, "eth0", []string{`aaa"..., which does not exist: create`}},
		"pattern without an end":    {PoolAnnotation, `{"ipv4":["*` + strings.Repeat("a", 1<<17) + `"]}`, "eth0", []string{`aaa"...: create a SpiderIPPool`}},
		"routes: numbers":           {RoutesAnnotation, `[{"dst":1,"gw":2}]`, "eth0", []string{"unexpected number for dst"}},
		"routes: mapped dst":        {RoutesAnnotation, `[{"dst":"::ffff:10.7.0.0/112","gw":"fd00::1"}]`, "eth0", []string{`invalid format: dst of element 1`}},
		"routes: mapped gw":         {RoutesAnnotation, `[{"dst":"fd07::/64","gw":"::ffff:10.6.0.2"}]`, "eth0", []string{`invalid format: gw of element 1`}},
		"routes: no JSON":           {RoutesAnnotation, `x`, "eth0", []string{"invalid format"}},
		"routes: dst is an address": {RoutesAnnotation, `[{"dst":"10.7.0.1","gw":"10.6.0.2"}]`, "eth0", []string{`invalid format: dst of element 1 is "10.7.0.1"`}},
		"routes: gw is a network":   {RoutesAnnotation, `[{"dst":"10.7.0.0/16","gw":"10.6.0.0/16"}]`, "eth0", []string{`invalid format: gw of element 1`}},
		"routes: two versions":      {RoutesAnnotation, `[{"dst":"10.7.0.0/16","gw":"fd00::1"}]`, "eth0", []string{`invalid format`, `two IP versions`}},
		"routes: gw has a zone":     {RoutesAnnotation, `[{"dst":"fd07::/64","gw":"fe80::1%eth0"}]`, "eth0", []string{`gw of element 1`}},
	} {
		t.Run(name, func(t *testing.T) {
			in := newInput(t)
			in.Interface = test.ifname
			in.Pod.Annotations[test.key] = test.value
			_, err := Select(in)
			var wrong *InputError
			if !errors.As(err, &wrong) {
				t.Fatalf("the error is %v", err)
			}
			for _, want := range append(test.want, "wrong input: annotation "+test.key+" of the pod: ") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error is %q, want %q in it", err, want)
				}
			}
			if len(err.Error()) > 1024 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

func TestWrongInputOfANamespaceCountsWhereItIsAsked(t *testing.T) {
	in := newInput(t)
	in.Namespace.Annotations[NamespaceIPv6Annotation] = `"a6"`
	_, err := Select(in)
	if want := `wrong input: annotation ipam.spidernet.io/default-ipv6-ippool of namespace shop: invalid format: `; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("the error is %v", err)
	}
	in.Pod.Annotations[PoolAnnotation] = `{"ipv4":["a"]}`
	checkNames(t, in, "a/")
}

func TestNamespaceMayNameEachVersion(t *testing.T) {
	in := newInput(t)
	in.Namespace.Annotations[NamespaceIPv4Annotation] = `["b","a"]`
	in.Namespace.Annotations[NamespaceIPv6Annotation] = `["a6"]`
	s := checkNames(t, in, "b a/a6")
	if !strings.Contains(s.From, "namespace shop") {
		t.Errorf("it is from %q", s.From)
	}
}

func TestUnknownKeysAreFine(t *testing.T) {
	in := newInput(t)
	in.Pod.Annotations[PoolAnnotation] = "{      \n  \"ipv4\": [\"a\"], \"comment\": 1\n}"
	checkNames(t, in, "a/")
}

func TestRoutesAreThoseOfThePod(t *testing.T) {
	in := newInput(t)
	in.Pod.Annotations[PoolAnnotation] = `{"ipv4":["a"]}`
	in.Pod.Annotations[RoutesAnnotation] = `[{"dst":"10.7.0.9/16","gw":"10.6.0.2"},{"dst":"fd07::/64","gw":"fd00:6::1"}]`
	s := checkNames(t, in, "a/")
	want := []Route{
		{Destination: netip.MustParsePrefix("10.7.0.0/16"), Gateway: netip.MustParseAddr("10.6.0.2")},
		{Destination: netip.MustParsePrefix("fd07::/64"), Gateway: netip.MustParseAddr("fd00:6::1")},
	}
	if diff := cmp.Diff(want, s.Routes, cmp.Comparer(func(x, y netip.Addr) bool { return x == y }), cmp.Comparer(func(x, y netip.Prefix) bool { return x == y })); diff != "" {
		t.Error(diff)
	}
}

// FuzzAnnotations checks that whatever users write gives pools that they
// wrote, or an error that is for them.
func FuzzAnnotations(f *testing.F) {
	f.Add(`[{"ipv4":["a"],"ipv6":["a6"]}]`, `{"ipv4":["b"]}`, `[{"dst":"10.7.0.0/16","gw":"10.6.0.2"}]`, "macvlan@lan", "net1")
	f.Add(`[{"interface":"eth0","ipv4":["?"]}]`, ``, `[]`, `[{"name":"m"}]`, "eth0")
	f.Add(`null`, `{"ipv4":["[a-b]"],"ipv6":[""]}`, `[null]`, `,`, "net0")
	f.Fuzz(func(t *testing.T, list, one, routes, networks, ifname string) {
		in := newInput(t)
		in.Interface = ifname
		for key, value := range map[string]string{PoolListAnnotation: list, PoolAnnotation: one, RoutesAnnotation: routes, networksAnnotation: networks} {
			if value != "" {
				in.Pod.Annotations[key] = value
			}
		}
		s, err := Select(in)
		if err != nil {
			var wrong *InputError
			var refused *RefusedError
			if !errors.As(err, &wrong) && !errors.As(err, &refused) && !errors.Is(err, ErrNoRule) {
				t.Errorf("the error is %v", err)
			}
			return
		}
		for _, p := range s.IPv4 {
			if p.Spec.Family() != 4 {
				t.Errorf("pool %s is among those for IPv4", p.Name)
			}
		}
		for _, p := range s.IPv6 {
			if p.Spec.Family() != 6 {
				t.Errorf("pool %s is among those for IPv6", p.Name)
			}
		}
		if len(s.IPv4)+len(s.IPv6) == 0 {
			t.Error("no pool and no error")
		}
	})
}

func TestInterfacesOfAPodAreInTheirOrder(t *testing.T) {
	for text, want := range map[string][]string{
		"":                   {"eth0"},
		"a":                  {"eth0", "net1"},
		"a,ns/b@storage0, c": {"eth0", "net1", "storage0", "net3"},
		`{"name":"a"}`:       {"eth0", "net1"},
		`[{"name":"a","interface":"x"},{"name":"b"}]`: {"eth0", "x", "net2"},
		"[":                   nil,
		`[{"interface":"x"}]`: nil,
		"a,,b":                nil,
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{networksAnnotation: text}}}
		got, err := Interfaces(pod)
		if !slices.Equal(want, got) || (err == nil) != (want != nil) {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
}
