package apitest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
)

func TestServerForgetsNothingWhenItIsKilledAndSaysNothingWhilePaused(t *testing.T) {
	if err := apitest.Installed(); err != nil {
		t.Skip(err)
	}
	server, err := apitest.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := kubernetes.NewForConfig(server.Config())
	if err != nil {
		t.Fatal(err)
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}}
	made, err := client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	read := func(ctx context.Context) error {
		kept, err := client.CoreV1().Nodes().Get(ctx, "node", metav1.GetOptions{})
		if err == nil && kept.UID != made.UID {
			t.Errorf("the node has UID %s, and had %s", kept.UID, made.UID)
		}
		return err
	}
	for range 20 { // a thread that runs on runs on by chance
		if err := server.Pause(); err != nil {
			t.Fatal(err)
		}
		brief, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := read(brief); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while paused it answered: %v", err)
		}
		cancel()
		if err := server.Resume(); err != nil {
			t.Fatal(err)
		}
		if err := read(t.Context()); err != nil {
			t.Errorf("after the pause: %v", err)
		}
	}
	server.Kill()
	if err := read(t.Context()); err == nil {
		t.Error("it answers after it was killed")
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := read(t.Context()); err != nil {
		t.Errorf("started anew: %v", err)
	}
}
