package session

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

// overdue runs f with one command whose abort was just sent.
func overdue(t *testing.T, f func(r *rig, j *job, command pdu.ITT, abort *message)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(_ *fakeDM, p *Params, _ *Negotiated) { p.NOPInterval = -1 })
		j := newJob(In, 4096)
		j.LUN, j.Expiry = scsi.LUN{0, 5}, 2*time.Second
		itt := r.start(j).itt()
		time.Sleep(2*time.Second - time.Millisecond)
		r.n.clocks.due = time.Time{} // the rig was not ticking meanwhile
		if next := r.tick(); next > time.Millisecond || len(r.dm.takeSent()) > 0 {
			t.Fatalf("due in %v", next)
		}
		time.Sleep(time.Millisecond)
		r.tick()
		m := r.mustSend(pdu.OpTMFRequest)
		f(r, j, itt, m)
	})
}

func TestAnOverdueCommandIsAborted(t *testing.T) {
	overdue(t, func(r *rig, j *job, command pdu.ITT, abort *message) {
		a := pdu.TMFRequest(abort.bhs[:])
		if !a.Immediate() || a.Function() != pdu.TMAbortTask || a.LUN() != j.LUN || a.RefTaskTag() != command ||
			a.RefCmdSN() != rigCmdSN || a.CmdSN() != rigCmdSN+1 {
			t.Errorf("request % x", abort.bhs)
		}
		r.tick()
		if len(r.dm.takeSent()) > 0 {
			t.Error("the abort was sent twice")
		}
		r.tmResponse(a.ITT(), pdu.TMComplete)
		r.turn()
		if j.ends != 1 || j.Err != ErrAborted || !j.Sent || j.Short != 4096 || len(r.lost) > 0 {
			t.Errorf("ended %d times: %v, lost %v", j.ends, j.Err, r.lost)
		}
	})
}

func TestTheBufferOfAnAbortedCommandIsClosedBeforeItIsGivenBack(t *testing.T) {
	overdue(t, func(r *rig, j *job, command pdu.ITT, abort *message) {
		if r.dm.open[uint16(command)] != command {
			t.Fatal("it is closed before the target has confirmed the abort")
		}
		j.check = func() {
			if len(r.dm.open) > 0 {
				t.Error("the target can still touch it")
			}
		}
		r.tmResponse(abort.itt(), pdu.TMComplete)
		r.turn()
		if j.ends != 1 {
			t.Errorf("ended %d times", j.ends)
		}
	})
}

func TestAnAnswerBeforeTheAbortCounts(t *testing.T) {
	overdue(t, func(r *rig, j *job, command pdu.ITT, abort *message) {
		r.good(command)
		r.turn()
		if j.ends != 1 || j.Err != nil {
			t.Fatalf("ended %d times: %v", j.ends, j.Err)
		}
		// The slot waits for the end of its abort.
		for range r.dm.max {
			r.n.Submit(&newJob(NoData, 0).Command)
		}
		r.n.Flush()
		if got := len(r.dm.takeSent()); got != r.dm.max-1 {
			t.Errorf("%d commands were sent, one slot is to wait", got)
		}
		r.tmResponse(abort.itt(), pdu.TMNoTask)
		r.turn()
		if j.ends != 1 || len(r.lost) > 0 || len(r.dm.takeSent()) != 1 {
			t.Errorf("ended %d times, lost %v", j.ends, r.lost)
		}
	})
}

// The thread of the target that moves the data may be behind the one that answers the abort.
func TestATaskThatDoesNotExistMayStillBeAnswered(t *testing.T) {
	overdue(t, func(r *rig, j *job, command pdu.ITT, abort *message) {
		r.tmResponse(abort.itt(), pdu.TMNoTask)
		r.turn()
		time.Sleep(terminationGrace / 2)
		r.tick()
		if j.ends != 0 || len(r.lost) > 0 || len(r.dm.takeSent()) > 0 {
			t.Fatalf("ended %d times: %v, lost %v", j.ends, j.Err, r.lost)
		}
		r.good(command)
		r.turn()
		if j.ends != 1 || j.Err != nil {
			t.Errorf("ended %d times: %v", j.ends, j.Err)
		}
		time.Sleep(terminationGrace)
		r.tick()
		if len(r.lost) > 0 {
			t.Errorf("lost %v", r.lost)
		}
	})
}

func TestATaskThatDoesNotExistAndIsNotAnsweredEndsTheConnection(t *testing.T) {
	overdue(t, func(r *rig, j *job, _ pdu.ITT, abort *message) {
		r.tmResponse(abort.itt(), pdu.TMNoTask)
		r.turn()
		time.Sleep(terminationGrace)
		r.tick()
		r.mustBeLost(ErrTimeout)
		if j.ends != 0 {
			t.Errorf("its buffer was given back while the target may still write to it: %v", j.Err)
		}
	})
}

// Somebody else's reset may end commands without an answer.
func TestAResetBySomebodyElseEndsTheCommandsBeforeTheNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(_ *fakeDM, p *Params, _ *Negotiated) { p.NOPInterval = -1 })
		ended, other, told, after := newJob(In, 512), newJob(In, 512), newJob(In, 512), newJob(In, 512)
		other.LUN = scsi.LUN{0, 1}
		r.start(ended)
		r.start(other)
		tag := r.start(told).itt()
		r.start(after)
		news := scsi.AppendFixedSense(nil, scsi.Sense{Key: scsi.KeyUnitAttention, ASC: 0x29, ASCQ: 0x03})
		r.respond(pdu.SCSIResponseFields{ITT: tag, Status: scsi.StatusCheckCondition}, pdu.AppendSenseData(nil, news)...)
		r.turn()
		if told.ends != 1 || told.Status != scsi.StatusCheckCondition {
			t.Fatalf("told: %d %v", told.ends, told.Status)
		}
		time.Sleep(terminationGrace)
		r.n.clocks.due = time.Time{}
		r.tick()
		abort := r.mustSend(pdu.OpTMFRequest)
		if got := pdu.TMFRequest(abort.bhs[:]).RefTaskTag(); got != ended.itt {
			t.Fatalf("abort of %#x", uint32(got))
		}
		r.tmResponse(abort.itt(), pdu.TMNoTask)
		r.turn()
		if ended.ends != 1 || ended.Err != ErrAborted || other.ends+after.ends != 0 {
			t.Errorf("ended: %d %v, other: %d, after: %d", ended.ends, ended.Err, other.ends, after.ends)
		}
	})
}

func TestARefusedAbortEndsTheConnection(t *testing.T) {
	for _, code := range []pdu.TMResponse{pdu.TMNoLUN, pdu.TMFunctionNotSupported, pdu.TMFunctionNotAuthorized, pdu.TMFunctionRejected, 99} {
		overdue(t, func(r *rig, j *job, _ pdu.ITT, abort *message) {
			r.tmResponse(abort.itt(), code)
			r.turn()
			r.mustBeLost(ErrAbortRefused)
			if j.ends != 0 {
				t.Errorf("ended: %v", j.Err)
			}
		})
	}
}

func TestAnUnansweredAbortEndsTheConnection(t *testing.T) {
	overdue(t, func(r *rig, j *job, _ pdu.ITT, _ *message) {
		for range 20 {
			time.Sleep(r.tick())
		}
		r.mustBeLost(ErrTimeout)
		if j.ends != 0 {
			t.Errorf("ended: %v", j.Err)
		}
	})
}

func TestTooManyAbortsAskForANewConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(_ *fakeDM, p *Params, _ *Negotiated) { p.NOPInterval = -1 })
		for i := range abortBudget {
			r.max++
			j := newJob(NoData, 0)
			j.Expiry = 10 * time.Millisecond
			r.start(j)
			r.n.clocks.due = time.Time{}
			time.Sleep(10 * time.Millisecond)
			r.tick()
			r.tmResponse(r.mustSend(pdu.OpTMFRequest).itt(), pdu.TMComplete)
			if len(r.lost) > 0 {
				t.Fatalf("lost after %d aborts", i)
			}
			r.turn()
			if j.ends != 1 || j.Err != ErrAborted {
				t.Fatalf("ended %d times: %v", j.ends, j.Err)
			}
		}
		r.mustBeLost(ErrAbortBudget)
	})
}

func TestAbortsOfManyCommandsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(_ *fakeDM, p *Params, _ *Negotiated) { p.NOPInterval, p.CommandTimeout = -1, time.Second })
		var jobs []*job
		for range 8 {
			j := newJob(NoData, 0)
			jobs = append(jobs, j)
			r.start(j)
		}
		time.Sleep(time.Second)
		for round := range 2 {
			if next := r.tick(); round == 0 && next > retryPause {
				t.Fatalf("the rest is to be tried again soon, not after %v", next)
			}
			sent := r.dm.takeSent()
			if len(sent) != maxTMF {
				t.Fatalf("round %d: %d aborts", round, len(sent))
			}
			for i := range sent {
				r.tmResponse(sent[i].itt(), pdu.TMComplete)
			}
			r.turn()
		}
		for _, j := range jobs {
			if j.ends != 1 || j.Err != ErrAborted {
				t.Errorf("ended %d times: %v", j.ends, j.Err)
			}
		}
	})
}

func TestTaskManagementReportsTheOutcome(t *testing.T) {
	for _, c := range []struct {
		code pdu.TMResponse
		want error
	}{
		{pdu.TMComplete, nil},
		{pdu.TMNoLUN, &TMFError{pdu.TMLogicalUnitReset, pdu.TMNoLUN}},
		{pdu.TMFunctionRejected, &TMFError{pdu.TMLogicalUnitReset, pdu.TMFunctionRejected}},
	} {
		r := newRig(t, nil)
		got, calls := error(nil), 0
		r.n.TaskManagement(pdu.TMLogicalUnitReset, scsi.LUN{0, 9}, func(err error) { got, calls = err, calls+1 })
		r.n.Flush()
		m := r.mustSend(pdu.OpTMFRequest)
		p := pdu.TMFRequest(m.bhs[:])
		if p.Function() != pdu.TMLogicalUnitReset || p.LUN() != (scsi.LUN{0, 9}) || p.RefTaskTag() != pdu.ReservedITT || !p.Immediate() {
			t.Errorf("request % x", m.bhs)
		}
		r.tmResponse(m.itt(), c.code)
		r.turn()
		if calls != 1 || (c.want == nil) != (got == nil) || c.want != nil && got.Error() != c.want.Error() {
			t.Errorf("%d calls, %v, want %v", calls, got, c.want)
		}
	}
}

func TestAResetEndsTheCommandsBeforeItAndLeavesTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(_ *fakeDM, p *Params, _ *Negotiated) { p.NOPInterval = -1 })
		mine, late, other, after := newJob(In, 512), newJob(In, 512), newJob(In, 512), newJob(In, 512)
		other.LUN = scsi.LUN{0, 1}
		r.start(mine)
		lateTag := r.start(late).itt()
		r.start(other)
		r.n.TaskManagement(pdu.TMLogicalUnitReset, mine.LUN, func(error) {})
		r.n.Flush()
		reset := r.mustSend(pdu.OpTMFRequest)
		r.start(after)
		r.tmResponse(reset.itt(), pdu.TMComplete)
		r.good(lateTag) // an answer that was on its way counts
		r.turn()
		if late.ends != 1 || late.Err != nil || mine.ends != 0 {
			t.Fatalf("late: %d %v, mine: %d", late.ends, late.Err, mine.ends)
		}
		time.Sleep(terminationGrace)
		r.n.clocks.due = time.Time{}
		r.tick()
		abort := r.mustSend(pdu.OpTMFRequest)
		r.tmResponse(abort.itt(), pdu.TMNoTask)
		r.turn()
		if mine.ends != 1 || mine.Err != ErrAborted || other.ends+after.ends != 0 {
			t.Errorf("mine: %d %v, other: %d, after: %d", mine.ends, mine.Err, other.ends, after.ends)
		}
	})
}

func TestTaskManagementNeverGoesUnanswered(t *testing.T) {
	r := newRig(t, nil)
	var got []error
	record := func(err error) { got = append(got, err) }
	for range maxTMF + 1 {
		r.n.TaskManagement(pdu.TMLogicalUnitReset, scsi.LUN{}, record)
	}
	if len(got) != 1 || got[0] != ErrNoSlot {
		t.Fatalf("one too many: %v", got)
	}
	r.n.ConnectionLost(errors.New("cable"))
	r.n.TaskManagement(pdu.TMLogicalUnitReset, scsi.LUN{}, record)
	if len(got) != maxTMF+2 {
		t.Fatalf("%d calls", len(got))
	}
	for _, err := range got[1:] {
		if err != ErrNexusLost {
			t.Errorf("after the loss: %v", err)
		}
	}
}
