package elected

import (
	"errors"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/holdfast-ipam/holdfast/agent/admission"
	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/crds"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

// slow is a way to the API server on which something happens before a PATCH
// arrives.
type slow struct {
	http.RoundTripper
	before func()
}

func (s *slow) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPatch {
		s.before()
	}
	return s.RoundTripper.RoundTrip(r)
}

// TestWhatAUserDoesBehindTheLookIsNotUndone has a pool change between the look
// at it and the write, on a real API server.
func TestWhatAUserDoesBehindTheLookIsNotUndone(t *testing.T) {
	config := apitest.Start(t)
	user := clientsOf(t, config).IPPools()
	way := &slow{}
	delayed := rest.CopyConfig(config)
	delayed.Wrap(func(next http.RoundTripper) http.RoundTripper { way.RoundTripper = next; return way })
	c := newCompleter(clientsOf(t, delayed).IPPools(), admission.DefaultPool)

	create := func(name string) *v2beta1.SpiderIPPool {
		t.Helper()
		pool, err := user.Create(t.Context(), &v2beta1.SpiderIPPool{
			ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{"example.com/keep"}},
			Spec:       v2beta1.IPPoolSpec{Subnet: "10.6.0.0/16", IPs: v2beta1.Ranges{"10.6.0.9", "10.6.0.1"}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return pool
	}
	patch := func(name, body string) {
		if _, err := user.Patch(t.Context(), name, types.MergePatchType, []byte(body), metav1.PatchOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	}
	remove := func(name string) {
		if err := user.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}
	for name, does := range map[string]func(name string){
		"edited":  func(name string) { patch(name, `{"spec":{"ips":["10.6.0.7","10.6.0.5"]}}`) },
		"deleted": remove,
		"made-anew": func(name string) {
			remove(name)
			patch(name, `{"metadata":{"finalizers":null}}`)
			create(name)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var want *v2beta1.SpiderIPPool
			pool := create(name)
			way.before = func() {
				does(name)
				var err error
				if want, err = user.Get(t.Context(), name, metav1.GetOptions{}); err != nil {
					t.Error(err)
				}
			}
			if _, err := c.complete(t.Context(), pool); !errors.Is(err, lease.ErrConflict) {
				t.Errorf("the error is %v, want a conflict", err)
			}
			is, err := user.Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, is); diff != "" {
				t.Error(diff)
			}
		})
	}

	// A pool on its way out is left alone, however old the cache is.
	pool := create("leaving")
	remove("leaving")
	way.before = func() { t.Error("it was written") }
	if _, err := c.complete(t.Context(), pool); err != nil {
		t.Error(err)
	}
}

func clientsOf(t *testing.T, config *rest.Config) *crds.Clients {
	t.Helper()
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	clients, err := crds.NewClients(config, httpClient)
	if err != nil {
		t.Fatal(err)
	}
	return clients
}
