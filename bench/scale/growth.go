package main

import (
	"fmt"
	"math"
)

// figureOf is a figure of a stage.
type figureOf func(*stage) float64

// beyond returns what a figure of a phase is beyond what it would have been in
// the same time at rest, at the same size. At rest it is the figure itself.
func (r *report) beyond(s *stage, of figureOf) float64 {
	rest := r.at(s.Agents, idle)
	if s.Name == idle || s.Name == startUp || rest == nil || rest.Seconds == 0 {
		return of(s)
	}
	return max(0, of(s)-of(rest)/rest.Seconds*s.Seconds)
}

// The ways in which a figure grows with the number of agents.
const (
	constant = "constant"
	less     = "less than linear"
	linear   = "linear"
	worse    = "WORSE than linear"
)

// exponent returns e for values that grow as n^e with the numbers, by least
// squares of the logarithms; ok only if there are two values and all are above
// 0.
func exponent(numbers []int, values []float64) (e float64, ok bool) {
	if len(values) < 2 {
		return 0, false
	}
	xs, ys := make([]float64, len(values)), make([]float64, len(values))
	for i, v := range values {
		if v <= 0 {
			return 0, false
		}
		xs[i], ys[i] = math.Log(float64(numbers[i])), math.Log(v)
	}
	_, e = fit(xs, ys)
	return e, true
}

// grows says how values grow with the numbers. What is below the noise at every
// size says nothing.
func grows(numbers []int, values []float64, noise float64) string {
	most := 0.0
	for _, v := range values {
		most = max(most, v)
	}
	e, ok := exponent(numbers, values)
	if !ok || most < noise {
		return "-"
	}
	if math.Abs(e) < 0.005 {
		e = 0 // and not -0.00
	}
	return fmt.Sprintf("%s (%.2f)", way(e), e)
}

// way names an exponent. What is measured is not exact, so there is some room.
func way(e float64) string {
	switch {
	case e < 0.2:
		return constant
	case e < 0.8:
		return less
	case e <= 1.2:
		return linear
	}
	return worse
}

// fit returns the line a + b*x that is nearest to the points (least squares).
// With one point, or points above each other, it is level.
func fit(xs, ys []float64) (a, b float64) {
	n := float64(len(xs))
	var sx, sy, sxx, sxy float64
	for i := range xs {
		sx += xs[i]
		sy += ys[i]
		sxx += xs[i] * xs[i]
		sxy += xs[i] * ys[i]
	}
	if d := n*sxx - sx*sx; d > 0 {
		b = (n*sxy - sx*sy) / d
	}
	return (sy - b*sx) / n, b
}
