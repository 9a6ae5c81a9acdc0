package elected

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	namedAbsence = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404,` +
		`"message":"not found","details":{"name":"NAME"}}`
	noLaunchers = `{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","items":[]}`
	definition  = `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"NAME"}}`
)

// TestMachineOfAKindThatIsNotServedIsUnknown: an API server that is starting
// answers 404 for kinds whose definitions it has not read, and one that is
// ill answers worse. None of that says that a machine is gone.
func TestMachineOfAKindThatIsNotServedIsUnknown(t *testing.T) {
	for _, test := range []struct {
		claim                string
		machines, definition func(http.ResponseWriter, string)
		known                bool
	}{
		{"neither served nor defined", notServed, answer(http.StatusNotFound, namedAbsence), true},
		{"defined and not served yet", notServed, answer(http.StatusOK, definition), false},
		{"nothing is served yet", notServed, notServed, false},
		{"definitions are out of reach", notServed, answer(http.StatusInternalServerError, "{}"), false},
		{"machines are out of reach", answer(http.StatusInternalServerError, "{}"), answer(http.StatusNotFound, namedAbsence), false},
		{"forbidden", answer(http.StatusForbidden, "{}"), answer(http.StatusNotFound, namedAbsence), false},
		{"served and not there", answer(http.StatusNotFound, namedAbsence), notServed, true},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
			switch {
			case strings.HasPrefix(r.URL.Path, "/api/"):
				answer(http.StatusOK, noLaunchers)(w, name)
			case strings.HasPrefix(r.URL.Path, "/apis/kubevirt.io/"):
				test.machines(w, name)
			default:
				test.definition(w, name)
			}
		}))
		kube, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL})
		if err != nil {
			t.Fatal(err)
		}
		m, err := FindMachine(kube.Discovery().RESTClient(), true)(t.Context(), "default", "vm")
		if known := err == nil; known != test.known || m.Wanted {
			t.Errorf("%s: %+v, %v, want it known: %t", test.claim, m, err, test.known)
		}
		server.Close()
	}
}

// notServed is what an API server says to a path that it does not know.
func notServed(w http.ResponseWriter, _ string) {
	http.Error(w, "404 page not found", http.StatusNotFound)
}

func answer(code int, body string) func(http.ResponseWriter, string) {
	return func(w http.ResponseWriter, name string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		if _, err := w.Write([]byte(strings.ReplaceAll(body, "NAME", name))); err != nil {
			return // the client went away
		}
	}
}
