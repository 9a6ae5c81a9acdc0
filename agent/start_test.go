package agent

import (
	"net/http"
	"strings"
	"testing"

	"github.com/holdfast-ipam/holdfast/cni"
)

func TestPodThatComesBeforeThePoolsAreReadIsAskedToComeAgain(t *testing.T) {
	body := `{"containerID":"c","interface":"eth0","pod":{"namespace":"default","name":"web-0","uid":"u"}}`
	if w := ask(starting(t), http.MethodPost, cni.PathAdd, body); w.Code != http.StatusServiceUnavailable {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestEmptyJournalIsAnEmptyList(t *testing.T) {
	w := ask(starting(t), http.MethodGet, journalPath, "")
	if text := strings.TrimSpace(w.Body.String()); text != "[]" {
		t.Errorf("got %s", text)
	}
}
