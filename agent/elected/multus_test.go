package elected_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	nadv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

const (
	multusConfigs = "/apis/spiderpool.spidernet.io/v2beta1/namespaces/%s/spidermultusconfigs"
	definitions   = "/apis/k8s.cni.cncf.io/v1/namespaces/%s/network-attachment-definitions"
)

// networks are SpiderMultusConfigs and what is rendered from them, as a user
// sees both.
type networks struct {
	*server
	raw rest.Interface
}

// TestNetworksOnAnAPIServer applies SpiderMultusConfigs as users do.
func TestNetworksOnAnAPIServer(t *testing.T) {
	s := newServer(t)
	apitest.InstallNetworks(t, s.rest)
	s.contend(t, "only")
	n := &networks{server: s, raw: s.kube.Discovery().RESTClient()}
	for _, test := range []struct {
		name string
		run  func(*testing.T, *networks)
	}{
		{"EveryNetworkIsRenderedByteForByte", goldenNetworks},
		{"EditedDefinitionIsRepaired", repairedNetwork},
		{"DeletedDefinitionComesBack", deletedDefinition},
		{"UnownedDefinitionIsTakenOver", adoptedDefinition},
		{"DefinitionOfAnotherControllerIsLeftAlone", foreignDefinition},
		{"RenamedNetworkLeavesNothingBehind", renamedNetwork},
		{"SecondForANameWaitsForIt", rivalNetworks},
		{"SuccessorOfADeletedConfigTakesOver", successorNetwork},
		{"WrongNetworkKeepsWhatWasRenderedAndSaysSoOnce", wrongNetwork},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, n) })
	}
}

func (n *networks) namespace(t *testing.T, name string) string {
	t.Helper()
	must[*corev1.Namespace](t)(n.kube.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}))
	return name
}

// apply applies a SpiderMultusConfig in YAML, and fails on fields that nobody
// knows.
func (n *networks) apply(t *testing.T, manifest []byte) *v2beta1.SpiderMultusConfig {
	t.Helper()
	var smc v2beta1.SpiderMultusConfig
	if err := yaml.Unmarshal(manifest, &smc); err != nil {
		t.Fatal(err)
	}
	body := must[[]byte](t)(yaml.YAMLToJSON(manifest))
	answer, err := n.raw.Patch("application/apply-patch+yaml").AbsPath(fmt.Sprintf(multusConfigs, smc.Namespace), smc.Name).
		Param("fieldManager", "kubectl").Param("force", "true").Param("fieldValidation", "Strict").Body(body).DoRaw(t.Context())
	if err != nil {
		t.Fatalf("apply %s: %v: %s", smc.Name, err, answer)
	}
	if err := json.Unmarshal(answer, &smc); err != nil {
		t.Fatal(err)
	}
	return &smc
}

// macvlan applies a network with a name, in a namespace, on a master.
func (n *networks) macvlan(t *testing.T, namespace, name, master string, annotations map[string]string) *v2beta1.SpiderMultusConfig {
	t.Helper()
	smc := map[string]any{
		"apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderMultusConfig",
		"metadata": map[string]any{"namespace": namespace, "name": name, "annotations": annotations},
		"spec":     map[string]any{"cniType": "macvlan", "enableCoordinator": false, "macvlan": map[string]any{"master": []string{master}}},
	}
	return n.apply(t, must[[]byte](t)(yaml.Marshal(smc)))
}

// macvlanConfig is what such a network is rendered into.
func macvlanConfig(name, master string) string {
	return `{"cniVersion":"0.3.1","name":"` + name + `","plugins":[{"type":"macvlan","master":"` + master + `","mode":"bridge","mtu":0,"ipam":{"type":"spiderpool"}}]}`
}

func (n *networks) nad(t *testing.T, namespace, name string) (*nadv1.NetworkAttachmentDefinition, error) {
	t.Helper()
	raw, err := n.raw.Get().AbsPath(fmt.Sprintf(definitions, namespace), name).DoRaw(t.Context())
	if err != nil {
		return nil, err
	}
	var nad nadv1.NetworkAttachmentDefinition
	if err := json.Unmarshal(raw, &nad); err != nil {
		t.Fatal(err)
	}
	return &nad, nil
}

// rendered returns a problem unless the definition is that of smc, with the
// annotations and the config, and nothing else.
func (n *networks) rendered(t *testing.T, smc *v2beta1.SpiderMultusConfig, name string, annotations map[string]string, config string) string {
	t.Helper()
	nad, err := n.nad(t, smc.Namespace, name)
	if err != nil {
		return err.Error()
	}
	controls := true
	want := []metav1.OwnerReference{{
		APIVersion: "spiderpool.spidernet.io/v2beta1", Kind: "SpiderMultusConfig", Name: smc.Name, UID: smc.UID,
		Controller: &controls, BlockOwnerDeletion: &controls,
	}}
	if nad.Spec.Config != config {
		return fmt.Sprintf("the config of %s is\n%s\nwant\n%s", name, nad.Spec.Config, config)
	}
	if len(annotations)+len(nad.Annotations) > 0 && !maps.Equal(annotations, nad.Annotations) {
		return "annotations (-want +got):\n" + cmp.Diff(annotations, nad.Annotations)
	}
	return cmp.Diff(want, nad.OwnerReferences)
}

// gone returns a problem unless there is no such definition.
func (n *networks) gone(t *testing.T, namespace, name string) string {
	t.Helper()
	if _, err := n.nad(t, namespace, name); !apierrors.IsNotFound(err) {
		return fmt.Sprintf("NetworkAttachmentDefinition %s is there (%v), want it gone", name, err)
	}
	return ""
}

func goldenNetworks(t *testing.T, n *networks) {
	files := must[[]string](t)(filepath.Glob("testdata/nad/*.nad.yaml"))
	if len(files) < 30 {
		t.Fatalf("only %d cases", len(files))
	}
	for _, file := range files {
		manifest := strings.TrimSuffix(file, ".nad.yaml") + ".yaml"
		t.Run(strings.TrimSuffix(filepath.Base(manifest), ".yaml"), func(t *testing.T) {
			var want struct {
				Name        string
				Annotations map[string]string
				Config      string
			}
			if err := yaml.UnmarshalStrict(must[[]byte](t)(os.ReadFile(file)), &want); err != nil {
				t.Fatal(err)
			}
			smc := n.apply(t, must[[]byte](t)(os.ReadFile(manifest)))
			eventually(t, func() string { return n.rendered(t, smc, want.Name, want.Annotations, want.Config) })
		})
	}
}

func (n *networks) patch(t *testing.T, namespace, name, patch string) {
	t.Helper()
	if err := n.raw.Patch("application/merge-patch+json").AbsPath(fmt.Sprintf(definitions, namespace), name).Body([]byte(patch)).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
}

func repairedNetwork(t *testing.T, n *networks) {
	ns := n.namespace(t, "repair")
	annotations := map[string]string{"team": "net"}
	smc := n.macvlan(t, ns, "lan", "ens192", annotations)
	right := func() string { return n.rendered(t, smc, "lan", annotations, macvlanConfig("lan", "ens192")) }
	eventually(t, right)
	for _, edit := range []string{
		`{"spec":{"config":"{}"}}`,
		`{"spec":null}`,
		`{"metadata":{"annotations":{"team":"other"}}}`,
		`{"metadata":{"annotations":{"further":"one"}}}`,
		`{"metadata":{"annotations":null}}`,
		`{"metadata":{"ownerReferences":null}}`,
		`{"metadata":{"ownerReferences":null,"annotations":null},"spec":{"config":""}}`,
	} {
		n.patch(t, ns, "lan", edit)
		eventually(t, func() string {
			if problem := right(); problem != "" {
				return "after " + edit + ": " + problem
			}
			return ""
		})
	}
	n.patch(t, ns, "lan", `{"metadata":{"labels":{"mine":"yes"}}}`)
	n.patch(t, ns, "lan", `{"spec":{"config":"{}"}}`)
	eventually(t, right)
	if nad, err := n.nad(t, ns, "lan"); err != nil || nad.Labels["mine"] != "yes" {
		t.Errorf("labels, which nobody renders, are %v (%v)", nad.Labels, err)
	}
	annotations = map[string]string{"team": "storage"}
	smc = n.macvlan(t, ns, "lan", "ens193", annotations)
	eventually(t, func() string { return n.rendered(t, smc, "lan", annotations, macvlanConfig("lan", "ens193")) })
}

func deletedDefinition(t *testing.T, n *networks) {
	ns := n.namespace(t, "deleted")
	smc := n.macvlan(t, ns, "lan", "ens192", nil)
	right := func() string { return n.rendered(t, smc, "lan", nil, macvlanConfig("lan", "ens192")) }
	eventually(t, right)
	first := must[*nadv1.NetworkAttachmentDefinition](t)(n.nad(t, ns, "lan"))
	n.remove(t, fmt.Sprintf(definitions, ns), "lan")
	eventually(t, func() string {
		if nad, err := n.nad(t, ns, "lan"); err == nil && nad.UID == first.UID {
			return "it is the deleted one"
		}
		return right()
	})
}

func (n *networks) remove(t *testing.T, path, name string) {
	t.Helper()
	if err := n.raw.Delete().AbsPath(path, name).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
}

// put creates a definition that nobody rendered.
func (n *networks) put(t *testing.T, namespace, name, metadata string) {
	t.Helper()
	body := `{"apiVersion":"k8s.cni.cncf.io/v1","kind":"NetworkAttachmentDefinition","metadata":{"name":"` + name + `"` + metadata + `},"spec":{"config":"{\"type\":\"bridge\"}"}}`
	if err := n.raw.Post().AbsPath(fmt.Sprintf(definitions, namespace)).Body([]byte(body)).SetHeader("Content-Type", "application/json").Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
}

func adoptedDefinition(t *testing.T, n *networks) {
	ns := n.namespace(t, "adopted")
	n.put(t, ns, "lan", `,"annotations":{"old":"one"}`)
	smc := n.macvlan(t, ns, "lan", "ens192", map[string]string{"team": "net"})
	eventually(t, func() string {
		return n.rendered(t, smc, "lan", map[string]string{"team": "net"}, macvlanConfig("lan", "ens192"))
	})
}

// complaints returns the events of a SpiderMultusConfig.
func (n *networks) complaints(t *testing.T, namespace, name string) []corev1.Event {
	t.Helper()
	events := must[*corev1.EventList](t)(n.kube.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + name}))
	return events.Items
}

// told returns a problem unless the user of a SpiderMultusConfig is told all
// of it, in one event.
func (n *networks) told(t *testing.T, namespace, name string, words ...string) string {
	t.Helper()
	events := n.complaints(t, namespace, name)
	if len(events) != 1 {
		return fmt.Sprintf("%s has %d events, want one: %+v", name, len(events), events)
	}
	for _, word := range words {
		if !strings.Contains(events[0].Message, word) {
			return fmt.Sprintf("%s is told %q, want %q in it", name, events[0].Message, word)
		}
	}
	return ""
}

func foreignDefinition(t *testing.T, n *networks) {
	ns := n.namespace(t, "foreign")
	n.put(t, ns, "lan", `,"ownerReferences":[{"apiVersion":"example.org/v1","kind":"Fabric","name":"red","uid":"u-1","controller":true}]`)
	before := must[*nadv1.NetworkAttachmentDefinition](t)(n.nad(t, ns, "lan"))
	n.macvlan(t, ns, "lan", "ens192", nil)
	eventually(t, func() string {
		return n.told(t, ns, "lan", "NetworkAttachmentDefinition lan belongs to Fabric red", "multus.spidernet.io/cr-name")
	})
	if diff := cmp.Diff(before, must[*nadv1.NetworkAttachmentDefinition](t)(n.nad(t, ns, "lan"))); diff != "" {
		t.Errorf("it was changed:\n%s", diff)
	}
}

func renamedNetwork(t *testing.T, n *networks) {
	ns := n.namespace(t, "renamed")
	smc := n.macvlan(t, ns, "lan", "ens192", nil)
	eventually(t, func() string { return n.rendered(t, smc, "lan", nil, macvlanConfig("lan", "ens192")) })
	n.put(t, ns, "other", "") // nobody's, so nobody's to remove
	was := "lan"
	for _, is := range []string{"blue", "green"} {
		annotations := map[string]string{"multus.spidernet.io/cr-name": is}
		n.macvlan(t, ns, "lan", "ens192", annotations)
		eventually(t, func() string { return n.rendered(t, smc, is, annotations, macvlanConfig(is, "ens192")) })
		eventually(t, func() string { return n.gone(t, ns, was) })
		was = is
	}
	n.macvlan(t, ns, "lan", "ens192", nil)
	eventually(t, func() string { return n.rendered(t, smc, "lan", nil, macvlanConfig("lan", "ens192")) })
	eventually(t, func() string { return n.gone(t, ns, "green") })
	if nad, err := n.nad(t, ns, "other"); err != nil || nad.Spec.Config != `{"type":"bridge"}` {
		t.Errorf("another's definition is %+v (%v)", nad, err)
	}
}

func rivalNetworks(t *testing.T, n *networks) {
	ns := n.namespace(t, "rivals")
	first := n.macvlan(t, ns, "first", "ens192", nil)
	right := func() string { return n.rendered(t, first, "first", nil, macvlanConfig("first", "ens192")) }
	eventually(t, right)
	second := n.macvlan(t, ns, "second", "ens193", nil)
	eventually(t, func() string { return n.rendered(t, second, "second", nil, macvlanConfig("second", "ens193")) })

	wish := map[string]string{"multus.spidernet.io/cr-name": "first"}
	n.macvlan(t, ns, "second", "ens193", wish)
	eventually(t, func() string {
		return n.told(t, ns, "second", "NetworkAttachmentDefinition first is already rendered from SpiderMultusConfig first", "another name with the annotation multus.spidernet.io/cr-name")
	})
	if problem := right(); problem != "" {
		t.Error(problem)
	}
	if _, err := n.nad(t, ns, "second"); err != nil {
		t.Errorf("its pods have lost the definition it had: %v", err)
	}
	// The name becomes free: it comes to who waits for it.
	n.macvlan(t, ns, "first", "ens192", map[string]string{"multus.spidernet.io/cr-name": "elsewhere"})
	eventually(t, func() string { return n.rendered(t, second, "first", wish, macvlanConfig("first", "ens193")) })
	eventually(t, func() string { return n.gone(t, ns, "second") })
}

// A definition whose SpiderMultusConfig is gone would go with it. The garbage
// collector, which does that, is not part of an API server.
func successorNetwork(t *testing.T, n *networks) {
	ns := n.namespace(t, "successor")
	first := n.macvlan(t, ns, "lan", "ens192", nil)
	eventually(t, func() string { return n.rendered(t, first, "lan", nil, macvlanConfig("lan", "ens192")) })
	wish := map[string]string{"multus.spidernet.io/cr-name": "lan"}
	heir := n.macvlan(t, ns, "heir", "ens193", wish)
	eventually(t, func() string { return n.told(t, ns, "heir", "already rendered from SpiderMultusConfig lan") })
	n.remove(t, fmt.Sprintf(multusConfigs, ns), "lan")
	eventually(t, func() string { return n.rendered(t, heir, "lan", wish, macvlanConfig("lan", "ens193")) })
}

func wrongNetwork(t *testing.T, n *networks) {
	ns := n.namespace(t, "wrong")
	smc := n.macvlan(t, ns, "lan", "ens192", nil)
	right := func() string { return n.rendered(t, smc, "lan", nil, macvlanConfig("lan", "ens192")) }
	eventually(t, right)
	const tooLong = "enp130s0f0np0"
	wrong := func(mark string) {
		smc := must[*v2beta1.SpiderMultusConfig](t)(n.kinds.MultusConfigs(ns).Get(t.Context(), "lan", metav1.GetOptions{}))
		id := int32(100)
		smc.Spec.Macvlan.Master, smc.Spec.Macvlan.VlanID = []string{tooLong}, &id
		smc.Annotations = map[string]string{"mark": mark}
		must[*v2beta1.SpiderMultusConfig](t)(n.kinds.MultusConfigs(ns).Update(t.Context(), smc, metav1.UpdateOptions{}))
	}
	told := func() string {
		return n.told(t, ns, "lan", "spec.macvlan cannot be made on a node", tooLong+".100", "15", "give "+tooLong+" a name of 11 characters")
	}
	wrong("0")
	eventually(t, told)
	seen := n.complaints(t, ns, "lan")[0]
	tries := 0
	eventually(t, func() string { // wrong again and again, for as long as a timestamp takes to grow
		tries++
		wrong(fmt.Sprint(tries))
		if now := n.complaints(t, ns, "lan")[0]; now.Name != seen.Name || !seen.LastTimestamp.Before(&now.LastTimestamp) {
			return fmt.Sprintf("after %d more edits the event is %+v, was %+v", tries, now, seen)
		}
		return told()
	})
	if problem := right(); problem != "" {
		t.Error(problem)
	}
}
