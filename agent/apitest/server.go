package apitest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/holdfast-ipam/holdfast/crds"
)

// startLimit is how long a server may take to become ready. It takes about
// four seconds on an idle machine with two cores.
const startLimit = 2 * time.Minute

// attempts is how often Start tries: between choosing a free port and
// listening on it, another process may take the port.
const attempts = 3

// BinDir returns where etcd and kube-apiserver are looked for: the directory
// in the environment variable HOLDFAST_KUBE_BIN, or build/bin in the
// repository.
func BinDir() string {
	if dir := os.Getenv("HOLDFAST_KUBE_BIN"); dir != "" {
		return dir
	}
	dir, err := os.Getwd()
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "build", "bin")
		}
	}
	return filepath.Join("build", "bin")
}

// Start starts an API server on the loopback interface, with an etcd of its
// own, and returns how a superuser talks to it. Both end with the test, and
// what they stored is gone. It takes some seconds: let the tests of a package
// be subtests of one that starts it.
//
// Requests are authorized by RBAC, and the superuser may impersonate others.
// The ServiceAccount admission plugin is off, so that pods can be created
// where no controller makes service accounts.
//
// Where the binaries are missing (see [BinDir]), the test is skipped.
func Start(t testing.TB) *rest.Config {
	t.Helper()
	if err := Installed(); err != nil {
		t.Skip(err)
	}
	server, err := Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return server.Config()
}

// Installed returns what is missing of the binaries, or nil.
func Installed() error {
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if _, err := os.Stat(filepath.Join(BinDir(), name)); err != nil {
			return fmt.Errorf("no %s in %s: `make kind-up` builds it, or set HOLDFAST_KUBE_BIN to a directory that has it: %w", name, BinDir(), err)
		}
	}
	return nil
}

// Server is a running API server and its etcd. Its methods are called one at
// a time.
type Server struct {
	config *rest.Config
	dir    string
	etcd   *Process
	api    *Process
	// options are those it was opened with.
	options Options
	// arguments are those of the API server, the same at each start.
	arguments []string
}

// Options say how a server differs from one for tests.
type Options struct {
	// Arguments are passed to kube-apiserver after those it always gets.
	Arguments []string
}

// Open is [Start] for programs that are no tests: the files go to dir, which
// must exist, and the processes run until [Server.Close].
func Open(ctx context.Context, dir string) (*Server, error) {
	return OpenWith(ctx, dir, Options{})
}

// OpenWith is [Open] with options.
func OpenWith(ctx context.Context, dir string, options Options) (*Server, error) {
	var failed []error
	for i := range attempts {
		own := filepath.Join(dir, fmt.Sprint(i))
		err := os.Mkdir(own, 0o700)
		if err != nil {
			return nil, err
		}
		s := &Server{dir: own, options: options}
		if err = s.start(ctx); err == nil {
			err = installOwnKinds(ctx, s.config)
		}
		if err == nil {
			return s, nil
		}
		s.Close()
		failed = append(failed, err)
	}
	return nil, fmt.Errorf("start an API server: %w", errors.Join(failed...))
}

// Config returns how a superuser talks to the server, for as long as it is
// open.
func (s *Server) Config() *rest.Config { return rest.CopyConfig(s.config) }

// Etcd and API are the server's processes, the latter until the next
// [Server.Restart].
func (s *Server) Etcd() *Process { return s.etcd }

// API is kube-apiserver: see [Server.Etcd].
func (s *Server) API() *Process { return s.api }

// Pause stops the API server (SIGSTOP): connections are accepted by the
// kernel, and nothing is answered before [Server.Resume].
func (s *Server) Pause() error { return s.api.Stop() }

// Resume ends a pause (SIGCONT).
func (s *Server) Resume() error { return s.api.Signal(syscall.SIGCONT) }

// Kill ends the API server with SIGKILL, in the middle of whatever it does.
// What it has stored stays in etcd.
func (s *Server) Kill() { s.api.Kill() }

// Restart starts the API server anew on the same port, after [Server.Kill],
// and returns when it is ready.
func (s *Server) Restart(ctx context.Context) error {
	var failed []error
	for range attempts {
		var err error
		if s.api, err = Run(s.dir, filepath.Join(BinDir(), "kube-apiserver"), s.arguments...); err != nil {
			return err
		}
		if err = ready(ctx, s.config, s.etcd, s.api); err == nil {
			return nil
		}
		s.api.Kill()
		failed = append(failed, err)
	}
	return fmt.Errorf("restart the API server: %w", errors.Join(failed...))
}

// Close ends both processes.
func (s *Server) Close() {
	for _, p := range []*Process{s.api, s.etcd} {
		if p != nil {
			p.Kill()
		}
	}
}

// start starts both processes on ports that were free just now.
func (s *Server) start(ctx context.Context) error {
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	etcdURL, peerURL := "http://127.0.0.1:"+ports[0], "http://127.0.0.1:"+ports[1]
	s.etcd, err = Run(s.dir, filepath.Join(BinDir(), "etcd"),
		"--data-dir="+filepath.Join(s.dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls="+etcdURL, "--advertise-client-urls="+etcdURL,
		"--listen-peer-urls="+peerURL, "--initial-advertise-peer-urls="+peerURL,
		"--initial-cluster=default="+peerURL)
	if err != nil {
		return err
	}
	token, err := credentials(s.dir)
	if err != nil {
		return err
	}
	s.arguments = append([]string{
		"--etcd-servers=" + etcdURL,
		"--bind-address=127.0.0.1", "--secure-port=" + ports[2], "--endpoint-reconciler-type=none",
		"--cert-dir=" + filepath.Join(s.dir, "certs"),
		"--token-auth-file=" + filepath.Join(s.dir, "tokens.csv"), "--authorization-mode=RBAC",
		"--service-account-issuer=https://holdfast.test",
		"--service-account-key-file=" + filepath.Join(s.dir, "sa.key"),
		"--service-account-signing-key-file=" + filepath.Join(s.dir, "sa.key"),
		"--service-cluster-ip-range=10.96.0.0/16",
		"--disable-admission-plugins=ServiceAccount",
	}, s.options.Arguments...)
	s.config = &rest.Config{
		Host:        "https://127.0.0.1:" + ports[2],
		BearerToken: token,
		// The certificate is made by the server for itself, on loopback.
		TLSClientConfig: rest.TLSClientConfig{Insecure: true},
		QPS:             -1,
	}
	if s.api, err = Run(s.dir, filepath.Join(BinDir(), "kube-apiserver"), s.arguments...); err != nil {
		return err
	}
	return ready(ctx, s.config, s.etcd, s.api)
}

// credentials writes the superuser's token and the key of service accounts.
func credentials(dir string) (token string, err error) {
	token = rand.Text()
	err = os.WriteFile(filepath.Join(dir, "tokens.csv"), []byte(token+`,admin,admin,"system:masters"`+"\n"), 0o600)
	if err != nil {
		return "", err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return "", err
	}
	pemKey := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	return token, os.WriteFile(filepath.Join(dir, "sa.key"), pemKey, 0o600)
}

// freePorts returns ports of the loopback interface that were free just now.
// They lie below those that Linux gives to outgoing connections
// (net.ipv4.ip_local_port_range), so that none of these takes the port of a
// server that was killed and starts anew.
func freePorts(n int) ([]string, error) {
	const first, end, tries = 20000, 30000, 100
	var ports []string
	var err error
	for range tries {
		port := strconv.Itoa(first + mathrand.IntN(end-first))
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:"+port); err != nil {
			continue // taken
		}
		defer l.Close() // not before all are chosen, so that they differ
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("no %d free ports from %d to %d in %d tries: %w", n, first, end, tries, err)
}

// ready waits until the server answers that it is, or one of the processes
// has ended.
func ready(ctx context.Context, config *rest.Config, processes ...*Process) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	client, err := rest.UnversionedRESTClientFor(unversioned(config))
	if err != nil {
		return err
	}
	for {
		answer, err := client.Get().AbsPath("/readyz").MaxRetries(0).DoRaw(ctx)
		if err == nil && string(answer) == "ok" {
			return nil
		}
		for _, p := range processes {
			if p.ended() {
				return fmt.Errorf("%s ended: %s", p.name, p.Tail())
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready after %s: %w: %s", startLimit, err, processes[len(processes)-1].Tail())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// installOwnKinds installs all that crds/yaml has.
func installOwnKinds(ctx context.Context, config *rest.Config) error {
	return fs.WalkDir(crds.YAML(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".yaml") {
			return err
		}
		manifest, err := fs.ReadFile(crds.YAML(), path)
		if err != nil {
			return err
		}
		return installKind(ctx, config, manifest)
	})
}
