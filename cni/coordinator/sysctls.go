package coordinator

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// planSysctls plans the settings of the kernel. Those in conf/all concern the
// pod alone; of the node, only its end of the pair is touched.
func (p *planner) planSysctls() {
	d := &p.plan.pod
	if p.plan.pair != nil {
		d.sysctls = append(d.sysctls, pairSysctls(podVeth)...)
		p.plan.node.sysctls = append(p.plan.node.sysctls, pairSysctls(p.nodeDev)...)
		// The first packet back is routed before it can be marked
		// (marks.go): these mark it in time.
		d.sysctls = append(d.sysctls,
			sysctl{"ipv4/tcp_fwmark_accept", "1", true},
			sysctl{"ipv4/fwmark_reflect", "1", true},
			sysctl{"ipv6/fwmark_reflect", "1", true},
			sysctl{"ipv4/conf/all/src_valid_mark", "1", true})
		if p.vethAddress.IsValid() && (p.vethAddress.Is6() || len(p.nic.global(ipv4)) > 0) {
			d.addresses = append(d.addresses, ownAddress{podVeth, whole(p.vethAddress)})
		}
	}
	if len(p.nic.global(ipv6)) > 0 {
		d.sysctls = append(d.sysctls, sysctl{"ipv6/conf/all/disable_ipv6", "0", true}, sysctl{"ipv6/conf/" + p.dev + "/disable_ipv6", "0", false})
		if p.plan.pair != nil {
			p.plan.node.sysctls = append(p.plan.node.sysctls, sysctl{"ipv6/conf/" + p.nodeDev + "/disable_ipv6", "0", true})
		}
	}
	if p.rpFilter < 0 {
		return
	}
	// The kernel goes by the higher one of "all" and the interface's own.
	value := strconv.Itoa(p.rpFilter)
	devs := []string{"all", "default"}
	if p.plan.pair != nil {
		devs = append(devs, podVeth)
	}
	for _, l := range p.pod.links {
		if l.name != "lo" && l.name != podVeth {
			devs = append(devs, l.name)
		}
	}
	for _, dev := range devs {
		d.sysctls = append(d.sysctls, sysctl{"ipv4/conf/" + dev + "/rp_filter", value, false})
	}
}

// pairSysctls keeps an end of the pair to what it is for: with no link-local
// address there is nothing to be found a duplicate of, and no router speaks
// there.
func pairSysctls(dev string) []sysctl {
	return []sysctl{
		{"ipv6/conf/" + dev + "/addr_gen_mode", "1", true}, // none
		{"ipv6/conf/" + dev + "/accept_ra", "0", true},
	}
}

const sysctlRoot = "/proc/sys/net"

// read returns the value, and fs.ErrNotExist if the kernel has no such setting.
// It runs inside.
func (s sysctl) read() (string, error) {
	text, err := os.ReadFile(filepath.Join(sysctlRoot, s.file))
	return strings.TrimSpace(string(text)), err
}

// set sets the value if it is another. It runs inside.
func (s sysctl) set() error {
	value, err := s.read()
	if errors.Is(err, fs.ErrNotExist) && s.optional || err == nil && value == s.value {
		return nil
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(sysctlRoot, s.file), []byte(s.value), 0)
	}
	if err != nil {
		return fmt.Errorf("set net/%s to %s: %w", s.file, s.value, err)
	}
	return nil
}
