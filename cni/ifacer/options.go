package ifacer

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// The options of the bonding driver (Linux, Documentation/networking/
// bonding.rst), as in "miimon=100;xmit_hash_policy=layer3+4".

// option is one of them.
type option struct {
	// set puts a value into what the kernel is asked for.
	set func(*netlink.Bond, string) error
	// get returns what the kernel has.
	get func(*netlink.Bond) string
}

// keyPrimary is the one option whose value is one of the bond's interfaces.
const keyPrimary = "primary"

// known are all options, except primary.
func known() map[string]option {
	const u32, u16 = 1<<31 - 1, 1<<16 - 1
	return map[string]option{
		"miimon":            number(0, u32, func(b *netlink.Bond) *int { return &b.Miimon }),
		"updelay":           number(0, u32, func(b *netlink.Bond) *int { return &b.UpDelay }),
		"downdelay":         number(0, u32, func(b *netlink.Bond) *int { return &b.DownDelay }),
		"use_carrier":       number(0, 1, func(b *netlink.Bond) *int { return &b.UseCarrier }),
		"arp_interval":      number(0, u32, func(b *netlink.Bond) *int { return &b.ArpInterval }),
		"arp_ip_target":     {set: setTargets, get: targets},
		"arp_validate":      choice(netlink.StringToBondArpValidateMap, func(b *netlink.Bond) *netlink.BondArpValidate { return &b.ArpValidate }),
		"arp_all_targets":   choice(netlink.StringToBondArpAllTargetsMap, func(b *netlink.Bond) *netlink.BondArpAllTargets { return &b.ArpAllTargets }),
		"primary_reselect":  choice(netlink.StringToBondPrimaryReselectMap, func(b *netlink.Bond) *netlink.BondPrimaryReselect { return &b.PrimaryReselect }),
		"fail_over_mac":     choice(netlink.StringToBondFailOverMacMap, func(b *netlink.Bond) *netlink.BondFailOverMac { return &b.FailOverMac }),
		"xmit_hash_policy":  choice(netlink.StringToBondXmitHashPolicyMap, func(b *netlink.Bond) *netlink.BondXmitHashPolicy { return &b.XmitHashPolicy }),
		"resend_igmp":       number(0, 255, func(b *netlink.Bond) *int { return &b.ResendIgmp }),
		"num_grat_arp":      number(0, 255, func(b *netlink.Bond) *int { return &b.NumPeerNotif }),
		"num_unsol_na":      number(0, 255, func(b *netlink.Bond) *int { return &b.NumPeerNotif }),
		"all_slaves_active": number(0, 1, func(b *netlink.Bond) *int { return &b.AllSlavesActive }),
		"min_links":         number(0, u32, func(b *netlink.Bond) *int { return &b.MinLinks }),
		"lp_interval":       number(1, u32, func(b *netlink.Bond) *int { return &b.LpInterval }),
		"packets_per_slave": number(0, u16, func(b *netlink.Bond) *int { return &b.PacketsPerSlave }),
		"lacp_rate":         choice(netlink.StringToBondLacpRateMap, func(b *netlink.Bond) *netlink.BondLacpRate { return &b.LacpRate }),
		"ad_select":         choice(netlink.StringToBondAdSelectMap, func(b *netlink.Bond) *netlink.BondAdSelect { return &b.AdSelect }),
		"ad_actor_sys_prio": number(1, u16, func(b *netlink.Bond) *int { return &b.AdActorSysPrio }),
		"ad_user_port_key":  number(0, 1023, func(b *netlink.Bond) *int { return &b.AdUserPortKey }),
		"ad_actor_system":   {set: setSystem, get: func(b *netlink.Bond) string { return b.AdActorSystem.String() }},
		"tlb_dynamic_lb":    number(0, 1, func(b *netlink.Bond) *int { return &b.TlbDynamicLb }),
	}
}

// number is an option with a number from least to most.
func number(least, most int, at func(*netlink.Bond) *int) option {
	return option{
		set: func(b *netlink.Bond, value string) error {
			n, err := strconv.Atoi(value)
			if err != nil || n < least || n > most {
				return fmt.Errorf("want a number from %d to %d", least, most)
			}
			*at(b) = n
			return nil
		},
		get: func(b *netlink.Bond) string { return strconv.Itoa(*at(b)) },
	}
}

// choice is an option with one of a few values, by name or by number.
func choice[T ~int](names map[string]T, at func(*netlink.Bond) *T) option {
	return option{
		set: func(b *netlink.Bond, value string) error {
			if n, ok := names[value]; ok {
				*at(b) = n
				return nil
			}
			n, err := strconv.Atoi(value)
			if err != nil || !slices.Contains(slices.Collect(maps.Values(names)), T(n)) {
				byNumber := func(a, b string) int { return int(names[a]) - int(names[b]) }
				return fmt.Errorf("want one of %s", strings.Join(slices.SortedFunc(maps.Keys(names), byNumber), ", "))
			}
			*at(b) = T(n)
			return nil
		},
		get: func(b *netlink.Bond) string {
			for name, n := range names {
				if n == *at(b) {
					return name
				}
			}
			return strconv.Itoa(int(*at(b)))
		},
	}
}

// setTargets takes addresses separated by commas. The kernel has room for 16,
// and netlink for IPv4 only.
func setTargets(b *netlink.Bond, value string) error {
	parts := strings.Split(value, ",")
	for _, part := range parts {
		addr, err := netip.ParseAddr(strings.TrimSpace(part))
		if err != nil || !addr.Is4() || len(parts) > 16 {
			return fmt.Errorf("want up to 16 IPv4 addresses separated by commas")
		}
		b.ArpIpTargets = append(b.ArpIpTargets, net.IP(addr.AsSlice()))
	}
	return nil
}

func targets(b *netlink.Bond) string {
	var texts []string
	for _, target := range b.ArpIpTargets {
		texts = append(texts, target.String())
	}
	return strings.Join(texts, ",")
}

func setSystem(b *netlink.Bond, value string) error {
	address, err := net.ParseMAC(value)
	if err != nil || len(address) != 6 || address[0]&1 != 0 {
		return fmt.Errorf("want a hardware address that is no multicast, like 02:00:00:00:00:01")
	}
	b.AdActorSystem = address
	return nil
}

// parseOptions reads the options of a bond of the interfaces. Errors are
// *types.Error.
func (b *bond) parseOptions(interfaces []string) error {
	b.wants = netlink.NewLinkBond(netlink.NewLinkAttrs())
	b.wants.Mode = netlink.BondMode(b.Mode)
	options := known()
	for text := range strings.SplitSeq(b.Options, ";") {
		if strings.TrimSpace(text) == "" {
			continue
		}
		key, value, ok := strings.Cut(text, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if !ok || key == "" || value == "" {
			return wrong(fmt.Sprintf("bond.options has %q, which is no option", strings.TrimSpace(text)), `write options as key=value with semicolons between them, like "miimon=100;primary=ens192"`)
		}
		if slices.Contains(b.given, key) {
			return wrong(fmt.Sprintf("bond.options has %s twice", key), "give each option once")
		}
		b.given = append(b.given, key)
		if key == keyPrimary {
			if !slices.Contains(interfaces, value) {
				return wrong(fmt.Sprintf("bond.options has primary=%s, which is none of the bond's interfaces", value), "use one of "+strings.Join(interfaces, ", "))
			}
			b.primary = value
			continue
		}
		option, ok := options[key]
		if !ok {
			return wrong(fmt.Sprintf("bond.options has %s, which is not known", key), unknown(key, options))
		}
		if err := option.set(b.wants, value); err != nil {
			return wrong(fmt.Sprintf("bond.options has %s=%s", key, value), err.Error())
		}
	}
	return nil
}

func unknown(key string, options map[string]option) string {
	if key == "mode" {
		return "the mode stands in bond.mode, as a number: " + modes()
	}
	return "known are " + strings.Join(append(slices.Sorted(maps.Keys(options)), keyPrimary), ", ")
}
