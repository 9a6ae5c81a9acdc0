package elected

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/agent/cluster"
)

// TestElection has agents stand for election on a real API server, each test in
// a namespace of its own.
func TestElection(t *testing.T) {
	config := cluster.Config(apitest.Start(t), "holdfast-test")
	for name, test := range map[string]func(*testing.T, *poll){
		"waiting-agent-asks-nothing":                                  waitingAsksNothing,
		"holder-that-resigns-is-followed-at-once":                     resigned,
		"silent-holder-is-followed-after-its-duration-and-not-before": silent,
		"holder-that-renews-is-not-followed-where-no-watch-tells":     unwatched,
		"one-of-many-is-elected":                                      oneOfMany,
	} {
		t.Run(name, func(t *testing.T) {
			p := &poll{t: t, config: config, namespace: name}
			var err error
			if p.kube, err = kubernetes.NewForConfig(config); err != nil {
				t.Fatal(err)
			}
			_, err = p.kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			test(t, p)
		})
	}
}

// brisk is a pace for tests.
func brisk() pace {
	return pace{duration: 3 * time.Second, deadline: 2 * time.Second, retry: 500 * time.Millisecond, spread: 50 * time.Millisecond}
}

// poll is one election.
type poll struct {
	t         *testing.T
	config    *rest.Config
	kube      kubernetes.Interface
	namespace string
	// serving is how many think that they are elected.
	serving atomic.Int32
}

// candidate is an agent that takes part.
type candidate struct {
	end func()
	// asked is how many requests it made, but for lists and watches, and deaf
	// is set while it gets no answers to those.
	asked   atomic.Int32
	watches atomic.Int32
	deaf    bool
	serving atomic.Bool
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// candidate lets an agent take part until the test ends or end is called.
func (p *poll) candidate(name string, pace pace, deaf bool) *candidate {
	p.t.Helper()
	c := &candidate{deaf: deaf}
	config := rest.CopyConfig(p.config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return transport(func(r *http.Request) (*http.Response, error) {
			if r.URL.Query().Has("fieldSelector") {
				c.watches.Add(1)
				if c.deaf {
					return nil, errors.New("no watch here")
				}
			} else {
				c.asked.Add(1)
			}
			return next.RoundTrip(r)
		})
	})
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		p.t.Fatal(err)
	}
	e := newElection(&Config{
		Kubernetes: kube, Namespace: p.namespace, Identity: name, Log: slog.New(slog.NewTextHandler(p.t.Output(), nil)),
	}, pace)
	ctx, cancel := context.WithCancel(p.t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		err := e.run(ctx, func(ctx context.Context) {
			if n := p.serving.Add(1); n != 1 {
				p.t.Errorf("%d are elected at once", n)
			}
			c.serving.Store(true)
			<-ctx.Done()
			c.serving.Store(false)
			p.serving.Add(-1)
		})
		if err != nil {
			p.t.Errorf("%s: %v", name, err)
		}
	})
	c.end = sync.OnceFunc(func() { cancel(); running.Wait() })
	p.t.Cleanup(c.end)
	return c
}

func (p *poll) lease() *coordinationv1.Lease {
	l, err := p.kube.CoordinationV1().Leases(p.namespace).Get(p.t.Context(), leaseName, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return l
}

// hold makes the Lease that of an agent that is none of the candidates.
func (p *poll) hold() {
	p.t.Helper()
	other, seconds, now := "other", int32(3), metav1.NowMicro()
	_, err := p.kube.CoordinationV1().Leases(p.namespace).Create(p.t.Context(), &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: leaseName},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &other, LeaseDurationSeconds: &seconds, AcquireTime: &now, RenewTime: &now},
	}, metav1.CreateOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *poll) renew() {
	p.t.Helper()
	l, now := p.lease(), metav1.NowMicro()
	l.Spec.RenewTime = &now
	if _, err := p.kube.CoordinationV1().Leases(p.namespace).Update(p.t.Context(), l, metav1.UpdateOptions{}); err != nil {
		p.t.Fatal(err)
	}
}

// until waits for what is to come within half a minute.
func (p *poll) until(is func() bool, claim string) {
	p.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			p.t.Fatalf("not in half a minute: %s", claim)
		}
		select {
		case <-p.t.Context().Done():
			p.t.Fatal(claim)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func waitingAsksNothing(t *testing.T, p *poll) {
	first := p.candidate("first", brisk(), false)
	p.until(first.serving.Load, "the only one is elected")
	second := p.candidate("second", brisk(), false)
	p.until(func() bool { return second.watches.Load() > 0 }, "the second watches")
	for i := range 10 {
		before := p.lease().ResourceVersion
		p.until(func() bool { return p.lease().ResourceVersion != before }, fmt.Sprint("renewal ", i))
	}
	if n := second.asked.Load(); n != 0 {
		t.Errorf("who waits has made %d requests", n)
	}
}

func resigned(_ *testing.T, p *poll) {
	slow := usual()
	first := p.candidate("first", slow, false)
	p.until(first.serving.Load, "the only one is elected")
	second := p.candidate("second", slow, false)
	p.until(func() bool { return second.watches.Load() > 0 }, "the second watches")
	first.end()
	p.until(second.serving.Load, "the second follows") // 40 s before the Lease runs out
}

func silent(t *testing.T, p *poll) {
	p.hold()
	began := time.Now()
	c := p.candidate("next", brisk(), false)
	p.until(c.serving.Load, "who waited follows")
	if waited := time.Since(began); waited < brisk().duration {
		t.Errorf("it was followed after %s, while it may have held the Lease", waited)
	}
}

func unwatched(t *testing.T, p *poll) {
	p.hold()
	c := p.candidate("deaf", brisk(), true)
	p.until(func() bool { p.renew(); return c.asked.Load() >= 3 || c.serving.Load() }, "it reads the Lease now and then")
	if c.serving.Load() {
		t.Error("it follows one who is there")
	}
	p.until(c.serving.Load, "it follows one who is gone")
}

func oneOfMany(t *testing.T, p *poll) {
	const many = 30
	p.hold()
	var all []*candidate
	pace := brisk()
	pace.spread = time.Second
	for i := range many {
		all = append(all, p.candidate(fmt.Sprint("agent-", i), pace, false))
	}
	serving := func() *candidate {
		for _, c := range all {
			if c.serving.Load() {
				return c
			}
		}
		return nil
	}
	for range 3 {
		p.until(func() bool { return serving() != nil }, "one is elected")
		was := serving()
		was.end()
		p.until(func() bool { return serving() != nil && serving() != was }, "another follows")
	}
	asked := int32(0)
	for _, c := range all {
		asked += c.asked.Load()
	}
	t.Logf("%d requests by %d agents in four terms", asked, many)
}
