package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

// realServer is a real API server. What a test does there, it does under names
// of its own.
type realServer struct {
	config *rest.Config
	kube   kubernetes.Interface
}

// TestAPIServer runs all that needs a real API server against one.
func TestAPIServer(t *testing.T) {
	s := &realServer{config: apitest.Start(t)}
	var err error
	if s.kube, err = kubernetes.NewForConfig(s.config); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		run  func(*testing.T, *realServer)
	}{
		{"NodeThatIsTrustedAgainOutrunsWhatWasJudgedBefore", trustOutruns},
		{"NodeThatIsTrustedAgainKnowsWhatItLost", trustRelearns},
		{"NodeIsNotTrustedBeforeItHasLearnedItsLeases", trustAfterLearning},
		{"NodeOutOfServiceIsNotTrusted", outOfServiceNode},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s) })
	}
}

// node creates a Node.
func (s *realServer) node(t *testing.T, name string) *corev1.Node {
	t.Helper()
	node, err := s.kube.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return node
}

// testTime is the time of an agent under test.
type testTime struct{ at time.Time }

func (c *testTime) now() time.Time { return c.at }

// agent returns the agent of a Node as it is before [Agent.start]: it knows
// which node it is, and its watches do not run.
func (s *realServer) agent(t *testing.T, node string, clock *testTime) *Agent {
	t.Helper()
	a := &Agent{
		options: Options{NodeName: node, Namespace: "kube-system"}, config: DefaultConfig(),
		log: slog.New(slog.NewTextHandler(t.Output(), nil)), now: clock.now, metrics: newMetrics(),
	}
	if err := a.connect(s.config); err != nil {
		t.Fatal(err)
	}
	if err := a.meet(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := lease.New(lease.Config{Node: a.node, Cluster: a.cluster, Disk: leasetest.NewDisk(nil).Open(), Now: clock.now})
	if err != nil {
		t.Fatal(err)
	}
	a.lessee, a.blocks = l, newBlocks(a.cluster, a.node.UID)
	return a
}

// claim leases three addresses of a block to the agent's node, and returns the
// block as somebody reads it then.
func claim(t *testing.T, a *Agent, cidr string) lease.Block {
	t.Helper()
	b, err := lease.NewBlock(netip.MustParsePrefix(cidr))
	if err != nil {
		t.Fatal(err)
	}
	b.Claim(a.node, 0b1110)
	if b, err = a.cluster.PutBlock(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return b
}

// endLease takes the node's lease in a block away, as one who fences does.
func endLease(ctx context.Context, a *Agent, b lease.Block) error {
	b.Fence(a.node.UID)
	_, err := a.cluster.PutBlock(ctx, b)
	return err
}

func beat(t *testing.T, a *Agent) {
	t.Helper()
	if _, err := a.beat(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func learn(t *testing.T, a *Agent) {
	t.Helper()
	if err := a.learn(t.Context(), false); err != nil {
		t.Fatal(err)
	}
}

func trustOutruns(t *testing.T, s *realServer) {
	s.node(t, "outruns")
	clock := &testTime{time.Now()}
	a := s.agent(t, "outruns", clock)
	block := claim(t, a, "10.1.0.0/28")
	for _, when := range []string{"when it starts", "when it was cut off for long"} {
		judged, err := a.cluster.Block(t.Context(), block.Name())
		if err != nil {
			t.Fatal(err)
		}
		learn(t, a)
		beat(t, a)
		if err := a.lessee.Ready(); err != nil {
			t.Fatalf("%s, a node in order is not ready: %v", when, err)
		}
		if err := endLease(t.Context(), a, judged); !errors.Is(err, lease.ErrConflict) {
			t.Errorf("%s, the end of a lease judged before lands afterwards (%v)", when, err)
		}
		if got := len(a.lessee.Free()); got != 3 {
			t.Errorf("%s, %d addresses are free here, want 3", when, got)
		}
		clock.at = clock.at.Add(a.config.HoldDown.Duration)
	}
}

func trustRelearns(t *testing.T, s *realServer) {
	s.node(t, "relearns")
	clock := &testTime{time.Now()}
	a := s.agent(t, "relearns", clock)
	claim(t, a, "10.2.0.0/28")
	learn(t, a)
	beat(t, a)
	clock.at = clock.at.Add(a.config.HoldDown.Duration)
	// Its watch does not tell.
	b, err := a.cluster.Block(t.Context(), lease.Name(netip.MustParsePrefix("10.2.0.0/28")))
	if err == nil {
		err = endLease(t.Context(), a, b)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := a.lessee.Ready(); !errors.Is(err, lease.ErrCutOff) {
		t.Errorf("after a hold-down without a heartbeat: %v", err)
	}
	beat(t, a)
	if free := a.lessee.Free(); len(free) > 0 || a.lessee.Ready() != nil {
		t.Errorf("ready (%v) with addresses that are leased to nobody: %v", a.lessee.Ready(), free)
	}
}

func trustAfterLearning(t *testing.T, s *realServer) {
	s.node(t, "learning")
	a := s.agent(t, "learning", &testTime{time.Now()})
	pause, err := a.beat(t.Context())
	if until := a.lessee.TrustedUntil(); !until.IsZero() || err != nil || pause != heartbeatRetry {
		t.Errorf("trusted until %s, next beat in %s, %v", until, pause, err)
	}
	learn(t, a)
	beat(t, a)
	if err := a.lessee.Ready(); err != nil {
		t.Error(err)
	}
}

func outOfServiceNode(t *testing.T, s *realServer) {
	node := s.node(t, "lost")
	node.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeOutOfService, Effect: corev1.TaintEffectNoExecute}}
	if _, err := s.kube.CoreV1().Nodes().Update(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	a := s.agent(t, "lost", &testTime{time.Now()})
	learn(t, a)
	beat(t, a)
	if until := a.lessee.TrustedUntil(); !until.IsZero() {
		t.Errorf("trusted until %s", until)
	}
}
