package session

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"iserblk/session/pdu"
)

var errCable = errors.New("cable pulled")

func TestNothingEndsBeforeTheConnectionIsDrained(t *testing.T) {
	r := newRig(t, func(d *fakeDM, _ *Params, _ *Negotiated) { d.max = 3 })
	var order []int
	jobs := make([]*job, 6)
	for i := range jobs {
		jobs[i] = newJob(Out, 16384)
		jobs[i].check = func() { order = append(order, i) }
		r.n.Submit(&jobs[i].Command)
	}
	r.n.Flush()
	sent := r.dm.takeSent()
	r.good(sent[1].itt())
	r.turn()
	order = nil
	r.n.OnLost = func(err error) {
		r.lost = append(r.lost, err)
		if len(order) > 0 {
			t.Error("commands ended before OnLost")
		}
	}
	r.n.ConnectionLost(errCable)
	r.n.ConnectionLost(errors.New("again"))
	r.mustBeLost(errCable)
	late := newJob(NoData, 0)
	late.check = func() { order = append(order, 99) }
	r.n.Submit(&late.Command)
	r.turn()
	r.tick()
	if len(order) != 0 || r.n.Drained() {
		t.Fatalf("ended before the drain: %v", order)
	}
	r.dm.drained = true
	if !r.n.Drained() {
		t.Fatal("not drained")
	}
	r.turn()
	if want := []int{0, 2, 3, 4, 5, 99}; !slices.Equal(order, want) {
		t.Errorf("ended in the order %v, want %v", order, want)
	}
	for i, j := range jobs {
		if i == 1 {
			continue
		}
		if j.Err != ErrNexusLost || j.Sent != (i <= 3) || j.Short != 16384 {
			t.Errorf("command %d: %v, sent %v", i, j.Err, j.Sent)
		}
	}
	if late.Sent || !errors.Is(r.n.Cause(), errCable) {
		t.Errorf("late sent %v, cause %v", late.Sent, r.n.Cause())
	}
}

func TestADeadNexusGivesCommandsBackAtOnce(t *testing.T) {
	r := newRig(t, nil)
	r.n.ConnectionLost(errCable)
	r.dm.drained = true
	r.turn()
	j := newJob(NoData, 0)
	r.n.Submit(&j.Command)
	if j.ends != 1 || j.Err != ErrNexusLost || j.Sent {
		t.Errorf("ended %d times: %v", j.ends, j.Err)
	}
	if r.n.Poll() != 0 || r.n.Arm() || r.n.Busy() {
		t.Error("it is not quiet")
	}
}

func TestAConnectionThatDoesNotDrainIsClosed(t *testing.T) {
	r := newRig(t, nil)
	j := newJob(In, 512)
	r.start(j)
	r.n.ConnectionLost(errCable)
	r.turn()
	if r.n.Drained() || j.ends > 0 {
		t.Fatal("drained without a drain")
	}
	if err := r.n.Close(); err != nil || !r.dm.closed {
		t.Fatal(err)
	}
	if j.ends > 0 {
		t.Fatal("Close gave commands back on a foreign goroutine")
	}
	r.n.Closed()
	r.n.Closed()
	if j.ends != 1 || j.Err != ErrNexusLost || !j.Sent {
		t.Errorf("ended %d times: %v", j.ends, j.Err)
	}
}

func TestWhatTheDatamoverReportsEndsTheNexus(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(r *rig)
	}{
		{"Poll", func(r *rig) { r.dm.pollErr = errCable; r.turn() }},
		{"Flush", func(r *rig) { r.dm.flushErr = errCable; r.n.Submit(&newJob(NoData, 0).Command); r.n.Flush() }},
		{"Arm", func(r *rig) {
			r.dm.armErr = errCable
			if !r.n.Arm() {
				t.Error("a loss is nothing to do")
			}
		}},
		{"ConnectionLost", func(r *rig) { r.n.ConnectionLost(errCable) }},
		{"ConnectionLost from within Poll", func(r *rig) {
			j := newJob(NoData, 0)
			j.check = func() { r.n.ConnectionLost(errCable) }
			r.good(r.start(j).itt())
			r.turn()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			c.do(r)
			r.mustBeLost(errCable)
			var e *Error
			if !errors.As(r.lost[0], &e) || e.Target != "iqn.2026-01.test:t" {
				t.Errorf("%v is no *Error with the target's name", r.lost[0])
			}
		})
	}
}

func TestWhatArrivedBeforeTheEndStillCounts(t *testing.T) {
	r := newRig(t, nil)
	j := newJob(NoData, 0)
	r.good(r.start(j).itt())
	r.dm.pollErr = errCable
	r.turn()
	r.mustBeLost(errCable)
	if j.ends != 1 || j.Err != nil {
		t.Errorf("ended %d times: %v", j.ends, j.Err)
	}
}

func (r *rig) logoutResponse(itt pdu.ITT, o pdu.LogoutOutcome) {
	r.dm.deliver(pdu.LogoutResponseFields{Response: o, ITT: itt, StatSN: r.nextStat(), ExpCmdSN: r.n.cmdSN, MaxCmdSN: r.max})
}

func TestALogoutWaitsForWhatIsWithTheTarget(t *testing.T) {
	r := newRig(t, func(d *fakeDM, _ *Params, _ *Negotiated) { d.max = 1 })
	with, waiting := newJob(NoData, 0), newJob(NoData, 0)
	itt := r.start(with).itt()
	r.n.Submit(&waiting.Command)
	var result error
	calls := 0
	r.n.Logout(func(err error) { result, calls = err, calls+1 })
	r.turn()
	if len(r.dm.takeSent()) > 0 {
		t.Fatal("logged out with a command outstanding")
	}
	r.good(itt)
	r.turn()
	m := r.mustSend(pdu.OpLogoutRequest)
	p := pdu.LogoutRequest(m.bhs[:])
	if !p.Immediate() || p.Reason() != pdu.LogoutCloseSession || with.ends != 1 || waiting.Sent {
		t.Errorf("request % x", m.bhs)
	}
	r.logoutResponse(p.ITT(), pdu.LogoutClosed)
	r.turn()
	if calls != 0 || r.dm.aborted {
		t.Fatal("the connection was ended before the target could do it")
	}
	r.dm.pollErr = errCable // the target hangs up
	r.turn()
	if calls != 1 || result != nil || len(r.lost) > 0 || !r.dm.aborted || !errors.Is(r.n.Cause(), ErrLoggedOut) {
		t.Fatalf("%d calls, %v, lost %v", calls, result, r.lost)
	}
	r.dm.drained = true
	r.turn()
	if waiting.ends != 1 || waiting.Err != ErrNexusLost || waiting.Sent {
		t.Errorf("waiting: %d %v", waiting.ends, waiting.Err)
	}
}

func TestATargetThatDoesNotHangUpAfterALogoutIsNotWaitedForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		begin, took := time.Now(), time.Duration(0)
		r.n.Logout(func(err error) {
			took = time.Since(begin)
			if err != nil {
				t.Errorf("result %v", err)
			}
		})
		r.n.Flush()
		r.logoutResponse(r.mustSend(pdu.OpLogoutRequest).itt(), pdu.LogoutClosed)
		r.run(time.Second)
		if took < hangUpGrace || took > 2*hangUpGrace || len(r.lost) > 0 || !errors.Is(r.n.Cause(), ErrLoggedOut) {
			t.Errorf("it took %v, lost %v, cause %v", took, r.lost, r.n.Cause())
		}
	})
}

func TestAFailedLogoutIsReported(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(r *rig, itt pdu.ITT)
	}{
		{"refused", func(r *rig, itt pdu.ITT) {
			r.logoutResponse(itt, pdu.LogoutCleanupFailed)
			r.turn()
			r.n.ConnectionLost(errCable)
		}},
		{"connection lost", func(r *rig, _ pdu.ITT) { r.n.ConnectionLost(errCable) }},
		{"not answered", func(r *rig, _ pdu.ITT) {
			r.dm.onSend = func(m *message) { r.pong(m.itt()) } // it is alive otherwise
			r.run(DefaultAbortTimeout + time.Second)
		}},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, nil)
			var result error
			calls := 0
			r.n.Logout(func(err error) { result, calls = err, calls+1 })
			r.n.Flush()
			c.end(r, r.mustSend(pdu.OpLogoutRequest).itt())
			if calls != 1 || result == nil || !r.dm.aborted {
				t.Errorf("%s: %d calls, %v", c.name, calls, result)
			}
		})
	}
}

func TestALogoutDoesNotWaitForEverForCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(_ *fakeDM, p *Params, _ *Negotiated) { p.NOPInterval, p.CommandTimeout = -1, time.Hour })
		r.start(newJob(NoData, 0))
		calls := 0
		r.n.Logout(func(err error) {
			calls++
			if !errors.Is(err, ErrTimeout) {
				t.Errorf("result %v", err)
			}
		})
		r.run(DefaultAbortTimeout + time.Second)
		if calls != 1 || !r.dm.aborted {
			t.Errorf("%d calls", calls)
		}
	})
}

func TestATargetsWishToEndTheSessionIsGranted(t *testing.T) {
	r := newRig(t, nil)
	with := newJob(NoData, 0)
	itt := r.start(with).itt()
	r.dm.deliver(pdu.AsyncMessageFields{StatSN: r.nextStat(), Event: pdu.AsyncLogoutRequest, Parameter3: 10, ExpCmdSN: r.n.cmdSN, MaxCmdSN: r.max})
	r.turn()
	waiting := newJob(NoData, 0)
	r.n.Submit(&waiting.Command)
	r.good(itt)
	r.turn()
	m := r.mustSend(pdu.OpLogoutRequest)
	r.logoutResponse(m.itt(), pdu.LogoutClosed)
	r.turn()
	r.n.ConnectionLost(ErrDropped)
	r.mustBeLost(ErrLogoutRequested)
	r.dm.drained = true
	r.turn()
	if with.Err != nil || waiting.Err != ErrNexusLost || waiting.Sent {
		t.Errorf("with %v, waiting %v", with.Err, waiting.Err)
	}
}

func TestAnOwnersLogoutTakesOverTheTargetsWish(t *testing.T) {
	r := newRig(t, nil)
	itt := r.start(newJob(NoData, 0)).itt()
	for range 2 {
		r.dm.deliver(pdu.AsyncMessageFields{StatSN: r.nextStat(), Event: pdu.AsyncLogoutRequest, ExpCmdSN: r.n.cmdSN, MaxCmdSN: r.max})
	}
	r.turn()
	calls := 0
	r.n.Logout(func(error) { calls++ })
	r.good(itt)
	r.turn()
	r.logoutResponse(r.mustSend(pdu.OpLogoutRequest).itt(), pdu.LogoutClosed)
	r.turn()
	r.n.ConnectionLost(ErrDropped)
	if calls != 1 || len(r.lost) > 0 || !errors.Is(r.n.Cause(), ErrLoggedOut) {
		t.Errorf("%d calls, lost %v, cause %v", calls, r.lost, r.n.Cause())
	}
}

func TestClosedWithoutALossEndsEverything(t *testing.T) {
	r := newRig(t, nil)
	j := newJob(NoData, 0)
	r.start(j)
	r.n.Closed()
	if j.ends != 1 || j.Err != ErrNexusLost || r.n.Cause() != ErrClosed {
		t.Errorf("ended %d times: %v, cause %v", j.ends, j.Err, r.n.Cause())
	}
}

func TestAbandonTellsThatTheConnectionDidNotClose(t *testing.T) {
	r := newRig(t, nil)
	j := newJob(NoData, 0)
	r.start(j)
	r.dm.closeErr = errCable
	if err := r.n.Abandon(); err != errCable || j.ends != 1 {
		t.Errorf("%v, ended %d times", err, j.ends)
	}
}

func TestAbandonLeavesNothingBehind(t *testing.T) {
	r := newRig(t, nil)
	j := newJob(NoData, 0)
	r.start(j)
	if err := r.n.Abandon(); err != nil {
		t.Error(err)
	}
	if j.ends != 1 || j.Err != ErrNexusLost || len(r.lost) > 0 || !r.dm.aborted || !r.dm.closed {
		t.Errorf("ended %d times: %v, lost %v", j.ends, j.Err, r.lost)
	}
}
