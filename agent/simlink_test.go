package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// simFault is what goes wrong with a request to the API server.
type simFault int

const (
	// faultNone: nothing.
	faultNone simFault = iota
	// faultConflict: somebody else changes the object before the request
	// comes in.
	faultConflict
	// fault429: the server refuses the request, being busy.
	fault429
	// fault500: the server fails and has done nothing.
	fault500
	// fault504: the server has done it and says that it ran out of time.
	fault504
	// faultLost: the connection breaks and the request is lost.
	faultLost
	// faultAnswerLost: the connection breaks after the request took effect.
	faultAnswerLost
	// faultLate: the connection breaks and the request comes in later.
	faultLate
)

func (f simFault) String() string {
	return []string{"none", "conflict", "429", "500", "504 after the effect", "request lost", "answer lost", "request late"}[f]
}

// simVerdict is how a call goes on.
type simVerdict struct {
	fault simFault
	disk  leasetest.DiskFault
}

// simStage is what a call waits for.
type simStage int

const (
	// stageRequest: a request is on its way to the server.
	stageRequest simStage = iota
	// stageAnswer: its answer is on its way back.
	stageAnswer
	// stageLate: a request whose sender hears no more of it is on its way.
	stageLate
	// stageDisk: a write of the disk is to be synced.
	stageDisk
)

// simCall is what there is to know of a call that waits.
type simCall struct {
	who   *simProcess
	stage simStage
	write bool
}

type (
	simDirector = leasetest.Director[simCall, simVerdict]
	simGate     = leasetest.Gate[simCall, simVerdict]
)

// simProcess is something that may crash, be paused, or be cut off from the
// API server.
type simProcess struct {
	name string
	// ctx ends with the process.
	ctx  context.Context
	end  context.CancelFunc
	dead atomic.Bool
	// cut is set while the process does not reach the API server.
	cut atomic.Bool
	// paused processes do not move (SIGSTOP).
	paused bool
	calls  atomic.Int64
}

type simProcessKey struct{}

func newSimProcess(w *simWorld, name string) *simProcess {
	p := &simProcess{name: name}
	p.ctx, p.end = context.WithCancel(context.WithValue(context.WithValue(context.Background(), simWorldKey{}, w), simProcessKey{}, p))
	return p
}

// simCost is the context key of a counter of requests.
type simCost struct{}

// errGone is what a process hears that has crashed.
var errGone = errors.New("this process is no more")

// simWorld is what a request travels through. Clients outlive a run, so each
// request names its process, and the process its world, by its context.
type simWorld struct {
	director *simDirector
	api      *simAPI
	away     atomic.Bool
}

type simWorldKey struct{}

// simLink is the way from the clients to the API server.
type simLink struct{}

type simAnswer struct {
	response *http.Response
	err      error
}

// RoundTrip sends a request through the director. Who gives up does not take
// back what is on its way.
func (simLink) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	p, w := ctx.Value(simProcessKey{}).(*simProcess), ctx.Value(simWorldKey{}).(*simWorld)
	if p.dead.Load() {
		return nil, errGone
	}
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	if cost, ok := ctx.Value(simCost{}).(*atomic.Int64); ok {
		cost.Add(1)
	}
	if p.cut.Load() || w.away.Load() {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	q := parseSimRequest(r, body)
	key := fmt.Sprintf("%s.%05d %s", p.name, p.calls.Add(1), q.String())
	heard := make(chan simAnswer, 1)
	go w.travel(p, key, q, heard)
	select {
	case a := <-heard:
		if a.response != nil {
			a.response.Request = r
		}
		return a.response, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.ctx.Done():
		return nil, errGone
	}
}

// travel is the way of a request and its answer.
func (w *simWorld) travel(p *simProcess, key string, q simRequest, heard chan<- simAnswer) {
	write := q.method != http.MethodGet
	v := w.director.Wait(key, simCall{who: p, stage: stageRequest, write: write})
	reset := simAnswer{err: &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}}
	switch v.fault {
	case faultLost:
		heard <- reset
		return
	case fault429:
		heard <- simAnswer{response: simRefusal(http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, q)}
		return
	case fault500:
		heard <- simAnswer{response: simRefusal(http.StatusInternalServerError, metav1.StatusReasonInternalError, q)}
		return
	case faultLate:
		heard <- reset
		w.director.Wait(key+" late", simCall{who: p, stage: stageLate, write: write})
		w.api.do(q)
		return
	case faultConflict:
		w.api.touch(q.resource, q.key)
	}
	answer := simAnswer{response: simResponse(w.api.do(q))}
	switch v.fault {
	case fault504:
		answer = simAnswer{response: simRefusal(http.StatusGatewayTimeout, metav1.StatusReasonTimeout, q)}
	case faultAnswerLost:
		answer = reset
	}
	w.director.Wait(key+" answer", simCall{who: p, stage: stageAnswer})
	heard <- answer
}

func simRefusal(code int32, reason metav1.StatusReason, q simRequest) *http.Response {
	status, body := simStatus(code, reason, q)
	return simResponse(status, body)
}

func simResponse(status int, body any) *http.Response {
	text, ok := body.(json.RawMessage)
	if !ok {
		var err error
		if text, err = json.Marshal(body); err != nil {
			panic(err)
		}
	}
	return &http.Response{
		StatusCode: status, Status: fmt.Sprint(status, " ", http.StatusText(status)),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}},
		Body:   io.NopCloser(bytes.NewReader(text)), ContentLength: int64(len(text)),
	}
}

// shortKey is the gate for the log, without what nobody reads there: the mark of
// each write is drawn at random and would make two histories differ.
func shortKey(g *simGate) string {
	text, _, _ := strings.Cut(g.Key, `,"summary"`)
	if before, after, ok := strings.Cut(text, `"annotations":{"`+cluster.WriteAnnotation); ok {
		_, after, _ = strings.Cut(after, "}")
		text = before + strings.TrimPrefix(after, ",")
	}
	return strings.ReplaceAll(text, `"`, "")
}
