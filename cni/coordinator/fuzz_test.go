package coordinator

import (
	"io"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/holdfast-ipam/holdfast/cni"
)

// Whatever stands on stdin, an ADD ends with a CNI error or has a result that
// can be printed in the configuration's version.
func FuzzConfigOnStdin(f *testing.F) {
	for _, seed := range []string{
		`{"cniVersion":"0.3.1","name":"n","type":"coordinator","txQueueLen":0,"tunePodRoutes":true,"mode":"auto","prevResult":{"ips":[{"version":"4","address":"10.6.168.101/16"}],"dns":{}}}`,
		`{"cniVersion":"1.1.0","name":"n","mode":"underlay","prevResult":{"cniVersion":"1.1.0","interfaces":[null],"ips":[null],"routes":[null]}}`,
		`{"cniVersion":"0.4.0","name":"n","mode":"disable","prevResult":{"interfaces":[null],"ips":[null],"routes":[null]}}`,
		`{"cniVersion":"1.0.0","name":"n","prevResult":{"cniVersion":"0.4.0"}}`,
		`{"cniVersion":"1.0.0","name":"n","podMACPrefix":"0a:1b","vethLinkAddress":"fe80::1%eth0","hijackCIDR":["::ffff:1.2.3.4","10.0.0.0/8"],"policyRoutes":[{"dst":"::1","gw":"1.1.1.1"}],"hostRuleTable":255,"vethMTU":-1,"prevResult":{}}`,
		`{"cniVersion":"1.0.0","name":"n","prevResult":null}`, `{"mode":"x"}`, `[]`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, stdin []byte) {
		conf, err := parseConfig(stdin)
		if err == nil {
			err = conf.parsePrevResult("ADD")
		}
		if err == nil {
			_, err = conf.settings(&cni.Coordination{Mode: modeAuto})
		}
		if err != nil {
			printed, ok := err.(*types.Error)
			if !ok || printed.Code == 0 || printed.Code == types.ErrInternal || printed.Msg == "" {
				t.Errorf("failed with %#v, want a CNI error with a code and a message", err)
			}
			return
		}
		result, err := conf.PrevResult.GetAsVersion(conf.CNIVersion)
		if err != nil {
			t.Fatal(err)
		}
		if err := result.PrintTo(io.Discard); err != nil {
			t.Error(err)
		}
	})
}
