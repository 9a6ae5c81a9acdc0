package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"
)

func TestEventsAreCountedInWhateverPiecesTheyCome(t *testing.T) {
	const lines = `{"type":"ADDED","object":{"kind":"Pod"}}` + "\n" +
		`{"type":"BOOKMARK","object":{"kind":"Pod"}}` + "\n" +
		`{"type":"MODIFIED","object":{"metadata":{"name":"BOOKMARK"}}}` + "\n"
	var delimited []byte
	for _, event := range []string{"\n\x05ADDED\x12\x09k8s\x00", "\n\x08BOOKMARK\x12\x09k8s\x00", "\n\x08MODIFIED\x12\x50k8s\x00 of BOOKMARK" + strings.Repeat("x", 300)} {
		delimited = binary.BigEndian.AppendUint32(delimited, uint32(len(event)))
		delimited = append(delimited, event...)
	}
	for contentType, body := range map[string][]byte{
		"application/json": []byte(lines),
		"application/vnd.kubernetes.protobuf;stream=watch": delimited,
	} {
		for piece := 1; piece <= len(body); piece++ {
			f := newFrames(contentType)
			events, bookmarks := 0, 0
			for rest := body; len(rest) > 0; {
				n := min(piece, len(rest))
				e, b := f.feed(rest[:n])
				events, bookmarks, rest = events+e, bookmarks+b, rest[n:]
			}
			if events != 2 || bookmarks != 1 {
				t.Errorf("%s in pieces of %d: %d events and %d bookmarks, want 2 and 1", contentType, piece, events, bookmarks)
			}
		}
		if e, b := newFrames(contentType).feed(body[:len(body)-1]); e+b != 2 {
			t.Errorf("%s without its end: %d events, want the 2 that are whole", contentType, e+b)
		}
	}
}

func TestRequestsAreNamedAsInTheAuditLog(t *testing.T) {
	for _, c := range []struct {
		method, url string
		want        kind
	}{
		{"GET", "/api/v1/nodes/n", kind{"get", "nodes"}},
		{"GET", "/api/v1/pods?watch=true&fieldSelector=spec.nodeName%3Dn", kind{"watch", "pods"}},
		{"GET", "/api/v1/namespaces", kind{"list", "namespaces"}},
		{"GET", "/api/v1/namespaces/default", kind{"get", "namespaces"}},
		{"GET", "/api/v1/namespaces/default/pods/p", kind{"get", "pods"}},
		{"PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/holdfast", kind{"update", "leases"}},
		{"POST", "/apis/spiderpool.spidernet.io/v2beta1/namespaces/default/spiderendpoints", kind{"create", "spiderendpoints"}},
		{"PUT", "/apis/spiderpool.spidernet.io/v2beta1/spiderippools/p/status", kind{"update", "spiderippools/status"}},
		{"PATCH", "/apis/holdfast.dev/v1alpha1/ipblocks/b", kind{"patch", "ipblocks"}},
		{"DELETE", "/apis/holdfast.dev/v1alpha1/ipblocks/b", kind{"delete", "ipblocks"}},
		{"GET", "/version", kind{"list", "other"}},
		{"GET", "/apis/kubevirt.io/v1", kind{"list", "other"}},
	} {
		if got := describe(httptest.NewRequest(c.method, c.url, nil)); got != c.want {
			t.Errorf("%s %s is %v, want %v", c.method, c.url, got, c.want)
		}
	}
}

// server answers watches with two events, a path that ends in "taken" with a
// conflict, and everything else with what it was sent.
func server(t *testing.T) (config *rest.Config, connections func() int) {
	t.Helper()
	var mu sync.Mutex
	seen := map[string]bool{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.RemoteAddr] = true
		mu.Unlock()
		switch {
		case r.URL.Query().Get("watch") != "":
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"type":"ADDED"}`+"\n"+`{"type":"DELETED"}`+"\n")
		case strings.HasSuffix(r.URL.Path, "taken"):
			w.WriteHeader(http.StatusConflict)
		default:
			_, _ = io.Copy(w, r.Body)
		}
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return &rest.Config{Host: s.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}, func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(seen)
	}
}

// client is that of an agent.
func client(t *testing.T, config *rest.Config, l *line) *http.Client {
	t.Helper()
	own := rest.CopyConfig(config)
	own.Dial = l.dial
	own.Wrap(l.wrap)
	c, err := rest.HTTPClientFor(own)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func ask(t *testing.T, c *http.Client, method, url, body string) error {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

func TestWhatAnAgentAsksIsCountedToTheByte(t *testing.T) {
	config, _ := server(t)
	l := newLine()
	c := client(t, config, l)
	for _, q := range []struct{ method, path, body string }{
		{"POST", "/api/v1/namespaces/default/pods", "12345"},
		{"POST", "/api/v1/namespaces/default/pods", "1234567"},
		{"GET", "/api/v1/pods?watch=true", ""},
		{"PATCH", "/api/v1/nodes/taken", "1"},
	} {
		if err := ask(t, c, q.method, config.Host+q.path, q.body); err != nil {
			t.Fatal(err)
		}
	}
	want := tally{
		{"create", "pods"}: {Requests: 2, Sent: 12, Received: 12},
		{"watch", "pods"}:  {Requests: 1, Received: 36, Events: 2},
		{"patch", "nodes"}: {Requests: 1, Sent: 1, Conflicts: 1},
	}
	if diff := cmp.Diff(want, l.ledger.read()); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
	if l.sent.Load() <= 13 || l.received.Load() <= 48 {
		t.Errorf("the connection carried %d and %d bytes, less than the bodies", l.sent.Load(), l.received.Load())
	}
}

func TestEachAgentHasAConnectionOfItsOwnAndKeepsIt(t *testing.T) {
	config, connections := server(t)
	for range 3 {
		c := client(t, config, newLine())
		for range 4 {
			if err := ask(t, c, "GET", config.Host+"/api/v1/pods", ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := connections(); n != 3 {
		t.Errorf("three agents have %d connections", n)
	}
}

func TestLostNodeReachesNobody(t *testing.T) {
	config, _ := server(t)
	l := newLine()
	c := client(t, config, l)
	if err := ask(t, c, "GET", config.Host+"/api/v1/pods", ""); err != nil {
		t.Fatal(err)
	}
	l.lose()
	if err := ask(t, c, "GET", config.Host+"/api/v1/pods", ""); err == nil {
		t.Error("it was answered after its network was lost")
	}
	if n := l.ledger.read()[kind{"list", "pods"}].Failed; n != 1 {
		t.Errorf("%d failed requests are counted, want 1", n)
	}
	if _, err := l.dial(t.Context(), "tcp", "127.0.0.1:1"); !errors.Is(err, errCut) {
		t.Errorf("it dials all the same: %v", err)
	}
}
