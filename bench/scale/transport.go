package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// line is an agent's connection to the API server, through all of its starts.
type line struct {
	ledger ledger
	// sent and received are the bytes of the connections, TLS and HTTP/2
	// included.
	sent, received atomic.Int64
	// cut is set when the node has lost its network.
	cut atomic.Bool

	mu    sync.Mutex
	conns map[*conn]bool
}

func newLine() *line {
	return &line{ledger: ledger{kinds: tally{}}, conns: map[*conn]bool{}}
}

// errCut is what an agent gets whose node has no network.
var errCut = errors.New("the node is lost")

// dialLimit bounds one try to connect.
const dialLimit = 30 * time.Second

// dial is for rest.Config. A client that is given one shares its connection
// with no other: client-go keeps transports by it.
func (l *line) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if l.cut.Load() {
		return nil, errCut
	}
	c, err := (&net.Dialer{Timeout: dialLimit}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	own := &conn{Conn: c, line: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[own] = true
	return own, nil
}

// close closes all connections, as the end of a process does.
func (l *line) close() {
	l.mu.Lock()
	all := l.conns
	l.conns = map[*conn]bool{}
	l.mu.Unlock()
	for c := range all {
		_ = c.Conn.Close() // whoever uses it is told
	}
}

// lose is the end of the node's network.
func (l *line) lose() {
	l.cut.Store(true)
	l.close()
}

// conn counts the bytes of a connection.
type conn struct {
	net.Conn
	line *line
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.line.received.Add(int64(n))
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.line.sent.Add(int64(n))
	return n, err
}

func (c *conn) Close() error {
	c.line.mu.Lock()
	delete(c.line.conns, c)
	c.line.mu.Unlock()
	return c.Conn.Close()
}

// wrap is for rest.Config.
func (l *line) wrap(next http.RoundTripper) http.RoundTripper {
	return &counting{next: next, ledger: &l.ledger}
}

// counting counts requests and what is answered.
type counting struct {
	next   http.RoundTripper
	ledger *ledger
}

// RoundTrip counts the request and passes it on.
func (t *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	k := describe(r)
	t.ledger.note(k, count{Requests: 1, Sent: max(r.ContentLength, 0)})
	answer, err := t.next.RoundTrip(r)
	if err != nil {
		if r.Context().Err() == nil {
			t.ledger.note(k, count{Failed: 1})
		}
		return nil, err
	}
	switch {
	case answer.StatusCode == http.StatusConflict:
		t.ledger.note(k, count{Conflicts: 1})
	case answer.StatusCode == http.StatusTooManyRequests:
		t.ledger.note(k, count{Throttled: 1})
	case answer.StatusCode >= 500:
		t.ledger.note(k, count{Failed: 1})
	}
	body := &countedBody{ReadCloser: answer.Body, ledger: t.ledger, kind: k}
	if k.Verb == "watch" {
		body.frames = newFrames(answer.Header.Get("Content-Type"))
	}
	answer.Body = body
	return answer, nil
}

// countedBody counts what is read of an answer.
type countedBody struct {
	io.ReadCloser
	ledger *ledger
	kind   kind
	// frames is nil for what is no watch.
	frames *frames
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	c := count{Received: int64(n)}
	if b.frames != nil {
		c.Events, c.Bookmarks = b.frames.feed(p[:n])
	}
	b.ledger.note(b.kind, c)
	return n, err
}

// describe returns what a request is in the words of the audit log.
func describe(r *http.Request) kind {
	resource, named := resourceOf(r.URL.Path)
	verb := strings.ToLower(r.Method)
	switch r.Method {
	case http.MethodGet:
		switch {
		case r.URL.Query().Get("watch") != "":
			verb = "watch"
		case !named:
			verb = "list"
		}
	case http.MethodPost:
		verb = "create"
	case http.MethodPut:
		verb = "update"
	}
	return kind{verb, resource}
}

// resourceOf takes a path apart: /api/v1 or /apis/GROUP/VERSION, then
// namespaces/NAME if any, then the resource, its name and its subresource
// (Kubernetes API concepts, "Resource URIs").
func resourceOf(path string) (resource string, named bool) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	skip := 2
	if parts[0] == "apis" {
		skip = 3
	}
	if parts[0] != "api" && parts[0] != "apis" || len(parts) <= skip {
		return "other", false
	}
	parts = parts[skip:]
	if parts[0] == "namespaces" && len(parts) > 2 {
		parts = parts[2:]
	}
	if len(parts) > 2 {
		return parts[0] + "/" + parts[2], true
	}
	return parts[0], len(parts) > 1
}
