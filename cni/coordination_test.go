package cni

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// exact compares addresses and networks by what they are.
var exact = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func TestCoordinationIsReadAsItWasWritten(t *testing.T) {
	no, table, filter := false, int64(600), int64(-1)
	want := &Coordination{
		Mode: "underlay", TunePodRoutes: &no, HostRuleTable: &table, PodRPFilter: &filter,
		HijackCIDR:      []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fd00::1/128")},
		PolicyRoutes:    []PolicyRoute{{netip.MustParsePrefix("10.7.0.0/16"), netip.MustParseAddr("10.6.0.2")}},
		PodMACPrefix:    "0a:1b",
		VethLinkAddress: netip.MustParseAddr("169.254.100.1"),
		PodCIDR:         []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, ServiceCIDR: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")},
		DefaultRouteInterface: "net1",
	}
	asked := CoordinationRequest{Attachment: Attachment{ContainerID: "c", Interface: "eth0", Pod: Pod{Namespace: "default", Name: "web"}}, Mode: "auto"}
	socket := listenOn(t, func(w http.ResponseWriter, r *http.Request) {
		var q CoordinationRequest
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &q)
		}
		if err != nil || q != asked || r.Method != http.MethodPost || r.URL.Path != PathCoordination {
			t.Errorf("asked %s %s %s, %v", r.Method, r.URL.Path, body, err)
		}
		if err := json.NewEncoder(w).Encode(want); err != nil {
			t.Error(err)
		}
	})
	got, err := (&Client{Socket: socket}).Coordination(t.Context(), asked)
	if diff := cmp.Diff(want, got, exact); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestCoordinationThatNoRouteCouldBeMadeFromIsNotUnderstood(t *testing.T) {
	for answer, says := range map[string]string{
		`{}`: "without a mode",
		`{"mode":"auto","hijackCIDR":["::ffff:10.0.0.0/104"]}`:                       `the network "::ffff:10.0.0.0/104"`,
		`{"mode":"auto","hijackCIDR":["169.254.0.1"]}`:                               "169.254.0.1",
		`{"mode":"auto","overlayPodCIDR":[""]}`:                                      `the network "invalid Prefix"`,
		`{"mode":"auto","serviceCIDR":["all"]}`:                                      "all",
		`{"mode":"auto","policyRoutes":[{"dst":"10.0.0.0/8"}]}`:                      `a route to "10.0.0.0/8"`,
		`{"mode":"auto","policyRoutes":[{"gw":"10.0.0.1"}]}`:                         `through "10.0.0.1"`,
		`{"mode":"auto","policyRoutes":[{"dst":"10.0.0.0/8","gw":"fd00::1"}]}`:       `through "fd00::1"`,
		`{"mode":"auto","policyRoutes":[{"dst":"fd00::/8","gw":"::ffff:10.0.0.1"}]}`: `through "::ffff:10.0.0.1"`,
		`{"mode":"auto","policyRoutes":[{"dst":"fd00::/8","gw":"fe80::1%eth0"}]}`:    `through "fe80::1%eth0"`,
		`{"mode":"auto","vethLinkAddress":"::ffff:10.0.0.1"}`:                        "for the veth pair",
		`[]`: "cannot unmarshal",
	} {
		socket := listenOn(t, func(w http.ResponseWriter, _ *http.Request) {
			if _, err := io.WriteString(w, answer); err != nil {
				t.Error(err)
			}
		})
		got, err := (&Client{Socket: socket}).Coordination(t.Context(), CoordinationRequest{})
		if got != nil || !errors.Is(err, ErrNotUnderstood) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %+v, %v; want %q", answer, got, err, says)
		}
	}
}
