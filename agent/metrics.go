package agent

import (
	"errors"
	"net/http"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/holdfast-ipam/holdfast/lease"
)

// metrics are what /metrics answers.
type metrics struct {
	registry  *prometheus.Registry
	requests  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	api       *prometheus.CounterVec
	conflicts *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_cni_requests_total",
			Help: "Requests of the CNI plugin, by verb and outcome: ok, exhausted, error.",
		}, []string{"verb", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "holdfast_cni_request_duration_seconds",
			Help:    "How long requests of the CNI plugin took, by verb.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}, []string{"verb"}),
		api: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_api_requests_total",
			Help: "Requests to the API server, by verb, resource and cause: add, conflict, del, check, gc or coordination for what that request of the plugin waited for, prepare for what was done ahead of an ADD, background for the rest.",
		}, []string{"verb", "resource", "cause"}),
		conflicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_ip_conflicts_total",
			Help: "Addresses that were found in use by machines outside the cluster, by outcome: set_aside for a stateless pod's, which goes on to another, kept for one that its pod waits for.",
		}, []string{"outcome"}),
	}
	m.registry.MustRegister(m.requests, m.duration, m.api, m.conflicts,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// observe counts one request of the socket.
func (m *metrics) observe(path string, err error, took time.Duration) {
	outcome := "ok"
	var exhausted *lease.ExhaustedError
	switch {
	case errors.As(err, &exhausted):
		outcome = "exhausted"
	case err != nil:
		outcome = "error"
	}
	verb := filepath.Base(path)
	m.requests.WithLabelValues(verb, outcome).Inc()
	m.duration.WithLabelValues(verb).Observe(took.Seconds())
}

// conflict counts addresses that somebody else uses.
func (m *metrics) conflict(aside bool, n int) {
	outcome := "kept"
	if aside {
		outcome = "set_aside"
	}
	m.conflicts.WithLabelValues(outcome).Add(float64(n))
}

// watch adds what the lessee holds, counted when somebody asks.
func (m *metrics) watch(l *lease.Lessee) {
	for _, state := range []lease.State{lease.Assigned, lease.Placing, lease.Retained, lease.Cooling, lease.Yielding} {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "holdfast_leased_addresses",
			Help:        "Addresses leased to this node, by what the journal says of them.",
			ConstLabels: prometheus.Labels{"state": string(state)},
		}, func() float64 { return float64(countState(l.Entries(), state)) }))
	}
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "holdfast_leased_addresses",
		Help:        "Addresses leased to this node, by what the journal says of them.",
		ConstLabels: prometheus.Labels{"state": "free"},
	}, func() float64 { return float64(len(l.Free())) }))
}

func countState(entries []lease.Entry, state lease.State) (n int) {
	for _, e := range entries {
		if e.State == state {
			n++
		}
	}
	return n
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
