package coordinator

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"
)

// missing returns what of the plan is not there, in words.
func (p *plan) missing(node, pod *space) ([]string, error) {
	var all []string
	if p.pair != nil {
		outer, inner, err := p.pair.find(node, pod)
		if err != nil {
			return nil, err
		}
		if outer == nil || inner == nil || !paired(outer, inner) {
			// The rest goes with it, and would only hide it.
			return []string{fmt.Sprintf("the pair of %s on the node and %s", p.pair.host, podVeth)}, nil
		}
	}
	inPod, err := p.pod.missing(pod)
	if err != nil {
		return nil, fmt.Errorf("look at the pod: %w", err)
	}
	marks, err := missingMarks(pod, p.pod.marks)
	if err != nil {
		return nil, err
	}
	onNode, err := p.node.missing(node)
	if err != nil {
		return nil, fmt.Errorf("look at the node: %w", err)
	}
	masquerade, err := p.node.missingMasquerade(node)
	if err != nil {
		return nil, err
	}
	for _, what := range slices.Concat(inPod, marks) {
		all = append(all, what+" in the pod")
	}
	for _, what := range slices.Concat(onNode, masquerade) {
		all = append(all, what+" on the node")
	}
	return all, p.missingNIC(pod, &all)
}

// missingNIC looks at the interface itself.
func (p *plan) missingNIC(pod *space, all *[]string) error {
	nic, err := pod.LinkByName(p.nic)
	if err != nil {
		return fmt.Errorf("look %s up: %w", p.nic, err)
	}
	attrs := nic.Attrs()
	if attrs.RawFlags&unix.IFF_UP == 0 {
		*all = append(*all, p.nic+" being up")
	}
	if p.mac != "" && attrs.HardwareAddr.String() != p.mac {
		*all = append(*all, fmt.Sprintf("the hardware address %s (it has %s)", p.mac, attrs.HardwareAddr))
	}
	if p.queue > 0 && attrs.TxQLen != p.queue {
		*all = append(*all, fmt.Sprintf("a transmit queue of %d (it has %d)", p.queue, attrs.TxQLen))
	}
	return nil
}

// missing returns what of a side a namespace lacks.
func (d *side) missing(in *space) ([]string, error) {
	now, err := in.look()
	if err != nil {
		return nil, err
	}
	all, err := d.missingSysctls(in)
	for _, a := range d.addresses {
		if l := now.link(a.dev); l == nil || !slices.ContainsFunc(l.addrs, func(there address) bool { return there.prefix == a.prefix }) {
			all = append(all, fmt.Sprintf("the address %s on %s", a.prefix.Addr(), a.dev))
		}
	}
	for _, n := range d.neighbours {
		if !slices.Contains(now.neighbours, n) {
			all = append(all, fmt.Sprintf("the neighbour %s with %s on %s", n.addr, n.mac, n.dev))
		}
	}
	for _, r := range d.routes {
		// Through the node, any of its addresses is as good: which one comes
		// first may have changed since.
		if !slices.ContainsFunc(now.routes, r.leadsLike) {
			all = append(all, fmt.Sprintf("the route to %s through %s in table %d", r.destination, r.dev, r.table))
		}
	}
	for _, r := range d.rules {
		if !slices.ContainsFunc(now.rules, r.is) {
			all = append(all, r.String())
		}
	}
	return all, err
}

func (d *side) missingSysctls(in *space) (all []string, err error) {
	return all, in.inside(func() error {
		for _, s := range d.sysctls {
			value, err := s.read()
			switch {
			case s.optional && errors.Is(err, fs.ErrNotExist):
			case err != nil:
				return err
			case value != s.value:
				all = append(all, fmt.Sprintf("net/%s being %s (it is %s)", s.file, s.value, value))
			}
		}
		return nil
	})
}

// String tells the rule as `ip rule` would.
func (r rule) String() string {
	text := fmt.Sprintf("the rule %d of IPv%d", r.priority, r.family)
	if r.from.Bits() > 0 {
		text += " from " + r.from.Addr().String()
	}
	if r.mark != 0 {
		text += fmt.Sprintf(" fwmark %#x", r.mark)
	}
	return fmt.Sprintf("%s lookup %d", text, r.table)
}
