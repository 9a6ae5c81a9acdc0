package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/crds"
)

const (
	// nodeCount is how many nodes there are.
	nodeCount = 10
	// namespace is that of the pods, systemNamespace that of the systems.
	namespace       = "default"
	systemNamespace = "kube-system"
	ifname          = "eth0"
	// readyLimit is how long something may take to become ready.
	readyLimit = time.Minute
)

// lab is where one system is measured once: directories, network namespaces,
// and a cluster without kubelets, if the system knows clusters.
type lab struct {
	bin, dir  string
	sandboxes []sandbox
	// mounted is set while there is a file system at memory.
	mounted bool
	// server, kube, kinds and audit are nil without a cluster.
	server *apitest.Server
	kube   *kubernetes.Clientset
	kinds  *crds.Clients
	audit  *auditLog
}

// newLab makes a lab in dir, which must be short: a socket's path has at most
// 107 bytes.
func newLab(ctx context.Context, o *options, dir string, sandboxes int, clustered bool) (*lab, error) {
	l := &lab{bin: o.bin, dir: dir}
	err := os.MkdirAll(l.memory(), 0o700)
	if err == nil {
		l.sandboxes, err = newSandboxes(sandboxes)
	}
	if err == nil && clustered {
		// An API server's disk is not the nodes': what etcd and the audit log
		// write must not slow down the syncs of a journal. To the good of
		// those who wait for more requests, etcd waits for no disk.
		err = unix.Mount("tmpfs", l.memory(), "tmpfs", 0, "")
	}
	if err == nil && clustered {
		l.mounted = true
		err = l.serve(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

// memory is the directory of the API server's files.
func (l *lab) memory() string { return filepath.Join(l.dir, "server") }

// serve starts the API server and creates the nodes.
func (l *lab) serve(ctx context.Context) error {
	policy := filepath.Join(l.memory(), "audit.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return err
	}
	l.audit = &auditLog{path: filepath.Join(l.memory(), "audit.log"), users: map[string]tally{}}
	var err error
	l.server, err = apitest.OpenWith(ctx, l.memory(), apitest.Options{Arguments: []string{
		"--audit-policy-file=" + policy, "--audit-log-path=" + l.audit.path, "--audit-log-maxsize=10000",
	}})
	if err != nil {
		return err
	}
	if l.kube, l.kinds, err = l.server.Clients(); err != nil {
		return err
	}
	for i := range nodeCount {
		node := &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: nodeName(i)},
			Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
		}
		if _, err := l.kube.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create a node: %w", err)
		}
	}
	return nil
}

func nodeName(i int) string { return fmt.Sprintf("node-%d", i) }

// close ends what the lab has started.
func (l *lab) close() error {
	if l.server != nil {
		l.server.Close()
	}
	err := removeSandboxes(l.sandboxes)
	if l.mounted {
		err = errors.Join(err, unix.Unmount(l.memory(), unix.MNT_DETACH))
	}
	return err
}

func (l *lab) program(name string) string { return filepath.Join(l.bin, name) }

// kubeconfig writes a file with which a program is a user of its own, so that
// the audit log tells who asked. It may do everything: what permissions cost
// is the same for all.
func (l *lab) kubeconfig(user string) (path string, err error) {
	path = filepath.Join(l.dir, user+".kubeconfig")
	return path, apitest.WriteKubeconfig(l.server.Config(), path, systemNamespace,
		rest.ImpersonationConfig{UserName: userPrefix + user, Groups: []string{"system:masters"}})
}

// install creates a CustomResourceDefinition, given as YAML, and waits until
// its objects can be listed at path.
func (l *lab) install(ctx context.Context, manifest []byte, path string) error {
	body, err := yaml.YAMLToJSON(manifest)
	if err != nil {
		return err
	}
	client := l.kube.CoreV1().RESTClient()
	err = client.Post().AbsPath("/apis/apiextensions.k8s.io/v1/customresourcedefinitions").
		SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Error()
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("install the definition of %s: %w", path, err)
	}
	return apitest.Await(ctx, readyLimit, "it serves "+path, func(ctx context.Context) error {
		return client.Get().AbsPath(path).Do(ctx).Error()
	})
}
