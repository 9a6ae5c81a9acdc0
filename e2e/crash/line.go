package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
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
	// changed is closed when state changes.
	changed chan struct{}
	conns   map[net.Conn]bool
}

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
			carried.Go(func() { l.carry(conn) })
		}
	}
}

// become changes the state. A line that is cut loses what is under way.
func (l *line) become(s lineState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = s
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
func (l *line) carry(agent net.Conn) {
	if !l.keep(agent) {
		return
	}
	server, err := net.Dial("tcp", l.target)
	if err != nil || !l.keep(server) {
		l.drop(agent)
		return
	}
	var both sync.WaitGroup
	both.Go(func() { l.pump(server, agent, false); l.drop(agent, server) })
	both.Go(func() { l.pump(agent, server, true); l.drop(agent, server) })
	both.Wait()
}

// pump copies in one direction until the connection breaks.
func (l *line) pump(to io.Writer, from io.Reader, answers bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && l.passes(answers) {
			_, err = to.Write(buffer[:n])
		} else if n > 0 {
			return
		}
		if err != nil {
			return
		}
	}
}

// passes waits while the line is silent, and reports whether it carries what
// has come.
func (l *line) passes(answer bool) bool {
	for {
		l.mu.Lock()
		state, changed := l.state, l.changed
		l.mu.Unlock()
		switch {
		case state == silent:
			<-changed
		case state == cut, state == lossy && answer:
			return false
		default:
			return true
		}
	}
}
