package elected_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/holdfast-ipam/holdfast/agent/admission"
	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/agent/cluster"
	"github.com/holdfast-ipam/holdfast/agent/elected"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// chart is the release on an API server without nodes: what its objects
// allow, and what becomes of them.
type chart struct {
	server
	dir        string
	kubeconfig string
}

// run runs helm or kubectl, or a line of the README with them.
func (c *chart) run(t *testing.T, line string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", line)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig, "PATH="+apitest.BinDir()+":"+os.Getenv("PATH"), "HOME="+filepath.Dir(c.kubeconfig))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
}

// TestChartCarriesTheWebhook has the duties carried out with the permissions
// that the chart gives, through an upgrade, an uninstall and the end that the
// README describes.
func TestChartCarriesTheWebhook(t *testing.T) {
	for _, program := range []string{"helm", "kubectl"} {
		if _, err := os.Stat(filepath.Join(apitest.BinDir(), program)); err != nil {
			t.Skipf("no %s: `make kind-up` builds it: %v", program, err)
		}
	}
	c := installChart(t)
	s := &c.server
	s.first = c.contendAs(t, "system:serviceaccount:kube-system:holdfast")
	eventually(t, func() string { return s.holds("first") })
	var made, kept admission.Certificate
	eventually(t, func() string { return s.stored(t, &made) })
	s.pool(t, "left", v2beta1.IPPoolSpec{Subnet: "10.2.0.0/16", IPs: []string{"10.2.0.9", "10.2.0.1-10.2.0.8"}})
	s.poolSays(t, "left", 9, 0, "") // by what is allowed to an agent
	four, six := int64(4), int64(6)
	s.poolIs(t, "left", 2, v2beta1.IPPoolSpec{IPVersion: &four, Subnet: "10.2.0.0/16", IPs: []string{"10.2.0.1-10.2.0.9"}})
	c.run(t, `echo '{apiVersion: spiderpool.spidernet.io/v2beta1, kind: SpiderReservedIP, metadata: {name: left}, spec: {ips: ["fd02::2", "fd02::1"]}}' | kubectl create -f -`)
	s.reservation(t, "left", 2, v2beta1.ReservedIPSpec{IPVersion: &six, IPs: []string{"fd02::1-fd02::2"}})
	s.pool(t, "gone", v2beta1.IPPoolSpec{Subnet: "10.3.0.0/16", IPs: []string{"10.3.0.1-10.3.0.9"}})
	s.poolSays(t, "gone", 9, 0, "")
	c.run(t, "kubectl delete spiderippool gone --timeout=1m")
	c.coordinator(t, "Synced", "")
	c.run(t, "kubectl -n kube-system create configmap cilium-config --from-literal=ipam=multi-pool")
	c.coordinator(t, "NotReady", "names no network") // so its pools were looked at
	c.run(t, "kubectl -n kube-system delete configmap cilium-config")
	c.coordinator(t, "Synced", "")
	c.run(t, `kubectl patch spidercoordinator default --type merge -p '{"spec":{"podMACPrefix":"0a:1b"}}'`)
	s.first.end(t) // nobody is there to put it right

	// The next version of the chart changes each webhook.
	next := filepath.Join(t.TempDir(), "next")
	c.run(t, "cp -r charts/holdfast "+next+"; sed -i 's/timeoutSeconds: 5/timeoutSeconds: 6/' "+next+"/templates/webhook.yaml")
	c.run(t, "helm upgrade holdfast "+next+" --namespace kube-system --reuse-values")
	c.run(t, "kubectl get mutatingwebhookconfiguration,validatingwebhookconfiguration holdfast -o yaml | grep -c 'timeoutSeconds: 6' | grep -x 5")
	if problem := s.stored(t, &kept); problem != "" || !kept.Equal(made) {
		t.Errorf("after an upgrade: %s", problem)
	}
	c.run(t, "kubectl get spidercoordinator default -o jsonpath='{.spec.podMACPrefix} {.status.phase}' | grep -x '0a:1b Synced'")
	c.run(t, "helm uninstall holdfast --namespace kube-system")
	c.run(t, "kubectl get spidercoordinators -o name | wc -l | grep -x 0")
	_, err := s.kube.CoreV1().Secrets("kube-system").Get(t.Context(), admission.SecretName, metav1.GetOptions{})
	_, err2 := s.kube.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(), admission.ConfigurationName, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) || !apierrors.IsNotFound(err2) {
		t.Errorf("after it was uninstalled, there are a certificate (%v) and a configuration (%v)", err, err2)
	}
	c.run(t, c.readme(t, "kubectl get spiderippools"))
	c.run(t, "kubectl delete -f charts/holdfast/crds --timeout=1m")
}

// coordinator waits until the chart's SpiderCoordinator has the phase, by what an
// agent is allowed to read and write.
func (c *chart) coordinator(t *testing.T, phase, reason string) {
	t.Helper()
	eventually(t, func() string {
		sc, err := c.kinds.Coordinators().Get(t.Context(), "default", metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		if sc.Status.Phase != phase || !strings.Contains(sc.Status.Reason, reason) {
			return fmt.Sprintf("the status is %+v, want %s with %q", sc.Status, phase, reason)
		}
		return ""
	})
}

// readme returns the line of the README that begins so.
func (c *chart) readme(t *testing.T, begins string) string {
	t.Helper()
	text := must[[]byte](t)(os.ReadFile(filepath.Join(c.dir, "README.md")))
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, begins) && strings.Contains(line, "|") {
			return line
		}
	}
	t.Fatalf("the README has no line %s...", begins)
	return ""
}

func installChart(t *testing.T) *chart {
	t.Helper()
	config := apitest.Start(t)
	c := &chart{kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
	c.dir = must[string](t)(filepath.Abs("../.."))
	file := clientcmdapi.NewConfig()
	file.Clusters["test"] = &clientcmdapi.Cluster{Server: config.Host, InsecureSkipTLSVerify: true}
	file.AuthInfos["test"] = &clientcmdapi.AuthInfo{Token: config.BearerToken}
	file.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	file.CurrentContext = "test"
	if err := clientcmd.WriteToFile(*file, c.kubeconfig); err != nil {
		t.Fatal(err)
	}
	c.rest = cluster.Config(config, "holdfast-test")
	httpClient := must[*http.Client](t)(rest.HTTPClientFor(c.rest))
	c.kube = must[kubernetes.Interface](t)(kubernetes.NewForConfigAndClient(c.rest, httpClient))
	c.store = must[*cluster.Client](t)(cluster.New(c.rest, httpClient))
	c.kinds = c.store.Kinds()
	c.run(t, "helm install holdfast charts/holdfast --namespace kube-system")
	return c
}

// contendAs stands for election in the name of an account.
func (c *chart) contendAs(t *testing.T, account string) *contender {
	t.Helper()
	as := rest.CopyConfig(c.rest)
	as.Impersonate.UserName = account
	httpClient := must[*http.Client](t)(rest.HTTPClientFor(as))
	store := must[*cluster.Client](t)(cluster.New(as, httpClient))
	kube := must[*kubernetes.Clientset](t)(kubernetes.NewForConfigAndClient(as, httpClient))
	ctx, resign := context.WithCancel(t.Context())
	contender := &contender{resign: resign, done: make(chan error, 1)}
	duties := elected.New(elected.Config{
		Kubernetes: kube, CRDs: store.Kinds(), Cluster: store, Webhook: true,
		Namespace: "kube-system", Identity: "first", EnableStatefulSet: true, HoldDown: holdDown,
		Survey: time.Second,
		Log:    slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	go func() { contender.done <- duties.Run(ctx) }()
	t.Cleanup(func() { contender.end(t) })
	return contender
}

// stored returns a problem unless there is a certificate whose authority is in
// both configurations, for each kind.
func (s *server) stored(t *testing.T, c *admission.Certificate) string {
	t.Helper()
	secret := must[*corev1.Secret](t)(s.kube.CoreV1().Secrets("kube-system").Get(t.Context(), admission.SecretName, metav1.GetOptions{}))
	registration := s.kube.AdmissionregistrationV1()
	validating := must[*admissionregistrationv1.ValidatingWebhookConfiguration](t)(registration.ValidatingWebhookConfigurations().Get(t.Context(), admission.ConfigurationName, metav1.GetOptions{}))
	mutating := must[*admissionregistrationv1.MutatingWebhookConfiguration](t)(registration.MutatingWebhookConfigurations().Get(t.Context(), admission.ConfigurationName, metav1.GetOptions{}))
	*c = admission.CertificateOf(secret.Data)
	if len(c.Authorities) == 0 {
		return "there is no certificate"
	}
	var clients []admissionregistrationv1.WebhookClientConfig
	for _, w := range validating.Webhooks {
		clients = append(clients, w.ClientConfig)
	}
	for _, w := range mutating.Webhooks {
		clients = append(clients, w.ClientConfig)
	}
	for _, client := range clients {
		if diff := cmp.Diff(string(c.Authorities), string(client.CABundle)); diff != "" {
			return diff
		}
	}
	if len(clients) != 5 {
		return "the chart has other webhooks than five"
	}
	return ""
}
