//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"

	corev1 "k8s.io/api/core/v1"
)

// rounds of a measurement, with and without the coordinator in turn. What it
// prints are ratios: one machine plays all nodes, and is never quiet.
const rounds = 5

// Between pods of the underlay the coordinator stands aside: what it adds to a
// pod is for traffic that macvlan cannot carry. Nothing is asserted of times.
func TestSpeedBetweenPodsWithAndWithoutTheCoordinator(t *testing.T) {
	s := begin(t, "speed")
	pool := s.pool("speed", "10.6.31.1-10.6.31.9")
	lan := s.lan()
	nodes := s.workers()
	pods := map[string]*corev1.Pod{}
	for name, network := range map[string]string{"with": "kube-system/macvlan-ens192", "without": lan} {
		on := annotated(networkAnnotation, network)
		for i, node := range []string{nodes[0], nodes[0], nodes[1]} {
			pod := fmt.Sprintf("%s-%d", name, i)
			s.bare(pod, template(pod, pool, onNode(node), on))
			pods[pod] = &s.ready(pod, 1)[0]
		}
		s.inPod(pods[name+"-0"], "sh", "-c", "head -c 100000000 /dev/zero > /var/www/html/zeros")
	}
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "with : without the coordinator, median of 5 (least to most)\tround trip\tbytes per second")
	for _, asker := range []struct{ where, name string }{{"pods on one node", "1"}, {"pods on two nodes", "2"}} {
		with, without := pods["with-"+asker.name], pods["without-"+asker.name]
		var trips, speeds []float64
		for range rounds {
			trips = append(trips, s.roundTrip(with, pods["with-0"])/s.roundTrip(without, pods["without-0"]))
			speeds = append(speeds, s.speed(with, pods["with-0"])/s.speed(without, pods["without-0"]))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", asker.where, spreadOf(trips), spreadOf(speeds))
	}
	_ = w.Flush() // of a strings.Builder
	fmt.Fprintf(os.Stdout, "\n%s\n", &text)
}

func spreadOf(ratios []float64) string {
	slices.Sort(ratios)
	return fmt.Sprintf("%.2f (%.2f to %.2f)", ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1])
}

// roundTrip returns the mean round trip in milliseconds.
func (s *scenario) roundTrip(from, to *corev1.Pod) float64 {
	s.Helper()
	printed := s.inPod(from, "ping", "-q", "-c", "200", "-i", "0.005", to.Status.PodIP)
	found := regexp.MustCompile(`= [\d.]+/([\d.]+)/`).FindStringSubmatch(printed)
	if found == nil {
		s.Fatalf("ping says %q", printed)
	}
	return s.number(found[1])
}

// speed returns how many bytes per second a download takes.
func (s *scenario) speed(from, to *corev1.Pod) float64 {
	s.Helper()
	return s.number(s.inPod(from, "curl", "--silent", "--fail", "--output", "/dev/null", "--max-time", "60",
		"--write-out", "%{speed_download}", "http://"+to.Status.PodIP+"/zeros"))
}

func (s *scenario) number(text string) float64 {
	s.Helper()
	n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	s.must(err)
	return n
}
