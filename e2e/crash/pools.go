package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	"go4.org/netipx"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// pool is a SpiderIPPool of one range.
type pool struct {
	name   string
	subnet netip.Prefix
	ips    netipx.IPRange
}

// offer is what a pod asks for: an address of each of its pools.
type offer struct {
	name  string
	pools []pool
}

// The offers of a run: rich has many times what its pods need, of both
// families; scarce about as much; left and right overlap by half.
const (
	rich   = "rich"
	scarce = "scarce"
	left   = "left"
	right  = "right"
)

func offers() []offer {
	one := func(name, ips string) offer { return offer{name, []pool{newPool(name, "10.6.0.0/16", ips)}} }
	return []offer{
		{rich, []pool{
			newPool("rich", "10.6.0.0/16", "10.6.16.0-10.6.16.255"),
			// It has more, so that rich ends with the other's last address.
			newPool("rich-v6", "fd00:10:6::/64", "fd00:10:6::100-fd00:10:6::22f"),
		}},
		one(scarce, "10.6.32.5-10.6.32.44"),
		one(left, "10.6.48.0-10.6.48.39"),
		one(right, "10.6.48.20-10.6.48.59"),
	}
}

func offerOf(name string) (*offer, error) {
	for _, o := range offers() {
		if o.name == name {
			return &o, nil
		}
	}
	return nil, fmt.Errorf("there is no offer %q", name)
}

func newPool(name, subnet, ips string) pool {
	return pool{name, netip.MustParsePrefix(subnet), netipx.MustParseIPRange(ips)}
}

func (p *pool) object() *v2beta1.SpiderIPPool {
	return &v2beta1.SpiderIPPool{
		ObjectMeta: metav1.ObjectMeta{Name: p.name},
		Spec:       v2beta1.IPPoolSpec{Subnet: p.subnet.String(), IPs: []string{p.ips.String()}},
	}
}

// addresses lists the pool's addresses.
func (p *pool) addresses() []netip.Addr {
	var all []netip.Addr
	for a := p.ips.From(); a.Compare(p.ips.To()) <= 0; a = a.Next() {
		all = append(all, a)
	}
	return all
}

// annotation is how a pod asks for the offer (ipam.spidernet.io/ippool).
func (o *offer) annotation() string {
	names := map[string][]string{}
	for _, p := range o.pools {
		family := "ipv4"
		if p.subnet.Addr().Is6() {
			family = "ipv6"
		}
		names[family] = append(names[family], p.name)
	}
	text, err := json.Marshal(names)
	if err != nil {
		return "" // names are always JSON
	}
	return string(text)
}

// fits returns what is wrong with an answer to a pod that asked for the offer,
// or nothing: one address of each pool, IPv4 first, with the subnet's length.
func (o *offer) fits(answer []netip.Prefix) string {
	if len(answer) != len(o.pools) {
		return fmt.Sprintf("%d addresses of %d", len(answer), len(o.pools))
	}
	for i, p := range o.pools {
		if !p.ips.Contains(answer[i].Addr()) || answer[i].Bits() != p.subnet.Bits() {
			return fmt.Sprintf("%s, which pool %s does not offer", answer[i], p.name)
		}
	}
	return ""
}

func (w *world) createPools(ctx context.Context) error {
	for _, o := range offers() {
		for _, p := range o.pools {
			err := w.api.insist(ctx, func(ctx context.Context) error {
				_, err := w.api.crds.IPPools().Create(ctx, p.object(), metav1.CreateOptions{})
				return err
			})
			if err != nil {
				return fmt.Errorf("create pool %s: %w", p.name, err)
			}
		}
	}
	return nil
}
