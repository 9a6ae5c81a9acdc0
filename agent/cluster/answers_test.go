package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// answering returns a client whose every request gets the answer, and the
// number of requests so far.
func answering(t *testing.T, answer func() (*http.Response, error)) (*cluster.Client, *int) {
	t.Helper()
	sent := 0
	config := cluster.Config(&rest.Config{Host: "http://192.0.2.1"}, "holdfast-test")
	config.Wrap(func(http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			sent++
			response, err := answer()
			if response != nil {
				response.Request = r
			}
			return response, err
		})
	})
	c, err := cluster.New(config, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, &sent
}

func respond(t *testing.T, code int, reason metav1.StatusReason, details *metav1.StatusDetails) func() (*http.Response, error) {
	t.Helper()
	body, err := json.Marshal(metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Details: details,
	})
	if err != nil {
		t.Fatal(err)
	}
	return func() (*http.Response, error) {
		return &http.Response{
			StatusCode: code,
			Header:     http.Header{"Content-Type": {"application/json"}, "Retry-After": {"1"}},
			Body:       io.NopCloser(strings.NewReader(string(body))),
		}, nil
	}
}

// TestAnswerDecidesWhatAWriteMeans takes a creation and a removal through the
// answers an API server, or whatever stands before it, can give.
func TestAnswerDecidesWhatAWriteMeans(t *testing.T) {
	named := &metav1.StatusDetails{Name: "10.6.168.96-28", Kind: "ipblocks"}
	for name, test := range map[string]struct {
		answer         func() (*http.Response, error)
		create, remove error // nil: the outcome is unknown
	}{
		"conflict":         {respond(t, 409, metav1.StatusReasonConflict, named), nil, lease.ErrConflict},
		"exists":           {respond(t, 409, metav1.StatusReasonAlreadyExists, named), lease.ErrConflict, nil},
		"gone":             {respond(t, 404, metav1.StatusReasonNotFound, named), lease.ErrRefused, lease.ErrConflict},
		"no such kind":     {respond(t, 404, metav1.StatusReasonNotFound, nil), lease.ErrRefused, lease.ErrRefused},
		"invalid":          {respond(t, 422, metav1.StatusReasonInvalid, named), lease.ErrRefused, lease.ErrRefused},
		"forbidden":        {respond(t, 403, metav1.StatusReasonForbidden, named), lease.ErrRefused, lease.ErrRefused},
		"unauthorized":     {respond(t, 401, metav1.StatusReasonUnauthorized, nil), lease.ErrRefused, lease.ErrRefused},
		"bad request":      {respond(t, 400, metav1.StatusReasonBadRequest, nil), lease.ErrRefused, lease.ErrRefused},
		"too large":        {respond(t, 413, metav1.StatusReasonRequestEntityTooLarge, nil), lease.ErrRefused, lease.ErrRefused},
		"method":           {respond(t, 405, metav1.StatusReasonMethodNotAllowed, nil), lease.ErrRefused, lease.ErrRefused},
		"internal error":   {respond(t, 500, metav1.StatusReasonInternalError, nil), nil, nil},
		"etcd is slow":     {respond(t, 500, metav1.StatusReasonServerTimeout, named), nil, nil},
		"timeout":          {respond(t, 504, metav1.StatusReasonTimeout, nil), nil, nil},
		"unavailable":      {respond(t, 503, metav1.StatusReasonServiceUnavailable, nil), nil, nil},
		"connection reset": {func() (*http.Response, error) { return nil, syscall.ECONNRESET }, nil, nil},
		"end of file":      {func() (*http.Response, error) { return nil, io.ErrUnexpectedEOF }, nil, nil},
	} {
		b, err := lease.NewBlock(netip.MustParsePrefix("10.6.168.96/28"))
		if err != nil {
			t.Fatal(err)
		}
		b.Claim(worker1(), 1)
		c, sent := answering(t, test.answer)
		_, err = c.PutBlock(t.Context(), b)
		check(t, name+": create", err, test.create)
		b.Version = "7"
		check(t, name+": remove", c.DeleteBlock(t.Context(), b), test.remove)
		if *sent != 2 {
			t.Errorf("%s: two writes were sent as %d requests", name, *sent)
		}
	}
}

// TestWriteWaitsWhileTheServerHasNoRoom has an API server that refuses a number
// of writes for now, and then says that the object exists.
func TestWriteWaitsWhileTheServerHasNoRoom(t *testing.T) {
	busy := respond(t, 429, metav1.StatusReasonTooManyRequests, nil)
	exists := respond(t, 409, metav1.StatusReasonAlreadyExists, nil)
	for name, test := range map[string]struct {
		refusals int
		patience time.Duration
		want     error
	}{
		"room in the end": {3, time.Minute, lease.ErrConflict},
		"never room":      {1000, time.Hour, lease.ErrRefused},
		"impatient":       {1000, 2 * time.Second, lease.ErrRefused},
	} {
		synctest.Test(t, func(t *testing.T) {
			left, last := test.refusals, time.Now()
			c, sent := answering(t, func() (*http.Response, error) {
				if pause := time.Since(last); pause > 0 && pause < time.Second {
					t.Errorf("%s: sent again after %s, Retry-After is a second", name, pause)
				}
				last = time.Now()
				if left--; left >= 0 {
					return busy()
				}
				return exists()
			})
			ctx, cancel := context.WithTimeout(t.Context(), test.patience)
			defer cancel()
			b, err := lease.NewBlock(netip.MustParsePrefix("10.6.168.96/28"))
			if err != nil {
				t.Fatal(err)
			}
			b.Claim(worker1(), 1)
			begun := time.Now()
			_, err = c.PutBlock(ctx, b)
			check(t, name, err, test.want)
			if took := time.Since(begun); took > time.Minute || *sent > 20 {
				t.Errorf("%s: it took %d requests and %s", name, *sent, took)
			}
		})
	}
}

func check(t *testing.T, what string, err, want error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
	}
	for _, kind := range []error{lease.ErrConflict, lease.ErrRefused, lease.ErrNotFound} {
		if errors.Is(err, kind) != (kind == want) {
			t.Errorf("%s: error %v, want %v", what, err, want)
		}
	}
}

func TestOnlyANamed404MeansNotFound(t *testing.T) {
	details := &metav1.StatusDetails{Name: "10.6.168.96-28", Kind: "ipblocks"}
	c, _ := answering(t, respond(t, 404, metav1.StatusReasonNotFound, details))
	if _, err := c.Block(t.Context(), "10.6.168.96-28"); !errors.Is(err, lease.ErrNotFound) {
		t.Errorf("error %v, want not found", err)
	}
	c, _ = answering(t, func() (*http.Response, error) {
		return &http.Response{
			StatusCode: 404,
			Header:     http.Header{"Content-Type": {"text/plain"}},
			Body:       io.NopCloser(strings.NewReader("404 page not found")),
		}, nil
	})
	if _, err := c.Block(t.Context(), "10.6.168.96-28"); err == nil || errors.Is(err, lease.ErrNotFound) {
		t.Errorf("error %v, want one that says nothing of the block", err)
	}
}

// TestBlockThatCannotBeIsNotBuiltOn does not rely on the API server's
// validation, which may be older than the agent.
func TestBlockThatCannotBeIsNotBuiltOn(t *testing.T) {
	c, _ := answering(t, func() (*http.Response, error) { return nil, io.EOF })
	at := func(addresses ...string) v1alpha1.Lease {
		return v1alpha1.Lease{Node: "a", NodeUID: strings.Join(addresses, " "), Addresses: addresses}
	}
	pin := func(address, pod, ifname string) []v1alpha1.Pin {
		return []v1alpha1.Pin{{Address: address, Pod: pod, Interface: ifname}}
	}
	sound := v1alpha1.IPBlockSpec{
		CIDR:   "10.6.168.96/28",
		Leases: []v1alpha1.Lease{at("10.6.168.97", "10.6.168.99-10.6.168.111")},
		Pins:   pin("10.6.168.97", "a/b", "eth0"),
	}
	for name, test := range map[string]struct {
		change func(*v1alpha1.IPBlockSpec)
		ok     bool
	}{
		"as it should be":     {func(*v1alpha1.IPBlockSpec) {}, true},
		"another CIDR":        {func(s *v1alpha1.IPBlockSpec) { s.CIDR = "10.6.168.112/28" }, false},
		"two lessees":         {func(s *v1alpha1.IPBlockSpec) { s.Leases = append(s.Leases, at("10.6.168.98-10.6.168.99")) }, false},
		"outside":             {func(s *v1alpha1.IPBlockSpec) { s.Leases[0] = at("10.6.169.97") }, false},
		"end outside":         {func(s *v1alpha1.IPBlockSpec) { s.Leases[0] = at("10.6.168.110-10.6.168.112") }, false},
		"half a range":        {func(s *v1alpha1.IPBlockSpec) { s.Leases[0] = at("10.6.168.97-") }, false},
		"reversed":            {func(s *v1alpha1.IPBlockSpec) { s.Leases[0] = at("10.6.168.98-10.6.168.97") }, false},
		"one address twice":   {func(s *v1alpha1.IPBlockSpec) { s.Leases[0] = at("10.6.168.98", "10.6.168.97-10.6.168.99") }, false},
		"no address":          {func(s *v1alpha1.IPBlockSpec) { s.Leases[0].Addresses = nil }, false},
		"no node UID":         {func(s *v1alpha1.IPBlockSpec) { s.Leases[0].NodeUID = "" }, false},
		"IPv6 in an IPv4 one": {func(s *v1alpha1.IPBlockSpec) { s.Leases[0] = at("::ffff:10.6.168.97") }, false},
		"pin outside":         {func(s *v1alpha1.IPBlockSpec) { s.Pins = pin("10.6.168.1", "a/b", "eth0") }, false},
		"pin without pod":     {func(s *v1alpha1.IPBlockSpec) { s.Pins = pin("10.6.168.97", "b", "eth0") }, false},
		"pin of no interface": {func(s *v1alpha1.IPBlockSpec) { s.Pins = pin("10.6.168.97", "a/b", "") }, false},
		"pinned twice":        {func(s *v1alpha1.IPBlockSpec) { s.Pins = append(s.Pins, s.Pins[0]) }, false},
	} {
		stored := v1alpha1.IPBlock{ObjectMeta: metav1.ObjectMeta{Name: "10.6.168.96-28", ResourceVersion: "7"}, Spec: *sound.DeepCopy()}
		test.change(&stored.Spec)
		got, err := c.FromIPBlock(&stored)
		if (err == nil) != test.ok {
			t.Errorf("%s: read as %v, error %v", name, got, err)
		}
		if err != nil && !strings.Contains(err.Error(), stored.Name) {
			t.Errorf("%s: error %v does not name the block", name, err)
		}
	}
}

func TestPodIsFinishedWhenItsContainersAre(t *testing.T) {
	ended := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	for name, test := range map[string]struct {
		phase      corev1.PodPhase
		containers map[string]corev1.ContainerState
		init       corev1.ContainerState
		want       bool
	}{
		"not started":           {corev1.PodPending, nil, running, false},
		"starting":              {corev1.PodPending, map[string]corev1.ContainerState{"a": {}, "b": {}}, ended, false},
		"running":               {corev1.PodRunning, map[string]corev1.ContainerState{"a": running, "b": running}, ended, false},
		"all ended":             {corev1.PodSucceeded, map[string]corev1.ContainerState{"a": ended, "b": ended}, ended, true},
		"failed, all ended":     {corev1.PodFailed, map[string]corev1.ContainerState{"a": ended, "b": ended}, ended, true},
		"between restarts":      {corev1.PodRunning, map[string]corev1.ContainerState{"a": ended, "b": ended}, ended, false},
		"node lost":             {corev1.PodFailed, map[string]corev1.ContainerState{"a": running, "b": ended}, ended, false},
		"node said too little":  {corev1.PodFailed, map[string]corev1.ContainerState{"a": ended}, ended, false},
		"node said nothing":     {corev1.PodFailed, nil, ended, false},
		"sidecar still running": {corev1.PodFailed, map[string]corev1.ContainerState{"a": ended, "b": ended}, running, false},
	} {
		pod := &corev1.Pod{
			Spec:   corev1.PodSpec{Containers: []corev1.Container{{Name: "a"}, {Name: "b"}}},
			Status: corev1.PodStatus{Phase: test.phase, InitContainerStatuses: []corev1.ContainerStatus{{Name: "i", State: test.init}}},
		}
		for name, state := range test.containers {
			pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{Name: name, State: state})
		}
		if got := cluster.Finished(pod); got != test.want {
			t.Errorf("%s: finished %t, want %t", name, got, test.want)
		}
	}
}

func TestStatusAndMultusTellWhatAPodHas(t *testing.T) {
	ips := []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}}
	for name, test := range map[string]struct {
		ips    []corev1.PodIP
		multus string
		want   string
	}{
		"nothing":                         {nil, "", ""},
		"the status":                      {ips, "", "eth0 10.0.0.1, eth0 fd00::1"},
		"Multus of a further interface":   {ips, `[{"interface":"eth0","ips":["10.0.0.1","fd00::1"]},{"interface":"net1","ips":["10.7.0.1"]}]`, "eth0 10.0.0.1, eth0 fd00::1, net1 10.7.0.1"},
		"Multus before the kubelet":       {nil, `[{"interface":"net1","ips":["10.7.0.1"]}]`, "net1 10.7.0.1"},
		"Multus of an unnamed interface":  {nil, `[{"ips":["10.0.0.1"]}]`, "eth0 10.0.0.1"},
		"what cannot be read":             {ips[:1], `{"ips":`, "eth0 10.0.0.1"},
		"an address that is none":         {[]corev1.PodIP{{IP: "here"}}, `[{"interface":"net1","ips":["there"]}]`, ""},
		"an interface without an address": {ips[:1], `[{"interface":"net1"}]`, "eth0 10.0.0.1"},
	} {
		pod := &corev1.Pod{Status: corev1.PodStatus{PodIPs: test.ips}}
		if test.multus != "" {
			pod.Annotations = map[string]string{"k8s.v1.cni.cncf.io/network-status": test.multus}
		}
		var got []string
		for _, a := range cluster.Told(pod) {
			got = append(got, a.Interface+" "+a.Addr.String())
		}
		if strings.Join(got, ", ") != test.want {
			t.Errorf("%s: %q, want %q", name, strings.Join(got, ", "), test.want)
		}
	}
}
