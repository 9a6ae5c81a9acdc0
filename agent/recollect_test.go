package agent

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"

	"github.com/holdfast-ipam/holdfast/lease"
)

func TestOfTwoAddressesOfALostJournalThePodGoesOnWithItsStatus(t *testing.T) {
	tell := func(ifname, addr string, status, detail bool) recollection {
		r := recollection{entry: lease.Entry{Addr: netip.MustParseAddr(addr), Owner: lease.Owner{PodUID: "u", Interface: ifname}}, status: status}
		if detail {
			r.entry.Detail = json.RawMessage(`{}`)
		}
		return r
	}
	for name, test := range map[string]struct {
		told []recollection
		want []string // those a sandbox may be answered with
	}{
		"they agree":              {[]recollection{tell("eth0", "10.0.0.1", true, true)}, []string{"10.0.0.1"}},
		"they differ":             {[]recollection{tell("eth0", "10.0.0.1", false, true), tell("eth0", "10.0.0.2", true, true)}, []string{"10.0.0.2"}},
		"nothing tells its pool":  {[]recollection{tell("eth0", "10.0.0.1", false, true), tell("eth0", "10.0.0.2", true, false)}, []string{"10.0.0.1"}},
		"another family":          {[]recollection{tell("eth0", "fd00::1", false, true), tell("eth0", "10.0.0.2", true, true)}, []string{"fd00::1", "10.0.0.2"}},
		"another interface":       {[]recollection{tell("net1", "10.0.0.1", false, true), tell("eth0", "10.0.0.2", true, true)}, []string{"10.0.0.1", "10.0.0.2"}},
		"no status to be told of": {[]recollection{tell("eth0", "10.0.0.1", false, true)}, []string{"10.0.0.1"}},
	} {
		preferStatus(test.told)
		var got []string
		for _, r := range test.told {
			if r.entry.Detail != nil {
				got = append(got, r.entry.Addr.String())
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: goes on with %v, want %v", name, got, test.want)
		}
	}
}
