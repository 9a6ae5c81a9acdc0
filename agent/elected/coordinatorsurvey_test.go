package elected

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// ailing is an API server that answers requests as a test says.
type ailing func(path string) (status int, body string)

func (f ailing) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body := f(r.URL.Path)
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(body)), Request: r,
	}, nil
}

func (f ailing) sources(t *testing.T) sources {
	t.Helper()
	kube, err := kubernetes.NewForConfigAndClient(&rest.Config{
		Host: "http://api", ContentConfig: rest.ContentConfig{ContentType: "application/json"},
	}, &http.Client{Transport: f})
	if err != nil {
		t.Fatal(err)
	}
	return sources{kube: kube, ciliumConfig: defaultCiliumConfig}
}

const oneServiceCIDR = `{"apiVersion":"networking.k8s.io/v1","kind":"ServiceCIDRList","metadata":{},"items":[{"metadata":{"name":"kubernetes"},"spec":{"cidrs":["10.96.0.0/12"]}}]}`

func TestReadsThatFailForAMinuteClearTheStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := true
		server := ailing(func(path string) (int, string) {
			if broken {
				return http.StatusInternalServerError, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"no leader","code":500}`
			}
			return http.StatusOK, oneServiceCIDR
		})
		c := &coordinators{survey: newSurvey(server.sources(t))}
		sc := &v2beta1.SpiderCoordinator{ObjectMeta: metav1.ObjectMeta{Name: "default"}, Spec: v2beta1.CoordinatorSpec{PodCIDRType: "none"}}
		right := v2beta1.CoordinatorStatus{Phase: "Synced", ServiceCIDR: []string{"10.96.0.0/12"}}
		for range 2 {
			broken = true
			begun := time.Now()
			for time.Since(begun) < surveyPatience {
				if status, err := c.judge(t.Context(), sc); err == nil {
					t.Fatalf("after %s of failing reads the status is %+v", time.Since(begun), status)
				}
				c.forgive()
				time.Sleep(time.Second)
			}
			status, err := c.judge(t.Context(), sc)
			if err != nil || status.Phase != v2beta1.CoordinatorNotReady || !strings.Contains(status.Reason, "no leader") || status.ServiceCIDR != nil {
				t.Errorf("after %s of failing reads: %+v, %v", surveyPatience, status, err)
			}
			c.forgive()
			broken = false
			if status, err = c.judge(t.Context(), sc); err != nil || !cmp.Equal(right, status) {
				t.Errorf("once the server answers: %+v, %v", status, err)
			}
			c.forgive()
			c.survey = newSurvey(c.survey.sources)
		}
	})
}

func TestWhatAnAgentMayNotReadIsSaidAtOnce(t *testing.T) {
	server := ailing(func(path string) (int, string) {
		if strings.HasSuffix(path, "/ippools") {
			return http.StatusForbidden, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"may not list ippools","reason":"Forbidden","code":403}`
		}
		return http.StatusOK, oneServiceCIDR
	})
	c := &coordinators{survey: newSurvey(server.sources(t))}
	sc := &v2beta1.SpiderCoordinator{Spec: v2beta1.CoordinatorSpec{PodCIDRType: "calico"}}
	status, err := c.judge(t.Context(), sc)
	if err != nil || status.Phase != v2beta1.CoordinatorNotReady || !strings.Contains(status.Reason, "helm upgrade") {
		t.Errorf("%+v, %v", status, err)
	}
}

func TestFlagIsFoundHoweverItIsWritten(t *testing.T) {
	for _, test := range []struct {
		command, args []string
		want          string
	}{
		{[]string{"kube-controller-manager", "--cluster-cidr=10.0.0.0/8"}, nil, "10.0.0.0/8"},
		{[]string{"kube-controller-manager"}, []string{"--v=2", "--cluster-cidr", "10.0.0.0/8,fd00::/48"}, "10.0.0.0/8,fd00::/48"},
		{[]string{"sh", "-c"}, []string{`exec kube-controller-manager --cluster-cidr="10.0.0.0/8" --v=2`}, "10.0.0.0/8"},
		{[]string{"kube-controller-manager", "--cluster-cidr=10.0.0.0/8", "--cluster-cidr=10.1.0.0/16"}, nil, "10.1.0.0/16"},
		{[]string{"kube-controller-manager", "--cluster-cidr"}, nil, ""},
		{[]string{"kube-controller-manager", "--cluster-cidrs=10.0.0.0/8"}, nil, ""},
		{nil, nil, ""},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "sidecar"}, {Command: test.command, Args: test.args}}}}
		if got := flagOf(pod, "--cluster-cidr"); got != test.want {
			t.Errorf("%q %q: %q, want %q", test.command, test.args, got, test.want)
		}
	}
}

// FuzzNetworks: a text is networks, each without bits of a host, or an error
// that repeats what is wrong with it.
func FuzzNetworks(f *testing.F) {
	for _, text := range []string{"10.0.0.0/8", "10.244.0.1/16 fd00::/56", ",,", "::ffff:1.2.3.4/100", "fe80::1%a/64", "1/1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		networks, err := parse("the test", text)
		if err != nil {
			if len(networks) > 0 || !strings.HasPrefix(err.Error(), "the test says") {
				t.Errorf("%q: %v, %v", text, networks, err)
			}
			return
		}
		for _, n := range networks {
			if n != n.Masked() || n.Addr().Is4In6() || !strings.Contains(text, fmt.Sprint("/", n.Bits())) {
				t.Errorf("%q became %s", text, n)
			}
		}
	})
}
