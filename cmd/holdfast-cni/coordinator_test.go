package main

import (
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/holdfast-ipam/holdfast/cni/nettest"
)

// everyKey is a configuration with all keys that Spiderpool's coordinator has.
const everyKey = `,"mode":"auto","tunePodRoutes":true,"podDefaultRouteNic":"eth0","podDefaultCniNic":"eth0","podMACPrefix":"0a:1b",
	"overlayPodCIDR":["10.244.0.0/16"],"serviceCIDR":["10.96.0.0/12"],"hijackCIDR":["169.254.0.0/16"],"policyRoutes":[{"dst":"1.1.1.1/32","gw":"10.6.0.1"}],
	"hostRuleTable":500,"podRPFilter":0,"txQueueLen":0,"vethLinkAddress":"","vethMTU":1500,"logOptions":{"logLevel":"debug"},"multusNicPrefix":"net","hostRPFilter":0`

func chain(cniVersion, top string) string {
	return `{"cniVersion":"` + cniVersion + `","name":"lan","type":"coordinator"` + top + `}`
}

func TestCoordinatorHandsItsInputOnInTheConfiguredVersion(t *testing.T) {
	t.Parallel()
	for _, v := range versions() {
		t.Run(v, func(t *testing.T) {
			got := runPlugin(t, "coordinator", chain(v, strings.Replace(everyKey, "auto", "disabled", 1)+prevResult(v)), environment("ADD")...)
			mustSucceed(t, got)
			golden(t, "chain-"+v+".json", got.Stdout)
		})
	}
}

func TestCoordinatorLosesNothingOfAResult(t *testing.T) {
	t.Parallel()
	const full = `{"cniVersion":"1.1.0",
		"interfaces":[{"name":"eth0","mac":"0a:58:0a:06:a8:65","mtu":1400,"sandbox":"/var/run/netns/x","socketPath":"/s","pciID":"0000:00:1f.6"}],
		"ips":[{"address":"10.6.168.101/16","gateway":"10.6.0.1","interface":0}],
		"routes":[{"dst":"10.0.0.0/8","gw":"10.6.0.1","mtu":1300,"advmss":1260,"priority":7,"table":100,"scope":253}],
		"dns":{"nameservers":["10.96.0.10"],"domain":"cluster.local","search":["svc.cluster.local"],"options":["ndots:5"]}}`
	got := runPlugin(t, "coordinator", chain("1.1.0", `,"mode":"disabled","prevResult":`+full), environment("ADD")...)
	if got.Exit != 0 || !sameJSON(full, got.Stdout) {
		t.Errorf("ADD ended with %+v, want its prevResult %s", got, full)
	}
}

// A DEL that cannot be read removes what there is all the same, and needs
// nobody; STATUS says what an ADD would.
func TestCoordinatorsVerbsWithoutAnInterface(t *testing.T) {
	t.Parallel()
	node := &machine{nettest.New(t), newAgent(t, 200, `{"ready":true}`)}
	socket := `,"ipam_unix_socket_path":"` + node.agent.socket + `"`
	for _, c := range []struct{ verb, version, top string }{
		{"DEL", "0.3.0", everyKey}, {"DEL", "0.3.1", ""}, {"DEL", "0.4.0", ""}, {"DEL", "1.0.0", `,"mode":"sideways"`}, {"DEL", "1.1.0", ""},
		{"GC", "1.1.0", `,"cni.dev/valid-attachments":[]`}, {"STATUS", "1.1.0", socket}, {"STATUS", "1.1.0", `,"mode":"disabled"`},
		{"CHECK", "1.1.0", `,"mode":"disabled"` + prevResult("1.1.0")},
	} {
		t.Run(c.verb+" "+c.version, func(t *testing.T) {
			got := node.run(t, "coordinator", chain(c.version, c.top), environment(c.verb)...)
			mustSucceed(t, got)
			if got.Stdout != "" {
				t.Errorf("%s printed %q, want nothing", c.verb, got.Stdout)
			}
		})
	}
	node.agent = newAgent(t, 200, `{"ready":false,"reason":"it starts"}`)
	printed := cniError(t, node.run(t, "coordinator", chain("1.1.0", `,"ipam_unix_socket_path":"`+node.agent.socket+`"`), environment("STATUS")...))
	if printed.Code != types.ErrPluginNotAvailable || printed.Details != "it starts" {
		t.Errorf("STATUS printed %+v, want code %d and the agent's reason", printed, types.ErrPluginNotAvailable)
	}
	printed = cniError(t, node.run(t, "coordinator", chain("1.1.0", ""), environment("GC")...))
	if printed.Code != types.ErrInvalidNetworkConfig {
		t.Errorf("GC without a list printed %+v, want code %d", printed, types.ErrInvalidNetworkConfig)
	}
}

func TestCoordinatorRefusesWhatItCannotStandBehind(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		top, word string
		code      uint
	}{
		"first in the chain": {"", "prevResult", types.ErrInvalidNetworkConfig},
		"unknown mode":       {`,"mode":"sideways"` + prevResult("1.0.0"), "sideways", types.ErrInvalidNetworkConfig},
		"mode no text":       {`,"mode":1` + prevResult("1.0.0"), "configuration", types.ErrDecodingFailure},
		"prevResult garbage": {`,"prevResult":{"ips":[{"address":"x"}]}`, "prevResult", types.ErrDecodingFailure},
	} {
		t.Run(name, func(t *testing.T) {
			printed := cniError(t, runPlugin(t, "coordinator", chain("1.0.0", c.top), environment("ADD")...))
			if printed.Code != c.code || !strings.Contains(printed.Msg, c.word) {
				t.Errorf("printed %+v, want code %d and the word %s", printed, c.code, c.word)
			}
		})
	}
}
