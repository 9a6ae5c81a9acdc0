package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
)

// line is a node's own way to the API server: a proxy of TCP connections that
// can be broken without the other nodes' noticing.
type line struct {
	listener net.Listener
	target   string
	// fault is held by the one fault that the line suffers.
	fault sync.Mutex

	mu    sync.Mutex
	state lineState
	// delay is how much later what is sent while the state is late arrives.
	delay time.Duration
	// changed is closed when state changes.
	changed chan struct{}
	conns   map[net.Conn]bool
}

const (
	// lateGather is how long a connection that is about to break goes on
	// taking a request: headers and body come one after the other.
	lateGather = 20 * time.Millisecond
	// lateLinger is how long the API server has for a request that came late.
	lateLinger = 2 * time.Second
)

type lineState int

const (
	// whole: everything is carried.
	whole lineState = iota
	// cut: connections break and no new ones come about.
	cut
	// silent: nothing is carried for now, in either direction.
	silent
	// lossy: requests arrive, and every connection breaks before an answer
	// does.
	lossy
	// late: who sends something loses the connection at once, and what was
	// sent arrives when the sender has long asked again by another one.
	late
)

// newLine listens on the loopback interface.
func newLine(target string) (*line, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for an agent's requests: %w", err)
	}
	return &line{listener: l, target: target, changed: make(chan struct{}), conns: map[net.Conn]bool{}}, nil
}

// address is where the line begins.
func (l *line) address() string { return l.listener.Addr().String() }

// serve carries connections until ctx ends, and returns when all have ended.
func (l *line) serve(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		_ = l.listener.Close()
		l.become(cut)
	})
	defer stop()
	var carried sync.WaitGroup
	defer carried.Wait()
	for {
		conn, err := l.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			carried.Go(func() { l.carry(ctx, conn) })
		}
	}
}

// become changes the state. A line that is cut loses what is under way.
func (l *line) become(s lineState) { l.becomeFor(s, 0) }

// becomeFor is become with the delay of a line that is late.
func (l *line) becomeFor(s lineState, delay time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state, l.delay = s, delay
	close(l.changed)
	l.changed = make(chan struct{})
	if s == cut {
		for conn := range l.conns {
			_ = conn.Close()
		}
	}
}

// keep notes a connection, which it closes at once if the line is cut.
func (l *line) keep(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == cut {
		_ = conn.Close()
		return false
	}
	l.conns[conn] = true
	return true
}

func (l *line) drop(conns ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range conns {
		delete(l.conns, conn)
		_ = conn.Close()
	}
}

// carry connects an agent's connection with the API server until either ends.
func (l *line) carry(ctx context.Context, agent net.Conn) {
	if !l.keep(agent) {
		return
	}
	server, err := net.Dial("tcp", l.target)
	if err != nil || !l.keep(server) {
		l.drop(agent)
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		defer l.drop(server)
		defer l.drop(agent)
		if sent, delay := l.pump(server, agent, false); delay > 0 {
			l.deliver(ctx, server, agent, sent, delay)
		}
	})
	both.Go(func() {
		defer l.drop(agent) // and with it the other direction ends
		l.pump(agent, server, true)
	})
	both.Wait()
}

// pump copies in one direction until the connection breaks. What was sent by a
// line that is late, it returns with the delay.
func (l *line) pump(to io.Writer, from io.Reader, answers bool) (sent []byte, delay time.Duration) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			passes, delay := l.passes(answers)
			if delay > 0 {
				return buffer[:n], delay
			}
			if !passes {
				return nil, 0
			}
			_, err = to.Write(buffer[:n])
		}
		if err != nil {
			return nil, 0
		}
	}
}

// passes waits while the line is silent, and reports whether it carries what
// has come, or how much later.
func (l *line) passes(answer bool) (passes bool, delay time.Duration) {
	for {
		l.mu.Lock()
		state, delay, changed := l.state, l.delay, l.changed
		l.mu.Unlock()
		switch {
		case state == silent:
			<-changed
		case state == late && !answer:
			return false, delay
		case state == whole, state == lossy && !answer:
			return true, 0
		default:
			return false, 0
		}
	}
}

// deliver breaks an agent's connection and hands what it sent to the API server
// later.
func (l *line) deliver(ctx context.Context, server, agent net.Conn, sent []byte, delay time.Duration) {
	if agent.SetReadDeadline(time.Now().Add(lateGather)) == nil {
		rest, _ := io.ReadAll(agent) // until the deadline, or it is gone already
		sent = append(sent, rest...)
	}
	l.drop(agent)
	if !apitest.Pause(ctx, delay) {
		return
	}
	if _, err := server.Write(sent); err == nil {
		apitest.Pause(ctx, lateLinger)
	}
}
