package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const figures = `{"Stages":[
{"System":"holdfast","Name":"plenty","Concurrency":1,"Done":2,"Add":[1.5,2],"Requests":[{"Class":"background","Verb":"get","Resource":"spiderendpoints","Count":4}]},
{"System":"holdfast","Name":"plenty","Concurrency":1,"Done":2,"Add":[1.5,0],"Requests":[{"Class":"background","Verb":"get","Resource":"spiderendpoints","Count":4}]},
{"System":"whereabouts","Name":"plenty","Concurrency":1,"Done":2,"Add":[150,200],"Requests":[{"Class":"waited","Verb":"update","Resource":"leases","Count":6}]},
{"System":"whereabouts","Name":"plenty, delete","Concurrency":1,"Done":2,"Add":null}
]}`

func TestPicturesAreDrawnOfWhatWasMeasured(t *testing.T) {
	dir := t.TempDir()
	if err := Run(dir); err == nil || !strings.Contains(err.Error(), "make bench") {
		t.Errorf("without figures: %v", err)
	}
	draw(t, dir, figures)
	for _, name := range []string{"latency-plenty-1-at-a-time.svg", "requests.svg"} {
		if text := words(t, filepath.Join(dir, name)); !strings.Contains(text, "whereabouts") || !strings.Contains(text, "holdfast") {
			t.Errorf("%s tells %q, and neither system", name, text)
		}
	}
	if all, err := filepath.Glob(filepath.Join(dir, "*.svg")); err != nil || len(all) != 2 {
		t.Errorf("there are %v (%v), want two pictures", all, err)
	}
}

func TestOneSystemHasNoPictureOfSeveral(t *testing.T) {
	dir := t.TempDir()
	draw(t, dir, `{"Stages":[{"System":"holdfast","Name":"plenty","Concurrency":1,"Done":2,"Add":[1.5,2]}]}`)
	all, err := filepath.Glob(filepath.Join(dir, "*.svg"))
	if want := []string{filepath.Join(dir, "latency-plenty-1-at-a-time.svg")}; err != nil || !slices.Equal(all, want) {
		t.Errorf("there are %v (%v), want %v", all, err, want)
	}
}

// draw draws what there is of the figures.
func draw(t *testing.T, dir, figures string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "bench.json"), []byte(figures), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Run(dir); err != nil {
		t.Fatal(err)
	}
}

// words returns the text of a picture, which must be well-formed.
func words(t *testing.T, path string) string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var text strings.Builder
	for decoder := xml.NewDecoder(file); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return text.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		if data, ok := token.(xml.CharData); ok {
			text.Write(data)
		}
	}
}

func TestRequestsAreForAPodOverAllRounds(t *testing.T) {
	r := report{Stages: []stage{
		{System: "a", Name: "plenty", Done: 1, Add: []float64{1}},
		{System: "a", Name: "plenty", Done: 3, Add: []float64{1, 2, 3}},
	}}
	r.Stages[1].Requests = append(r.Stages[1].Requests, struct {
		Class, Verb, Resource string
		Count                 int
	}{"waited", "get", "x", 8})
	g := r.groups()
	if len(g) != 1 || len(g[0].systems) != 1 || len(g[0].systems[0].add) != 4 || g[0].systems[0].requests["waited"] != 2 {
		t.Errorf("joined to %+v, want four ADDs with two requests each", g)
	}
}

func TestLineHasFewStepsAndBothEnds(t *testing.T) {
	for _, n := range []int{1, 2, steps, 5000} {
		times := make([]float64, n)
		for i := range times {
			times[i] = float64(n - i)
		}
		points := shares(times)
		last := points[len(points)-1]
		if len(points) != min(n, steps) || points[0].X != 1 || last.X != float64(n) || last.Y != 100 {
			t.Errorf("%d times make %d steps from %v to %v", n, len(points), points[0], last)
		}
		for i := 1; i < len(points); i++ {
			if points[i].X < points[i-1].X || points[i].Y <= points[i-1].Y {
				t.Errorf("of %d times, step %d falls from %v to %v", n, i, points[i-1], points[i])
			}
		}
	}
}

func TestRequestsAreShownWhereSystemsAreComparedAndAtTheirMost(t *testing.T) {
	two := []system{{name: "a"}, {name: "b"}}
	got := compared([]group{
		{step: "plenty", concurrency: 1, systems: two}, {step: "plenty", concurrency: 50, systems: two},
		{step: "alone", concurrency: 50, systems: two[:1]}, {step: "sizes", concurrency: 1, systems: two},
	})
	if len(got) != 2 || got[0].step != "plenty" || got[0].concurrency != 50 || got[1].step != "sizes" {
		t.Errorf("shown are %+v, want plenty with 50 and sizes", got)
	}
}
