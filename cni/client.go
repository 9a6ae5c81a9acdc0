package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Besides the agent's own [*Error], a [Client] fails in two ways.
var (
	// ErrNoAnswer: nothing listens on the socket, or what listens did not
	// answer in time, broke off, or said 5xx without an Error. Whether the
	// request had an effect is not known; sending it again is right.
	ErrNoAnswer = errors.New("the Holdfast agent does not answer")
	// ErrNotUnderstood: something answered, but not as the contract says.
	// Sending it again will not help.
	ErrNotUnderstood = errors.New("what answers is not a Holdfast agent of this version")
)

// maxAnswer bounds what is read of an answer, in bytes. An interface's
// addresses and routes take a few hundred.
const maxAnswer = 1 << 20

// Client speaks the contract with the agent that listens on Socket. A call
// ends with its context; a context without a deadline waits as long as the
// agent takes.
type Client struct {
	// Socket is the path of the agent's unix socket.
	Socket string
	// Patience is for how long a request is sent again while it ends in
	// ErrNoAnswer; 0 sends it once.
	Patience time.Duration
}

// Add asks for the addresses of an interface. The result has at least one
// address, and every prefix in it is valid. Errors: *Error, ErrNoAnswer,
// ErrNotUnderstood, as with all calls.
func (c *Client) Add(ctx context.Context, request AddRequest) (*AddResult, error) {
	var result AddResult
	if err := c.call(ctx, http.MethodPost, PathAdd, request, &result); err != nil {
		return nil, err
	}
	if err := result.valid(); err != nil {
		return nil, fmt.Errorf("%w: %s on %s: %w", ErrNotUnderstood, PathAdd, c.Socket, err)
	}
	return &result, nil
}

// Conflict reports addresses that somebody else uses, and returns what becomes
// of them.
func (c *Client) Conflict(ctx context.Context, request ConflictRequest) (*ConflictResult, error) {
	var result ConflictResult
	if err := c.call(ctx, http.MethodPost, PathConflict, request, &result); err != nil {
		return nil, err
	}
	return &result, nil
}

// Del gives an interface's addresses back; no error when there are none.
func (c *Client) Del(ctx context.Context, request DelRequest) error {
	return c.call(ctx, http.MethodPost, PathDel, request, nil)
}

// Check fails with an *Error when the agent does not hold the addresses for
// the attachment any more.
func (c *Client) Check(ctx context.Context, request CheckRequest) error {
	return c.call(ctx, http.MethodPost, PathCheck, request, nil)
}

// GC gives back what the request does not list.
func (c *Client) GC(ctx context.Context, request GCRequest) error {
	return c.call(ctx, http.MethodPost, PathGC, request, nil)
}

// Status returns whether the agent would serve an ADD.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	var status Status
	if err := c.call(ctx, http.MethodGet, PathStatus, nil, &status); err != nil {
		return nil, err
	}
	return &status, nil
}

// call sends the request until it is answered or patience or ctx ends, and
// decodes the answer into answer unless that is nil.
func (c *Client) call(ctx context.Context, method, path string, request, answer any) error {
	var body []byte
	if request != nil {
		var err error
		if body, err = json.Marshal(request); err != nil {
			return fmt.Errorf("encode the request to %s: %w", path, err)
		}
	}
	// The last attempt's error says more than the "context deadline exceeded"
	// that Retry would return.
	var last error
	if err := backoff.Retry(func() error {
		last = c.attempt(ctx, method, path, body, answer)
		if errors.Is(last, ErrNoAnswer) {
			return last
		}
		return backoff.Permanent(last)
	}, c.waits(ctx)); err != nil {
		return last
	}
	return nil
}

// waits returns how long to wait between attempts: briefly, since an agent
// that is started anew is there within seconds.
func (c *Client) waits(ctx context.Context) backoff.BackOff {
	if c.Patience <= 0 {
		return backoff.WithContext(&backoff.StopBackOff{}, ctx)
	}
	return backoff.WithContext(backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(50*time.Millisecond),
		backoff.WithMaxInterval(500*time.Millisecond),
		backoff.WithMaxElapsedTime(c.Patience),
	), ctx)
}

// attempt sends the request once.
func (c *Client) attempt(ctx context.Context, method, path string, body []byte, answer any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://holdfast"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make the request to %s: %w", path, err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.http().Do(request)
	if err != nil {
		return c.noAnswer(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return c.noAnswer(err)
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return c.failure(path, response, text)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("%w: %s on %s: %w", ErrNotUnderstood, path, c.Socket, err)
	}
	return nil
}

// http returns a client for one request: the process ends after it.
func (c *Client) http() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var dialer net.Dialer
				return dialer.DialContext(ctx, "unix", c.Socket)
			},
		},
		// An agent never redirects; following would leave the socket.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// noAnswer wraps what kept a request from being answered, without the
// method, the made-up URL and the second mention of the socket that net/http
// and net put in front.
func (c *Client) noAnswer(err error) error {
	if outer, ok := errors.AsType[*url.Error](err); ok {
		err = outer.Err
	}
	if outer, ok := errors.AsType[*net.OpError](err); ok {
		err = outer.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("it took too long: %w", err)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("it broke off: %w", err)
	}
	return fmt.Errorf("%w on %s: %w", ErrNoAnswer, c.Socket, err)
}

// failure returns the error that an answer other than 2xx carries.
func (c *Client) failure(path string, response *http.Response, text []byte) error {
	var said Error
	hasSaid := json.Unmarshal(text, &said) == nil && said.Message != ""
	status := response.StatusCode
	switch {
	case hasSaid && status == http.StatusServiceUnavailable:
		return fmt.Errorf("%w: %w", ErrNoAnswer, &said)
	case hasSaid && status >= 400:
		return &said
	case status >= 500:
		return fmt.Errorf("%w on %s: %s says %s", ErrNoAnswer, c.Socket, path, response.Status)
	default:
		return fmt.Errorf("%w: %s on %s says %s", ErrNotUnderstood, path, c.Socket, response.Status)
	}
}
