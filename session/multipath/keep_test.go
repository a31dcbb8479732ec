package multipath

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestAPathIsDialledAtOnceWhenItsPortComesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int64
		up := make(chan struct{})
		p := NewPath(Config{
			Log: slog.New(slog.DiscardHandler),
			Dial: func(context.Context) (*Link, error) {
				tries.Add(1)
				return nil, errors.New("port is down")
			},
			Await: func(ctx context.Context) {
				select {
				case <-up:
				case <-ctx.Done():
				}
			},
		})
		done := make(chan struct{})
		go func() { defer close(done); p.reconnect() }()
		time.Sleep(30 * time.Second) // the pauses are at their longest
		synctest.Wait()
		before := tries.Load()
		up <- struct{}{}
		synctest.Wait()
		if n := tries.Load() - before; n != 1 {
			t.Fatalf("%d tries after the port came up", n)
		}
		time.Sleep(2 * reconnectMin) // at least the first of the pauses, far less than half of the longest
		synctest.Wait()
		if tries.Load() == before+1 {
			t.Error("the pauses did not begin anew")
		}
		close(p.quit)
		<-done
	})
}

func TestAPathThatIsStoppedDoesNotDialAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		p := NewPath(Config{
			Log:  slog.New(slog.DiscardHandler),
			Dial: func(context.Context) (*Link, error) { tries++; return nil, errors.New("no") },
		})
		done := make(chan struct{})
		go func() { defer close(done); p.reconnect() }()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		before := tries
		close(p.quit)
		<-done
		if tries != before || p.Status().State != StateClosed {
			t.Errorf("%d more tries, state %v", tries-before, p.Status().State)
		}
	})
}
