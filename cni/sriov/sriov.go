// Package sriov finds the interface of the node that a virtual function
// belongs to (SR-IOV: a network card, its physical function, shows further
// devices on the PCI bus, its virtual functions, one of which becomes a pod's
// interface).
package sriov

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/vishvananda/netlink"
	"go4.org/netipx"
)

// Devices is where the kernel shows the devices of the PCI bus
// (Documentation/ABI/testing/sysfs-bus-pci: physfn, a link from a virtual
// function to its physical one).
const Devices = "/sys/bus/pci/devices"

// dumps is how often addresses are asked for that another process changes
// meanwhile.
const dumps = 20

// ErrNoFunction says that a device is no virtual function whose physical one
// is an interface of this node.
var ErrNoFunction = errors.New("no virtual function of an interface of this node")

// Master is the interface of a physical function.
type Master struct {
	// Name is the interface's; of a card with several ports behind one
	// function, the names of all.
	Name string
	// Addresses are those of the interface, without link-local ones.
	Addresses []netip.Prefix
}

// MasterOf returns the interface that the virtual function with a PCI address
// (0000:18:00.2) belongs to. It is to be called in the network namespace of
// the node. devices is [Devices], or what stands for it.
func MasterOf(devices, address string) (Master, error) {
	// What is no such address may not become part of a path.
	if !regexp.MustCompile(`^[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]$`).MatchString(address) {
		return Master{}, fmt.Errorf("%w: %q is no PCI address like 0000:18:00.2", ErrNoFunction, address)
	}
	entries, err := os.ReadDir(filepath.Join(devices, address, "physfn", "net"))
	if errors.Is(err, os.ErrNotExist) {
		return Master{}, fmt.Errorf("%w: device %s has no physfn/net in %s", ErrNoFunction, address, devices)
	}
	if err != nil {
		return Master{}, fmt.Errorf("look for the physical function of %s: %w", address, err)
	}
	var names []string
	var m Master
	for _, entry := range entries {
		addrs, err := addresses(entry.Name())
		if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
			continue // it is in another namespace
		}
		if err != nil {
			return Master{}, fmt.Errorf("read the addresses of %s, the physical function of %s: %w", entry.Name(), address, err)
		}
		names, m.Addresses = append(names, entry.Name()), append(m.Addresses, addrs...)
	}
	if len(names) == 0 {
		return Master{}, fmt.Errorf("%w: the physical function of %s has no interface here", ErrNoFunction, address)
	}
	m.Name = strings.Join(names, ", ")
	return m, nil
}

// addresses returns the addresses of an interface that are good beyond its
// link.
func addresses(name string) ([]netip.Prefix, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, err
	}
	var list []netlink.Addr
	for range dumps {
		if list, err = netlink.AddrList(link, netlink.FAMILY_ALL); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	var prefixes []netip.Prefix
	for _, a := range list {
		if p, ok := netipx.FromStdIPNet(a.IPNet); ok && !p.Addr().IsLinkLocalUnicast() {
			prefixes = append(prefixes, p)
		}
	}
	return prefixes, nil
}
