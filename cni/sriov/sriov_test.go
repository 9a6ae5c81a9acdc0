package sriov

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-ipam/holdfast/cni/nettest"
)

// devices is a PCI bus with virtual functions, each with the interfaces of
// its physical one.
func devices(t *testing.T, functions map[string][]string) string {
	t.Helper()
	dir := t.TempDir()
	for address, interfaces := range functions {
		card := filepath.Join(dir, "card-of-"+address)
		for _, name := range append(interfaces, ".") {
			if err := os.MkdirAll(filepath.Join(card, "net", name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Mkdir(filepath.Join(dir, address), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../card-of-"+address, filepath.Join(dir, address, "physfn")); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestMasterHasTheAddressesOfThePhysicalFunction(t *testing.T) {
	lan, node := nettest.NewSwitch(t), nettest.New(t)
	lan.Plug(t, node, "rail1")
	lan.Plug(t, node, "rail2")
	lan.Plug(t, node, "bare")
	node.Up(t, "rail1", netip.MustParsePrefix("10.1.0.4/16"), netip.MustParsePrefix("10.2.0.4/24"), netip.MustParsePrefix("fd01::4/64"))
	node.Up(t, "rail2", netip.MustParsePrefix("10.3.0.4/16"))
	bus := devices(t, map[string][]string{
		"0000:18:00.2": {"rail1"}, "0000:18:00.3": {"bare"}, "10000:18:00.7": {"rail1", "rail2"}, "0000:18:00.4": {"elsewhere", "rail2"},
	})
	for address, want := range map[string]string{
		"0000:18:00.2":  "rail1 10.1.0.4/16 10.2.0.4/24 fd01::4/64",
		"0000:18:00.3":  "bare",
		"10000:18:00.7": "rail1, rail2 10.1.0.4/16 10.2.0.4/24 fd01::4/64 10.3.0.4/16",
		"0000:18:00.4":  "rail2 10.3.0.4/16",
	} {
		var m Master
		node.Do(t, func() (err error) { m, err = MasterOf(bus, address); return err })
		got := m.Name
		for _, a := range m.Addresses {
			got += " " + a.String()
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", address, diff)
		}
	}
}

func TestDeviceThatIsNoVirtualFunctionHasNoMaster(t *testing.T) {
	bus := devices(t, map[string][]string{"0000:18:00.4": {"holdfast-nowhere"}, "0000:18:00.5": nil})
	if err := os.Mkdir(filepath.Join(bus, "0000:18:00.0"), 0o755); err != nil { // a whole card
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"":                           `"" is no PCI address`,
		"0000:18:00.4/../0000:18":    "is no PCI address",
		"../..":                      "is no PCI address",
		"mlx5_core.sf.4":             "is no PCI address",
		"0000:18:00.4\n0000:18:00.4": "is no PCI address",
		"0000:18:00.0":               "has no physfn/net",
		"0000:18:00.6":               "has no physfn/net",
		"0000:18:00.4":               "has no interface here",
		"0000:18:00.5":               "has no interface here",
	} {
		_, err := MasterOf(bus, address)
		if !errors.Is(err, ErrNoFunction) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: the error is %v, want %q in it", address, err, want)
		}
	}
}
