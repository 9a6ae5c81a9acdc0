package detect

import (
	"net"
	"net/netip"
	"testing"
)

func own() net.HardwareAddr      { return net.HardwareAddr{2, 0, 0, 0, 0, 1} }
func stranger() net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, 2} }

// frames returns what the two protocols send for their addresses.
func frames(t testing.TB, from net.HardwareAddr, addr, gateway netip.Addr) map[string]frame {
	t.Helper()
	p, err := protocolOf(addr)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]frame{}
	for name, made := range map[string]func() (frame, error){
		"probe":        func() (frame, error) { return p.probe(from, addr) },
		"request":      func() (frame, error) { return p.request(from, addr, gateway) },
		"announcement": func() (frame, error) { return p.announcement(from, addr) },
	} {
		if all[name], err = made(); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestFramesOfOthersAreTakenForWhatTheyAre(t *testing.T) {
	for _, c := range []struct{ addr, gateway string }{{"10.0.0.1", "10.0.0.254"}, {"fd00::1", "fd00::fe"}} {
		addr, gateway := netip.MustParseAddr(c.addr), netip.MustParseAddr(c.gateway)
		p, err := protocolOf(addr)
		if err != nil {
			t.Fatal(err)
		}
		theirs, mine := frames(t, stranger(), addr, gateway), frames(t, own(), addr, gateway)
		elsewhere := frames(t, stranger(), gateway, addr)
		for _, w := range []struct {
			what  string
			frame frame
			from  net.HardwareAddr
			want  net.HardwareAddr
		}{
			{"a stranger's announcement", theirs["announcement"], stranger(), stranger()},
			{"a stranger's probe", theirs["probe"], stranger(), stranger()},
			{"one's own probe", mine["probe"], own(), nil},
			{"an announcement of another address", elsewhere["announcement"], stranger(), nil},
			{"a probe for another address", elsewhere["probe"], stranger(), nil},
			{"a frame that is cut off", frame{payload: theirs["announcement"].payload[:20]}, stranger(), nil},
			{"nothing", frame{}, stranger(), nil},
		} {
			if got := p.claimant(w.frame.payload, w.from, own(), addr); got.String() != w.want.String() {
				t.Errorf("%s by %s: %q claims it, want %q", c.addr, w.what, got, w.want)
			}
		}
		if got := p.answer(elsewhere["announcement"].payload, stranger(), gateway); got.String() != stranger().String() {
			t.Errorf("the gateway's own announcement is from %q", got)
		}
		if got := p.answer(theirs["announcement"].payload, stranger(), gateway); got != nil {
			t.Errorf("the gateway is %q by an announcement of %s", got, addr)
		}
	}
}

// A router would have passed the message on, and with it come those of other
// links.
func TestAdvertisementFromAnotherLinkIsNotBelieved(t *testing.T) {
	addr := netip.MustParseAddr("fd00::1")
	f := frames(t, stranger(), addr, addr)["announcement"]
	f.payload[7]-- // hop limit
	if got := (ipv6{}).claimant(f.payload, stranger(), own(), addr); got != nil {
		t.Errorf("%s claims the address from afar", got)
	}
}

// FuzzFrames: what comes over a link never brings the plugin down, and nobody
// claims an address without a hardware address to be found by.
func FuzzFrames(f *testing.F) {
	addrs := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}
	for _, addr := range addrs {
		for _, sent := range frames(f, stranger(), addr, addr) {
			f.Add(sent.payload)
		}
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		for _, addr := range addrs {
			p, err := protocolOf(addr)
			if err != nil {
				t.Fatal(err)
			}
			for _, mac := range []net.HardwareAddr{p.claimant(payload, stranger(), own(), addr), p.answer(payload, stranger(), addr)} {
				if mac != nil && len(mac) != ethernetLen {
					t.Errorf("hardware address %q", mac)
				}
			}
		}
	})
}
