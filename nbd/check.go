package nbd

import "iserblk/internal/block"

// mostSkipped is the longest payload that is read and dropped to tell the client nicely that it was too much. Whoever
// sends more loses the connection (proto "Size constraints").
const mostSkipped = 32 << 20

// rules is what a connection's requests have to obey.
type rules struct {
	limits  *block.Limits
	payload uint32 // the most bytes of a read or write
	form    Replies
	status  bool // base:allocation was selected
}

// follows is how many bytes follow r's header.
func (c *rules) follows(r *request) uint64 {
	if c.form == Extended {
		if r.flags&cmdFlagPayloadLen != 0 {
			return r.length
		}
		return 0
	}
	if r.cmd == cmdWrite {
		return r.length
	}
	return 0
}

// check says why r is refused, nil if it is not.
func (c *rules) check(r *request, size uint64) *refusal {
	if !c.knows(r.cmd) {
		return refuseCommand
	}
	if why := c.checkFlags(r); why != nil {
		return why
	}
	switch r.cmd {
	case cmdFlush:
		if r.offset|r.length != 0 {
			return refuseReserved
		}
		return nil
	case cmdWrite, cmdTrim, cmdWriteZeroes:
		if c.limits.ReadOnly {
			return refuseReadOnly
		}
	case cmdBlockStatus:
		switch {
		case !c.status:
			return refuseContext
		case r.length == 0:
			return refuseNothing
		}
	}
	if why := c.checkRange(r, size); why != nil {
		return why
	}
	if r.cmd == cmdWriteZeroes && r.flags&cmdFlagFastZero != 0 && !c.fast(r) {
		return refuseSlowZero
	}
	return nil
}

// knows tells whether the export has the command. A read-only one knows those that write, to refuse them better.
func (c *rules) knows(cmd command) bool {
	l := c.limits
	switch cmd {
	case cmdRead, cmdWrite, cmdFlush, cmdCache:
		return true
	case cmdBlockStatus:
		return c.form != Simple
	case cmdTrim:
		return l.MaxDiscard > 0 || l.ReadOnly
	case cmdWriteZeroes:
		return l.MaxWriteZeroes > 0 || l.ReadOnly
	}
	return false
}

// checkFlags: FUA goes with every command; of the payload flag an extended write cannot do without, and nothing else
// has it.
func (c *rules) checkFlags(r *request) *refusal {
	if c.form == Extended && (r.flags&cmdFlagPayloadLen != 0) != (r.cmd == cmdWrite) {
		return refusePayload
	}
	allowed := uint16(cmdFlagFUA)
	switch r.cmd {
	case cmdRead:
		if c.form != Simple {
			allowed |= cmdFlagDF
		}
	case cmdWrite:
		if c.form == Extended {
			allowed |= cmdFlagPayloadLen
		}
	case cmdWriteZeroes:
		allowed |= cmdFlagNoHole | cmdFlagFastZero
	case cmdBlockStatus:
		allowed |= cmdFlagReqOne
	}
	if r.flags&^allowed != 0 {
		return refuseFlags
	}
	return nil
}

func (c *rules) checkRange(r *request, size uint64) *refusal {
	switch {
	case r.offset > size || r.length > size-r.offset:
		if r.cmd == cmdWrite || r.cmd == cmdWriteZeroes {
			return refuseSpace
		}
		return refuseRange
	case (r.offset|r.length)&(uint64(c.limits.BlockSize)-1) != 0:
		return refuseAlignment
	case r.length <= uint64(c.payload):
		return nil
	case r.cmd == cmdWrite, r.cmd == cmdRead && c.form == Simple:
		return refuseLength
	case r.cmd == cmdRead:
		return refuseLongRead
	}
	return nil
}

// fast tells whether zeroing costs less than writing zeroes: where the unit gives the space back.
func (c *rules) fast(r *request) bool { return c.limits.FastZeroes && r.flags&cmdFlagNoHole == 0 }

// flags are the transmission flags. Where there is no volatile cache a flush has nothing to do, and every write is one
// with FUA: clients that ask for them get what they want.
func (c *rules) flags() uint16 {
	l := c.limits
	f := uint16(FlagHasFlags | FlagSendFlush | FlagSendFUA | FlagCanMultiConn | FlagSendCache)
	if l.ReadOnly {
		f |= FlagReadOnly
	}
	if l.Rotational {
		f |= FlagRotational
	}
	if c.form != Simple {
		f |= FlagSendDF
	}
	if l.ReadOnly {
		return f
	}
	if l.MaxDiscard > 0 {
		f |= FlagSendTrim
	}
	if l.MaxWriteZeroes > 0 {
		f |= FlagSendWriteZeroes | FlagSendFastZero
	}
	return f
}

// blockSizes are the constraints that a client is told: what is smaller than the preferred size is slower.
func (c *rules) blockSizes() (minimum, preferred, maximum uint32) {
	const usual = 4096
	preferred = max(usual, c.limits.PhysicalBlockSize)
	for preferred > c.payload {
		preferred /= 2
	}
	return c.limits.BlockSize, preferred, c.payload
}
