package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/holdfast-ipam/holdfast/agent/admission"
	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/agent/cluster"
)

// lines is a log that can be read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

// TestWebhookIsServedByAnAgentThatGoesOnWithoutIt starts an agent's webhook on
// a port that somebody else has, and on one that is free.
func TestWebhookIsServedByAnAgentThatGoesOnWithoutIt(t *testing.T) {
	config := apitest.Start(t)
	kube, err := kubernetes.NewForConfig(cluster.Config(config, "holdfast-test"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := admission.NewCertificate(time.Now(), admission.Certificate{}, admission.Host("kube-system"))
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: admission.SecretName}, Data: c.Data()}
	if _, err := kube.CoreV1().Secrets("kube-system").Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := taken.Addr().String()

	// begin starts the webhook and returns how to end it.
	begin := func() (log *lines, end func()) {
		log = &lines{}
		a := &Agent{
			options: Options{NodeName: "worker-1", Namespace: "kube-system", WebhookAddress: address}, config: DefaultConfig(),
			log: slog.New(slog.NewTextHandler(log, nil)), now: time.Now, metrics: newMetrics(),
		}
		if err := a.connect(config); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.webhook(ctx) }()
		return log, func() {
			t.Helper()
			cancel()
			if err := <-done; err != nil {
				t.Errorf("the webhook ended the agent: %v", err)
			}
		}
	}
	log, end := begin()
	within(t, func() string {
		if !log.has("the webhook is not served on this node") {
			return "nothing is said of a port that somebody else has"
		}
		return ""
	})
	end()
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}

	_, end = begin()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.Authorities)
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: admission.Host("kube-system")}, DisableKeepAlives: true,
	}}
	within(t, func() string {
		r, err := client.Post("https://"+address+admission.PathValidate, "application/json", strings.NewReader("{}"))
		if err != nil {
			return err.Error()
		}
		if err := r.Body.Close(); err != nil || r.StatusCode != http.StatusBadRequest {
			return "a question that is none is answered with " + r.Status
		}
		return ""
	})
	end()
}
