package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
)

const (
	whereaboutsAPI = "/apis/whereabouts.cni.cncf.io/v1alpha1/namespaces/" + systemNamespace
	networksAPI    = "/apis/k8s.cni.cncf.io/v1/namespaces/" + systemNamespace + "/network-attachment-definitions"
	// slicePrefix is the size of a node's slice: sixteen fit a /16.
	slicePrefix = "/20"
)

// networkDefinition is enough of the NetworkAttachmentDefinition for the
// controller that cuts slices.
const networkDefinition = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: network-attachment-definitions.k8s.cni.cncf.io}
spec:
  group: k8s.cni.cncf.io
  scope: Namespaced
  names: {kind: NetworkAttachmentDefinition, plural: network-attachment-definitions, singular: network-attachment-definition}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

// whereabouts is Whereabouts with its Kubernetes datastore and its leader
// election as it comes, and with enable_overlapping_ranges off, which saves it
// two requests for each pod. Sliced, it also has node_slice_size, what its
// README recommends for speed ("Fast IPAM", experimental): a pool and a lock
// for each node, with a controller that cuts the slices. Then it cannot serve
// pods with as many addresses: a slice belongs to its node.
type whereabouts struct {
	sliced     bool
	lab        *lab
	offered    map[string]addresses
	kubeconfig string
	settings   string
	controller *apitest.Process
}

func (w *whereabouts) open(ctx context.Context, l *lab) error {
	w.lab, w.offered = l, map[string]addresses{}
	definitions, err := filepath.Glob(filepath.Join(l.program("whereabouts-crds"), "*.yaml"))
	if err != nil {
		return err
	}
	for _, file := range definitions {
		if err := w.define(ctx, file); err != nil {
			return err
		}
	}
	if w.kubeconfig, err = l.kubeconfig("plugin"); err != nil {
		return err
	}
	// The plugin insists on a file of settings.
	w.settings = filepath.Join(l.dir, "whereabouts.conf")
	settings := fmt.Sprintf(`{"datastore":"kubernetes","kubernetes":{"kubeconfig":%q},"log_level":"error"}`, w.kubeconfig)
	if err := os.WriteFile(w.settings, []byte(settings), 0o600); err != nil || !w.sliced {
		return err
	}
	return w.control(ctx)
}

// define installs one of Whereabouts' own kinds.
func (w *whereabouts) define(ctx context.Context, file string) error {
	manifest, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var d struct {
		Spec struct {
			Names struct {
				Plural string `json:"plural"`
			} `json:"names"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(manifest, &d); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return w.lab.install(ctx, manifest, whereaboutsAPI+"/"+d.Spec.Names.Plural)
}

// control starts the controller that gives each node a slice.
func (w *whereabouts) control(ctx context.Context) error {
	if err := w.lab.install(ctx, []byte(networkDefinition), networksAPI); err != nil {
		return err
	}
	kubeconfig, err := w.lab.kubeconfig("controller")
	if err != nil {
		return err
	}
	w.controller, err = apitest.Run(w.lab.dir, "/usr/bin/env",
		"WHEREABOUTS_NAMESPACE="+systemNamespace, w.lab.program("nodeslicecontroller"), "-kubeconfig="+kubeconfig)
	return err
}

func (w *whereabouts) offer(ctx context.Context, name string, r addresses) error {
	w.offered[name] = r
	if !w.sliced {
		return nil
	}
	network, err := w.network(name)
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{
		"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
		"metadata": map[string]string{"name": name}, "spec": map[string]string{"config": string(network)},
	})
	if err != nil {
		return err
	}
	client := w.lab.kube.CoreV1().RESTClient()
	if err := client.Post().AbsPath(networksAPI).SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Error(); err != nil {
		return fmt.Errorf("create network %s: %w", name, err)
	}
	return apitest.Await(ctx, readyLimit, "it has cut slices for "+name, func(ctx context.Context) error { return w.cut(ctx, name) })
}

// cut returns what lacks until every node has a slice.
func (w *whereabouts) cut(ctx context.Context, name string) error {
	var pool struct {
		Status struct {
			Allocations []struct {
				NodeName string `json:"nodeName"`
			} `json:"allocations"`
		} `json:"status"`
	}
	if err := w.get(ctx, "/nodeslicepools/"+name, &pool); err != nil {
		return err
	}
	nodes := 0
	for _, a := range pool.Status.Allocations {
		if a.NodeName != "" {
			nodes++
		}
	}
	if nodes != nodeCount {
		return fmt.Errorf("%d of %d nodes have a slice", nodes, nodeCount)
	}
	return nil
}

func (w *whereabouts) get(ctx context.Context, path string, into any) error {
	text, err := w.lab.kube.CoreV1().RESTClient().Get().AbsPath(whereaboutsAPI + path).DoRaw(ctx)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// network is the configuration for addresses that were offered.
func (w *whereabouts) network(name string) ([]byte, error) {
	r := w.offered[name]
	ipam := map[string]any{
		"type": "whereabouts", "configuration_path": w.settings, "range": r.subnet.String(),
		"enable_overlapping_ranges": false,
		"kubernetes":                map[string]string{"kubeconfig": w.kubeconfig},
	}
	if w.sliced {
		ipam["node_slice_size"] = slicePrefix
	} else {
		ipam["range_start"], ipam["range_end"] = r.first.String(), r.last.String()
	}
	return json.Marshal(map[string]any{"cniVersion": "1.0.0", "name": name, "type": "macvlan", "ipam": ipam})
}

func (w *whereabouts) plugin(node int, name string) (call, error) {
	network, err := w.network(name)
	return call{
		program: w.lab.program("whereabouts"), env: []string{"NODENAME=" + nodeName(node)}, network: network,
	}, err
}

// traffic is what the API server's audit log tells. The plugin waits for all
// that it asks, the pod for the plugin.
func (w *whereabouts) traffic(context.Context) (tally, error) {
	if err := w.lab.audit.read(); err != nil {
		return nil, err
	}
	all := tally{}
	for user, made := range w.lab.audit.users {
		class := waited
		if user == "controller" {
			class = background
		}
		for r, n := range made {
			all[request{Class: class, Verb: r.Verb, Resource: r.Resource}] += n
		}
	}
	return all, nil
}

// held counts the pods that a pool names.
func (w *whereabouts) held(ctx context.Context, pods []*pod) (int, error) {
	var pools struct {
		Items []struct {
			Spec struct {
				Allocations map[string]struct {
					ID string `json:"id"`
				} `json:"allocations"`
			} `json:"spec"`
		} `json:"items"`
	}
	if err := w.get(ctx, "/ippools", &pools); err != nil {
		return 0, err
	}
	containers := map[string]bool{}
	for _, pool := range pools.Items {
		for _, a := range pool.Spec.Allocations {
			containers[a.ID] = true
		}
	}
	n := 0
	for _, p := range pods {
		if containers[p.container] {
			n++
		}
	}
	return n, nil
}

func (w *whereabouts) processes() []int {
	if w.controller == nil {
		return nil
	}
	return []int{w.controller.PID()}
}

func (w *whereabouts) close() {
	if w.controller != nil {
		w.controller.Kill()
	}
}
