package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-ipam/holdfast/bench/process"
)

func TestQuantileIsAValueThatWasMeasured(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[len(hundred)-1-i] = float64(i + 1)
	}
	for _, c := range []struct {
		values []float64
		q      float64
		want   float64
	}{
		{nil, 0.5, 0},
		{[]float64{7}, 0.5, 7},
		{[]float64{7}, 0.99, 7},
		{[]float64{3, 1, 2}, 0.5, 2},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 1, 100},
	} {
		if got := quantile(c.values, c.q); got != c.want {
			t.Errorf("quantile %g of %d values is %g, want %g", c.q, len(c.values), got, c.want)
		}
	}
}

func TestRatioIsTakenWithinARound(t *testing.T) {
	at := func(round int, seconds float64) *stage { return &stage{Round: round, Done: 10, Seconds: seconds} }
	x := &row{stages: []*stage{at(1, 1), at(2, 10), at(3, 4)}}
	y := &row{stages: []*stage{at(2, 20), at(1, 4), at(3, 4)}}
	if got, want := ratioOf(x, y, rate).String(), "2.00 (1.00 to 4.00)"; got != want {
		t.Errorf("the ratio is %s, want %s", got, want)
	}
	if got := ratioOf(x, &row{stages: []*stage{at(4, 1)}}, rate).String(); got != "-" {
		t.Errorf("without a round in common the ratio is %s, want none", got)
	}
}

func TestAuditLogIsCountedByUserOnceAndToItsLastWholeLine(t *testing.T) {
	const (
		get   = `{"stage":"ResponseComplete","verb":"get","user":{"username":"admin"},"impersonatedUser":{"username":"bench:plugin"},"objectRef":{"resource":"ippools"}}` + "\n"
		own   = `{"stage":"ResponseComplete","verb":"create","user":{"username":"admin"},"objectRef":{"resource":"pods"}}` + "\n"
		sub   = `{"stage":"ResponseComplete","verb":"update","impersonatedUser":{"username":"bench:node-0"},"objectRef":{"resource":"spiderippools","subresource":"status"}}` + "\n"
		begun = `{"stage":"ResponseStarted","verb":"watch","impersonatedUser":{"username":"bench:node-0"},"objectRef":{"resource":"pods"}}` + "\n"
		ended = `{"stage":"ResponseComplete","verb":"watch","impersonatedUser":{"username":"bench:node-0"},"objectRef":{"resource":"pods"}}` + "\n"
		other = `{"stage":"ResponseComplete","verb":"get","impersonatedUser":{"username":"bench:node-0"}}` + "\n"
	)
	log := &auditLog{path: filepath.Join(t.TempDir(), "audit.log"), users: map[string]tally{}}
	for _, text := range []string{get + own + get[:40], get[40:] + sub + begun + ended, other} {
		file, err := os.OpenFile(log.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		if err := log.read(); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]tally{
		"plugin": {{Verb: "get", Resource: "ippools"}: 2},
		"node-0": {
			{Verb: "update", Resource: "spiderippools/status"}: 1,
			{Verb: "watch", Resource: "pods"}:                  1,
			{Verb: "get", Resource: "other"}:                   1,
		},
	}
	if diff := cmp.Diff(want, log.users); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
	if log.total() != 5 {
		t.Errorf("%d requests in all, want 5", log.total())
	}
}

func TestAddressesSufficeAndOnesOfAnotherScenarioAreOthers(t *testing.T) {
	for _, pods := range []int{nodeCount, 1000, maxPods} {
		for n := range 3 {
			exact, wide := newAddresses(n, pods, true), newAddresses(n, pods, false)
			if !exact.subnet.Contains(exact.last) || !wide.subnet.Contains(wide.last) {
				t.Errorf("for %d pods, %s or %s lies outside of %s", pods, exact.last, wide.last, wide.subnet)
			}
			have := netip.AddrFrom4(exact.first.As4())
			for range pods - 1 {
				have = have.Next()
			}
			if have != exact.last {
				t.Errorf("for %d pods the last address is %s, want %s", pods, exact.last, have)
			}
			if next := newAddresses(n+1, pods, false); next.subnet.Overlaps(wide.subnet) {
				t.Errorf("%s and %s overlap", next.subnet, wide.subnet)
			}
		}
	}
}

func TestAddressOfALivingPodIsSeenTwice(t *testing.T) {
	l := living{by: map[netip.Addr]*pod{}}
	a, b := &pod{address: netip.MustParseAddr("10.0.0.1")}, &pod{address: netip.MustParseAddr("10.0.0.1")}
	for range 2 { // the answer may come again
		if l.take(a) {
			t.Error("a pod that has its own address counts as two")
		}
	}
	if !l.take(b) {
		t.Error("two pods have one address, and nobody sees it")
	}
	l.leave(b)
	if b.address = a.address; l.take(b) || b.before != a.address {
		t.Error("an address that was given back counts as in use")
	}
}

func TestEachPodIsDoneOnceAndNoneIsBegunWhenTheTimeIsOver(t *testing.T) {
	pods := newPods("pod", "", "net", 25)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan *pod, 2*len(pods))
	if err := each(ctx, 4, pods, func(_ int, p *pod) error { done <- p; return nil }); err != nil {
		t.Fatal(err)
	}
	seen := map[*pod]bool{}
	for range len(done) {
		seen[<-done] = true
	}
	if len(seen) != len(pods) {
		t.Errorf("%d of %d pods were done", len(seen), len(pods))
	}
	cancel()
	if err := each(ctx, 4, pods, func(_ int, p *pod) error { return fmt.Errorf("%s was begun", p.name) }); err != nil {
		t.Error(err)
	}
}

func TestWhatAPluginSaysIsToldApartByItsKind(t *testing.T) {
	for _, c := range []struct{ stdout, stderr, want string }{
		{`{"code":11,"msg":"all used","details":"pool net-17"}`, "", "all used pool net-…"},
		{"", "panic: 0xc000123456", "exit status …: panic: …x…"},
	} {
		err := said([]byte(c.stdout), []byte(c.stderr), fmt.Errorf("exit status 1"))
		if got := reason(err); got != c.want {
			t.Errorf("%s%s becomes %q, want %q", c.stdout, c.stderr, got, c.want)
		}
	}
	for _, wrong := range []string{"", "{}", `{"ips":[{"address":"10.0.0.1/16"},{"address":"10.0.0.2/16"}]}`} {
		if got, err := answered([]byte(wrong)); err == nil {
			t.Errorf("%q is taken for %s", wrong, got)
		}
	}
}

func TestWrongCommandLineTellsWhatToWrite(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--pods 3", "want 10 to"},
		{"--rounds 0", "want at least 1"},
		{"--limit 0s", "want more than 0"},
		{"--concurrency 0", "like 1,10,50"},
		{"--systems calico", "there are holdfast, host-local"},
		{"--scenarios all", "there are idle, plenty"},
		{"--peer-limit 0s", "like 20s"},
		{"--idle 0s", "--idle is 0s"},
		{"--crowd 0", "want 1 to"},
		{"--json x", "only a --quick run is judged"},
		{"more", "there are only flags"},
	} {
		err := Main(t.Context(), append([]string{"bench"}, strings.Fields(c.args)...))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
	}
}

func TestTableHasEachFigureInItsPlace(t *testing.T) {
	o := options{systems: []string{holdfastName, hostLocalName}, pods: 10, rounds: 1, limit: time.Minute}
	r := newReport(o)
	r.Stages = []*stage{
		{Round: 1, System: hostLocalName, Name: "plenty", Concurrency: 1, Pods: 10, Done: 10, Seconds: 1, Add: []float64{2, 4, 6}},
		{Round: 1, System: holdfastName, Name: "plenty", Concurrency: 1, Pods: 10, Done: 10, Seconds: 2, Add: []float64{1, 3, 9}, Audited: 20,
			Requests: []requests{{request{waited, "patch", "ipblocks"}, 5}, {request{background, "get", "spiderendpoints"}, 10}},
			CPU:      map[string]float64{beside: 0.05}, Memory: process.Memory{Peak: 32 << 10, Own: 8 << 10}},
	}
	var out bytes.Buffer
	if err := r.print(&out, (*table).text); err != nil {
		t.Fatal(err)
	}
	lines := map[string]bool{}
	for line := range strings.Lines(out.String()) {
		lines[strings.Join(strings.Fields(line), " ")] = true
	}
	for _, want := range []string{
		"plenty, 1 at a time holdfast 3.0 9.0 9.0 5.0 10 10 0 0 0",
		"host-local 4.0 6.0 6.0 10.0 10 10 0 0 0",
		"plenty, 1 at a time holdfast 0.00+0.50 0.00+0.00 1.00+0.00 2.00 0.0 5.0 0.0 0.0 32.0 8.0",
		"plenty, 1 at a time holdfast waited patch ipblocks 0.50; background get spiderendpoints 1.00",
		"plenty, 1 at a time host-local 0.75 (0.75 to 0.75) 1.50 (1.50 to 1.50) 0.50 (0.50 to 0.50)",
	} {
		if !lines[want] {
			t.Errorf("no line %q in\n%s", want, &out)
		}
	}
}

func TestSandboxIsANetworkNamespaceOfItsOwnForOthers(t *testing.T) {
	all, err := newSandboxes(2)
	if errors.Is(err, os.ErrPermission) {
		t.Skip("only root may make network namespaces")
	}
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, path := range []string{"/proc/self/ns/net", all[0].path(), all[1].path()} {
		out, err := exec.CommandContext(t.Context(), "readlink", path).Output()
		name := strings.TrimSpace(string(out))
		if err != nil || !strings.HasPrefix(name, "net:[") {
			t.Errorf("%s is %q for another process (%v), and no network namespace", path, name, err)
		}
		if other := seen[name]; other != "" {
			t.Errorf("%s and %s are one", path, other)
		}
		seen[name] = path
	}
	if err := removeSandboxes(all); err != nil {
		t.Error(err)
	}
}
