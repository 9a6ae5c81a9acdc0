package main

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
)

const dualAnswer = `{
  "addresses": [
    {"prefix": "10.6.168.101/16", "gateway": "10.6.0.1", "pool": "test-ippool"},
    {"prefix": "fd00:6::a865/64", "gateway": "fd00:6::1", "pool": "test-ippool6"}
  ],
  "routes": [
    {"destination": "0.0.0.0/0", "gateway": "10.6.0.1"},
    {"destination": "172.16.0.0/12", "gateway": "10.6.0.2"},
    {"destination": "::/0", "gateway": "fd00:6::1"}
  ]
}`

// bareAnswer is that of a pool without gateway.
const bareAnswer = `{"addresses": [{"prefix": "10.6.168.102/16", "pool": "test-ippool"}], "someday": "more"}`

func versions() []string { return []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} }

func TestAddPrintsTheAgentsAnswerInTheConfiguredVersion(t *testing.T) {
	t.Parallel()
	dual, bare := newAgent(t, 200, dualAnswer), newAgent(t, 200, bareAnswer)
	for _, v := range versions() {
		for name, agent := range map[string]*agent{"dual": dual, "bare": bare} {
			t.Run(name+" "+v, func(t *testing.T) {
				got := runPlugin(t, "spiderpool", network(v, agent.socket, "", ""), environment("ADD")...)
				mustSucceed(t, got)
				golden(t, "add-"+name+"-"+v+".json", got.Stdout)
			})
		}
	}
}

func TestAddAsksForWhatTheConfigurationSays(t *testing.T) {
	t.Parallel()
	agent := newAgent(t, 200, bareAnswer)
	conf := network("1.0.0", agent.socket, "", `,
		"default_ipv4_ippool":["a","b"],"default_ipv6_ippool":["c"],"clean_gateway":true,
		"log_level":"debug","log_file_path":"/var/log/x.log","log_file_max_size":100,"log_file_max_age":30,"log_file_max_count":7`)
	mustSucceed(t, runPlugin(t, "spiderpool", conf, environment("ADD")...))
	agent.mustHaveBeenAsked(t, call{"POST", "/v1/add", `{
		"containerID":"c0ffee","interface":"eth0","pod":{"namespace":"default","name":"test-sts-0","uid":"u-1"},
		"network":"lan","defaultIPv4Pools":["a","b"],"defaultIPv6Pools":["c"],"cleanGateway":true}`})
}

func TestAddWorksForARuntimeThatPassesNoPodUID(t *testing.T) {
	t.Parallel()
	agent := newAgent(t, 200, bareAnswer)
	mustSucceed(t, runPlugin(t, "spiderpool", network("0.3.1", agent.socket, "", ""),
		environment("ADD", "CNI_ARGS=IgnoreUnknown=true;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0")...))
	agent.mustHaveBeenAsked(t, call{"POST", "/v1/add",
		`{"containerID":"c0ffee","interface":"eth0","pod":{"namespace":"default","name":"web-0"},"network":"lan"}`})
}

func TestAddWithoutAPodIsRefusedBeforeTheAgentIsAsked(t *testing.T) {
	t.Parallel()
	agent := newAgent(t, 200, bareAnswer)
	for name, args := range map[string]string{
		"nothing":      "",
		"no name":      "IgnoreUnknown=1;K8S_POD_NAMESPACE=default",
		"no namespace": "IgnoreUnknown=1;K8S_POD_NAME=web-0",
		"no pairs":     "K8S_POD_NAME",
		"unknown key":  "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;COLOUR=blue",
	} {
		t.Run(name, func(t *testing.T) {
			printed := cniError(t, runPlugin(t, "spiderpool", network("1.0.0", agent.socket, "", ""), environment("ADD", "CNI_ARGS="+args)...))
			if printed.Code != types.ErrInvalidEnvironmentVariables || !strings.Contains(printed.Msg, "CNI_ARGS") {
				t.Errorf("printed %+v, want code %d and a word on CNI_ARGS", printed, types.ErrInvalidEnvironmentVariables)
			}
		})
	}
	agent.mustHaveBeenAsked(t, []call{}...)
}

func TestDelGivesBackWhateverTheRuntimePasses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ env, pod string }{
		"everything":      {podArgs, `{"namespace":"default","name":"test-sts-0","uid":"u-1"}`},
		"no netns":        {"CNI_NETNS=", `{"namespace":"default","name":"test-sts-0","uid":"u-1"}`},
		"no CNI_ARGS":     {"CNI_ARGS=", `{"namespace":"","name":""}`},
		"broken CNI_ARGS": {"CNI_ARGS=;;", `{"namespace":"","name":""}`},
	} {
		for _, v := range versions() {
			t.Run(name+" "+v, func(t *testing.T) {
				agent := newAgent(t, http.StatusNoContent, "")
				got := runPlugin(t, "spiderpool", network(v, agent.socket, "", ""), environment("DEL", c.env)...)
				mustSucceed(t, got)
				if got.Stdout != "" {
					t.Errorf("DEL printed %q, want nothing", got.Stdout)
				}
				agent.mustHaveBeenAsked(t, call{"POST", "/v1/del", `{"containerID":"c0ffee","interface":"eth0","pod":` + c.pod + `}`})
			})
		}
	}
}

// prevResults are results of a whole chain in the formats before and since
// 1.0.0: an address of eth0, one of another interface, one that names none.
func prevResult(cniVersion string) string {
	version4, version6 := "", ""
	if cniVersion < "1.0.0" {
		version4, version6 = `"version":"4",`, `"version":"6",`
	}
	return `,"prevResult":{"cniVersion":"` + cniVersion + `",
		"interfaces":[{"name":"ens192"},{"name":"eth0","sandbox":"/var/run/netns/x"},{"name":"net1","sandbox":"/var/run/netns/x"}],
		"ips":[{` + version4 + `"address":"10.6.168.101/16","gateway":"10.6.0.1","interface":1},
		       {` + version4 + `"address":"10.7.0.9/24","interface":2},
		       {` + version6 + `"address":"fd00:6::a865/64"}],
		"routes":[{"dst":"0.0.0.0/0"}],"dns":{}}`
}

func TestCheckAsksForTheInterfacesOwnAddresses(t *testing.T) {
	t.Parallel()
	for _, v := range []string{"0.4.0", "1.0.0", "1.1.0"} {
		t.Run(v, func(t *testing.T) {
			agent := newAgent(t, http.StatusNoContent, "")
			mustSucceed(t, runPlugin(t, "spiderpool", network(v, agent.socket, prevResult(v), ""), environment("CHECK")...))
			agent.mustHaveBeenAsked(t, call{"POST", "/v1/check", `{"containerID":"c0ffee","interface":"eth0",
				"pod":{"namespace":"default","name":"test-sts-0","uid":"u-1"},"addresses":["10.6.168.101/16","fd00:6::a865/64"]}`})
		})
	}
}

func TestGCSendsTheValidAttachments(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ valid, want string }{
		"two":  {`[{"containerID":"c1","ifname":"eth0"},{"containerID":"c2","ifname":"net1"}]`, `[{"containerID":"c1","interface":"eth0"},{"containerID":"c2","interface":"net1"}]`},
		"none": {`[]`, `[]`},
	} {
		t.Run(name, func(t *testing.T) {
			agent := newAgent(t, http.StatusNoContent, "")
			mustSucceed(t, runPlugin(t, "spiderpool", network("1.1.0", agent.socket, `,"cni.dev/valid-attachments":`+c.valid, ""),
				"CNI_COMMAND=GC", "CNI_PATH=/opt/cni/bin"))
			agent.mustHaveBeenAsked(t, call{"POST", "/v1/gc", `{"network":"lan","valid":` + c.want + `}`})
		})
	}
}

func TestGCWithoutAListGivesNothingBack(t *testing.T) {
	t.Parallel()
	agent := newAgent(t, http.StatusNoContent, "")
	for name, valid := range map[string]string{"absent": "", "null": `,"cni.dev/valid-attachments":null`} {
		t.Run(name, func(t *testing.T) {
			printed := cniError(t, runPlugin(t, "spiderpool", network("1.1.0", agent.socket, valid, ""), "CNI_COMMAND=GC", "CNI_PATH=/opt/cni/bin"))
			if printed.Code != types.ErrInvalidNetworkConfig || !strings.Contains(printed.Msg, "cni.dev/valid-attachments") {
				t.Errorf("printed %+v, want code %d and the name of the key", printed, types.ErrInvalidNetworkConfig)
			}
		})
	}
	agent.mustHaveBeenAsked(t, []call{}...)
}

func TestStatusIsThatOfTheAgent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		code   int
		answer string
		want   *types.Error
	}{
		"ready":     {200, `{"ready":true,"node":"worker-1","version":"v1"}`, nil},
		"not ready": {200, `{"ready":false,"node":"worker-1","reason":"the journal is on a full disk"}`, types.NewError(50, "the Holdfast agent of node worker-1 is not ready", "the journal is on a full disk")},
		"refused":   {500, `{"code":999,"msg":"no","details":"why"}`, types.NewError(50, "no", "why")},
		"limited":   {500, `{"code":51,"msg":"no","details":"why"}`, types.NewError(51, "no", "why")},
	} {
		t.Run(name, func(t *testing.T) {
			agent := newAgent(t, c.code, c.answer)
			got := runPlugin(t, "spiderpool", network("1.1.0", agent.socket, "", ""), "CNI_COMMAND=STATUS", "CNI_PATH=/opt/cni/bin")
			agent.mustHaveBeenAsked(t, call{"GET", "/v1/status", ""})
			if c.want == nil {
				mustSucceed(t, got)
				return
			}
			if printed := cniError(t, got); printed != *c.want {
				t.Errorf("printed %+v, want %+v", printed, *c.want)
			}
		})
	}
}

func TestVerbsThatAVersionDoesNotHaveAreRefused(t *testing.T) {
	t.Parallel()
	agent := newAgent(t, 200, bareAnswer)
	for _, c := range []struct{ verb, version string }{
		{"CHECK", "0.3.0"}, {"CHECK", "0.3.1"},
		{"GC", "0.3.0"}, {"GC", "0.3.1"}, {"GC", "0.4.0"}, {"GC", "1.0.0"},
		{"STATUS", "0.3.0"}, {"STATUS", "0.3.1"}, {"STATUS", "0.4.0"}, {"STATUS", "1.0.0"},
		{"ADD", "0.2.0"}, {"ADD", "9.0.0"}, {"DEL", "0.1.0"},
	} {
		t.Run(c.verb+" "+c.version, func(t *testing.T) {
			printed := cniError(t, runPlugin(t, "spiderpool", network(c.version, agent.socket, prevResult(c.version), ""), environment(c.verb)...))
			if printed.Code != types.ErrIncompatibleCNIVersion {
				t.Errorf("printed %+v, want code %d", printed, types.ErrIncompatibleCNIVersion)
			}
		})
	}
	agent.mustHaveBeenAsked(t, []call{}...)
}

func TestTheAgentsErrorIsPrintedUnchanged(t *testing.T) {
	t.Parallel()
	agent := newAgent(t, http.StatusConflict, `{"code":123,"msg":"spiderpool IP allocation error: all IP addresses used out","details":"pool test-ippool has 10 addresses"}`)
	conf := network("1.1.0", agent.socket, prevResult("1.1.0")+`,"cni.dev/valid-attachments":[]`, "")
	for _, verb := range []string{"ADD", "DEL", "CHECK", "GC"} {
		t.Run(verb, func(t *testing.T) {
			want := types.Error{Code: 123, Msg: "spiderpool IP allocation error: all IP addresses used out", Details: "pool test-ippool has 10 addresses"}
			if diff := cmp.Diff(want, cniError(t, runPlugin(t, "spiderpool", conf, environment(verb)...))); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
	if asked := agent.asked(); len(asked) != 4 {
		t.Errorf("the agent was asked %d times, want once for each verb: its errors are final", len(asked))
	}
}

func TestNoAgentIsARetriableErrorThatNamesTheSocket(t *testing.T) {
	t.Parallel()
	missing, refused := socketPath(t), socketPath(t)
	// A socket that nobody listens on any more, as an agent leaves it that
	// was killed.
	listener := listen(t, refused)
	listener.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false)
	listener.Close()
	if _, err := os.Stat(refused); err != nil {
		t.Fatal(err)
	}
	gone := ": connect: no such file or directory"
	cases := []struct {
		verb, socket string
		code         uint
		message      string
	}{
		{"ADD", missing, 11, "spiderpool IP allocation error: the Holdfast agent does not answer on " + missing + gone},
		{"ADD", refused, 11, "spiderpool IP allocation error: the Holdfast agent does not answer on " + refused + ": connect: connection refused"},
		{"DEL", missing, 11, "the Holdfast agent does not answer on " + missing + gone},
		{"CHECK", missing, 11, "the Holdfast agent does not answer on " + missing + gone},
		{"GC", missing, 11, "the Holdfast agent does not answer on " + missing + gone},
		{"STATUS", missing, 50, "the Holdfast agent does not answer on " + missing + gone},
	}
	// All at once: each waits until its patience ends.
	var plugins []*started
	for _, c := range cases {
		conf := network("1.1.0", c.socket, prevResult("1.1.0")+`,"cni.dev/valid-attachments":[]`, "")
		plugins = append(plugins, start(t, "spiderpool", conf, environment(c.verb)...))
	}
	for i, c := range cases {
		printed := cniError(t, plugins[i].wait(t))
		if printed.Code != c.code || printed.Msg != c.message {
			t.Errorf("%s printed code %d, message %q; want %d, %q", c.verb, printed.Code, printed.Msg, c.code, c.message)
		}
		if !strings.Contains(printed.Details, "agent's pod on this node") {
			t.Errorf("%s: details %q do not say where to look", c.verb, printed.Details)
		}
	}
}

func TestAgentsThatDoNotAnswerProperlyAreRetriable(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, message string
		answer        http.HandlerFunc
	}{
		{"slow", ": it took too long: context deadline exceeded", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"5xx without a body", ": /v1/del says 502 Bad Gateway", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
		}},
		{"broken off", ": it broke off: unexpected EOF", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.Write([]byte(`{"addr`))
		}},
	}
	// DEL shows it, because it waits the least; all at once, as above.
	var agents []*agent
	var plugins []*started
	for _, c := range cases {
		agent := newAgentFunc(t, c.answer)
		agents = append(agents, agent)
		plugins = append(plugins, start(t, "spiderpool", network("1.0.0", agent.socket, "", ""), environment("DEL")...))
	}
	for i, c := range cases {
		printed := cniError(t, plugins[i].wait(t))
		if want := "the Holdfast agent does not answer on " + agents[i].socket + c.message; printed.Code != types.ErrTryAgainLater || printed.Msg != want {
			t.Errorf("%s: printed %+v, want code %d and %q", c.name, printed, types.ErrTryAgainLater, want)
		}
	}
}

func TestAnswersThatAreNotTheContractsAreNotTriedAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		answer string
	}{
		"no JSON":             {200, "<html>hello</html>"},
		"another shape":       {200, `["10.6.168.101/16"]`},
		"no address":          {200, `{"addresses":[]}`},
		"an empty address":    {200, `{"addresses":[{"pool":"p"}]}`},
		"no prefix length":    {200, `{"addresses":[{"prefix":"10.6.168.101"}]}`},
		"a route to nowhere":  {200, `{"addresses":[{"prefix":"10.6.168.101/16"}],"routes":[{}]}`},
		"no such path":        {404, "404 page not found\n"},
		"a redirect":          {307, ""},
		"an error of nothing": {400, `{}`},
	} {
		t.Run(name, func(t *testing.T) {
			agent := newAgentFunc(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "/v1/status")
				w.WriteHeader(c.status)
				w.Write([]byte(c.answer))
			})
			printed := cniError(t, runPlugin(t, "spiderpool", network("1.0.0", agent.socket, "", ""), environment("ADD")...))
			if printed.Code != types.ErrDecodingFailure || !strings.Contains(printed.Msg, agent.socket) {
				t.Errorf("printed %+v, want code %d and the socket %s", printed, types.ErrDecodingFailure, agent.socket)
			}
			if asked := agent.asked(); len(asked) != 1 {
				t.Errorf("the agent was asked %d times, want once", len(asked))
			}
		})
	}
}

// The socket of an agent that is replaced: it breaks off what it was doing,
// is gone, is there again but starting, and then answers.
func TestAddOutlivesTheReplacementOfTheAgent(t *testing.T) {
	t.Parallel()
	socket := socketPath(t)
	old := listen(t, socket)
	plugin := start(t, "spiderpool", network("1.0.0", socket, "", ""), environment("ADD")...)
	connection, err := old.Accept()
	if err != nil {
		t.Fatal(err)
	}
	connection.Close()
	old.Close()
	if _, err := os.Stat(socket); err == nil {
		t.Fatal("the old agent's socket is still there")
	}
	next := &agent{}
	next.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.mu.Lock()
		defer next.mu.Unlock()
		if next.calls = append(next.calls, call{Path: r.URL.Path}); len(next.calls) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			w.Write([]byte(`{"code":11,"msg":"the agent is starting"}`))
			return
		}
		w.Write([]byte(bareAnswer))
	})}
	next.serve(t, listen(t, socket))
	got := plugin.wait(t)
	mustSucceed(t, got)
	golden(t, "add-bare-1.0.0.json", got.Stdout)
	if asked := next.asked(); len(asked) != 2 {
		t.Errorf("the new agent was asked %d times, want once while it starts and once after", len(asked))
	}
}

func TestAnAgentThatKeepsStartingIsQuoted(t *testing.T) {
	t.Parallel()
	agent := newAgent(t, http.StatusServiceUnavailable, `{"code":11,"msg":"the agent is starting","details":"it reads its journal"}`)
	want := types.Error{Code: 11, Msg: "the agent is starting", Details: "it reads its journal"}
	if diff := cmp.Diff(want, cniError(t, runPlugin(t, "spiderpool", network("1.0.0", agent.socket, "", ""), environment("DEL")...))); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
	if asked := agent.asked(); len(asked) < 2 {
		t.Errorf("the agent was asked %d times, want again and again", len(asked))
	}
}

func TestConfigurationsThatCannotBeAreExplained(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		conf string
		code uint
		word string
	}{
		"no JSON":          {`{`, types.ErrDecodingFailure, "config"},
		"no name":          {`{"cniVersion":"1.0.0","ipam":{}}`, types.ErrInvalidNetworkConfig, "name"},
		"no ipam":          {`{"cniVersion":"1.0.0","name":"lan","type":"spiderpool"}`, types.ErrInvalidNetworkConfig, `"ipam"`},
		"pools no list":    {`{"cniVersion":"1.0.0","name":"lan","ipam":{"type":"spiderpool","default_ipv4_ippool":"p"}}`, types.ErrDecodingFailure, "configuration"},
		"relative socket":  {`{"cniVersion":"1.0.0","name":"lan","ipam":{"type":"spiderpool","ipam_unix_socket_path":"a.sock"}}`, types.ErrInvalidNetworkConfig, "ipam_unix_socket_path"},
		"CHECK after none": {`{"cniVersion":"1.0.0","name":"lan","ipam":{"type":"spiderpool"}}`, types.ErrInvalidNetworkConfig, "prevResult"},
		"CHECK of garbage": {`{"cniVersion":"1.0.0","name":"lan","ipam":{"type":"spiderpool"},"prevResult":{"ips":[{"address":"x"}]}}`, types.ErrDecodingFailure, "prevResult"},
	} {
		t.Run(name, func(t *testing.T) {
			verb := "ADD"
			if strings.HasPrefix(name, "CHECK") {
				verb = "CHECK"
			}
			printed := cniError(t, runPlugin(t, "spiderpool", c.conf, environment(verb)...))
			if printed.Code != c.code || !strings.Contains(printed.Msg, c.word) {
				t.Errorf("printed %+v, want code %d and the word %s", printed, c.code, c.word)
			}
		})
	}
}
