package verbstest

import (
	"context"
	"errors"
	"net/netip"

	"iserblk/verbs"
)

// ErrGone is what a Peer's operations return once either side has ended the connection.
var ErrGone = errors.New("verbstest: connection is gone")

// Peer is the passive end of a connection: a target's queue pair, as the test drives it. While the connection is
// stalled everything but the faults waits.
type Peer struct{ c *conn }

// Attr is what the connection was asked for with: private data, depths, retry counts.
func (p *Peer) Attr() verbs.DialAttr { return p.c.attr }

// PrivateData is what the connection request carried.
func (p *Peer) PrivateData() []byte { return p.c.attr.PrivateData }

// LocalAddr is the portal that the connection came in through.
func (p *Peer) LocalAddr() netip.AddrPort { return p.c.attr.Dst }

// RemoteAddr is the initiator's address.
func (p *Peer) RemoteAddr() netip.AddrPort { return p.c.local }

// Recv waits for the next SEND of the initiator, copies it to buf and returns its length. A message that does not fit
// breaks the connection. The error is ErrGone or ctx's.
func (p *Peer) Recv(ctx context.Context, buf []byte) (int, error) {
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.waitSend(ctx); err != nil {
		return 0, err
	}
	s := c.sends.pop()
	n, status := c.gather(s, buf)
	if status != verbs.StatusSuccess {
		c.complete(verbs.WC{ID: s.wr.ID, Status: status})
		c.enterError(verbs.StatusFlushed)
		return 0, ErrGone
	}
	if s.wr.Signaled != 0 {
		c.complete(verbs.WC{ID: s.wr.ID})
	} else {
		c.silent++
	}
	return n, nil
}

// waitSend waits until there is something to receive. c.mu is held.
func (c *conn) waitSend(ctx context.Context) error {
	if c.blocked(c.sends.n == 0) && ctx.Done() != nil {
		stop := context.AfterFunc(ctx, c.wake)
		defer stop()
	}
	for c.blocked(c.sends.n == 0) {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.cond.Wait()
	}
	return c.alive()
}

func (c *conn) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cond.Broadcast()
}

// blocked: nothing gets through now, or what is needed is missing and may still come. A peer that left waits for
// nothing.
func (c *conn) blocked(missing bool) bool {
	if c.gone {
		return false
	}
	return c.stalled || missing && c.state == ready
}

func (c *conn) alive() error {
	if c.gone || c.state != ready {
		return ErrGone
	}
	return nil
}

// gather collects the bytes of a send.
func (c *conn) gather(s *send, buf []byte) (int, verbs.Status) {
	if s.wr.Inline != 0 {
		if s.n > len(buf) {
			return 0, statusRemInvReq
		}
		return copy(buf, s.inline[:s.n]), verbs.StatusSuccess
	}
	n := 0
	for _, sge := range s.wr.SGE[:s.wr.NumSGE] {
		b, ok := c.mem.bytes(sge.LKey, localUse, sge.Addr, int(sge.Len))
		if !ok {
			return 0, statusLocProtErr
		}
		if n+len(b) > len(buf) {
			return 0, statusRemInvReq
		}
		n += copy(buf[n:], b)
	}
	return n, verbs.StatusSuccess
}

// Send delivers a message to the initiator's next receive, waiting for one where none is posted.
func (p *Peer) Send(b []byte) error { return p.send(b, verbs.WC{}) }

// SendWithInvalidate is Send that claims to have invalidated a key.
func (p *Peer) SendWithInvalidate(b []byte, rkey uint32) error {
	return p.send(b, verbs.WC{Flags: verbs.WCWithInv, InvRKey: rkey})
}

func (p *Peer) send(b []byte, wc verbs.WC) error {
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == ready && c.recvs.n == 0 && !c.stalled {
		c.waits++
	}
	for c.blocked(c.recvs.n == 0) {
		c.cond.Wait()
	}
	if err := c.alive(); err != nil {
		return err
	}
	wr := c.recvs.pop()
	wc.ID, wc.Op, wc.Len = wr.ID, verbs.WCRecv, uint32(len(b))
	wc.Status = c.scatter(wr, b)
	c.complete(wc)
	if wc.Status != verbs.StatusSuccess {
		c.enterError(verbs.StatusFlushed)
		return ErrGone
	}
	return nil
}

// scatter puts a message into the buffer of a receive.
func (c *conn) scatter(wr *verbs.RecvWR, b []byte) verbs.Status {
	if len(b) > int(wr.SGE.Len) {
		return verbs.StatusLocLenErr
	}
	dst, ok := c.mem.bytes(wr.SGE.LKey, localUse, wr.SGE.Addr, int(wr.SGE.Len))
	if !ok {
		return statusLocProtErr
	}
	copy(dst, b)
	return verbs.StatusSuccess
}

// RDMAWrite writes b to the initiator's memory. A key that does not allow it breaks the connection, and the error is
// verbs.StatusRemAccessErr.
func (p *Peer) RDMAWrite(rkey uint32, va uint64, b []byte) error {
	return p.access(rkey, peerWrites, va, len(b), func(mem []byte) { copy(mem, b) })
}

// RDMARead fills b from the initiator's memory. A key that does not allow it breaks the connection, and the error is
// verbs.StatusRemAccessErr.
func (p *Peer) RDMARead(rkey uint32, va uint64, b []byte) error {
	return p.access(rkey, peerReads, va, len(b), func(mem []byte) { copy(b, mem) })
}

func (p *Peer) access(rkey uint32, use right, va uint64, n int, do func([]byte)) error {
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.blocked(false) {
		c.cond.Wait()
	}
	if err := c.alive(); err != nil {
		return err
	}
	mem, ok := c.mem.bytes(rkey, use, va, n)
	if !ok {
		c.raise(verbs.EventQPError, verbs.StatusRemAccessErr)
		c.enterError(verbs.StatusFlushed)
		return verbs.StatusRemAccessErr
	}
	do(mem)
	return nil
}
