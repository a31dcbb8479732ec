package session

import (
	"fmt"
	"time"

	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

// clocks is the evidence that the target lives, and when it must be looked at again.
type clocks struct {
	heard   time.Time // the last PDU
	pinging bool      // nothing was heard since pinged
	pinged  time.Time // the last attempt to ping
	stalled time.Time // since when commands wait although none is with the target; zero when none do
	due     time.Time // when the next Tick was expected; zero before the first
}

// lateness is how much later than planned a Tick may come before the time is taken for a stall of our own, and
// tickMax bounds how long a command that is submitted after a Tick may go unwatched.
const (
	lateness = 100 * time.Millisecond
	tickMax  = time.Second
	tickMin  = time.Millisecond
)

func (k *clocks) restart(now time.Time) { *k = clocks{heard: now} }

// horizon collects deadlines and knows the nearest.
type horizon struct {
	now  time.Time
	next time.Duration
}

// passed reports that t is reached; otherwise t counts.
func (h *horizon) passed(t time.Time) bool {
	d := t.Sub(h.now)
	if d <= 0 {
		return true
	}
	h.next = min(h.next, d)
	return false
}

// Tick does what is due at now: it pings a silent target, aborts overdue commands, and gives the connection up when
// nothing is heard. It returns when it wants to be called next, at the latest. When it is called much later than
// that, it takes it that this process stood still and does not hold the time against the target.
func (n *Nexus) Tick(now time.Time) time.Duration {
	n.forgive(now)
	h := horizon{now: now, next: n.tickBound()}
	n.keepalive(&h)
	n.expireCommands(&h)
	n.expireControls(&h)
	n.expireStall(&h)
	if n.state == stateLost {
		h.next = retryPause // the last work requests come back without anybody being told
	}
	next := max(h.next, tickMin)
	n.clocks.due = now.Add(next)
	return next
}

// tickBound is longer while there is nothing to watch: each Tick wakes an idle process. A command that is submitted right
// after is then aborted late, by a small part of the time that it has.
func (n *Nexus) tickBound() time.Duration {
	switch {
	case n.state == stateLeaving:
		return hangUpGrace
	case n.sent.n > 0, n.waiting.n > 0:
		return tickMax
	}
	return max(tickMax, n.params.CommandTimeout/6)
}

// forgive moves every deadline by as much as this Tick is late.
func (n *Nexus) forgive(now time.Time) {
	k := &n.clocks
	late := now.Sub(k.due)
	if k.due.IsZero() || late < lateness {
		return
	}
	k.heard, k.pinged, k.stalled = later(k.heard, late, now), later(k.pinged, late, now), later(k.stalled, late, now)
	n.leaving.deadline = n.leaving.deadline.Add(late)
	for c := n.sent.head; c != nil; c = c.next {
		c.deadline = c.deadline.Add(late)
	}
	for i := range n.controls {
		if !n.controls[i].deadline.IsZero() {
			n.controls[i].deadline = n.controls[i].deadline.Add(late)
		}
	}
}

// later moves a clock, but not beyond now; a zero one stays.
func later(t time.Time, d time.Duration, now time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	if t = t.Add(d); t.After(now) {
		return now
	}
	return t
}

// keepalive: any PDU counts as life, so a busy connection is never pinged. Targets do not do it for us: LIO sends no
// pings over iSER. In a discovery session LIO answers none either.
func (n *Nexus) keepalive(h *horizon) {
	if n.params.Discovery || n.params.NOPInterval < 0 || n.state >= stateLost || n.leaving.answered {
		return
	}
	k := &n.clocks
	if !k.pinging {
		if !h.passed(k.heard.Add(n.params.NOPInterval)) {
			return
		}
		k.pinging, k.pinged = true, h.now
		n.ping()
	}
	if h.passed(k.pinged.Add(n.params.NOPTimeout)) {
		n.lose(fmt.Errorf("%w: silent for %v, and after a ping for %v", ErrTimeout,
			n.params.NOPInterval, n.params.NOPTimeout))
	}
}

// ping sends a NOP-Out. Without a slot for it, because the last one was not answered, silence is judged all the same.
func (n *Nexus) ping() {
	k, itt := n.claim(controlPing)
	if k == nil {
		return
	}
	pdu.NOPOutFields{
		Immediate: true, ITT: itt, TTT: pdu.ReservedTTT, CmdSN: n.cmdSN, ExpStatSN: n.expStatSN,
	}.Encode(n.bhs[:])
	if n.sendControl(nil) != nil {
		k.release() // a dead connection shows in Poll
		return
	}
	n.stats.Pings++
}

// expireCommands aborts what is overdue, and gives a target up that has neither the command nor an answer.
func (n *Nexus) expireCommands(h *horizon) {
	for c := n.sent.head; c != nil && n.state < stateLost; c = c.next {
		if c.overdue && !c.disowned || !h.passed(c.deadline) {
			continue
		}
		if c.disowned {
			n.lose(fmt.Errorf("%w: no answer to a command that it says it does not have", ErrTimeout))
			return
		}
		if !n.abort(c) {
			h.next = min(h.next, retryPause)
			return
		}
	}
}

// expireControls gives the connection up when a task management function or a logout is not answered, and when a target
// does not hang up after a logout. Silence after a ping is judged by keepalive.
func (n *Nexus) expireControls(h *horizon) {
	for i := range n.controls {
		k := &n.controls[i]
		if k.deadline.IsZero() || !h.passed(k.deadline) {
			continue
		}
		n.lose(fmt.Errorf("%w: no answer to %s", ErrTimeout, k.name()))
		return
	}
	if n.state != stateLeaving || n.leaving.sent && !n.leaving.answered || !h.passed(n.leaving.deadline) {
		return
	}
	if n.leaving.answered {
		n.lose(n.leaving.why)
	} else {
		n.lose(fmt.Errorf("%w: commands did not end before the logout", ErrTimeout))
	}
}

func (k *control) name() string {
	switch k.kind {
	case controlTMF:
		return k.function.String()
	case controlLogout:
		return "logout"
	}
	return "a text request"
}

// expireStall gives up a target that takes no commands although it has none.
func (n *Nexus) expireStall(h *horizon) {
	k := &n.clocks
	if n.state != stateUp || n.waiting.n == 0 || n.sent.n > 0 {
		k.stalled = time.Time{}
		return
	}
	if k.stalled.IsZero() {
		k.stalled = h.now
	}
	if h.passed(k.stalled.Add(n.params.CommandTimeout)) {
		n.lose(fmt.Errorf("%w: it takes no commands", ErrTimeout))
	}
}

// echo is the answer to a target's ping that is still to be sent.
type echo struct {
	owed bool
	ttt  pdu.TTT
	lun  scsi.LUN
}

// handleNOPIn: only a NOP-In that answers one of ours carries status; one with a TTT wants to be answered; one with
// neither brings news about the window, and answering it would be an error (RFC 7143 11.19).
func (n *Nexus) handleNOPIn(r pdu.NOPIn, data []byte) error {
	if err := r.Validate(len(data)); err != nil {
		return protocolError(err)
	}
	if r.ITT() != pdu.ReservedITT {
		k, err := n.answered(controlPing, r.ITT())
		if err != nil {
			return err
		}
		k.release()
		return n.sequence(pdu.BHS(r))
	}
	n.window(pdu.BHS(r))
	if !r.WantsAnswer() {
		return nil
	}
	if n.echo.owed {
		return ErrPingFlood
	}
	n.echo = echo{owed: true, ttt: r.TTT(), lun: r.LUN()}
	return nil
}

// sendEcho answers a target's ping, without its data: LIO and tgt have no use for it, SCST does not compare it.
func (n *Nexus) sendEcho() {
	if !n.echo.owed || n.state >= stateLost {
		return
	}
	pdu.NOPOutFields{
		Immediate: true, LUN: n.echo.lun, ITT: pdu.ReservedITT, TTT: n.echo.ttt,
		CmdSN: n.cmdSN, ExpStatSN: n.expStatSN,
	}.Encode(n.bhs[:])
	if n.sendControl(nil) == nil {
		n.echo = echo{}
		n.stats.TargetPings++
	}
}
