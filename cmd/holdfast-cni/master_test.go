package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-ipam/holdfast/cni/nettest"
	"github.com/holdfast-ipam/holdfast/cni/sriov"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// virtualFunction is the PCI address of what a card with the interface rail1
// gives a pod, and wholeCard one of a card that is shared by nobody.
const (
	virtualFunction = "0000:18:00.2"
	wholeCard       = "0000:18:00.0"
)

// bus is a PCI bus with both.
func bus(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, path := range []string{"card/net/rail1", virtualFunction, wholeCard} {
		if err := os.MkdirAll(filepath.Join(dir, path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../card", filepath.Join(dir, virtualFunction, "physfn")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// onCard runs the plugin on a node whose kernel shows the devices, for a pod
// that was given one of them.
func onCard(t *testing.T, node *nettest.Namespace, devices, device, socket string, env ...string) outcome {
	t.Helper()
	s := prepare(t, "spiderpool", network("1.0.0", socket, device,
		`,"match_master_subnet":true,"default_ipv4_ippool":["rail-*"]`), append(env, "CNI_PATH=/opt/cni/bin")...)
	plugin := s.command.Path
	s.command.Path = "/bin/sh"
	s.command.Args = []string{"sh", "-c", `/bin/mount --bind "$1" "$2" && exec "$3"`, "sh", devices, sriov.Devices, plugin}
	s.command.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS} // Go makes it private
	node.Do(t, func() error { return s.command.Start() })                     // a program starts in the namespace of the thread
	return s.wait(t)
}

func passed(device string) string { return fmt.Sprintf(`,"deviceID":%q`, device) }

// railNode is a node whose card is on the network 10.41.0.0/16.
func railNode(t *testing.T, addrs ...netip.Prefix) *nettest.Namespace {
	t.Helper()
	node := nettest.New(t)
	nettest.NewSwitch(t).Plug(t, node, "rail1")
	node.Up(t, "rail1", addrs...)
	return node
}

// TestPodOfACardGetsAnAddressOfItsNetwork runs the plugin against the real
// agent: a wildcard names the pools of all rails, and the card decides.
func TestPodOfACardGetsAnAddressOfItsNetwork(t *testing.T) {
	if _, err := os.Stat(sriov.Devices); err != nil {
		t.Skipf("this machine has no PCI bus to show: %v", err)
	}
	node, elsewhere := railNode(t, prefixes("10.41.0.4/16")...), railNode(t)
	devices := bus(t)
	c := newCluster(t)
	c.pool(t, "rail-0", v2beta1.IPPoolSpec{Subnet: "10.40.0.0/16", IPs: v2beta1.Ranges{"10.40.0.100-10.40.0.109"}})
	c.pool(t, "rail-1", v2beta1.IPPoolSpec{Subnet: "10.41.0.0/16", IPs: v2beta1.Ranges{"10.41.0.100-10.41.0.109"}})

	// A card without an address is on no network, and the pod gets none.
	p := c.pod(t, "railed", "", func(pod *corev1.Pod) { pod.Annotations = nil })
	refused := cniError(t, onCard(t, elsewhere, devices, passed(virtualFunction), c.client.Socket, p.environment("ADD")...))
	for _, word := range []string{"pool rail-0 is not for master rail1, which has no address", "pool rail-1 is not", "match_master_subnet"} {
		if !strings.Contains(refused.Msg+refused.Details, word) {
			t.Errorf("printed %+v, and nothing of %q", refused, word)
		}
	}
	if entries := append(c.journal(t, "10.40.0.0/16"), c.journal(t, "10.41.0.0/16")...); len(entries) > 0 {
		t.Errorf("a refused pod has %v", entries)
	}

	p.tries++
	got := onCard(t, node, devices, passed(virtualFunction), c.client.Socket, p.environment("ADD")...)
	mustSucceed(t, got)
	if !strings.Contains(got.Stdout, "10.41.0.100/16") || strings.Contains(got.Stdout, "10.40.") {
		t.Errorf("the plugin printed %s", got.Stdout)
	}
}

// The agent is not asked for a pod whose master cannot be told: it would get
// an address of any network.
func TestPodWhoseMasterIsNotKnownIsRefused(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(sriov.Devices); err != nil {
		t.Skipf("this machine has no PCI bus to show: %v", err)
	}
	node, away := railNode(t), nettest.New(t)
	devices := bus(t)
	agent := newAgent(t, 200, bareAnswer)
	for name, test := range map[string]struct {
		node   *nettest.Namespace
		device string
		want   string
	}{
		"no device":                      {node, ``, "has no deviceID"},
		"an empty one":                   {node, passed(""), "has no deviceID"},
		"a number":                       {node, `,"deviceID":7`, "has no deviceID"},
		"no PCI address":                 {node, passed("../card"), `"../card" is no PCI address`},
		"a device that is not there":     {node, passed("0000:18:00.7"), "has no physfn/net"},
		"a whole card":                   {node, passed(wholeCard), "has no physfn/net"},
		"a card with its interface away": {away, passed(virtualFunction), "has no interface here"},
	} {
		t.Run(name, func(t *testing.T) {
			printed := cniError(t, onCard(t, test.node, devices, test.device, agent.socket, environment("ADD")...))
			if printed.Code != types.ErrInvalidNetworkConfig || !strings.Contains(printed.Msg, test.want) || !strings.Contains(printed.Details, "remove match_master_subnet") {
				t.Errorf("printed %+v, want %q", printed, test.want)
			}
		})
	}
	agent.mustHaveBeenAsked(t, []call{}...)
}
