package iser

import (
	"iserblk/session"
	"iserblk/session/pdu"
	"iserblk/verbs"
)

// Work request IDs: a receive's is the number of its buffer, a send's that of its slot with sendID set.
const (
	sendID   = 1 << 32
	beaconID = 2 << 32
)

// signalEvery is how many commands share one send completion. The queue pair completes sends in order, so one speaks
// for those before it; each costs a wake-up that the answer would have brought anyway.
const signalEvery = 8

// SendCommand queues a SCSI Command (RFC 5047 5.1.1). It returns session.ErrNoSlot when every command slot is taken
// or the data does not fit the transport now, session.ErrNoBuffer when the data's region is not registered, and an *Error when the connection is gone or the command contradicts itself;
// then nothing was queued.
func (c *Conn) SendCommand(bhs *[pdu.BHSLen]byte, dir session.Direction, buf session.Buffer, immediate int) error {
	if err := c.checkCommand(bhs, dir, buf, immediate); err != nil {
		return err
	}
	n := len(c.commands)
	if n == 0 || dir == session.In && !c.credit.allows(len(buf.Mem)) {
		return session.ErrNoSlot
	}
	t, lkey, err := c.expose(pdu.BHS(bhs[:]).ITT(), dir, buf, immediate)
	if err != nil {
		return err
	}
	slot := c.commands[n-1]
	c.commands = c.commands[:n-1]
	wr := c.enqueue(slot, t, bhs, HeadersLen)
	if immediate > 0 {
		wr.SGE[1] = verbs.SGE{Addr: verbs.Addr(buf.Mem), Len: uint32(immediate), LKey: lkey}
		wr.NumSGE, wr.Inline = 2, 0
	}
	if c.unsignaled++; c.unsignaled < signalEvery {
		wr.Signaled = 0
	} else {
		c.unsignaled = 0
	}
	c.stats.Commands++
	c.stats.ImmediateBytes += uint64(immediate)
	return nil
}

// checkCommand finds what would make the target take bytes that it was not meant to.
func (c *Conn) checkCommand(bhs *[pdu.BHSLen]byte, dir session.Direction, buf session.Buffer, immediate int) error {
	switch {
	case c.aborted || c.err != nil:
		return c.fault("send command to", c.cause())
	case immediate != pdu.BHS(bhs[:]).DataSegmentLength(),
		immediate > 0 && (dir != session.Out || immediate > len(buf.Mem)):
		return c.fault("send command to", ErrDataLength)
	}
	return nil
}

// expose gives the tags that open buf to the target, and the local key of its region. The part of an Out buffer that
// goes along as immediate data is left out, and with it the tag when nothing remains (RFC 7145 7.3.1).
func (c *Conn) expose(itt pdu.ITT, dir session.Direction, buf session.Buffer, immediate int) (tags, uint32, error) {
	if dir == session.NoData || len(buf.Mem) == 0 {
		return tags{}, 0, nil
	}
	keys := c.qp.Keys(verbs.RegionID(buf.Region))
	if keys == (verbs.Keys{}) {
		return tags{}, 0, c.fault("expose buffer to", errNoKeys)
	}
	var t tags
	switch {
	case dir == session.In:
		c.credit.take(itt, len(buf.Mem))
		t.readKey, t.readVA = c.key(itt, buf.Mem, keys.WriteKey, true), verbs.Addr(buf.Mem)
	case immediate < len(buf.Mem):
		rest := buf.Mem[immediate:]
		t.writeKey, t.writeVA = c.key(itt, rest, keys.ReadKey, false), verbs.Addr(rest)
	}
	return t, keys.LKey, nil
}

// key is one that opens mem to the target: for this command alone where that can be had, else that of its region.
func (c *Conn) key(itt pdu.ITT, mem []byte, ofRegion uint32, targetWrites bool) uint32 {
	if c.windows.exposer == nil {
		return ofRegion
	}
	return c.windows.open(itt, mem, targetWrites)
}

// DeallocateTask closes what a command has opened, and takes it that nothing more is written there: it was answered, or
// the target has confirmed its abort (RFC 5047's Deallocate_Task_Resources).
func (c *Conn) DeallocateTask(itt pdu.ITT) {
	c.windows.close(itt)
	c.credit.give(itt)
}

// SendControl queues any other PDU (RFC 5047 5.1.1). data is at most 8192 bytes.
func (c *Conn) SendControl(bhs *[pdu.BHSLen]byte, data []byte) error {
	n := len(c.controls)
	switch {
	case c.aborted || c.err != nil:
		return c.fault("send to", c.cause())
	case len(data) != pdu.BHS(bhs[:]).DataSegmentLength(), len(data) > maxData:
		return c.fault("send to", ErrDataLength)
	case n == 0:
		return session.ErrNoSlot
	}
	slot := c.controls[n-1]
	c.controls = c.controls[:n-1]
	copy(c.mem[c.layout.sendOff(int(slot))+HeadersLen:], data)
	c.enqueue(slot, tags{}, bhs, HeadersLen+len(data))
	c.stats.Controls++
	return nil
}

// enqueue writes both headers to a slot and queues a send of its first size bytes.
func (c *Conn) enqueue(slot uint32, t tags, bhs *[pdu.BHSLen]byte, size int) *verbs.SendWR {
	off := c.layout.sendOff(int(slot))
	t.put(c.mem[off:])
	copy(c.mem[off+headerLen:], bhs[:])
	c.queue = c.queue[:len(c.queue)+1]
	wr := &c.queue[len(c.queue)-1]
	*wr = verbs.SendWR{
		ID:     sendID | uint64(slot),
		SGE:    [2]verbs.SGE{{Addr: c.base + uint64(off), Len: uint32(size), LKey: c.lkey}},
		NumSGE: 1, Signaled: 1,
	}
	if uint32(size) <= c.inline {
		wr.Inline = 1
	}
	return wr
}

// Flush posts what was queued with one doorbell. An error means that the connection is lost. It must not be called
// from within HandlePDU: the receives for the answers are posted by the end of Poll.
func (c *Conn) Flush() error {
	if c.aborted {
		c.queue = c.queue[:0]
		return c.fault("post sends to", errAborted)
	}
	if len(c.queue) == 0 {
		return nil
	}
	return c.postSends()
}

func (c *Conn) postSends() error {
	n, err := c.qp.PostSend(c.queue)
	for i := range c.queue[:n] {
		slot := uint32(c.queue[i].ID)
		c.sending[slot] = true
		c.order.push(slot)
	}
	c.posted += n
	c.stats.Doorbells++
	if err == nil && n < len(c.queue) {
		err = errShortPost
	}
	c.queue = c.queue[:0]
	if err != nil {
		return c.fail("post sends to", err)
	}
	return nil
}

// postBeacon posts a send behind all others on a queue pair that is in error: it flushes last, and so tells that those
// without a completion of their own are done. Without it Drained waits for Close.
func (c *Conn) postBeacon() {
	if c.order.n == 0 {
		return
	}
	wr := [1]verbs.SendWR{{
		ID:     beaconID,
		SGE:    [2]verbs.SGE{{Addr: c.base + uint64(c.layout.sendOff(c.layout.commands)), Len: HeadersLen, LKey: c.lkey}},
		NumSGE: 1, Signaled: 1,
	}}
	n, _ := c.qp.PostSend(wr[:])
	c.posted += n
}

// freeSends takes the slots back whose sends are done when the one of last is, which is the oldest with the device or a
// later one.
func (c *Conn) freeSends(last uint32) {
	for {
		slot := c.order.pop()
		c.posted--
		c.freeSend(slot)
		if slot == last {
			return
		}
	}
}

// fifo holds slots in order; it has room for all there are.
type fifo struct {
	slots   []uint32
	head, n int
}

func (f *fifo) push(slot uint32) {
	f.slots[(f.head+f.n)%len(f.slots)] = slot
	f.n++
}

func (f *fifo) pop() uint32 {
	slot := f.slots[f.head]
	f.head = (f.head + 1) % len(f.slots)
	f.n--
	return slot
}

// freeSend makes a send's slot available again.
func (c *Conn) freeSend(slot uint32) {
	c.sending[slot] = false
	if int(slot) < c.layout.commands {
		c.commands = append(c.commands, slot)
	} else {
		c.controls = append(c.controls, slot)
	}
}
