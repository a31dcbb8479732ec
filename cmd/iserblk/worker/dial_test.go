package worker

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"iserblk/verbs"
)

// switchable is a provider with one port.
type switchable struct {
	verbs.Provider
	up atomic.Bool
}

func (s *switchable) ActivePorts() []string {
	if s.up.Load() {
		return []string{"rxe0/1"}
	}
	return nil
}

func TestADialIsWorthATryWhenAPortHasComeUpSinceTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(switchable)
		l := &linkState{d: newDialer(Spec{}, p, nil, nil)}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		time.AfterFunc(time.Second, func() { p.up.Store(true) })
		begin := time.Now()
		l.await(ctx)
		if took := time.Since(begin); took < time.Second || took > time.Second+portPoll+portSettle {
			t.Errorf("it took %v", took)
		}
	})
}

func TestAPortThatWasUpAtTheLastDialIsNoReasonForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(switchable)
		p.up.Store(true)
		l := &linkState{d: newDialer(Spec{}, p, nil, nil), ports: p.ActivePorts()}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begin := time.Now()
		l.await(ctx)
		if took := time.Since(begin); took != 3*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
