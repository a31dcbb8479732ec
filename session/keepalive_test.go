package session

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

// run turns and ticks as a lane does, for d.
func (r *rig) run(d time.Duration) {
	until := time.Now().Add(d)
	for {
		r.turn()
		next := r.tick()
		left := time.Until(until)
		if left <= 0 {
			return
		}
		time.Sleep(min(next, left))
	}
}

// ticking runs f with a nexus of the default patience.
func ticking(t *testing.T, f func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(newRig(t, nil)) })
}

func (r *rig) pong(itt pdu.ITT) {
	r.dm.deliver(pdu.NOPInFields{
		ITT: itt, TTT: pdu.ReservedTTT, StatSN: r.nextStat(), ExpCmdSN: r.n.cmdSN, MaxCmdSN: r.max,
	})
}

func TestASilentTargetIsPinged(t *testing.T) {
	ticking(t, func(r *rig) {
		r.run(DefaultNOPInterval - time.Millisecond)
		if len(r.dm.takeSent()) > 0 {
			t.Fatal("pinged too soon")
		}
		r.run(time.Millisecond)
		m := r.mustSend(pdu.OpNOPOut)
		p := pdu.NOPOut(m.bhs[:])
		if !p.Immediate() || p.TTT() != pdu.ReservedTTT || p.ITT() == pdu.ReservedITT || p.CmdSN() != rigCmdSN ||
			p.ExpStatSN() != rigStatSN || len(m.data) > 0 {
			t.Errorf("ping % x", m.bhs)
		}
		r.pong(m.itt())
		r.run(DefaultNOPInterval - time.Millisecond)
		if len(r.dm.takeSent()) > 0 || len(r.lost) > 0 {
			t.Fatalf("pinged again too soon, or lost %v", r.lost)
		}
		r.run(time.Millisecond)
		r.mustSend(pdu.OpNOPOut)
	})
}

func TestATargetThatStaysSilentIsLost(t *testing.T) {
	ticking(t, func(r *rig) {
		r.run(DefaultNOPInterval + DefaultNOPTimeout - time.Millisecond)
		if len(r.lost) > 0 {
			t.Fatal("lost too soon")
		}
		r.run(time.Millisecond)
		r.mustBeLost(ErrTimeout)
	})
}

func TestAnyPDUIsASignOfLife(t *testing.T) {
	ticking(t, func(r *rig) {
		for range 20 {
			r.run(DefaultNOPInterval - time.Second)
			r.dm.deliver(pdu.NOPInFields{ITT: pdu.ReservedITT, TTT: pdu.ReservedTTT, ExpCmdSN: r.n.cmdSN, MaxCmdSN: r.max})
			r.turn()
		}
		if len(r.dm.takeSent()) > 0 || len(r.lost) > 0 {
			t.Errorf("pinged a busy connection, or lost %v", r.lost)
		}
	})
}

func TestAnotherPDUSavesAnUnansweredPing(t *testing.T) {
	ticking(t, func(r *rig) {
		for range 5 {
			r.run(DefaultNOPInterval + DefaultNOPTimeout - time.Millisecond)
			r.dm.deliver(pdu.NOPInFields{ITT: pdu.ReservedITT, TTT: pdu.ReservedTTT, ExpCmdSN: r.n.cmdSN, MaxCmdSN: r.max})
			r.turn()
		}
		if len(r.lost) > 0 {
			t.Errorf("lost %v", r.lost)
		}
		r.mustSend(pdu.OpNOPOut) // one ping is enough
		r.run(DefaultNOPInterval + DefaultNOPTimeout)
		r.mustBeLost(ErrTimeout)
	})
}

func TestWithoutASlotForAPingSilenceIsJudgedAllTheSame(t *testing.T) {
	ticking(t, func(r *rig) {
		r.dm.controlSlots = 0
		r.run(DefaultNOPInterval + DefaultNOPTimeout)
		r.mustBeLost(ErrTimeout)
	})
}

func TestAStallOfOurOwnIsNotHeldAgainstTheTarget(t *testing.T) {
	ticking(t, func(r *rig) {
		j := newJob(NoData, 0)
		r.start(j)
		r.run(time.Second)
		time.Sleep(time.Minute) // this process was stopped
		r.tick()
		if len(r.dm.takeSent()) > 0 || len(r.lost) > 0 {
			t.Fatalf("something was held against the target: %v", r.lost)
		}
		r.run(DefaultNOPInterval)
		m := r.mustSend(pdu.OpNOPOut)
		time.Sleep(time.Minute)
		r.tick()
		if len(r.lost) > 0 {
			t.Fatalf("lost %v", r.lost)
		}
		r.pong(m.itt())
		r.run(time.Second)
		if len(r.lost) > 0 || j.ends > 0 {
			t.Fatalf("lost %v", r.lost)
		}
	})
}

func TestDiscoverySessionsAreNotPinged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(_ *fakeDM, p *Params, _ *Negotiated) { p.Discovery = true })
		r.run(time.Hour)
		if len(r.dm.takeSent()) > 0 || len(r.lost) > 0 {
			t.Errorf("pinged, or lost %v", r.lost)
		}
	})
}

func TestATargetsPingIsAnsweredWithItsTag(t *testing.T) {
	r := newRig(t, nil)
	lun := scsi.LUN{0, 2}
	r.dm.deliver(pdu.NOPInFields{ITT: pdu.ReservedITT, TTT: 0x77, LUN: lun, StatSN: 0xdead, ExpCmdSN: r.n.cmdSN, MaxCmdSN: r.max}, 1, 2)
	raw := &r.dm.inbox[0]
	pdu.BHS(raw.bhs[:]).SetDataSegmentLength(2)
	r.turn()
	m := r.mustSend(pdu.OpNOPOut)
	p := pdu.NOPOut(m.bhs[:])
	if p.ITT() != pdu.ReservedITT || p.TTT() != 0x77 || p.LUN() != lun || !p.Immediate() || len(m.data) != 0 || p.ExpStatSN() != rigStatSN {
		t.Errorf("answer % x", m.bhs)
	}
	// Without a tag an answer would be a protocol error.
	r.dm.deliver(pdu.NOPInFields{ITT: pdu.ReservedITT, TTT: pdu.ReservedTTT, ExpCmdSN: r.n.cmdSN, MaxCmdSN: r.max})
	r.turn()
	if len(r.dm.takeSent()) > 0 {
		t.Error("answered what wants no answer")
	}
}

func TestAPingWaitsForASlotToBeAnswered(t *testing.T) {
	r := newRig(t, nil)
	r.dm.controlSlots = 0
	r.dm.deliver(pdu.NOPInFields{ITT: pdu.ReservedITT, TTT: 0x77, ExpCmdSN: r.n.cmdSN, MaxCmdSN: r.max})
	r.turn()
	r.dm.controlSlots = 1
	r.turn()
	r.mustSend(pdu.OpNOPOut)
	r.turn()
	if len(r.dm.takeSent()) > 0 || len(r.lost) > 0 {
		t.Errorf("answered twice, or lost %v", r.lost)
	}
}

func TestATargetThatTakesNoCommandsIsLost(t *testing.T) {
	ticking(t, func(r *rig) {
		r.n.maxCmdSN = rigCmdSN - 1
		r.dm.onSend = func(m *message) {
			if m.opcode() == pdu.OpNOPOut {
				r.max = rigCmdSN - 1
				r.pong(m.itt())
			}
		}
		j := newJob(NoData, 0)
		r.n.Submit(&j.Command)
		r.run(DefaultCommandTimeout + 2*time.Second)
		r.mustBeLost(ErrTimeout)
		r.dm.drained = true
		r.turn()
		if j.ends != 1 || j.Err != ErrNexusLost || j.Sent {
			t.Errorf("ended %d times: %v, sent %v", j.ends, j.Err, j.Sent)
		}
	})
}

func TestTickSaysWhenItIsNeededNext(t *testing.T) {
	ticking(t, func(r *rig) {
		if next := r.tick(); next != DefaultNOPInterval {
			t.Errorf("idle: %v", next)
		}
		j := newJob(NoData, 0)
		j.Expiry = 300 * time.Millisecond
		r.start(j)
		if next := r.tick(); next != 300*time.Millisecond {
			t.Errorf("a command is due in 300 ms: %v", next)
		}
		r.n.ConnectionLost(errors.New("cable"))
		if next := r.tick(); next <= 0 {
			t.Errorf("lost: %v", next)
		}
	})
}
