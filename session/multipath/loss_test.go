package multipath_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"iserblk/iser/isertarget"

	"iserblk/session/multipath"
)

// A nexus may die between its last answer and the handover, when nobody listens for its loss.
func TestANexusThatDiedBeforeTheHandoverIsNotPutInCharge(t *testing.T) {
	b := newBed(t, setting{})
	b.unit.Fail() // so that nothing is asked of the new nexus before the handover
	links := 0
	meet := func(l *multipath.Link) {
		if links++; links == 1 {
			l.Nexus.ConnectionLost(errors.New("died unnoticed"))
		}
	}
	b.meet.Store(&meet)
	b.cut()
	b.eventually("a living session", func() bool {
		return b.path.Status().State == multipath.StateUp && b.target.Sessions() == 1 && b.path.Status().Losses == 1
	})
	if links != 2 {
		t.Fatalf("%d links", links)
	}
}

// A target that hangs up while a new nexus is being checked answers nothing more; waiting for it would take until the
// keep-alive gives it up.
func TestAHangUpDuringTheCheckIsNoticedAtOnce(t *testing.T) {
	b := newBed(t, setting{})
	var hungUp atomic.Bool
	b.target.SetHooks(isertarget.Hooks{Command: func(c isertarget.Command) isertarget.Action {
		if c.Op() == opInquiry && hungUp.CompareAndSwap(false, true) {
			return isertarget.Disconnect()
		}
		return isertarget.Execute()
	}})
	start := time.Now()
	b.cut()
	if errno := b.write(0, pattern(1, 512)); errno != 0 {
		t.Fatal(errno)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Fatalf("it took %v", took)
	}
}
