package agent

import (
	"net/http"
	"testing"
)

func TestRequestsAreNamedAsInTheAuditLog(t *testing.T) {
	for _, c := range []struct{ method, url, verb, resource string }{
		{"GET", "/api/v1/nodes/worker", "get", "nodes"},
		{"GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dworker", "list", "pods"},
		{"GET", "/api/v1/pods?watch=true", "watch", "pods"},
		{"GET", "/api/v1/namespaces", "list", "namespaces"},
		{"GET", "/api/v1/namespaces/default", "get", "namespaces"},
		{"GET", "/api/v1/namespaces/default/pods/web-0", "get", "pods"},
		{"POST", "/apis/holdfast.dev/v1alpha1/ipblocks", "create", "ipblocks"},
		{"PATCH", "/apis/holdfast.dev/v1alpha1/ipblocks/10.6.168.96-28", "patch", "ipblocks"},
		{"PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/holdfast", "update", "leases"},
		{"PUT", "/apis/spiderpool.spidernet.io/v2beta1/spiderippools/p/status", "update", "spiderippools/status"},
		{"DELETE", "/apis/spiderpool.spidernet.io/v2beta1/namespaces/default/spiderendpoints/web-0", "delete", "spiderendpoints"},
		{"GET", "/version", "list", "other"},
	} {
		r, err := http.NewRequest(c.method, "http://server"+c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if verb, resource := describe(r); verb != c.verb || resource != c.resource {
			t.Errorf("%s %s is %s %s, want %s %s", c.method, c.url, verb, resource, c.verb, c.resource)
		}
	}
}
