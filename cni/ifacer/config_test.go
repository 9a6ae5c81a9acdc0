package ifacer

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"
)

func TestConfigurationIsRead(t *testing.T) {
	for name, c := range map[string]struct {
		conf        string
		lower       string
		vlan        int
		mode        netlink.BondMode
		interfaces  int
		xmit        netlink.BondXmitHashPolicy
		primary     string
		givenOption int
	}{
		"a VLAN, as it is rendered": {
			conf: `{"cniVersion":"0.3.1","name":"m100","vlanID":100,"type":"ifacer","interfaces":["ens192"]}`, lower: "ens192", vlan: 100, interfaces: 1,
		},
		"a bond, as it is rendered": {
			conf:  `{"cniVersion":"0.3.1","name":"b","vlanID":100,"type":"ifacer","interfaces":["e1","e2"],"bond":{"name":"bond0","mode":1,"options":""}}`,
			lower: "bond0", vlan: 100, interfaces: 2, mode: netlink.BOND_MODE_ACTIVE_BACKUP,
		},
		"a bond without a name": {
			conf: `{"interfaces":["e1","e2"],"bond":{}}`, lower: "sp_bond0", interfaces: 2,
		},
		"options with blanks and a last semicolon": {
			conf:  `{"interfaces":["e1","e2"],"bond":{"name":"b","mode":4,"options":" miimon = 100 ; xmit_hash_policy=layer3+4;"}}`,
			lower: "b", interfaces: 2, mode: netlink.BOND_MODE_802_3AD, xmit: netlink.BOND_XMIT_HASH_POLICY_LAYER3_4, givenOption: 2,
		},
		"a primary": {
			conf:  `{"interfaces":["e1","e2"],"bond":{"name":"b","mode":1,"options":"primary=e2"}}`,
			lower: "b", interfaces: 2, mode: netlink.BOND_MODE_ACTIVE_BACKUP, primary: "e2", givenOption: 1,
		},
		"keys of others and a prevResult": {
			conf:  `{"cniVersion":"1.0.0","interfaces":["e1"],"mtu":9000,"ipam":{},"runtimeConfig":{"x":1},"prevResult":{"cniVersion":"1.0.0","ips":[]}}`,
			lower: "e1", interfaces: 1,
		},
		"the longest VLAN name": {
			conf: `{"interfaces":["enp130s0f0"],"vlanID":4094}`, lower: "enp130s0f0", vlan: 4094, interfaces: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			conf, err := parseConfig([]byte(c.conf))
			if err != nil {
				t.Fatal(err)
			}
			if conf.lower() != c.lower || conf.VlanID != c.vlan || len(conf.Interfaces) != c.interfaces {
				t.Errorf("read as %+v", conf)
			}
			if conf.Bond == nil {
				return
			}
			if b := conf.Bond; b.wants.Mode != c.mode || b.primary != c.primary || len(b.given) != c.givenOption {
				t.Errorf("bond read as %+v", b)
			}
			if c.xmit != 0 && (conf.Bond.wants.XmitHashPolicy != c.xmit || conf.Bond.wants.Miimon != 100) {
				t.Errorf("options read as %+v", conf.Bond.wants)
			}
		})
	}
}

// bonded returns a configuration with a bond with the options.
func bonded(mode, options string) string {
	return `{"interfaces":["e1","e2"],"bond":{"name":"bond0","mode":` + mode + `,"options":"` + options + `"}}`
}

func TestBadConfigurationIsRefusedWithAdvice(t *testing.T) {
	for name, c := range map[string]struct{ conf, message, advice string }{
		"no JSON":                {`{`, "cannot be read", "unexpected end"},
		"nothing":                {`null`, `"interfaces" is empty`, `"interfaces":["ens192"]`},
		"no interfaces":          {`{"interfaces":[],"vlanID":5}`, `"interfaces" is empty`, `"interfaces":["ens192"]`},
		"interfaces no list":     {`{"interfaces":"e1"}`, "cannot be read", "interfaces"},
		"an empty name":          {`{"interfaces":[""]}`, `interfaces[0] is ""`, "1 to 15 characters"},
		"a path":                 {`{"interfaces":["e1","../e2"],"bond":{}}`, `interfaces[1] is "../e2"`, "no blank, slash"},
		"a blank":                {`{"interfaces":["e 1"]}`, `"e 1"`, "no blank"},
		"too long a name":        {`{"interfaces":["abcdefghijklmnop"]}`, "abcdefghijklmnop", "1 to 15"},
		"an interface twice":     {`{"interfaces":["e1","e1"],"bond":{}}`, "interfaces[1] names e1 a second time", "once"},
		"several without a bond": {`{"interfaces":["e1","e2"]}`, `"bond" is missing`, `"mode":1`},
		"a bond of one":          {`{"interfaces":["e1"],"bond":{"name":"b","mode":1}}`, "two interfaces or more", `remove "bond"`},
		"a bond named like one":  {`{"interfaces":["e1","e2"],"bond":{"name":"e2"}}`, "bond.name is e2, as is interfaces[1]", "another name"},
		"a bad name of a bond":   {`{"interfaces":["e1","e2"],"bond":{"name":"b/0"}}`, `bond.name is "b/0"`, "no blank"},
		"a pattern":              {`{"interfaces":["e1","e2"],"bond":{"name":"bond%d"}}`, `bond.name is "bond%d"`, "percent sign"},
		"a mode that is none":    {bonded("7", ""), "bond.mode is 7", "4 (802.3ad)"},
		"a negative mode":        {bonded("-1", ""), "bond.mode is -1", "1 (active-backup)"},
		"a mode as text":         {bonded(`"active-backup"`, ""), "cannot be read", "bond.mode"},
		"a VLAN too high":        {`{"interfaces":["e1"],"vlanID":4095}`, "vlanID is 4095", "1 to 4094"},
		"a negative VLAN":        {`{"interfaces":["e1"],"vlanID":-1}`, "vlanID is -1", "1 to 4094"},
		"a VLAN as text":         {`{"interfaces":["e1"],"vlanID":"5"}`, "cannot be read", "vlanID"},
		"half a VLAN":            {`{"interfaces":["e1"],"vlanID":5.5}`, "cannot be read", "vlanID"},
		"too long a VLAN name":   {`{"interfaces":["enp130s0f0np0"],"vlanID":100}`, "enp130s0f0np0.100, a name of 17 characters", "a name of 11 characters"},
		"no option":              {bonded("1", "miimon"), `"miimon", which is no option`, "key=value"},
		"no value":               {bonded("1", "miimon="), `"miimon=", which is no option`, "key=value"},
		"an unknown option":      {bonded("1", "miimon=100;speed=9"), "speed, which is not known", "xmit_hash_policy, primary"},
		"the mode as an option":  {bonded("1", "mode=4"), "mode, which is not known", "bond.mode"},
		"an option twice":        {bonded("1", "miimon=1;miimon=2"), "miimon twice", "once"},
		"no number":              {bonded("1", "miimon=often"), "miimon=often", "a number from 0"},
		"too high a number":      {bonded("1", "num_grat_arp=256"), "num_grat_arp=256", "from 0 to 255"},
		"no choice":              {bonded("2", "xmit_hash_policy=layer4"), "xmit_hash_policy=layer4", "layer2, layer3+4, layer2+3"},
		"no choice by number":    {bonded("4", "lacp_rate=2"), "lacp_rate=2", "slow, fast"},
		"a foreign primary":      {bonded("1", "primary=e3"), "primary=e3", "e1, e2"},
		"a target of IPv6":       {bonded("1", "arp_interval=100;arp_ip_target=fd00::1"), "arp_ip_target=fd00::1", "IPv4"},
		"a multicast system":     {bonded("4", "ad_actor_system=01:00:5e:00:00:01"), "ad_actor_system", "no multicast"},
		"a prevResult of none":   {`{"cniVersion":"1.0.0","interfaces":["e1"],"prevResult":{"ips":[{"address":"x"}]}}`, "prevResult", "x"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseConfig([]byte(c.conf))
			said, ok := errors.AsType[*types.Error](err)
			if !ok || !strings.Contains(said.Msg, c.message) || !strings.Contains(said.Details, c.advice) {
				t.Errorf("%s\nis told %v\nwant %q and the advice %q", c.conf, err, c.message, c.advice)
			}
		})
	}
}

// Each option is set, and read back, in the field that the kernel's attribute
// of its name is sent from.
func TestEveryOptionIsSetAndReadBack(t *testing.T) {
	values := map[string]string{
		"arp_ip_target": "10.0.0.1,10.0.0.2", "arp_validate": "backup", "arp_all_targets": "all", "primary_reselect": "failure",
		"fail_over_mac": "follow", "xmit_hash_policy": "encap3+4", "lacp_rate": "fast", "ad_select": "count", "ad_actor_system": "02:00:00:00:00:01",
	}
	for key, option := range known() {
		value, ok := values[key]
		if !ok {
			value = "1"
		}
		b := netlink.NewLinkBond(netlink.NewLinkAttrs())
		before := option.get(b)
		if err := option.set(b, value); err != nil || option.get(b) != value {
			t.Errorf("%s=%s is %q (%v)", key, value, option.get(b), err)
		}
		if before == value {
			t.Errorf("%s is %s unset", key, value)
		}
		for other, o := range known() {
			same := other == key || key == "num_grat_arp" && other == "num_unsol_na" || key == "num_unsol_na" && other == "num_grat_arp"
			if !same && o.get(b) != o.get(netlink.NewLinkBond(netlink.NewLinkAttrs())) {
				t.Errorf("%s=%s sets %s as well", key, value, other)
			}
		}
	}
	b := netlink.NewLinkBond(netlink.NewLinkAttrs())
	if err := known()["xmit_hash_policy"].set(b, "1"); err != nil || b.XmitHashPolicy != netlink.BOND_XMIT_HASH_POLICY_LAYER3_4 {
		t.Errorf("a choice by number is %v (%v)", b.XmitHashPolicy, err)
	}
}

func FuzzConfiguration(f *testing.F) {
	for _, seed := range []string{
		``, `null`, `[]`, `{}`, `{"interfaces":null}`, `{"interfaces":[null]}`, `{"interfaces":["e1"],"vlanID":1e3}`,
		`{"cniVersion":"0.3.1","name":"m100","vlanID":100,"type":"ifacer","interfaces":["ens192"]}`,
		`{"cniVersion":"1.0.0","interfaces":["e1"],"prevResult":{"interfaces":[{}],"ips":[{"address":"10.0.0.1/8","interface":7}]}}`,
		bonded("1", "miimon=100;primary=e1"), bonded("4", "lacp_rate=fast;;ad_actor_system=02:00:00:00:00:01"), bonded("0", "=;=x;x="),
		bonded("1", "arp_ip_target=1.1.1.1,,2.2.2.2"), `{"interfaces":["e1","e2"],"bond":null}`, `{"interfaces":["a","b"],"bond":{"mode":99999999999999999999}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, stdin []byte) {
		conf, err := parseConfig(stdin)
		if err != nil {
			said, ok := errors.AsType[*types.Error](err)
			if !ok || said.Msg == "" {
				t.Fatalf("%q: the error %v is no CNI error with a message", stdin, err)
			}
			if _, err := json.Marshal(said); err != nil {
				t.Fatalf("%q: the error cannot be printed: %v", stdin, err)
			}
			return
		}
		if len(conf.Interfaces) == 0 || conf.VlanID < 0 || conf.VlanID > 4094 || len(conf.lower()) > 15 || (len(conf.Interfaces) > 1) != (conf.Bond != nil) {
			t.Fatalf("%q was taken as %+v", stdin, conf)
		}
		if conf.VlanID > 0 && len(vlanName(conf.lower(), conf.VlanID)) > 15 {
			t.Fatalf("%q makes a name that the kernel does not take", stdin)
		}
	})
}
