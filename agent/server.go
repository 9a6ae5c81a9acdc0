package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	cnitypes "github.com/containernetworking/cni/pkg/types"

	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/lease"
)

const (
	// maxRequest bounds the body of a request. The longest is a GC with an
	// attachment of a few hundred bytes for every sandbox of a node.
	maxRequest = 8 << 20
	// drainTimeout is how long requests under way may take when the agent
	// ends.
	drainTimeout = 5 * time.Second
	// journalPath answers the journal, for people and for the checker.
	journalPath = "/v1/journal"
)

// listen opens the unix socket, in place of one that an earlier agent left.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the directory of the socket: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove an old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on the socket: %w", err)
	}
	// Only root may ask for addresses: the runtime runs the plugin as root.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect the socket: %w", err), l.Close())
	}
	return l, nil
}

// serve answers requests on the listener until ctx ends, then lets those
// under way finish.
func (a *Agent) serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{Handler: a.socketHandler(), ReadHeaderTimeout: drainTimeout}
	return runServer(ctx, server, l)
}

func runServer(ctx context.Context, server *http.Server, l net.Listener) error {
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		stopped <- server.Shutdown(drain)
	})
	err := server.Serve(l)
	if stop() { // Serve ended by itself
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return <-stopped
}

func (a *Agent) socketHandler() http.Handler {
	mux := http.NewServeMux()
	handle(mux, a, "POST "+cni.PathAdd, a.add)
	handle(mux, a, "POST "+cni.PathConflict, a.conflict)
	handle(mux, a, "POST "+cni.PathDel, a.del)
	handle(mux, a, "POST "+cni.PathCheck, a.check)
	handle(mux, a, "POST "+cni.PathGC, a.gc)
	handle(mux, a, "POST "+cni.PathCoordination, a.coordination)
	mux.HandleFunc("GET "+cni.PathStatus, func(w http.ResponseWriter, _ *http.Request) {
		a.reply(w, http.StatusOK, a.status())
	})
	mux.HandleFunc("GET "+journalPath, func(w http.ResponseWriter, _ *http.Request) {
		// An empty journal is an empty list: null would be no answer.
		a.reply(w, http.StatusOK, append([]lease.Entry{}, a.lessee.Entries()...))
	})
	return mux
}

// handle serves one verb: it decodes the request, logs one line with the
// outcome, and answers the result, nothing, or a CNI error.
func handle[Q, R any](mux *http.ServeMux, a *Agent, pattern string, serve func(context.Context, *Q) (*R, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		begin := a.now()
		var q Q
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		if err == nil {
			err = json.Unmarshal(body, &q)
		}
		if err != nil {
			err = &cni.Error{Code: uint(cnitypes.ErrDecodingFailure), Message: "the agent cannot read the request", Details: err.Error()}
		}
		var result *R
		if err == nil {
			result, err = serve(withCause(r.Context(), filepath.Base(r.URL.Path)), &q)
		}
		took := a.now().Sub(begin)
		a.metrics.observe(r.URL.Path, err, took)
		a.logRequest(r.Context(), r.URL.Path, &q, result, err, took)
		switch {
		case err != nil:
			e := cniError(err)
			a.reply(w, httpStatus(err, e), e)
		case result == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			a.reply(w, http.StatusOK, result)
		}
	})
}

// logRequest writes the one line of a request.
func (a *Agent) logRequest(ctx context.Context, path string, q, result any, err error, took time.Duration) {
	level, outcome := slog.LevelInfo, "ok"
	if err != nil {
		level, outcome = slog.LevelWarn, "error"
	}
	attrs := []slog.Attr{
		slog.String("verb", filepath.Base(path)),
		slog.String("outcome", outcome),
		slog.String("duration", took.Round(time.Microsecond).String()),
	}
	attrs = append(attrs, requestAttrs(q)...)
	if r, ok := result.(*cni.ConflictResult); ok && r != nil {
		attrs = append(attrs, slog.Bool("setAside", r.SetAside))
	}
	if r, ok := result.(*cni.AddResult); ok && r != nil {
		for _, addr := range r.Addresses {
			attrs = append(attrs, slog.String("address", addr.Prefix.String()), slog.String("pool", addr.Pool))
		}
	}
	if err != nil {
		attrs = append(attrs, slog.Any("err", err))
	}
	a.log.LogAttrs(ctx, level, "request", attrs...)
}

// requestAttrs says whom a request is about.
func requestAttrs(q any) []slog.Attr {
	switch q := q.(type) {
	case *cni.AddRequest:
		return attachmentAttrs(q.Attachment)
	case *cni.ConflictRequest:
		attrs := attachmentAttrs(q.Attachment)
		for _, c := range q.Conflicts {
			attrs = append(attrs, slog.String("address", c.Address.String()), slog.String("usedBy", c.MAC))
		}
		return attrs
	case *cni.CoordinationRequest:
		return attachmentAttrs(q.Attachment)
	case *cni.DelRequest:
		return attachmentAttrs(q.Attachment)
	case *cni.CheckRequest:
		return attachmentAttrs(q.Attachment)
	case *cni.GCRequest:
		return []slog.Attr{slog.String("network", q.Network), slog.Int("valid", len(q.Valid))}
	}
	return nil
}

func attachmentAttrs(at cni.Attachment) []slog.Attr {
	return []slog.Attr{
		slog.String("pod", at.Pod.Namespace+"/"+at.Pod.Name),
		slog.String("podUID", at.Pod.UID),
		slog.String("interface", at.Interface),
		slog.String("container", at.ContainerID),
	}
}

func (a *Agent) reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		a.log.Debug("the plugin went away", "err", err)
	}
}

// cniError gives every error of the agent its code (CNI spec, "Error"): 11
// asks the runtime to try again, 7 says that the request itself is wrong.
func cniError(err error) *cni.Error {
	var chosen *cni.Error
	if errors.As(err, &chosen) {
		return chosen
	}
	return &cni.Error{Code: uint(cnitypes.ErrTryAgainLater), Message: cni.AddFailed, Details: err.Error()}
}

// httpStatus tells the plugin whether to ask again by itself (503, the agent
// is starting, or waits for something itself) or to report the error.
func httpStatus(err error, e *cni.Error) int {
	switch {
	case errors.Is(err, lease.ErrNotStarted), errors.Is(err, errSoon):
		return http.StatusServiceUnavailable
	case e.Code == uint(cnitypes.ErrTryAgainLater):
		return http.StatusInternalServerError
	}
	return http.StatusUnprocessableEntity
}

// status answers STATUS.
func (a *Agent) status() cni.Status {
	s := cni.Status{Ready: true, Node: a.node.Name, Version: a.options.Version}
	if err := a.lessee.Ready(); err != nil {
		s.Ready, s.Reason = false, err.Error()
	}
	return s
}

// del gives back what a sandbox held. It needs neither pod nor API server.
func (a *Agent) del(_ context.Context, q *cni.DelRequest) (*struct{}, error) {
	s := sandbox(q.Attachment)
	if a.pods.starting(q.Pod) {
		s.Rest = retryRest
	}
	released, err := a.lessee.Release(s)
	if err != nil {
		return nil, err
	}
	if len(released) > 0 {
		a.upkeep.kick()
		a.endpoints.freed(released)
	}
	return nil, nil
}

// check reports whether a sandbox still holds its addresses.
func (a *Agent) check(_ context.Context, q *cni.CheckRequest) (*struct{}, error) {
	for _, p := range q.Addresses {
		if !a.lessee.Has(sandbox(q.Attachment), p.Addr()) {
			return nil, &cni.Error{
				Code:    uint(cnitypes.ErrInternal),
				Message: fmt.Sprintf("address %s of interface %s is not assigned to this sandbox", p.Addr(), q.Interface),
				Details: "delete the pod, so that it is made anew",
			}
		}
	}
	return nil, nil
}

// gc gives back what no valid attachment of the network holds.
func (a *Agent) gc(_ context.Context, q *cni.GCRequest) (*struct{}, error) {
	valid := map[cni.ValidAttachment]bool{}
	for _, v := range q.Valid {
		valid[v] = true
	}
	released, err := a.lessee.ReleaseInvalid(q.Network, func(container, ifname string) bool {
		return valid[cni.ValidAttachment{ContainerID: container, Interface: ifname}]
	})
	if err != nil {
		return nil, err
	}
	for _, e := range released {
		a.log.Info("leaked address given back", "address", e.Addr, "pod", e.Namespace+"/"+e.Pod, "container", e.Container)
	}
	a.upkeep.kick()
	a.endpoints.freed(released)
	return nil, nil
}

func sandbox(at cni.Attachment) lease.Sandbox {
	return lease.Sandbox{
		Owner:     lease.Owner{PodUID: at.Pod.UID, Interface: at.Interface},
		Container: at.ContainerID,
	}
}
