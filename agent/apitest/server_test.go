package apitest_test

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/crds"
)

func TestServerServesOurKinds(t *testing.T) {
	config := apitest.Start(t)
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	kinds, err := crds.NewClients(config, httpClient)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kinds.IPBlocks().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := kinds.Endpoints("").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := kinds.IPPools().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
}
