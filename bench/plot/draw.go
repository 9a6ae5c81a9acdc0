package main

import (
	"fmt"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// palette gives each system one colour in all pictures, whichever others are
// there.
func palette(name string) color.NRGBA {
	switch name {
	case "holdfast":
		return color.NRGBA{R: 0x1f, G: 0x6f, B: 0xb4, A: 0xff}
	case "host-local":
		return color.NRGBA{R: 0x6b, G: 0x6b, B: 0x6b, A: 0xff}
	case "whereabouts":
		return color.NRGBA{R: 0xd9, G: 0x5f, B: 0x02, A: 0xff}
	}
	return color.NRGBA{R: 0xe6, G: 0xab, B: 0x02, A: 0xff}
}

// drawLatency draws which share of the ADDs was answered within which time, on
// a scale of powers of ten, because systems differ by these.
func drawLatency(g group, path string) error {
	p := plot.New()
	p.Title.Text = g.title
	p.X.Label.Text, p.Y.Label.Text = "time of an ADD in ms", "% of ADDs answered by then"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Min, p.Y.Max = 0, 100
	p.Legend.Left, p.Legend.Top = true, true
	p.Add(plotter.NewGrid())
	for _, s := range g.systems {
		line, err := plotter.NewLine(shares(s.add))
		if err != nil {
			return fmt.Errorf("%s, %s: %w", g.title, s.name, err)
		}
		line.StepStyle, line.Width, line.Color = plotter.PostStep, vg.Points(1.5), palette(s.name)
		p.Add(line)
		p.Legend.Add(s.name, line)
	}
	return p.Save(16*vg.Centimeter, 10*vg.Centimeter, path)
}

// steps is how many steps a line has at most: more than an eye tells apart, and
// few enough for a file that is kept.
const steps = 400

// shares returns which share in percent of the times is not above which of
// them, the least and the greatest among them.
func shares(times []float64) plotter.XYs {
	sorted := slices.Sorted(slices.Values(times))
	n := len(sorted)
	var points plotter.XYs
	for step := range min(n, steps) {
		i := (n - 1) * step / max(min(n, steps)-1, 1)
		points = append(points, plotter.XY{X: max(sorted[i], 0.01), Y: 100 * float64(i+1) / float64(n)})
	}
	return points
}

// drawRequests draws the requests for a pod of every step, those that it waits
// for at the bottom, lighter what was done ahead, lightest the background.
func drawRequests(groups []group, path string) error {
	p := plot.New()
	p.Title.Text = "requests for a pod, with the most ADDs at a time: waited for (dark), ahead, in the background (light)"
	p.Y.Label.Text = "requests"
	p.Y.Min = 0
	p.Legend.Top = true
	const width = 6.0
	var titles []string
	shown := map[string]bool{}
	for at, g := range groups {
		titles = append(titles, g.step)
		for i, s := range g.systems {
			offset := vg.Points(width * 1.2 * (float64(i) - float64(len(g.systems)-1)/2))
			bottom, err := stack(p, s, float64(at), vg.Points(width), offset)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", g.title, s.name, err)
			}
			if !shown[s.name] {
				shown[s.name] = true
				p.Legend.Add(s.name, bottom)
			}
		}
	}
	p.NominalX(titles...)
	p.X.Max += 0.5
	p.Y.Max *= 1.3 // room for the legend
	p.X.Tick.Label.Rotation = 0.6
	p.X.Tick.Label.XAlign, p.X.Tick.Label.YAlign = -1, -0.5
	return p.Save(max(16*vg.Centimeter, vg.Length(len(groups))*1.8*vg.Centimeter), 14*vg.Centimeter, path)
}

// stack draws the bar of a system and returns its lowest part.
func stack(p *plot.Plot, s system, at float64, width, offset vg.Length) (bottom *plotter.BarChart, err error) {
	var below *plotter.BarChart
	for i, class := range []string{"waited", "ahead", "background"} {
		bar, err := plotter.NewBarChart(plotter.Values{s.requests[class]}, width)
		if err != nil {
			return nil, err
		}
		bar.XMin, bar.Offset, bar.LineStyle.Width = at, offset, 0
		shade := palette(s.name)
		shade.A = []uint8{255, 150, 70}[i]
		bar.Color = shade
		if below != nil {
			bar.StackOn(below)
		} else {
			bottom = bar
		}
		p.Add(bar)
		below = bar
	}
	return bottom, nil
}
