package cni

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The plugin's tests (cmd/holdfast-cni) show what a client's errors become;
// these are about a client as other programs use it.

// listenOn serves a handler on a unix socket and returns its path.
func listenOn(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hf") // t.TempDir is too long for a socket's address
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "a.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	var done sync.WaitGroup
	done.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		server.Close()
		done.Wait()
	})
	return socket
}

func TestClientWithoutPatienceAsksOnce(t *testing.T) {
	var asked atomic.Int32
	socket := listenOn(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
	})
	client := &Client{Socket: socket}
	if _, err := client.Status(t.Context()); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("Status failed with %v, want ErrNoAnswer", err)
	}
	if asked.Load() != 1 {
		t.Errorf("asked %d times, want once", asked.Load())
	}
}

func TestClientEndsWithItsContextHoweverPatient(t *testing.T) {
	released := make(chan struct{}, 1)
	socket := listenOn(t, func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // net/http notices the other end only after the body.
		<-r.Context().Done()
		released <- struct{}{}
	})
	client := &Client{Socket: socket, Patience: time.Hour}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := client.Del(ctx, DelRequest{})
	if !errors.Is(err, ErrNoAnswer) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Del failed with %v, want ErrNoAnswer for an exceeded deadline", err)
	}
	<-released // The server saw that nobody waits any more.
}

func TestClientKeepsTheAgentsErrorThroughRetries(t *testing.T) {
	socket := listenOn(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		w.Write([]byte(`{"code":11,"msg":"starting"}`))
	})
	client := &Client{Socket: socket, Patience: 10 * time.Millisecond}
	err := client.GC(t.Context(), GCRequest{})
	said, ok := errors.AsType[*Error](err)
	if !ok || *said != (Error{Code: 11, Message: "starting"}) {
		t.Errorf("GC failed with %v, want the agent's error", err)
	}
}

func TestClientReadsNoEndlessAnswer(t *testing.T) {
	socket := listenOn(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write([]byte(strings.Repeat(" ", 1<<16))); err != nil {
				return
			}
		}
	})
	client := &Client{Socket: socket}
	if _, err := client.Status(t.Context()); !errors.Is(err, ErrNotUnderstood) {
		t.Errorf("Status failed with %v, want ErrNotUnderstood", err)
	}
}

func TestClientIgnoresTheEnvironmentsProxy(t *testing.T) {
	socket := listenOn(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"ready":true,"node":"n"}`))
	})
	t.Setenv("HTTP_PROXY", "http://192.0.2.1:3128")
	client := &Client{Socket: socket}
	status, err := client.Status(t.Context())
	if err != nil || !status.Ready || status.Node != "n" {
		t.Errorf("Status returned %+v, %v; want what the socket answers", status, err)
	}
}
