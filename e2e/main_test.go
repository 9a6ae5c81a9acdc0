//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"text/tabwriter"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/e2e/cluster"
)

// summaryFile is the environment variable with the path of the file to which
// each scenario appends its outcome.
const summaryFile = "HOLDFAST_E2E_SUMMARY"

// outcome is one scenario in the summary.
type outcome struct {
	Name    string
	Seconds float64
	Result  string
}

func TestMain(m *testing.M) {
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	started := time.Now()
	if err := prepare(context.Background()); err != nil {
		return 1, err
	}
	prepared := time.Since(started)
	file, err := os.CreateTemp("", "holdfast-e2e-")
	if err != nil {
		return 1, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := os.Setenv(summaryFile, file.Name()); err != nil {
		return 1, err
	}
	code = m.Run()
	fmt.Printf("\nThe product was ready after %.0f s.\n", prepared.Seconds())
	return code, summarize(os.Stdout, file)
}

// prepare removes what scenarios of an interrupted run left, and installs the
// product.
func prepare(ctx context.Context) error {
	c, err := cluster.Open()
	if err != nil {
		return err
	}
	if err := c.StartAPIServer(ctx); err != nil {
		return err
	}
	if err := c.StartKubelets(ctx); err != nil {
		return err
	}
	if _, err := c.Kubectl(ctx, "", "uncordon", "--selector", "kubernetes.io/os=linux"); err != nil {
		return err
	}
	for _, kind := range []string{"namespaces", "spiderippools", "spiderreservedips"} {
		// Before the first installation there is no such kind.
		_, _ = c.Kubectl(ctx, "", "delete", kind, "--selector", scenarioLabel, "--timeout", "2m")
	}
	if err := c.Install(ctx); err != nil {
		return err
	}
	if _, err := c.Kubectl(ctx, network, "apply", "-f", "-"); err != nil {
		return err
	}
	return cluster.Await(ctx, 30*time.Second, func(ctx context.Context) error {
		_, err := c.Kubectl(ctx, "", "get", "network-attachment-definitions", "-n", "kube-system", "macvlan-ens192")
		return err
	})
}

// network is statefulset.md's.
const network = `
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderMultusConfig
metadata:
  name: macvlan-ens192
  namespace: kube-system
spec:
  cniType: macvlan
  enableCoordinator: true
  macvlan:
    master:
    - ens192
`

// record appends a scenario to the summary.
func record(t *testing.T, started time.Time) {
	o := outcome{Name: t.Name(), Seconds: time.Since(started).Seconds(), Result: "passed"}
	switch {
	case t.Failed():
		o.Result = "FAILED"
	case t.Skipped():
		o.Result = "skipped"
	}
	file, err := os.OpenFile(os.Getenv(summaryFile), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Errorf("open the summary: %v", err)
		return
	}
	defer file.Close()
	if err := json.NewEncoder(file).Encode(o); err != nil {
		t.Errorf("write the summary: %v", err)
	}
}

func summarize(out io.Writer, from io.Reader) error {
	count, total := map[string]int{}, 0.0
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "seconds\tresult\t  scenario")
	for lines := json.NewDecoder(from); ; {
		var o outcome
		if err := lines.Decode(&o); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("read the summary: %w", err)
		}
		count[o.Result]++
		total += o.Seconds
		fmt.Fprintf(w, "%.1f\t%s\t  %s\n", o.Seconds, o.Result, o.Name)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%d scenarios passed, %d failed, %d skipped, in %.0f s\n",
		count["passed"], count["FAILED"], count["skipped"], total)
	return err
}

// scenarioLabel is on everything that a scenario makes outside of its
// namespace, and on the namespace.
const scenarioLabel = "e2e.holdfast.dev/scenario"

func labels(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Labels: map[string]string{scenarioLabel: ""}}
}
