package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestLineBreaksAsItIsTold(t *testing.T) {
	var arrived atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived.Add(1)
		_, _ = io.WriteString(w, "ok")
	}))
	defer server.Close()
	l, stop := laid(t, server)
	defer stop()

	for _, c := range []struct {
		state             lineState
		answers, arriving bool
	}{{whole, true, true}, {cut, false, false}, {whole, true, true}, {lossy, false, true}, {silent, false, false}, {whole, true, true}} {
		l.become(c.state)
		before := arrived.Load()
		if answers, arriving := asks(l), arrived.Load() > before; answers != c.answers || arriving != c.arriving {
			t.Errorf("state %d: answered %t and arrived %t, want %t and %t", c.state, answers, arriving, c.answers, c.arriving)
		}
	}
}

func TestLateRequestArrivesAfterItsConnectionBroke(t *testing.T) {
	var arrived atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived.Add(1) }))
	defer server.Close()
	l, stop := laid(t, server)
	defer stop()

	l.becomeFor(late, time.Second)
	begun := time.Now()
	if asks(l) {
		t.Error("a request was answered that has not arrived")
	}
	l.become(whole)
	if n := arrived.Load(); n > 0 && time.Since(begun) < time.Second {
		t.Errorf("%d requests arrived at once", n)
	}
	if !asks(l) || arrived.Load() == 0 {
		t.Error("a line that is whole again does not carry a request")
	}
	for deadline := time.Now().Add(20 * time.Second); arrived.Load() < 2; <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d requests arrived, want the late one too", arrived.Load())
		}
	}
	if took := time.Since(begun); took < time.Second {
		t.Errorf("the late request arrived after %s", took)
	}
}

// laid returns a line to the server, and what ends it.
func laid(t *testing.T, server *httptest.Server) (l *line, stop func()) {
	t.Helper()
	l, err := newLine(strings.TrimPrefix(server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); l.serve(ctx) }()
	return l, func() { cancel(); <-ended }
}

// asks sends a request of its own connection over the line, and reports
// whether it was answered in time.
func asks(l *line) bool {
	client := http.Client{Timeout: 300 * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true, DialContext: new(net.Dialer).DialContext}}
	response, err := client.Get("http://" + l.address())
	if err != nil {
		return false
	}
	response.Body.Close()
	return true
}
