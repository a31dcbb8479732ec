package verbstest

import "iserblk/verbs"

// Disconnect ends the connection from the target's side (a DREQ). The initiator is told by an event; its sends find
// nobody any more.
func (p *Peer) Disconnect() {
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return
	}
	c.gone = true
	if !c.stalled {
		c.raise(verbs.EventDisconnected, nil)
	}
	if c.sends.n > 0 && !c.stalled {
		c.enterError(verbs.StatusRetryExc)
	}
	c.cond.Broadcast()
}

// Close is Disconnect.
func (p *Peer) Close() error {
	p.Disconnect()
	return nil
}

// Kill breaks the initiator's queue pair: its oldest send completes with status, everything else is flushed.
func (p *Peer) Kill(status verbs.Status) {
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raise(verbs.EventQPError, status)
	c.enterError(status)
}

// SetStalled lets nothing through either way, and through again: a reliable connection sends again what was lost, so
// nothing is lost for good. While it lasts neither side notices what the other does.
func (p *Peer) SetStalled(on bool) {
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stalled = on
	c.cond.Broadcast()
}

// HoldFlush keeps work requests that are to be flushed from completing, as a device may for a while.
func (p *Peer) HoldFlush(on bool) {
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holding = on
	if !on && c.state == failed {
		c.flush(verbs.StatusFlushed)
	}
}

// Raise reports an event to the initiator.
func (p *Peer) Raise(kind verbs.EventKind) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	p.c.raise(kind, nil)
}

// Inject completes something that was never posted, as no device should.
func (p *Peer) Inject(wc verbs.WC) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if wc.Op == verbs.WCRecv {
		p.c.recvsTaken++
	} else {
		p.c.sendsTaken++
	}
	p.c.complete(wc)
}

// Waits is how often a Send found no receive posted: a receiver-not-ready NAK on a wire.
func (p *Peer) Waits() int {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	return p.c.waits
}

// Posted is how many receives the initiator has posted now.
func (p *Peer) Posted() int {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	return p.c.recvs.n
}
