package apitest

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

const definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

// definition is what this package reads of a CustomResourceDefinition.
type definition struct {
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		Group string `json:"group"`
		Names struct {
			Plural string `json:"plural"`
		} `json:"names"`
		Versions []struct {
			Name string `json:"name"`
		} `json:"versions"`
	} `json:"spec"`
	Status struct {
		Conditions []struct {
			Type    string `json:"type"`
			Status  string `json:"status"`
			Message string `json:"message"`
		} `json:"conditions"`
	} `json:"status"`
}

// InstallKind creates a CustomResourceDefinition, given as YAML, and waits
// until the API server serves it.
func InstallKind(t testing.TB, config *rest.Config, manifest []byte) {
	t.Helper()
	if err := installKind(t.Context(), config, manifest); err != nil {
		t.Fatal(err)
	}
}

// networks is the kind of Multus' networks, as far as an API server has to know
// it.
const networks = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: network-attachment-definitions.k8s.cni.cncf.io}
spec:
  group: k8s.cni.cncf.io
  scope: Namespaced
  names: {plural: network-attachment-definitions, singular: network-attachment-definition, kind: NetworkAttachmentDefinition}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {config: {type: string}}}}}}
`

// InstallNetworks has the API server serve NetworkAttachmentDefinition.
func InstallNetworks(t testing.TB, config *rest.Config) {
	t.Helper()
	InstallKind(t, config, []byte(networks))
}

func installKind(ctx context.Context, config *rest.Config, manifest []byte) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	client, err := rest.UnversionedRESTClientFor(unversioned(config))
	if err != nil {
		return err
	}
	var d definition
	body, err := yaml.YAMLToJSON(manifest)
	if err == nil {
		err = json.Unmarshal(body, &d)
	}
	if err != nil {
		return fmt.Errorf("read a definition: %w", err)
	}
	err = client.Post().AbsPath(definitions).SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Error()
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("install %s: %w", d.Metadata.Name, err)
	}
	for {
		if err = served(ctx, client, d); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("install %s: %w", d.Metadata.Name, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// served returns nil when the definition is established and the objects of
// each of its versions can be listed.
func served(ctx context.Context, client rest.Interface, d definition) error {
	raw, err := client.Get().AbsPath(definitions, d.Metadata.Name).DoRaw(ctx)
	if err != nil {
		return err
	}
	var now definition
	if err := json.Unmarshal(raw, &now); err != nil {
		return err
	}
	established := false
	for _, c := range now.Status.Conditions {
		established = established || c.Type == "Established" && c.Status == "True"
	}
	if !established {
		return fmt.Errorf("not established: %v", now.Status.Conditions)
	}
	for _, v := range d.Spec.Versions {
		path := []string{"/apis", d.Spec.Group, v.Name, d.Spec.Names.Plural}
		if err := client.Get().AbsPath(path...).MaxRetries(0).Do(ctx).Error(); err != nil {
			return err
		}
	}
	return nil
}

// unversioned returns the config for requests to absolute paths.
func unversioned(config *rest.Config) *rest.Config {
	c := rest.CopyConfig(config)
	c.GroupVersion = &schema.GroupVersion{}
	c.NegotiatedSerializer = serializer.NewCodecFactory(runtime.NewScheme()).WithoutConversion()
	return c
}
