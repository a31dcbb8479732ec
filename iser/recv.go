package iser

import (
	"fmt"

	"iserblk/session"
	"iserblk/session/pdu"
	"iserblk/verbs"
)

// postLoginRecv posts the one receive of the login phase, in which one request is outstanding at any time.
func (c *Conn) postLoginRecv() error {
	c.queueRecv(0)
	return c.postRecvs()
}

// EnableFullFeature posts all receive buffers but the one that the login phase uses (RFC 5047 5.1.2). It must be
// called before the final login request is sent: the target may use them as soon as it has answered that.
func (c *Conn) EnableFullFeature() error {
	if c.aborted || c.err != nil {
		return c.fault("enable full-feature phase with", c.cause())
	}
	if c.fullFeature {
		return nil
	}
	c.fullFeature = true
	for i := 1; i < c.layout.recvs; i++ {
		c.queueRecv(i)
	}
	return c.postRecvs()
}

func (c *Conn) queueRecv(i int) {
	c.repost = append(c.repost, verbs.RecvWR{
		ID:  uint64(i),
		SGE: verbs.SGE{Addr: c.base + uint64(c.layout.recvOff(i)), Len: recvLen, LKey: c.lkey},
	})
}

// postRecvs posts the queued receives in one go.
func (c *Conn) postRecvs() error {
	if len(c.repost) == 0 {
		return nil
	}
	n, err := c.qp.PostRecv(c.repost)
	for i := range c.repost[:n] {
		c.receiving[c.repost[i].ID] = true
	}
	c.posted += n
	if err == nil && n < len(c.repost) {
		err = errShortPost
	}
	c.repost = c.repost[:0]
	if err != nil {
		return c.fail("post receives for", err)
	}
	return nil
}

// Poll takes up to 64 completions and passes the PDUs among them to n in order (RFC 5047 5.2.1). A result above zero
// may mean that there are more. After an error nothing is passed on any more; Poll must still be called until
// Drained. After Abort the error is nil unless the device itself fails.
func (c *Conn) Poll(n session.Notifier) (int, error) {
	got, err := c.qp.Poll(c.wcs[:])
	for i := range c.wcs[:got] {
		c.complete(&c.wcs[i], n)
	}
	if err != nil {
		return got, c.fail("poll completions from", err)
	}
	if c.aborted {
		return got, nil
	}
	if c.err == nil && c.shouldRepost() {
		_ = c.postRecvs() // its error is c.err
	}
	return got, c.err
}

// shouldRepost: a receive buffer goes back together with others, as each post is a crossing into the provider. What may
// have to wait are spare ones; the login phase has a single buffer.
func (c *Conn) shouldRepost() bool { return len(c.repost) >= repostEvery || !c.fullFeature }

// complete takes one completion back into the books and acts on it.
func (c *Conn) complete(wc *verbs.WC, n session.Notifier) {
	switch {
	case wc.ID == beaconID && c.aborted:
		c.beaconDone()
		return
	case wc.ID&sendID != 0:
		c.sendDone(wc)
		return
	}
	if wc.ID >= uint64(len(c.receiving)) || !c.receiving[wc.ID] {
		_ = c.fail("receive from", ErrCompletion)
		return
	}
	c.receiving[wc.ID] = false
	c.posted--
	if c.aborted || c.err != nil {
		return
	}
	if err := c.receive(wc, n); err != nil {
		_ = c.fail("receive from", err)
		return
	}
	c.queueRecv(int(wc.ID))
}

func (c *Conn) sendDone(wc *verbs.WC) {
	slot := wc.ID &^ sendID
	if slot >= uint64(len(c.sending)) || !c.sending[slot] {
		_ = c.fail("send to", ErrCompletion)
		return
	}
	c.freeSends(uint32(slot))
	if wc.Status != verbs.StatusSuccess && !c.aborted {
		_ = c.fail("send to", wc.Status)
	}
}

// beaconDone: every send that was posted before Abort is done.
func (c *Conn) beaconDone() {
	c.posted--
	for c.order.n > 0 {
		c.posted--
		c.freeSend(c.order.pop())
	}
}

// receive checks one message and passes its PDU on.
func (c *Conn) receive(wc *verbs.WC, n session.Notifier) error {
	if wc.Status != verbs.StatusSuccess {
		return wc.Status
	}
	if wc.Flags&verbs.WCWithInv != 0 {
		return ErrInvalidated
	}
	if wc.Len > recvLen {
		return ErrDataLength
	}
	off := c.layout.recvOff(int(wc.ID))
	bhs, data, err := split(c.mem[off : off+int(wc.Len)])
	if err != nil {
		return err
	}
	c.stats.Received++
	if bhs.Opcode() == pdu.OpSCSIResponse {
		c.DeallocateTask(bhs.ITT())
	}
	n.HandlePDU(bhs, data)
	return nil
}

// split checks the headers of a message and finds its parts. Up to three bytes of padding may follow the data.
func split(msg []byte) (pdu.BHS, []byte, error) {
	if len(msg) < HeadersLen {
		return nil, nil, ErrTruncated
	}
	if err := checkType(msg[offFlags]); err != nil {
		return nil, nil, err
	}
	bhs, data := pdu.BHS(msg[headerLen:HeadersLen:HeadersLen]), msg[HeadersLen:]
	n := bhs.DataSegmentLength()
	switch {
	case bhs.TotalAHSLength() != 0:
		return nil, nil, ErrAHS
	case n > len(data), len(data)-n > pdu.MaxPad:
		return nil, nil, fmt.Errorf("%w: %v says %d bytes, %d came", ErrDataLength, bhs.Opcode(), n, len(data))
	}
	return bhs, data[:n:n], nil
}
