package session

import (
	"fmt"
	"time"

	"iserblk/session/pdu"
)

// leaving is the state of a logout.
type leaving struct {
	sent     bool
	answered bool
	outcome  error     // what done is told, once the logout was answered
	deadline time.Time // for the request to be sent, then for the target to hang up
	why      error     // why the nexus ends when the logout was answered
	done     func(error)
}

// hangUpGrace is how long the target has to end the connection after its logout response. To end it before is a
// discourtesy that LIO answers by a kernel warning: it may not have seen its response acknowledged.
const hangUpGrace = 200 * time.Millisecond

// ConnectionLost ends the nexus because of something that its datamover does not see: a CM event, a port that went
// down, a decision of its owner. Calling it again changes nothing.
func (n *Nexus) ConnectionLost(cause error) {
	if n.inPoll {
		if n.pending == nil {
			n.pending = cause
		}
		return
	}
	n.lose(cause)
}

// lose cuts the connection. Commands are not given back before no buffer of theirs can be touched any more.
func (n *Nexus) lose(cause error) {
	if n.state >= stateLost {
		return
	}
	if n.leaving.answered {
		cause = n.leaving.why
	}
	n.state, n.pending = stateLost, nil
	n.cause = &Error{Op: "session with", Target: n.params.TargetName, Err: cause}
	n.dm.Abort()
	n.endControls()
	if n.OnLost != nil && cause != ErrLoggedOut {
		n.OnLost(n.cause)
	}
}

// endControls tells whoever waits for an answer that none will come.
func (n *Nexus) endControls() {
	for i := range n.controls {
		k := n.controls[i]
		n.controls[i].release()
		if k.done != nil {
			k.done(ErrNexusLost)
		}
		if k.text != nil {
			k.text(nil, ErrNexusLost)
		}
	}
	if done := n.leaving.done; done != nil {
		n.leaving.done = nil
		if n.leaving.answered {
			done(n.leaving.outcome)
		} else {
			done(n.cause)
		}
	}
}

// Drained reports that the nexus is lost and nothing can touch a buffer of its commands any more. They are given back
// by the next Poll, or by Closed. When it stays false for DrainTimeout, take the nexus off its lane and call Close.
func (n *Nexus) Drained() bool {
	return n.state == stateDead || n.state == stateLost && n.dm.Drained()
}

// reap gives everything back once the connection is drained.
func (n *Nexus) reap() {
	if n.dm.Drained() {
		n.end()
	}
}

// Close frees the connection. It may block for a bounded time; call it when nothing drives the nexus any more, from
// any goroutine, and Closed after it on the driver's.
func (n *Nexus) Close() error { return n.dm.Close() }

// Closed gives back what the nexus still holds. The connection must have been closed before.
func (n *Nexus) Closed() {
	if n.state < stateLost {
		n.state, n.cause = stateLost, ErrClosed
		n.endControls()
	}
	n.end()
}

// end completes every command with ErrNexusLost: those that were sent in the order of CmdSN, then those that waited.
func (n *Nexus) end() {
	if n.state == stateDead {
		return
	}
	n.state = stateDead
	for _, l := range [...]*commandList{&n.sent, &n.waiting} {
		for c := l.head; c != nil; c = l.head {
			l.remove(c)
			c.Err, c.Status, c.Short = ErrNexusLost, 0, uint32(len(c.Buf.Mem))
			c.Done.CommandDone(c)
		}
	}
}

// Abandon cuts the connection, closes it and gives everything back, without OnLost. It may block for a bounded time.
// It is for a nexus that its lane has not got yet. With an error the device may still touch the buffers of commands that
// were on their way.
func (n *Nexus) Abandon() error {
	n.OnLost = nil
	n.ConnectionLost(ErrClosed)
	err := n.Close()
	n.Closed()
	return err
}

// Logout ends the session in good order (RFC 7143 11.14): commands with the target may end first, those that wait
// for their turn are not sent any more. Then the target ends the connection, or this side does after a short while: the
// nexus is lost by ErrLoggedOut, and done is called on the driver's goroutine, with nil when the target has agreed. It
// is bounded by Params.AbortTimeout; call Tick right after it, which says when it wants to be called meanwhile.
func (n *Nexus) Logout(done func(error)) {
	if n.state >= stateLost {
		done(ErrNexusLost)
		return
	}
	n.leave(ErrLoggedOut, done)
	if !n.inPoll {
		n.sendLogout()
	}
}

func (n *Nexus) leave(why error, done func(error)) {
	if n.state == stateLeaving {
		if done != nil {
			n.leaving.why, n.leaving.done = why, done
		}
		return
	}
	n.state = stateLeaving
	n.leaving = leaving{why: why, done: done, deadline: time.Now().Add(n.params.AbortTimeout)}
}

// sendLogout sends the request as soon as no command is with the target.
func (n *Nexus) sendLogout() {
	if n.state != stateLeaving || n.leaving.sent || n.sent.n > 0 {
		return
	}
	k, itt := n.claim(controlLogout)
	if k == nil {
		return
	}
	k.deadline = time.Now().Add(n.params.AbortTimeout)
	pdu.LogoutRequestFields{
		Immediate: true, Reason: pdu.LogoutCloseSession, ITT: itt, CmdSN: n.cmdSN, ExpStatSN: n.expStatSN,
	}.Encode(n.bhs[:])
	if n.sendControl(nil) != nil {
		k.release()
		return
	}
	n.leaving.sent = true
}

func (n *Nexus) handleLogout(r pdu.LogoutResponse, data []byte) error {
	if err := r.Validate(len(data)); err != nil {
		return protocolError(err)
	}
	k, err := n.answered(controlLogout, r.ITT())
	if err != nil {
		return err
	}
	k.release()
	if err := n.sequence(pdu.BHS(r)); err != nil {
		return err
	}
	n.leaving.answered, n.leaving.deadline = true, time.Now().Add(hangUpGrace)
	// Whatever the outcome, the session is over: there is no way back from a logout.
	if o := r.Response(); o != pdu.LogoutClosed {
		n.leaving.outcome = fmt.Errorf("logout: %v", o)
	}
	return nil
}
