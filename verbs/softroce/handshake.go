package softroce

import (
	"time"

	"iserblk/verbs"
	"iserblk/verbs/softroce/cm"
)

// register gives a connection a queue pair number of its own: this process's tag, and 16 random bits.
func (e *endpoint) register(c *conn) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.enroll(c)
}

// enroll is register with e.mu held.
func (e *endpoint) enroll(c *conn) error {
	if len(e.byQPN) > maxQPs {
		return cm.ErrTooMany
	}
	for {
		c.qpn = uint32(e.tag)<<16 | random32()&0xffff
		if e.byQPN[c.qpn] == nil {
			e.byQPN[c.qpn] = c
			return nil
		}
	}
}

// maxQPs leaves queue pair numbers hard to guess and easy to find.
const maxQPs = 4096

// unregister forgets a connection. Nothing is delivered to it any more.
func (e *endpoint) unregister(c *conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.byQPN, c.qpn)
}

// connect sends a request for c. Its outcome comes to c.outcome.
func (e *endpoint) connect(c *conn, r cm.Request) error {
	e.mu.Lock()
	id, err := e.manager.Connect(time.Now(), r)
	if err == nil {
		c.id, e.byID[id] = id, c
	}
	e.settle()
	return err
}

// disconnect ends c's part in the connection manager. c.ended is closed when the peer knows.
func (e *endpoint) disconnect(c *conn) {
	e.mu.Lock()
	e.manager.Disconnect(time.Now(), c.id)
	e.settle()
}

// abandon gives up a connection that is being made.
func (e *endpoint) abandon(c *conn) {
	e.mu.Lock()
	e.manager.Abandon(c.id)
	e.forget(c)
	e.settle()
}

// forget ends the interest in a connection's events. e.mu is held.
func (e *endpoint) forget(c *conn) {
	delete(e.byID, c.id)
	c.gone.Do(func() { close(c.ended) })
}

// handle does what an event of the connection manager asks for. e.mu is held.
func (e *endpoint) handle(ev *cm.Event) {
	if ev.Kind == cm.Requested {
		e.requested(ev)
		return
	}
	c := e.byID[ev.ID]
	if c == nil {
		return
	}
	switch ev.Kind {
	case cm.Replied:
		e.replied(c, ev)
	case cm.Established:
		c.listener.established(c)
	case cm.Rejected:
		e.lost(c, &verbs.RejectError{Reason: int(ev.Reason)})
	case cm.Unreachable:
		e.lost(c, errNobody)
	case cm.TimedOut:
		e.lost(c, verbs.ErrTimeout)
	case cm.Disconnected:
		e.lost(c, nil)
	case cm.Closed:
		e.forget(c)
	}
}

// replied makes the queue pair ready before the peer learns that it may send.
func (e *endpoint) replied(c *conn, ev *cm.Event) {
	err := c.start(remote{
		qpn: ev.REP.QPN, sendPSN: ev.REP.RecvPSN, rnrRetry: ev.REP.RNRRetry, private: ev.REP.Private[:],
		ird: ev.REP.InitiatorDepth, ord: ev.REP.ResponderResources,
	})
	if err != nil {
		e.manager.Abandon(ev.ID)
		e.forget(c)
		c.decide(err)
		return
	}
	e.manager.Confirm(ev.ID)
	c.decide(nil)
}

// lost tells a connection that the connection manager has given it up, and why.
func (e *endpoint) lost(c *conn, err error) {
	e.forget(c)
	switch {
	case !c.decide(orDisconnected(err)):
		c.disconnected(err)
	case c.listener != nil: // nobody has it yet
		go c.destroy()
	}
}

// heard tells the connection manager that a passive connection has had a packet of its peer.
func (e *endpoint) heard(c *conn) {
	e.mu.Lock()
	e.manager.Heard(c.id)
	e.settle()
}

func orDisconnected(err error) error {
	if err == nil {
		return errDisconnected
	}
	return err
}
