package multipath_test

import (
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"iserblk/internal/block"
	"iserblk/iser/isertarget"
	"iserblk/session/multipath"
	"iserblk/session/scsi"
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

func TestWithoutTimeForItNothingWaitsForAPath(t *testing.T) {
	b := newBed(t, setting{atOnce: true})
	b.target.SetHooks(isertarget.Hooks{Command: isertarget.Times(1, isOp(opWrite16), isertarget.Park())})
	with := b.begin(block.Write, 0, 0, 512, pattern(1, 512))
	if _, err := b.target.WaitParked(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	b.portal.SetReject(8)
	start := time.Now()
	b.cut()
	if errno := b.end(with); errno != syscall.EIO {
		t.Errorf("the request that was with the target: %v", errno)
	}
	if _, errno := b.read(0, 512); errno != syscall.EIO {
		t.Errorf("a request without a path: %v", errno)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("it took %v", took)
	}
	b.target.Release(nil)
	b.portal.SetReject(0)
	b.eventually("service", func() bool { return b.write(0, pattern(2, 512)) == 0 })
	b.target.SetHooks(isertarget.Hooks{Command: isertarget.Times(3, isOp(opRead16), isertarget.Answer(scsi.StatusBusy))})
	if _, errno := b.read(0, 512); errno != 0 {
		t.Errorf("a target that is busy for a moment: %v", errno)
	}
}
