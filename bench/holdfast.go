package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/agent/inspect"
	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// holdfast is this project, with the settings of conf.yml as they come. Ten
// agents stand for election, so the elected one's work is measured too.
type holdfast struct {
	lab    *lab
	plug   string
	agents []*agent
}

// agent is a node's.
type agent struct {
	process      *apitest.Process
	socket, http string
}

func (h *holdfast) open(ctx context.Context, l *lab) error {
	h.lab, h.plug = l, filepath.Join(l.dir, "spiderpool")
	// The plugin takes its role from the name that it is called by.
	if err := os.Symlink(l.program("holdfast-cni"), h.plug); err != nil {
		return err
	}
	// Addresses of the loopback network from which nobody calls out, so that
	// no connection takes the port.
	for i := range nodeCount {
		if err := h.start(nodeName(i), fmt.Sprintf("127.%d.%d.%d:5710", 1+rand.IntN(250), rand.IntN(250), 1+i)); err != nil {
			return err
		}
	}
	for i, a := range h.agents {
		if err := apitest.Await(ctx, readyLimit, "it has an agent ready on "+nodeName(i), a.ready); err != nil {
			return fmt.Errorf("%w\n%s", err, a.process.Tail())
		}
	}
	return nil
}

// start starts the agent of a node, which is a user of its own.
func (h *holdfast) start(node, address string) error {
	dir := filepath.Join(h.lab.dir, node)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	kubeconfig, err := h.lab.kubeconfig(node)
	if err != nil {
		return err
	}
	a := &agent{socket: filepath.Join(dir, "s"), http: address}
	a.process, err = apitest.Run(dir, h.lab.program("holdfast"), "agent",
		"--node-name="+node, "--namespace="+systemNamespace, "--pod-name=agent-"+node,
		"--socket="+a.socket, "--journal="+filepath.Join(dir, "journal.db"),
		"--kubeconfig="+kubeconfig, "--http-address="+a.http)
	if err != nil {
		return err
	}
	h.agents = append(h.agents, a)
	return nil
}

func (a *agent) ready(ctx context.Context) error {
	status, err := (&cni.Client{Socket: a.socket}).Status(ctx)
	if err == nil && !status.Ready {
		err = errors.New(status.Reason)
	}
	return err
}

func (h *holdfast) offer(ctx context.Context, name string, r addresses) error {
	_, err := h.lab.kinds.IPPools().Create(ctx, &v2beta1.SpiderIPPool{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v2beta1.IPPoolSpec{Subnet: r.subnet.String(), IPs: v2beta1.Ranges{fmt.Sprintf("%s-%s", r.first, r.last)}},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create pool %s: %w", name, err)
	}
	return nil
}

func (h *holdfast) plugin(node int, name string) (call, error) {
	network, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0", "name": name, "type": "macvlan",
		// The pod's annotation names the pool.
		"ipam": map[string]string{"type": "spiderpool", "ipam_unix_socket_path": h.agents[node].socket},
	})
	return call{program: h.plug, network: network}, err
}

// traffic asks the agents, who know why they asked what they asked.
func (h *holdfast) traffic(ctx context.Context) (tally, error) {
	all := tally{}
	for _, a := range h.agents {
		if err := a.count(ctx, all); err != nil {
			return nil, fmt.Errorf("metrics of the agent on %s: %w", a.http, err)
		}
	}
	return all, nil
}

// count adds what the agent's metric holdfast_api_requests_total tells.
func (a *agent) count(ctx context.Context, all tally) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.http+"/metrics", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		labels, ok := strings.CutPrefix(lines.Text(), "holdfast_api_requests_total{")
		if !ok {
			continue
		}
		var cause, resource, verb string
		var n float64
		if _, err := fmt.Sscanf(labels, "cause=%q,resource=%q,verb=%q} %g", &cause, &resource, &verb, &n); err != nil {
			return fmt.Errorf("%s: %w", lines.Text(), err)
		}
		all[request{Class: classOf(cause), Verb: verb, Resource: resource}] += int(n)
	}
	return lines.Err()
}

// classOf says what a cause of the agent's metric means for a pod.
func classOf(cause string) string {
	switch cause {
	case "background":
		return background
	case "prepare":
		return ahead
	}
	return waited
}

// held counts the pods that a pin or the journal of their node names. An
// address that rests after its use is not held: it is on its way back.
func (h *holdfast) held(ctx context.Context, pods []*pod) (int, error) {
	names := map[string]bool{}
	blocks, err := h.lab.kinds.IPBlocks().List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, err
	}
	for _, b := range blocks.Items {
		for _, p := range b.Spec.Pins {
			names[p.Pod] = true
		}
	}
	for _, a := range h.agents {
		var text bytes.Buffer
		if err := inspect.Journal(ctx, a.socket, true, time.Now(), &text); err != nil {
			return 0, err
		}
		var entries []lease.Entry
		if err := json.Unmarshal(text.Bytes(), &entries); err != nil {
			return 0, fmt.Errorf("the agent's journal: %w", err)
		}
		for _, e := range entries {
			if e.State == lease.Assigned || e.State == lease.Placing || e.State == lease.Retained {
				names[e.Namespace+"/"+e.PodName()] = true
			}
		}
	}
	n := 0
	for _, p := range pods {
		if names[namespace+"/"+p.name] {
			n++
		}
	}
	return n, nil
}

func (h *holdfast) processes() []int {
	var pids []int
	for _, a := range h.agents {
		pids = append(pids, a.process.PID())
	}
	return pids
}

func (h *holdfast) close() {
	for _, a := range h.agents {
		a.process.Kill()
	}
}
