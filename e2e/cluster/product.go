package cluster

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/cni"
)

// The release under test and where it is.
const (
	Release   = "holdfast"
	Namespace = "kube-system"

	agents         = "daemonset/holdfast"
	agentSelector  = "app.kubernetes.io/name=holdfast,app.kubernetes.io/component=agent"
	agentContainer = "agent"
)

// InstallArguments returns the arguments with which helm installs the product
// or brings it back to how demo and scenarios expect it; extra comes last.
func InstallArguments(extra ...string) []string {
	return append([]string{
		"upgrade", "--install", Release, "charts/holdfast",
		"--namespace", Namespace, "--values", "e2e/values.yaml",
		"--wait", "--timeout", "3m",
	}, extra...)
}

// Install installs the product, or changes what is installed, and waits until
// every agent is ready with the image that its node has now.
func (c *Cluster) Install(ctx context.Context, extra ...string) error {
	if err := c.RenewCRDs(ctx); err != nil {
		return err
	}
	if _, err := c.Helm(ctx, InstallArguments(extra...)...); err != nil {
		return fmt.Errorf("install the chart: %w", err)
	}
	return c.RestartOutdated(ctx)
}

// Installed tells whether the release is there, in whatever state.
func (c *Cluster) Installed(ctx context.Context) (bool, error) {
	releases, err := c.Helm(ctx, "list", "--namespace", Namespace, "--short", "--all", "--filter", "^"+Release+"$")
	return strings.TrimSpace(releases) != "", err
}

// RenewCRDs brings the CRDs of an earlier release up to date, which helm does
// not do. Without an earlier release it does nothing.
func (c *Cluster) RenewCRDs(ctx context.Context) error {
	if installed, err := c.Installed(ctx); err != nil || !installed {
		return err
	}
	_, err := c.Kubectl(ctx, "", "apply", "--server-side", "--force-conflicts", "--filename", "charts/holdfast/crds")
	return err
}

// RestartOutdated waits for the agents, and restarts them if one runs an older
// image than the one its node now has under the same name: helm does not see
// that.
func (c *Cluster) RestartOutdated(ctx context.Context) error {
	if err := c.AwaitAgents(ctx); err != nil {
		return err
	}
	pods, err := c.Agents(ctx)
	if err != nil {
		return err
	}
	for _, pod := range pods {
		current, err := c.current(ctx, &pod)
		if err != nil {
			return err
		}
		if !current {
			return c.RestartAgents(ctx)
		}
	}
	return nil
}

func (c *Cluster) current(ctx context.Context, pod *corev1.Pod) (bool, error) {
	for _, s := range pod.Status.ContainerStatuses {
		if s.Name != agentContainer {
			continue
		}
		id, err := c.OnNode(ctx, pod.Spec.NodeName, "crictl inspecti -o json "+s.Image+" | jq -r .status.id")
		return strings.TrimSpace(id) == s.ImageID, err
	}
	return false, fmt.Errorf("pod %s has no container %s", pod.Name, agentContainer)
}

// RestartAgents rolls the agents' DaemonSet over and waits for its end.
func (c *Cluster) RestartAgents(ctx context.Context) error {
	if _, err := c.Kubectl(ctx, "", "--namespace", Namespace, "rollout", "restart", agents); err != nil {
		return err
	}
	return c.AwaitAgents(ctx)
}

// AwaitAgents waits until the agents' DaemonSet has been rolled out, and every
// node has an agent that is ready: the DaemonSet learns late of one that died.
func (c *Cluster) AwaitAgents(ctx context.Context) error {
	if _, err := c.Kubectl(ctx, "", "--namespace", Namespace, "rollout", "status", agents, "--timeout", "3m"); err != nil {
		return err
	}
	return Await(ctx, 2*time.Minute, func(ctx context.Context) error {
		return c.onEveryNode(ctx, `curl -sS --max-time 5 --unix-socket `+cni.DefaultSocket+` http://holdfast/v1/status | jq -e .ready`)
	})
}

// Agents returns the agents' pods, in no order.
func (c *Cluster) Agents(ctx context.Context) ([]corev1.Pod, error) {
	list, err := c.Kube.CoreV1().Pods(Namespace).List(ctx, metav1.ListOptions{LabelSelector: agentSelector})
	if err != nil {
		return nil, fmt.Errorf("list the agents: %w", err)
	}
	if len(list.Items) == 0 {
		return nil, fmt.Errorf("no agent in namespace %s with labels %s: is the chart installed?", Namespace, agentSelector)
	}
	return list.Items, nil
}

// KillAgent kills the agent of a node with signal 9 and returns. Kubelet
// starts it again.
func (c *Cluster) KillAgent(ctx context.Context, node string) error {
	_, err := c.OnNode(ctx, node, agentID+`kill -9 "$(crictl inspect "$id" | jq .info.pid)"`)
	return err
}

// agentID is the part of a script that finds the container of the agent.
const agentID = `
id=$(crictl ps --quiet --no-trunc --state Running --name '^` + agentContainer + `$' --label io.kubernetes.pod.namespace=` + Namespace + `)
[[ -n $id ]] || { echo "no agent runs here" >&2; exit 1; }
`

// StopAgent stops the agent of a node until StartAgent. Kubelet would start it
// again at once, so it is stopped first, and the node does nothing new at all.
func (c *Cluster) StopAgent(ctx context.Context, node string) error {
	_, err := c.OnNode(ctx, node, "systemctl stop kubelet\n"+agentID+`crictl stop --timeout 0 "$id" >/dev/null`)
	return err
}

// StartAgent undoes StopAgent.
func (c *Cluster) StartAgent(ctx context.Context, node string) error {
	_, err := c.OnNode(ctx, node, "systemctl start kubelet")
	return err
}

// StartKubelets undoes every StopAgent of an earlier run.
func (c *Cluster) StartKubelets(ctx context.Context) error {
	return c.onEveryNode(ctx, "systemctl start kubelet")
}

// RestartKubelets makes kubelet forget how often what has died: a new one
// starts it, and looks for the API server, at once, an old one ever later.
func (c *Cluster) RestartKubelets(ctx context.Context) error {
	return c.onEveryNode(ctx, "systemctl restart kubelet")
}

// onEveryNode runs a script on each node. It needs no API server.
func (c *Cluster) onEveryNode(ctx context.Context, script string) error {
	names, err := run(exec.CommandContext(ctx, "docker", "ps", "--filter", "label=io.x-k8s.kind.cluster="+c.name, "--format", "{{.Names}}"), "")
	if err != nil {
		return err
	}
	for _, node := range strings.Fields(names) {
		if _, err := c.OnNode(ctx, node, script); err != nil {
			return err
		}
	}
	return nil
}

// StopSandbox stops the sandbox of a pod behind kubelet's back, as a crash of
// its pause process does. Kubelet makes another one for the same pod.
func (c *Cluster) StopSandbox(ctx context.Context, pod *corev1.Pod) error {
	_, err := c.OnNode(ctx, pod.Spec.NodeName, `
id=$(crictl pods --quiet --no-trunc --state Ready --label io.kubernetes.pod.uid=`+string(pod.UID)+`)
[[ -n $id ]] || { echo "the pod has no sandbox here" >&2; exit 1; }
crictl --timeout 1m stopp "$id" >/dev/null`)
	return err
}

// Where kubelet finds the API server's manifest, and where it does not.
const (
	manifest = "/etc/kubernetes/manifests/kube-apiserver.yaml"
	parked   = "/etc/kubernetes/kube-apiserver.yaml.parked"
)

// controlPlane is the node of the API server, as kind names it.
func (c *Cluster) controlPlane() string { return c.name + "-control-plane" }

// StopAPIServer stops the API server until StartAPIServer, and returns when it
// is gone.
func (c *Cluster) StopAPIServer(ctx context.Context) error {
	_, err := c.OnNode(ctx, c.controlPlane(), `
mv `+manifest+` `+parked+`
for _ in $(seq 600); do
  [[ -n $(crictl ps --quiet --state Running --name '^kube-apiserver$') ]] || exit 0
  sleep 0.1
done
echo "the API server is still there after a minute" >&2
exit 1`)
	return err
}

// StartAPIServer undoes StopAPIServer and waits until it answers again. The
// controller manager and the scheduler have died without it meanwhile, so it
// restarts the kubelets.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	out, err := c.OnNode(ctx, c.controlPlane(), "if [[ -e "+parked+" ]]; then mv "+parked+" "+manifest+"; echo parked; fi")
	if err != nil {
		return err
	}
	if err := c.AwaitAPIServer(ctx); err != nil || out == "" {
		return err
	}
	return c.RestartKubelets(ctx)
}
