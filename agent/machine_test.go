package agent

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/agent/elected"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// kubevirtKind is the definition of one of KubeVirt's kinds, as far as anybody
// here looks at it.
const kubevirtKind = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: %[1]ss.kubevirt.io
spec:
  group: kubevirt.io
  scope: Namespaced
  names: {plural: %[1]ss, singular: %[1]s, kind: %[2]s}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

const (
	machineKind  = "VirtualMachine"
	instanceKind = "VirtualMachineInstance"
)

// TestVirtualMachines has virtual machines come, move and go on a real API
// server.
func TestVirtualMachines(t *testing.T) {
	s := startServer(t)
	t.Run("WithoutKubeVirtNothingWantsTheAddress", func(t *testing.T) {
		m, err := elected.FindMachine(s.kube.Discovery().RESTClient(), true)(t.Context(), "default", "vm")
		if err != nil || m.Wanted || len(m.Pods) > 0 {
			t.Errorf("%+v, %v", m, err)
		}
	})
	for _, kind := range []string{instanceKind, machineKind} {
		apitest.InstallKind(t, s.config, fmt.Appendf(nil, kubevirtKind, strings.ToLower(kind), kind))
	}
	t.Run("WantItWhileTheyOrTheirMakersStay", func(t *testing.T) { machineIsWanted(t, s) })
	t.Run("KeepTheirAddressUntilTheyAreDeleted", func(t *testing.T) { machineLives(t, s) })
}

// path is that of an object of KubeVirt's, or of all of a kind.
func (s *realServer) path(kind, name string) string {
	return "/apis/kubevirt.io/v1/namespaces/default/" + strings.ToLower(kind) + "s/" + name
}

// machine creates a VirtualMachine or an instance. A finalizer keeps it until
// [realServer.finalize] when it is deleted.
func (s *realServer) machine(t *testing.T, kind, name string) {
	t.Helper()
	body := fmt.Sprintf(`{"apiVersion":"kubevirt.io/v1","kind":%q,"metadata":{"name":%q,"finalizers":["kubevirt.io/end"]}}`, kind, name)
	err := s.kube.Discovery().RESTClient().Post().AbsPath(s.path(kind, "")).Body([]byte(body)).
		SetHeader("Content-Type", "application/json").Do(t.Context()).Error()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *realServer) deleteMachine(t *testing.T, kind, name string) {
	t.Helper()
	if err := s.kube.Discovery().RESTClient().Delete().AbsPath(s.path(kind, name)).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
}

func (s *realServer) finalize(t *testing.T, kind, name string) {
	t.Helper()
	err := s.kube.Discovery().RESTClient().Patch("application/merge-patch+json").AbsPath(s.path(kind, name)).
		Body([]byte(`{"metadata":{"finalizers":null}}`)).Do(t.Context()).Error()
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
}

func machineIsWanted(t *testing.T, s *realServer) {
	find := elected.FindMachine(s.kube.Discovery().RESTClient(), true)
	want := func(claim string, wanted bool) {
		t.Helper()
		if m, err := find(t.Context(), "default", "wanted"); err != nil || m.Wanted != wanted {
			t.Errorf("%s: %+v, %v, want it wanted: %t", claim, m, err, wanted)
		}
	}
	want("nothing of the name", false)
	s.machine(t, instanceKind, "wanted")
	want("an instance by itself", true)
	s.deleteMachine(t, instanceKind, "wanted")
	want("an instance that is being deleted", false)
	s.machine(t, machineKind, "wanted")
	want("an instance that is being deleted, of a machine", true)
	s.finalize(t, instanceKind, "wanted")
	want("a machine that is stopped", true)
	s.deleteMachine(t, machineKind, "wanted")
	want("a machine that is being deleted", false)
	s.machine(t, instanceKind, "wanted")
	want("an instance of a machine that is being deleted", true)
	off := elected.FindMachine(s.kube.Discovery().RESTClient(), false)
	if m, err := off(t.Context(), "default", "wanted"); err != nil || m.Wanted {
		t.Errorf("with addresses held for no machine: %+v, %v", m, err)
	}
	s.deleteMachine(t, instanceKind, "wanted")
	for _, kind := range []string{instanceKind, machineKind} {
		s.finalize(t, kind, "wanted")
	}
	want("nothing any more", false)
}

// launch creates a pod that runs a machine on the agent's node.
func (l *life) launch(t *testing.T, machine, name string) *corev1.Pod {
	t.Helper()
	controller := true
	return l.create(t, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{"kubevirt.io": "virt-launcher"},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "kubevirt.io/v1", Kind: instanceKind, Name: machine, UID: "uid", Controller: &controller,
			}},
		},
		Spec: corev1.PodSpec{
			NodeName: l.node.Name, Containers: []corev1.Container{{Name: "c", Image: "nginx"}},
			RestartPolicy: corev1.RestartPolicyNever,
		},
	})
}

// lead carries the elected agent's duties out until the test ends.
func (s *realServer) lead(t *testing.T, a *Agent) {
	t.Helper()
	duties := elected.New(elected.Config{
		Kubernetes: s.kube, CRDs: a.clients, Networks: a.networks, Cluster: a.cluster,
		Namespace: "kube-system", Identity: "leader", EnableStatefulSet: true, EnableKubevirtStaticIP: true,
		HoldDown: time.Hour, Log: a.log,
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := duties.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
}

// wantPinned waits until an address is held for a machine, or not.
func (l *life) wantPinned(t *testing.T, addr netip.Addr, machine string, want bool) {
	t.Helper()
	id := lease.Identity{Namespace: "default", Pod: machine, Interface: "eth0", Kind: instanceKind}
	within(t, func() string {
		b, err := l.cluster.Block(t.Context(), lease.Name(lease.BlockOf(addr)))
		if pin, ok := b.PinAt(addr); err == nil && ok != want || ok && pin.Identity != id {
			return fmt.Sprintf("%s is held: %t, for %s, want it held: %t", addr, ok, pin.Identity, want)
		}
		return ""
	})
}

func machineLives(t *testing.T, s *realServer) {
	s.node(t, "m1")
	s.node(t, "m2")
	from, to := s.begin(t, "m1", leasetest.NewDisk(nil)), s.begin(t, "m2", leasetest.NewDisk(nil))
	s.lead(t, from.Agent)
	const ranges = "10.30.0.1-10.30.0.9"
	if _, err := from.clients.IPPools().Create(t.Context(), &v2beta1.SpiderIPPool{
		ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: v2beta1.IPPoolSpec{Subnet: "10.30.0.0/16", IPs: []string{ranges}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.machine(t, machineKind, "db")
	s.machine(t, instanceKind, "db")

	// It starts.
	source := from.launch(t, "db", "virt-launcher-db-a")
	addr := from.give(t, source, ranges)
	e, err := from.clients.Endpoints("default").Get(t.Context(), "db", metav1.GetOptions{})
	if err != nil || len(e.OwnerReferences) > 0 || e.Status.OwnerControllerType != instanceKind || e.Status.OwnerControllerName != "db" {
		t.Errorf("the endpoint says %+v, %v", e, err)
	}
	within(t, func() string {
		p, err := from.clients.IPPools().Get(t.Context(), "p", metav1.GetOptions{})
		if err != nil || p.Status.AllocatedIPs == nil || !strings.Contains(*p.Status.AllocatedIPs, `"pod":"default/db"`) {
			return fmt.Sprintf("the pool says %+v, %v", p.Status, err)
		}
		return ""
	})
	s.deleteEndpoint(t, from.Agent, "db")
	from.hasEndpoint(t, source, addr)

	// It moves: both pods run with its address for a while.
	target := to.launch(t, "db", "virt-launcher-db-b")
	if got := to.give(t, target, ranges); got != addr {
		t.Errorf("it had %s and has %s where it moves to", addr, got)
	}
	if err := from.endpoints.write(t.Context(), "default/"+source.Name); err != nil {
		t.Fatal(err)
	}
	to.hasEndpoint(t, target, addr) // the earlier pod's agent leaves it alone
	from.stop(t, source)
	from.status(t, source, corev1.PodSucceeded)
	from.keepsPin(t, addr)

	// It is stopped, and started where it was first.
	to.stop(t, target)
	to.vanish(t, target.Name)
	from.vanish(t, source.Name)
	s.deleteMachine(t, instanceKind, "db")
	s.finalize(t, instanceKind, "db")
	from.keepsPin(t, addr)
	s.machine(t, instanceKind, "db")
	last := from.launch(t, "db", "virt-launcher-db-c")
	if got := from.give(t, last, ranges); got != addr {
		t.Errorf("it had %s and has %s after it was stopped", addr, got)
	}

	// It is deleted. Its pod goes last.
	s.deleteMachine(t, machineKind, "db")
	s.deleteMachine(t, instanceKind, "db")
	if _, err := from.collector().Block(t.Context(), lease.Name(lease.BlockOf(addr)), nil); err != nil {
		t.Fatal(err)
	}
	from.wantPinned(t, addr, "db", true)
	from.stop(t, last)
	from.vanish(t, last.Name)
	from.wantPinned(t, addr, "db", false)
	from.hasNoEndpoint(t, "db")
	for _, kind := range []string{instanceKind, machineKind} {
		s.finalize(t, kind, "db")
	}
}
