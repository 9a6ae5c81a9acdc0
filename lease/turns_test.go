package lease

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
)

func TestTurnsGoInTheOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var line turns[string]
		first, err := line.take(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		other, err := line.take(t.Context(), "b") // another key waits for nobody
		if err != nil {
			t.Fatal(err)
		}
		defer other()
		var order []int
		for i := range 4 {
			go func() {
				done, err := line.take(t.Context(), "a")
				if err != nil {
					t.Error(err)
					return
				}
				defer done()
				order = append(order, i)
			}()
			synctest.Wait()
		}
		if len(order) > 0 {
			t.Errorf("%v went while it was another's turn", order)
		}
		first()
		synctest.Wait()
		if want := []int{0, 1, 2, 3}; !slices.Equal(order, want) {
			t.Errorf("they went as %v, want %v", order, want)
		}
	})
}

func TestWhoGivesUpLeavesTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var line turns[string]
		first, err := line.take(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		impatient, giveUp := context.WithCancel(t.Context())
		last := make(chan func(), 1)
		go func() {
			if _, err := line.take(impatient, "a"); !errors.Is(err, context.Canceled) {
				t.Errorf("giving up is told as %v", err)
			}
		}()
		synctest.Wait()
		go func() {
			done, err := line.take(t.Context(), "a")
			if err != nil {
				t.Error(err)
			}
			last <- done
		}()
		synctest.Wait()
		giveUp()
		synctest.Wait()
		first()
		(<-last)()
		if len(line.lines) > 0 {
			t.Errorf("a line is kept: %v", line.lines)
		}
		if _, err := line.take(impatient, "a"); err == nil || len(line.lines) > 0 {
			t.Errorf("who has given up before gets a turn (%v)", err)
		}
	})
}
