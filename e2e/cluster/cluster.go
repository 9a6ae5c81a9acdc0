// Package cluster reaches the kind cluster that demo and scenarios run on:
// its API server through typed clients, its nodes through docker, and its
// users' commands through kubectl and helm.
package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/holdfast-ipam/holdfast/crds"
)

// Cluster is a running kind cluster. It is safe for concurrent use.
type Cluster struct {
	// Kube and CRDs are clients without a rate limit.
	Kube *kubernetes.Clientset
	CRDs *crds.Clients

	name       string // as kind knows it
	root       string
	kubeconfig string
}

// Open returns the cluster that `make kind-up` made, with the same settings
// KIND_CLUSTER and KUBECONFIG. It is called from inside the repository.
func Open() (*Cluster, error) {
	root, err := findRoot()
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		name:       cmp.Or(os.Getenv("KIND_CLUSTER"), "holdfast"),
		root:       root,
		kubeconfig: cmp.Or(os.Getenv("KUBECONFIG"), filepath.Join(root, "build", "kind", "kubeconfig")),
	}
	if _, err := os.Stat(c.kubeconfig); err != nil {
		return nil, fmt.Errorf("there is no cluster, start it with `make kind-up`: %w", err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", c.kubeconfig, err)
	}
	return c, c.connect(config)
}

func (c *Cluster) connect(config *rest.Config) error {
	config.QPS = -1 // the server's priority and fairness is the limit
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return fmt.Errorf("make a client for %s: %w", config.Host, err)
	}
	if c.Kube, err = kubernetes.NewForConfigAndClient(config, client); err != nil {
		return fmt.Errorf("make a client for %s: %w", config.Host, err)
	}
	c.CRDs, err = crds.NewClients(config, client)
	return err
}

// findRoot walks up to the directory that holds the chart.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "e2e", "values.yaml")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("not inside of the repository: run this from its root")
		}
	}
}

// Command returns a command that runs in the repository's root with the tools
// of `make kind-up` first in PATH and the cluster in KUBECONFIG.
func (c *Cluster) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	bin := filepath.Join(c.root, "build", "bin")
	path := bin + string(filepath.ListSeparator) + os.Getenv("PATH")
	if own := filepath.Join(bin, name); exists(own) {
		name = own
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = c.root
	cmd.Env = append(os.Environ(), "PATH="+path, "KUBECONFIG="+c.kubeconfig)
	return cmd
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Kubectl runs kubectl with stdin and returns what it prints. The error
// carries what it prints on stderr.
func (c *Cluster) Kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	return run(c.Command(ctx, "kubectl", args...), stdin)
}

// Helm runs helm and returns what it prints.
func (c *Cluster) Helm(ctx context.Context, args ...string) (string, error) {
	return run(c.Command(ctx, "helm", args...), "")
}

// OnNode runs a shell script on a node and returns what it prints.
func (c *Cluster) OnNode(ctx context.Context, node, script string) (string, error) {
	return run(exec.CommandContext(ctx, "docker", "exec", "-i", node, "bash", "-euo", "pipefail", "-s"), script)
}

func run(cmd *exec.Cmd, stdin string) (string, error) {
	var out, complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
}
