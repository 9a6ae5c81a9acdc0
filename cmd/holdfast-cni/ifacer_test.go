package main

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// onLoopback is a configuration for which there is nothing to make: lo is up
// wherever tests run.
func onLoopback(cniVersion, top string) string {
	return `{"cniVersion":"` + cniVersion + `","name":"m100","type":"ifacer","interfaces":["lo"]` + top + `}`
}

func TestIfacerFirstInAChainPrintsAResultOfTheConfiguredVersion(t *testing.T) {
	t.Parallel()
	for _, v := range versions() {
		t.Run(v, func(t *testing.T) {
			got := runPlugin(t, "ifacer", onLoopback(v, ""), environment("ADD")...)
			mustSucceed(t, got)
			golden(t, "first-"+v+".json", got.Stdout)
		})
	}
}

func TestIfacerHandsAPrevResultOn(t *testing.T) {
	t.Parallel()
	for _, v := range versions() {
		t.Run(v, func(t *testing.T) {
			got := runPlugin(t, "ifacer", onLoopback(v, prevResult(v)), environment("ADD")...)
			mustSucceed(t, got)
			golden(t, "chain-"+v+".json", got.Stdout)
		})
	}
}

// What DEL, GC and STATUS are given does not matter: they have nothing to do.
func TestIfacersOtherVerbsSucceedSilently(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ verb, conf string }{
		{"DEL", onLoopback("0.3.0", "")}, {"DEL", onLoopback("1.1.0", prevResult("1.1.0"))},
		{"DEL", `{"cniVersion":"0.3.1","name":"m100","type":"ifacer","interfaces":["gone"],"vlanID":"garbage","bond":7}`},
		{"CHECK", onLoopback("0.4.0", "")}, {"CHECK", onLoopback("1.1.0", prevResult("1.1.0"))},
		{"GC", onLoopback("1.1.0", `,"cni.dev/valid-attachments":[]`)}, {"STATUS", onLoopback("1.1.0", "")},
	} {
		t.Run(c.verb, func(t *testing.T) {
			got := runPlugin(t, "ifacer", c.conf, environment(c.verb)...)
			mustSucceed(t, got)
			if got.Stdout != "" {
				t.Errorf("%s printed %q, want nothing", c.verb, got.Stdout)
			}
		})
	}
}

func TestIfacerRefusesWithAnErrorResult(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		top, word string
		code      uint
	}{
		"no such interface": {`"interfaces":["nowhere0"],"vlanID":5`, "this node has no interface nowhere0", types.ErrInvalidNetworkConfig},
		"no interfaces":     {`"vlanID":5`, `"interfaces" is empty`, types.ErrInvalidNetworkConfig},
		"a VLAN as text":    {`"interfaces":["lo"],"vlanID":"5"`, "cannot be read", types.ErrDecodingFailure},
		"a foreign option":  {`"interfaces":["lo","x"],"bond":{"options":"speed=9"}`, "speed", types.ErrInvalidNetworkConfig},
	} {
		for _, verb := range []string{"ADD", "CHECK"} {
			t.Run(name+" "+verb, func(t *testing.T) {
				got := runPlugin(t, "ifacer", `{"cniVersion":"1.0.0","name":"m","type":"ifacer",`+c.top+`}`, environment(verb)...)
				printed := cniError(t, got)
				if printed.Code != c.code || !strings.Contains(printed.Msg, c.word) || printed.Details == "" || got.Stderr != "" {
					t.Errorf("printed %+v and %q on stderr, want code %d, %q and advice", printed, got.Stderr, c.code, c.word)
				}
			})
		}
	}
}

// In the namespace it is started in, and nowhere else: a new one has a lo that
// is down.
func TestIfacerWorksOnTheNodeItIsStartedOn(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("it starts the plugin in a network namespace of its own, which only root may")
	}
	s := prepare(t, "ifacer", onLoopback("1.0.0", ""), environment("CHECK")...)
	s.command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := s.command.Start(); err != nil {
		t.Fatal(err)
	}
	if printed := cniError(t, s.wait(t)); !strings.Contains(printed.Msg, "lo is down") {
		t.Errorf("printed %+v, want that lo is down", printed)
	}
	s = prepare(t, "ifacer", onLoopback("1.0.0", ""), environment("ADD")...)
	s.command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := s.command.Start(); err != nil {
		t.Fatal(err)
	}
	mustSucceed(t, s.wait(t))
}
