package elected_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/agent/admission"
	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// deletedPool has a pool in use deleted: it stays until its last address is
// back.
func deletedPool(t *testing.T, s *server) {
	s.pool(t, "doomed", v2beta1.IPPoolSpec{Subnet: "10.11.0.0/16", IPs: []string{"10.11.0.1-10.11.0.9"}})
	s.poolSays(t, "doomed", 9, 0, "")
	s.statefulSet(t, "kept", 1)
	held, used := netip.MustParseAddr("10.11.0.1"), netip.MustParseAddr("10.11.0.2")
	s.place(t, "kept-0", "u0", "doomed", held) // and its pod is down
	s.endpointOf(t, "stateless", "doomed", used)
	stateless := must[*corev1.Pod](t)(s.kube.CoreV1().Pods("default").Get(t.Context(), "stateless", metav1.GetOptions{}))
	both := fmt.Sprintf(`{"10.11.0.1":{"pod":"default/kept-0","podUid":"u0"},"10.11.0.2":{"pod":"default/stateless","podUid":"%s"}}`, stateless.UID)
	s.poolSays(t, "doomed", 9, 2, both)
	if err := s.kinds.IPPools().Delete(t.Context(), "doomed", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if p := s.poolSays(t, "doomed", 9, 2, both); p.DeletionTimestamp == nil {
		t.Fatal("the pool is not on its way out")
	}
	s.deletePod(t, "stateless")
	if err := s.kinds.Endpoints("default").Delete(t.Context(), "stateless", metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err) // there is no garbage collector here
	}
	s.poolSays(t, "doomed", 9, 1, `{"10.11.0.1":{"pod":"default/kept-0","podUid":"u0"}}`)
	if err := s.kube.AppsV1().StatefulSets("default").Delete(t.Context(), "kept", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string { return s.poolGone(t, "doomed") })
	if problem := s.pinned(t, held, false); problem != "" {
		t.Errorf("the pool went before its last address was back: %s", problem)
	}

	s.pool(t, "unused", v2beta1.IPPoolSpec{Subnet: "10.12.0.0/16", IPs: []string{"10.12.0.1-10.12.0.9"}})
	s.poolSays(t, "unused", 9, 0, "")
	if err := s.kinds.IPPools().Delete(t.Context(), "unused", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string { return s.poolGone(t, "unused") })
}

func (s *server) poolGone(t *testing.T, name string) string {
	t.Helper()
	p, err := s.kinds.IPPools().Get(t.Context(), name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return ""
	case err != nil:
		return err.Error()
	}
	return fmt.Sprintf("pool %s is still there, with finalizers %v and status %+v", name, p.Finalizers, p.Status)
}

// endpointOf has a stateless pod on a node, with its endpoint.
func (s *server) endpointOf(t *testing.T, name, pool string, addr netip.Addr) {
	t.Helper()
	pod := s.pod(t, name, worker.Name)
	detail := must[json.RawMessage](t)(cluster.Detail{Pool: pool, Prefix: netip.PrefixFrom(addr, 16)}.Encode())
	must[lease.Endpoint](t)(s.store.PutEndpoint(t.Context(), lease.Endpoint{
		Namespace: "default", Pod: name, PodUID: string(pod.UID), Node: worker.Name, OwnerKind: "Pod", OwnerName: name,
		Addresses: []lease.EndpointAddress{{Interface: "eth0", Addr: addr, Detail: detail}},
	}))
}

// conflictingPools were applied while nobody asked the webhook.
func conflictingPools(t *testing.T, s *server) {
	s.pool(t, "left", v2beta1.IPPoolSpec{Subnet: "10.13.0.0/16", IPs: []string{"10.13.0.1-10.13.0.9"}})
	s.pool(t, "right", v2beta1.IPPoolSpec{Subnet: "10.13.0.0/16", IPs: []string{"10.13.0.9-10.13.0.19"}})
	says := func(name, want string) {
		t.Helper()
		eventually(t, func() string {
			p, err := s.kinds.IPPools().Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return err.Error()
			}
			c := meta.FindStatusCondition(p.Status.Conditions, v2beta1.ConditionConflicting)
			if got := c != nil && c.Status == metav1.ConditionTrue; got != (want != "") || got && !strings.Contains(c.Message, want) {
				return fmt.Sprintf("pool %s says %+v, want %q", name, c, want)
			}
			return ""
		})
	}
	says("left", `spec.ips: Invalid value: "10.13.0.9": is also in pool "right"`)
	says("right", `"10.13.0.9": is also in pool "left"`)
	patch := []byte(`{"spec":{"ips":["10.13.0.10-10.13.0.19"]}}`)
	must[*v2beta1.SpiderIPPool](t)(s.kinds.IPPools().Patch(t.Context(), "right", "application/merge-patch+json", patch, metav1.PatchOptions{}))
	says("left", "")
	says("right", "")
}

// webhookCertificate has the certificate made, renewed and restored.
func webhookCertificate(t *testing.T, s *server) {
	secrets, host := s.kube.CoreV1().Secrets("kube-system"), admission.Host("kube-system")
	s.webhookConfigurations(t)
	must[*corev1.Secret](t)(secrets.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: admission.SecretName}}, metav1.CreateOptions{}))
	keeper := must[*admission.Keeper](t)(admission.NewKeeper(s.kube, "kube-system"))
	go keeper.Informer.RunWithContext(t.Context())
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { _ = l.Close() })
	go answer(keeper.Listen(l))

	var first, second admission.Certificate
	eventually(t, func() string { return s.trusted(t, l.Addr().String(), &first) })

	// It is near its end, by the clock of one who made it most of a year ago.
	old := must[admission.Certificate](t)(admission.NewCertificate(time.Now().Add(-300*24*time.Hour), admission.Certificate{}, host))
	s.replaceSecret(t, old)
	eventually(t, func() string {
		if problem := s.trusted(t, l.Addr().String(), &second); problem != "" {
			return problem
		}
		if second.Equal(old) || second.Equal(first) {
			return "the certificate was not renewed"
		}
		return ""
	})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(second.Authorities)
	pair := must[tls.Certificate](t)(tls.X509KeyPair(old.Certificate, old.Key))
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots}); err != nil {
		t.Errorf("agents that serve with the certificate before are not trusted: %v", err)
	}

	// Somebody wipes what an API server trusts, as `helm upgrade --force` does.
	registration := s.kube.AdmissionregistrationV1()
	wiped := must[*admissionregistrationv1.ValidatingWebhookConfiguration](t)(registration.ValidatingWebhookConfigurations().Get(t.Context(), admission.ConfigurationName, metav1.GetOptions{}))
	wiped.Webhooks[0].ClientConfig.CABundle = nil
	must[*admissionregistrationv1.ValidatingWebhookConfiguration](t)(registration.ValidatingWebhookConfigurations().Update(t.Context(), wiped, metav1.UpdateOptions{}))
	eventually(t, func() string { return s.trusted(t, l.Addr().String(), &first) })
	if !first.Equal(second) {
		t.Error("the certificate was renewed although it stood")
	}

	// Somebody damages the certificate.
	s.replaceSecret(t, admission.Certificate{Certificate: second.Certificate, Key: []byte("nonsense"), Authorities: second.Authorities})
	eventually(t, func() string {
		if problem := s.trusted(t, l.Addr().String(), &first); problem != "" {
			return problem
		}
		if first.Equal(second) {
			return "the certificate was not renewed"
		}
		return ""
	})
}

// answer accepts connections and shakes hands until the listener is closed.
func answer(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			// That it fails shows on the other side.
			if c, ok := c.(*tls.Conn); ok {
				_ = c.Handshake()
			}
			_ = c.Close()
		}()
	}
}

// webhookConfigurations makes what the chart does, of two webhooks each.
func (s *server) webhookConfigurations(t *testing.T) {
	t.Helper()
	none := admissionregistrationv1.SideEffectClassNone
	client := admissionregistrationv1.WebhookClientConfig{Service: &admissionregistrationv1.ServiceReference{Namespace: "kube-system", Name: admission.ServiceName}}
	validating := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: admission.ConfigurationName}}
	mutating := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: admission.ConfigurationName}}
	for _, name := range []string{"a.holdfast.dev", "b.holdfast.dev"} {
		// Without rules, nobody asks.
		validating.Webhooks = append(validating.Webhooks, admissionregistrationv1.ValidatingWebhook{Name: name, ClientConfig: client, SideEffects: &none, AdmissionReviewVersions: []string{"v1"}})
		mutating.Webhooks = append(mutating.Webhooks, admissionregistrationv1.MutatingWebhook{Name: name, ClientConfig: client, SideEffects: &none, AdmissionReviewVersions: []string{"v1"}})
	}
	registration := s.kube.AdmissionregistrationV1()
	must[*admissionregistrationv1.ValidatingWebhookConfiguration](t)(registration.ValidatingWebhookConfigurations().Create(t.Context(), validating, metav1.CreateOptions{}))
	must[*admissionregistrationv1.MutatingWebhookConfiguration](t)(registration.MutatingWebhookConfigurations().Create(t.Context(), mutating, metav1.CreateOptions{}))
}

func (s *server) replaceSecret(t *testing.T, c admission.Certificate) {
	t.Helper()
	eventually(t, func() string {
		secret, err := s.kube.CoreV1().Secrets("kube-system").Get(t.Context(), admission.SecretName, metav1.GetOptions{})
		if err == nil {
			secret.Data = c.Data()
			_, err = s.kube.CoreV1().Secrets("kube-system").Update(t.Context(), secret, metav1.UpdateOptions{})
		}
		if err != nil {
			return err.Error()
		}
		return ""
	})
}

// trusted returns a problem unless an API server would trust the webhook at
// the address by each of the configurations, and stores the certificate.
func (s *server) trusted(t *testing.T, address string, c *admission.Certificate) string {
	t.Helper()
	registration := s.kube.AdmissionregistrationV1()
	validating, err := registration.ValidatingWebhookConfigurations().Get(t.Context(), admission.ConfigurationName, metav1.GetOptions{})
	mutating, err2 := registration.MutatingWebhookConfigurations().Get(t.Context(), admission.ConfigurationName, metav1.GetOptions{})
	secret, err3 := s.kube.CoreV1().Secrets("kube-system").Get(t.Context(), admission.SecretName, metav1.GetOptions{})
	if err := errors.Join(err, err2, err3); err != nil {
		return err.Error()
	}
	*c = admission.CertificateOf(secret.Data)
	bundles := [][]byte{c.Authorities}
	for i := range validating.Webhooks {
		bundles = append(bundles, validating.Webhooks[i].ClientConfig.CABundle, mutating.Webhooks[i].ClientConfig.CABundle)
	}
	for _, bundle := range bundles {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(bundle)
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots, ServerName: admission.Host("kube-system")})
		if err != nil {
			return err.Error()
		}
		served := conn.ConnectionState().PeerCertificates[0].Raw
		_ = conn.Close()
		if pair, err := tls.X509KeyPair(c.Certificate, c.Key); err != nil || !cmp.Equal(pair.Certificate[0], served) {
			return fmt.Sprintf("another certificate is served than stored: %v", err)
		}
	}
	if slices.ContainsFunc(bundles, func(b []byte) bool { return !cmp.Equal(b, c.Authorities) }) {
		return "a configuration trusts other authorities than are stored"
	}
	return ""
}
