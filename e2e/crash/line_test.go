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
	l, err := newLine(strings.TrimPrefix(server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); l.serve(ctx) }()
	defer func() { cancel(); <-ended }()

	for _, c := range []struct {
		state             lineState
		answers, arriving bool
	}{{whole, true, true}, {cut, false, false}, {whole, true, true}, {lossy, false, true}, {silent, false, false}, {whole, true, true}} {
		l.become(c.state)
		before := arrived.Load()
		client := http.Client{Timeout: 300 * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true, DialContext: new(net.Dialer).DialContext}}
		response, err := client.Get("http://" + l.address())
		if err == nil {
			response.Body.Close()
		}
		if answers, arriving := err == nil, arrived.Load() > before; answers != c.answers || arriving != c.arriving {
			t.Errorf("state %d: answered %t and arrived %t, want %t and %t (%v)", c.state, answers, arriving, c.answers, c.arriving, err)
		}
	}
}
