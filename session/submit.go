package session

import (
	"errors"
	"time"

	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

// Submit starts c. Commands go to the target in the order of their submission, as far as its command window, its
// receive buffers and our send slots allow; the rest waits. c.Done is told the end, not before Submit returns unless
// the nexus is dead already or c's buffer cannot be opened (ErrNoBuffer).
func (n *Nexus) Submit(c *Command) {
	c.Err, c.Status, c.Sense, c.Short, c.Sent = nil, scsi.StatusGood, scsi.Sense{}, 0, false
	c.overdue, c.terminated, c.disowned = false, false, false
	if n.state == stateDead {
		c.Err = ErrNexusLost
		c.Done.CommandDone(c)
		return
	}
	n.waiting.push(c)
	if !n.inPoll {
		n.pump()
	}
}

// pump sends waiting commands while there is room for them.
func (n *Nexus) pump() {
	for n.state == stateUp && n.waiting.head != nil {
		if !n.mayCommand() || !n.send(n.waiting.head) {
			return
		}
	}
}

// mayCommand: there are a slot and a place in the target's window (RFC 7143 4.2.2.1).
func (n *Nexus) mayCommand() bool {
	if len(n.free) == 0 {
		n.stats.SlotsFull++
		return false
	}
	if n.maxCmdSN.Less(n.cmdSN) {
		n.stats.WindowClosed++
		return false
	}
	return true
}

// send hands c, the first that waits, to the datamover.
func (n *Nexus) send(c *Command) bool {
	slot := n.free[len(n.free)-1]
	t := &n.tasks[slot]
	c.itt = tag(slot, t.generation)
	c.cmdSN = n.cmdSN
	immediate := n.immediate(c)
	n.encode(c, immediate)
	if err := n.dm.SendCommand(&n.bhs, c.Dir, c.Buf, immediate); err != nil {
		return n.unsent(c, err)
	}
	n.waiting.remove(c)
	n.sent.push(c)
	n.free = n.free[:len(n.free)-1]
	t.cmd = c
	n.cmdSN++
	c.Sent = true
	c.deadline = time.Now().Add(n.patience(c))
	n.dirty = true
	n.stats.Commands++
	n.stats.ImmediateBytes += uint64(immediate)
	return true
}

// unsent deals with the datamover's refusal of c. It says whether the next command may have better luck.
func (n *Nexus) unsent(c *Command, err error) bool {
	switch {
	case err == ErrNoSlot:
		n.stats.SlotsFull++
		return false
	case errors.Is(err, ErrNoBuffer):
		n.waiting.remove(c)
		c.Err, c.Short = err, uint32(len(c.Buf.Mem))
		c.Done.CommandDone(c)
		return true
	}
	n.lose(err)
	return false
}

func tag(slot, generation uint16) pdu.ITT {
	return pdu.ITT(slot) | pdu.ITT(generation)<<generationShift
}

// patience is how long the target may take over c.
func (n *Nexus) patience(c *Command) time.Duration {
	if c.Expiry > 0 {
		return c.Expiry
	}
	return n.params.CommandTimeout
}

// immediate is how much of c's data goes along with it: all or nothing, since a part would cost the target a fetch
// of the rest anyway.
func (n *Nexus) immediate(c *Command) int {
	if c.Dir != Out || len(c.Buf.Mem) > n.limit {
		return 0
	}
	return len(c.Buf.Mem)
}

// encode writes c's header. No unsolicited Data-Out follows, so F is always set; a direction without data is none.
func (n *Nexus) encode(c *Command, immediate int) {
	pdu.SCSICommandFields{
		Final:     true,
		Read:      c.Dir == In && len(c.Buf.Mem) > 0,
		Write:     c.Dir == Out && len(c.Buf.Mem) > 0,
		Attr:      pdu.AttrSimple,
		DataLen:   immediate,
		LUN:       c.LUN,
		ITT:       c.itt,
		EDTL:      uint32(len(c.Buf.Mem)),
		CmdSN:     c.cmdSN,
		ExpStatSN: n.expStatSN,
		CDB:       c.CDB,
	}.Encode(n.bhs[:])
}

// finish gives c back. Its task's slot is free again unless an abort still names it.
func (n *Nexus) finish(c *Command) {
	slot := uint16(c.itt)
	t := &n.tasks[slot]
	t.cmd = nil
	if !t.aborting {
		n.release(slot)
	}
	n.sent.remove(c)
	c.Done.CommandDone(c)
}

// release makes a slot available under a new generation.
func (n *Nexus) release(slot uint16) {
	n.tasks[slot].generation++
	n.free = append(n.free, slot)
}
