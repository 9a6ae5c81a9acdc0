package ifacer

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// defaultBond is the name of a bond that has none, as in Spiderpool.
	defaultBond = "sp_bond0"
	// maxVLAN is the last VLAN ID (IEEE 802.1Q, section 9.6: 4095 is
	// reserved).
	maxVLAN = 4094
	// maxName is the length of the longest name of a link in bytes.
	maxName = unix.IFNAMSIZ - 1
)

// config is the network configuration of the plugin.
type config struct {
	types.PluginConf
	// Interfaces are the node's interfaces: one, or those of a bond.
	Interfaces []string `json:"interfaces"`
	// VlanID is the VLAN, 0 for none.
	VlanID int `json:"vlanID"`
	// Bond says how several interfaces are bonded.
	Bond *bond `json:"bond"`
}

// Validate reports what an ADD would refuse in a configuration on any node.
// Errors are *types.Error.
func Validate(conf []byte) error {
	_, err := parseConfig(conf)
	return err
}

// parseConfig decodes and checks a network configuration. Errors are
// *types.Error with ErrDecodingFailure or ErrInvalidNetworkConfig.
func parseConfig(stdin []byte) (*config, error) {
	var conf config
	if err := json.Unmarshal(stdin, &conf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "the network configuration cannot be read", err.Error())
	}
	if conf.RawPrevResult != nil {
		if err := version.ParsePrevResult(&conf.PluginConf); err != nil {
			return nil, types.NewError(types.ErrDecodingFailure, "prevResult cannot be read", err.Error())
		}
	}
	if err := conf.checkInterfaces(); err != nil {
		return nil, err
	}
	if err := conf.checkBond(); err != nil {
		return nil, err
	}
	return &conf, conf.checkVLAN()
}

func (c *config) checkInterfaces() error {
	if len(c.Interfaces) == 0 {
		return wrong(`"interfaces" is empty`, `name the node's interface, like {"type":"ifacer","interfaces":["ens192"],"vlanID":100}`)
	}
	seen := make(map[string]bool)
	for i, name := range c.Interfaces {
		if err := checkName(fmt.Sprintf("interfaces[%d]", i), name); err != nil {
			return err
		}
		if seen[name] {
			return wrong(fmt.Sprintf("interfaces[%d] names %s a second time", i, name), "name each interface once")
		}
		seen[name] = true
	}
	return nil
}

func (c *config) checkBond() error {
	switch {
	case c.Bond == nil && len(c.Interfaces) > 1:
		return wrong(`"interfaces" names several, and "bond" is missing`,
			`say how they are bonded, like "bond":{"name":"bond0","mode":1}, or name one interface`)
	case c.Bond == nil:
		return nil
	case len(c.Interfaces) == 1:
		return wrong(`"bond" needs two interfaces or more, and "interfaces" names one`, `name further interfaces, or remove "bond"`)
	}
	if c.Bond.Name == "" {
		c.Bond.Name = defaultBond
	}
	if err := checkName("bond.name", c.Bond.Name); err != nil {
		return err
	}
	for i, name := range c.Interfaces {
		if name == c.Bond.Name {
			return wrong(fmt.Sprintf("bond.name is %s, as is interfaces[%d]", name, i), "choose another name for the bond")
		}
	}
	if c.Bond.Mode < 0 || c.Bond.Mode >= int(netlink.BOND_MODE_UNKNOWN) {
		return wrong(fmt.Sprintf("bond.mode is %d", c.Bond.Mode), "use a mode of the Linux bonding driver: "+modes())
	}
	return c.Bond.parseOptions(c.Interfaces)
}

// modes tells the numbers of the bonding modes.
func modes() string {
	var texts []string
	for mode := netlink.BOND_MODE_BALANCE_RR; mode < netlink.BOND_MODE_UNKNOWN; mode++ {
		texts = append(texts, fmt.Sprintf("%d (%s)", int(mode), mode))
	}
	return strings.Join(texts, ", ")
}

func (c *config) checkVLAN() error {
	if c.VlanID < 0 || c.VlanID > maxVLAN {
		return wrong(fmt.Sprintf("vlanID is %d", c.VlanID), fmt.Sprintf("use a VLAN from 1 to %d, or 0 for none", maxVLAN))
	}
	if c.VlanID == 0 {
		return nil
	}
	return checkVLANName(c.lower(), c.VlanID)
}

// lower is the name of what the VLAN interface is on.
func (c *config) lower() string {
	if c.Bond != nil {
		return c.Bond.Name
	}
	return c.Interfaces[0]
}

// vlanName is the name of the VLAN interface on an interface or bond.
func vlanName(lower string, id int) string { return fmt.Sprintf("%s.%d", lower, id) }

// checkVLANName refuses an interface whose VLAN interface could not be named:
// the kernel's names have 15 bytes at most.
func checkVLANName(lower string, id int) error {
	name := vlanName(lower, id)
	if len(name) <= maxName {
		return nil
	}
	return wrong(fmt.Sprintf("the VLAN interface would be %s, a name of %d characters, and the kernel takes %d", name, len(name), maxName),
		fmt.Sprintf("give %s a name of %d characters at most on the nodes (a systemd .link file does, `ip link property add altname` does too), or make the VLAN interface on the nodes yourself and name it as master, without a VLAN", lower, maxName-len(name)+len(lower)))
}

// checkName refuses what no link can be named (the kernel's dev_valid_name),
// and what it would take for a pattern: "bond%d" is the next of bond0, bond1.
func checkName(key, name string) error {
	bad := name == "" || name == "." || name == ".." || len(name) > maxName ||
		strings.ContainsAny(name, "/:%") || strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) })
	if !bad {
		return nil
	}
	return wrong(fmt.Sprintf("%s is %q, which no interface can be named", key, name),
		fmt.Sprintf("names have 1 to %d characters, and no blank, slash, colon or percent sign", maxName))
}

// wrong is the error of a configuration that has to be corrected.
func wrong(message, advice string) error {
	return types.NewError(types.ErrInvalidNetworkConfig, message, advice)
}
