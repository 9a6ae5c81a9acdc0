package cni

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
)

// Whatever stands on stdin, the plugin ends with a CNI error or knows where
// its agent is, and a CHECK of it ends the same way.
func FuzzConfigOnStdin(f *testing.F) {
	for _, seed := range []string{
		`{"cniVersion":"0.3.1","name":"macvlan-ens192","type":"macvlan","master":"ens192","mode":"bridge","mtu":0,"ipam":{"type":"spiderpool"}}`,
		`{"cniVersion":"1.1.0","name":"n","ipam":{"type":"spiderpool","default_ipv4_ippool":["a"],"default_ipv6_ippool":[],"clean_gateway":true,"match_master_subnet":false,"log_file_max_size":"x"}}`,
		`{"cniVersion":"1.0.0","name":"n","ipam":{"ipam_unix_socket_path":"/run/../x.sock"},"prevResult":{"ips":[{"address":"10.0.0.1/8","interface":0}],"interfaces":[{"name":"eth0"}]}}`,
		`{"cniVersion":"0.4.0","name":"n","ipam":{},"prevResult":{"ips":[{"version":"6","address":"::ffff:10.0.0.1/120","interface":-1},null],"interfaces":[null]}}`,
		`{"cniVersion":"1.1.0","name":"n","ipam":{},"cni.dev/valid-attachments":[{"containerID":"c","ifname":"eth0"}]}`,
		`{"cniVersion":"1.1.0","ipam":null,"prevResult":null,"cni.dev/valid-attachments":null}`,
		`{"ipam":[]}`, `[]`, `null`, ``, `{`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, stdin []byte) {
		conf, err := parseConfig(stdin)
		if err != nil {
			mustBeCNIError(t, err)
			return
		}
		if !filepath.IsAbs(conf.IPAM.Socket) {
			t.Errorf("socket %q is not absolute", conf.IPAM.Socket)
		}
		addresses, err := conf.addresses("eth0")
		if err != nil {
			mustBeCNIError(t, err)
			return
		}
		for _, address := range addresses {
			if !address.IsValid() {
				t.Errorf("prevResult gave %v, which is no address", address)
			}
		}
	})
}

// A pod read from CNI_ARGS was really named in them.
func FuzzCNIArgs(f *testing.F) {
	for _, seed := range []string{
		"", ";", "=", "IgnoreUnknown=1", "CommonArgs=1", "ignoreunknown=1;K8S_POD_NAME=a",
		"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=test-sts-0;K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=6d7a",
		"IgnoreUnknown=maybe;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b",
		"K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;IP=10.0.0.1;MAC=0a:0b:0c:0d:0e:0f",
		"K8S_POD_NAMESPACE=a;K8S_POD_NAME=b=c", "K8S_POD_NAMESPACE=;K8S_POD_NAME=b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, args string) {
		pod, err := ParsePod(args)
		if err != nil {
			mustBeCNIError(t, err)
			return
		}
		pairs := strings.Split(args, ";")
		for key, value := range map[string]string{"K8S_POD_NAMESPACE": pod.Namespace, "K8S_POD_NAME": pod.Name, "K8S_POD_UID": pod.UID} {
			if value == "" && key == "K8S_POD_UID" {
				continue
			}
			if !slices.Contains(pairs, key+"="+value) || value == "" {
				t.Errorf("%s is %q, which CNI_ARGS %q do not say", key, value, args)
			}
		}
	})
}

// What an agent answers is refused, or comes out of the printed result, in
// whatever version, as it went in.
func FuzzAgentsAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"addresses":[{"prefix":"10.6.168.101/16","gateway":"10.6.0.1","pool":"p"},{"prefix":"fd00:6::1/64","gateway":""}],"routes":[{"destination":"::/0","gateway":"fd00:6::2"}]}`,
		`{"addresses":[{"prefix":"0.0.0.0/0"}],"routes":[{"destination":"10.0.0.0/8"}]}`,
		`{"addresses":[{"prefix":"::ffff:10.0.0.1/120","gateway":"fe80::1%eth0"}]}`,
		`{"addresses":null}`, `null`, `{"routes":[{}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		var result AddResult
		if json.Unmarshal(answer, &result) != nil || result.valid() != nil {
			return
		}
		var want []string
		for _, address := range result.Addresses {
			want = append(want, address.Prefix.String())
		}
		for _, version := range Versions().SupportedVersions() {
			converted, err := result.cniResult().GetAsVersion(version)
			if err != nil {
				t.Fatal(err)
			}
			var text strings.Builder
			if err := converted.PrintTo(&text); err != nil {
				t.Fatal(err)
			}
			var printed struct {
				IPs []struct {
					Address string `json:"address"`
				} `json:"ips"`
			}
			if err := json.Unmarshal([]byte(text.String()), &printed); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, ip := range printed.IPs {
				got = append(got, ip.Address)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("addresses in version %s (-want +got):\n%s", version, diff)
			}
		}
	})
}

// mustBeCNIError fails the test unless the error is one that skel prints with
// a code of its own.
func mustBeCNIError(t *testing.T, err error) {
	t.Helper()
	printed, ok := err.(*types.Error)
	if !ok || printed.Code == 0 || printed.Code == types.ErrInternal || printed.Msg == "" {
		t.Errorf("failed with %#v, want a CNI error with a code and a message", err)
	}
}
