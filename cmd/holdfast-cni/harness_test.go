package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
)

// The tests of this package run the real binary as a runtime does, against a
// unix socket on which the test answers the contract's wire, byte by byte.

// bin is where TestMain put the binary under the names of its roles.
var bin string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "holdfast-cni")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		bin = dir
		if err := build(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// build builds the binary as a release does and installs it under its names.
func build(dir string) error {
	program := filepath.Join(dir, "holdfast-cni")
	command := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version=v1.2.3", "-o", program, ".")
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, output)
	}
	for _, name := range []string{"spiderpool", "coordinator", "ifacer", "renamed"} {
		if err := os.Link(program, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// outcome is what a run of a plugin left.
type outcome struct {
	Exit           int
	Stdout, Stderr string
}

// started is a plugin that runs.
type started struct {
	command        *exec.Cmd
	stdout, stderr strings.Builder
}

// prepare returns a plugin with stdin and exactly this environment, to be
// started.
func prepare(t *testing.T, plugin, stdin string, env ...string) *started {
	t.Helper()
	s := &started{command: exec.CommandContext(t.Context(), filepath.Join(bin, plugin))}
	s.command.Env = env
	s.command.Stdin = strings.NewReader(stdin)
	s.command.Stdout, s.command.Stderr = &s.stdout, &s.stderr
	return s
}

// start starts a plugin with stdin and exactly this environment.
func start(t *testing.T, plugin, stdin string, env ...string) *started {
	t.Helper()
	s := prepare(t, plugin, stdin, env...)
	if err := s.command.Start(); err != nil {
		t.Fatal(err)
	}
	return s
}

// wait returns what the plugin left when it ended.
func (s *started) wait(t *testing.T) outcome {
	t.Helper()
	err := s.command.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return outcome{Exit: s.command.ProcessState.ExitCode(), Stdout: s.stdout.String(), Stderr: s.stderr.String()}
}

// runPlugin starts a plugin and waits for its end.
func runPlugin(t *testing.T, plugin, stdin string, env ...string) outcome {
	t.Helper()
	return start(t, plugin, stdin, env...).wait(t)
}

const podArgs = "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=test-sts-0;K8S_POD_INFRA_CONTAINER_ID=c0ffee;K8S_POD_UID=u-1"

// environment returns what a runtime sets for a verb; further variables
// override.
func environment(verb string, further ...string) []string {
	return append([]string{
		"CNI_COMMAND=" + verb, "CNI_CONTAINERID=c0ffee", "CNI_IFNAME=eth0",
		"CNI_NETNS=/var/run/netns/not-looked-at", "CNI_PATH=/opt/cni/bin", podArgs,
	}, further...)
}

// mustSucceed fails the test unless the plugin succeeded without a word on
// stderr.
func mustSucceed(t *testing.T, got outcome) {
	t.Helper()
	if got.Exit != 0 || got.Stderr != "" {
		t.Fatalf("the plugin ended with %+v, want exit code 0 and nothing on stderr", got)
	}
}

// cniError returns the error that a plugin printed.
func cniError(t *testing.T, got outcome) types.Error {
	t.Helper()
	var printed types.Error
	if err := json.Unmarshal([]byte(got.Stdout), &printed); err != nil || got.Exit == 0 {
		t.Fatalf("the plugin ended with %+v, want an error result and an exit code other than 0 (%v)", got, err)
	}
	return printed
}

// call is a request as it arrived.
type call struct{ Method, Path, Body string }

// agent is the other end of the socket.
type agent struct {
	socket string
	server *http.Server
	mu     sync.Mutex
	calls  []call
}

// newAgent returns an agent that gives the answer to every request.
func newAgent(t *testing.T, status int, answer string) *agent {
	t.Helper()
	return newAgentFunc(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, answer)
	})
}

// newAgentFunc returns an agent that answers with a function.
func newAgentFunc(t *testing.T, answer http.HandlerFunc) *agent {
	t.Helper()
	a := &agent{socket: socketPath(t)}
	a.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		a.mu.Lock()
		a.calls = append(a.calls, call{r.Method, r.URL.Path, string(body)})
		a.mu.Unlock()
		answer(w, r)
	})}
	a.serve(t, listen(t, a.socket))
	return a
}

// serve serves the listener until the test ends.
func (a *agent) serve(t *testing.T, listener net.Listener) {
	var done sync.WaitGroup
	done.Go(func() {
		if err := a.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		a.server.Close()
		done.Wait()
	})
}

// asked returns the requests so far.
func (a *agent) asked() []call {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]call{}, a.calls...)
}

// mustHaveBeenAsked compares all requests so far, bodies as JSON.
func (a *agent) mustHaveBeenAsked(t *testing.T, want ...call) {
	t.Helper()
	if diff := cmp.Diff(want, a.asked(), cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Body" }, cmp.Comparer(sameJSON))); diff != "" {
		t.Errorf("requests to the agent (-want +got):\n%s", diff)
	}
}

// sameJSON compares two texts as JSON, or as they are if they are none.
func sameJSON(a, b string) bool {
	var left, right any
	if json.Unmarshal([]byte(a), &left) != nil || json.Unmarshal([]byte(b), &right) != nil {
		return a == b
	}
	return cmp.Equal(left, right)
}

// socketPath returns a path short enough for a socket's address (108 bytes).
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "a.sock")
}

func listen(t *testing.T, socket string) net.Listener {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// network returns a network configuration for the IPAM plugin, with further
// members at the top and in "ipam".
func network(cniVersion, socket, top, ipam string) string {
	return fmt.Sprintf(`{"cniVersion":%q,"name":"lan","type":"macvlan","master":"ens192"%s,"ipam":{"type":"spiderpool","ipam_unix_socket_path":%q%s}}`,
		cniVersion, top, socket, ipam)
}

// golden compares with a file of testdata; UPDATE_GOLDEN=1 writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}
