package detect_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/holdfast-ipam/holdfast/cni/detect"
	"github.com/holdfast-ipam/holdfast/cni/nettest"
)

// probeIn names the pod's namespace to a copy of this test's program, which
// runs in the node's.
const probeIn = "DETECT_PROBE_IN"

// A link of ipvlan hears no answer before it has an address: its parent does,
// in the namespace of the node, which is where plugins run.
func TestIpvlanHearsThroughItsParent(t *testing.T) {
	targets := []detect.Target{
		{Addr: addr("10.0.0.1"), Conflict: true}, {Addr: addr("fd00::1"), Conflict: true},
		{Addr: addr("10.0.0.2"), Conflict: true, Gateway: addr("10.0.0.1")},
		{Addr: addr("fd00::2"), Conflict: true, Gateway: addr("fd00::1")},
		{Addr: addr("10.0.0.3"), Conflict: true}, {Addr: addr("fd00::3"), Conflict: true},
		{Addr: addr("10.0.0.4"), Gateway: addr("10.0.0.254")},
	}
	if path := os.Getenv(probeIn); path != "" {
		found, err := detect.Probe(t.Context(), path, "net1", targets)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
			t.Fatal(err)
		}
		os.Exit(0) // before the words of package testing
	}
	lan := nettest.NewSwitch(t)
	_, mac := lan.Host(t, prefixes("10.0.0.1/24", "fd00::1/64")...)
	node, parent := lan.Host(t)
	needIpvlan(t, node)
	sibling, in := nettest.New(t), nettest.New(t)
	for _, pod := range []*nettest.Namespace{sibling, in} {
		child(t, node, pod, func(a netlink.LinkAttrs) netlink.Link {
			return &netlink.IPVlan{LinkAttrs: a, Mode: netlink.IPVLAN_MODE_L2}
		})
	}
	sibling.Up(t, "net1", prefixes("10.0.0.3/24", "fd00::3/64")...)
	got := probeFrom(t, node, in)
	want(t, got,
		detect.Finding{Addr: addr("10.0.0.1"), UsedBy: mac}, detect.Finding{Addr: addr("fd00::1"), UsedBy: mac},
		detect.Finding{Addr: addr("10.0.0.2")}, detect.Finding{Addr: addr("fd00::2")},
		// On one parent all have one hardware address.
		detect.Finding{Addr: addr("10.0.0.3"), UsedBy: parent}, detect.Finding{Addr: addr("fd00::3"), UsedBy: parent},
		detect.Finding{Addr: addr("10.0.0.4"), NoGateway: true})
}

// needIpvlan skips the test where the kernel was built without.
func needIpvlan(t *testing.T, node *nettest.Namespace) {
	t.Helper()
	var missing error
	node.Do(t, func() error {
		parent, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.ParentIndex = "try", parent.Attrs().Index
		link := &netlink.IPVlan{LinkAttrs: attrs, Mode: netlink.IPVLAN_MODE_L2}
		if err := netlink.LinkAdd(link); errors.Is(err, unix.EOPNOTSUPP) {
			missing = err
			return nil
		} else if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
	if missing != nil {
		t.Skipf("this kernel has no ipvlan: %v", missing)
	}
}

// probeFrom has a process in the node's namespace probe in a pod's.
func probeFrom(t *testing.T, node, in *nettest.Namespace) (found []detect.Finding) {
	t.Helper()
	command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	command.Env = append(os.Environ(), probeIn+"="+in.Path)
	var output []byte
	node.Do(t, func() (err error) {
		if output, err = command.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, output)
		}
		return nil
	})
	if err := json.Unmarshal(output, &found); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return found
}
