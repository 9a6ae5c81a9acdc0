package agent

import (
	"context"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// causeKey is the context key of what a request to the API server is for.
type causeKey struct{}

// causeBackground is the cause of what nothing waits for.
const causeBackground = "background"

// withCause says what the requests made with the context are for: the verb
// of the plugin that waits for them, or a name for work ahead of one.
func withCause(ctx context.Context, cause string) context.Context {
	return context.WithValue(ctx, causeKey{}, cause)
}

func causeOf(ctx context.Context) string {
	if cause, ok := ctx.Value(causeKey{}).(string); ok {
		return cause
	}
	return causeBackground
}

// requestCounter counts the requests that an agent makes, so that what a pod
// start waits for can be seen and is held to in tests.
type requestCounter struct {
	next    http.RoundTripper
	counter *prometheus.CounterVec
}

// RoundTrip counts the request and passes it on.
func (c *requestCounter) RoundTrip(r *http.Request) (*http.Response, error) {
	verb, resource := describe(r)
	c.counter.WithLabelValues(verb, resource, causeOf(r.Context())).Inc()
	return c.next.RoundTrip(r)
}

// describe returns verb and resource of a request as the API server's audit
// log names them.
func describe(r *http.Request) (verb, resource string) {
	resource, named := parsePath(r.URL.Path)
	switch r.Method {
	case http.MethodGet:
		switch {
		case r.URL.Query().Get("watch") != "":
			return "watch", resource
		case !named:
			return "list", resource
		}
		return "get", resource
	case http.MethodPost:
		return "create", resource
	case http.MethodPut:
		return "update", resource
	}
	return strings.ToLower(r.Method), resource
}

// parsePath takes an API path apart: /api/v1 or /apis/GROUP/VERSION, then
// namespaces/NAME if any, then the resource, its name, its subresource.
func parsePath(path string) (resource string, named bool) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	skip := 2
	if parts[0] == "apis" {
		skip = 3
	}
	if len(parts) <= skip {
		return "other", false
	}
	parts = parts[skip:]
	if parts[0] == "namespaces" && len(parts) > 2 {
		parts = parts[2:]
	}
	resource = parts[0]
	if len(parts) > 2 {
		resource += "/" + parts[2]
	}
	return resource, len(parts) > 1
}
