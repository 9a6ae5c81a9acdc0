package watch

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func refused() error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
}

func TestServerThatComesBackIsAskedWithinSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		const away = 3 * time.Minute
		answer, err := answered(t.Context(), func() (string, error) {
			if time.Since(begun) < away {
				return "", refused()
			}
			return "all", nil
		})
		if answer != "all" || err != nil {
			t.Fatalf("got %q, %v", answer, err)
		}
		if late := time.Since(begun) - away; late > 2*longPause {
			t.Errorf("it was asked %s after it had come back", late)
		}
	})
}

func TestServerThatRefusesIsLeftToTheInformer(t *testing.T) {
	overloaded := errors.New("429")
	asked := 0
	_, err := answered(t.Context(), func() (string, error) { asked++; return "", overloaded })
	if asked != 1 || !errors.Is(err, overloaded) {
		t.Errorf("asked %d times, %v", asked, err)
	}
}

func TestAskingEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := answered(ctx, func() (string, error) { return "", refused() }); err == nil {
			t.Error("no error")
		}
	})
}
