package nbd

import (
	"syscall"

	"iserblk/internal/block"
)

// mostExtents is how many extents one block status tells of: what the target's answer has room for.
const mostExtents = 256

// extentsIn is how many extents a reply in so much memory has room for.
func extentsIn(size int) int {
	return min(mostExtents, (size-extChunkLen-blockStatusExtLen)/descriptorExtLen)
}

// slot is one request of a client: taken when its header has come, given back when its reply has left. Only slots with
// a tag are with the logical unit. Everything in it is preallocated.
type slot struct {
	hub  *hub
	conn *Conn
	next *slot // in a slotList

	cmd  request // what the client asked
	mem  []byte  // the slot's part of the arena
	why  *refusal
	head []byte // of the reply
	body []byte // of the reply, after head

	// What of cmd is still to be done. A command may take several of the unit's requests, and a flush.
	req     block.Request
	at      uint64
	left    uint64
	flush   bool
	inUnit  bool // the unit has req
	calling bool // within Submit
	ended   bool // Done came within Submit
	errno   syscall.Errno

	extents []block.Extent
	room    [headRoom]byte
}

// plan says what s's command, which was checked, takes: false when there is nothing to do.
func (s *slot) plan() bool {
	l := &s.hub.exp.limits
	r := &s.cmd
	s.at, s.left, s.flush = r.offset, r.length, false
	switch r.cmd {
	case cmdFlush:
		s.flush = l.WriteCache && !l.ReadOnly
	case cmdWrite, cmdTrim, cmdWriteZeroes:
		durable := r.cmd == cmdWrite && l.FUA
		s.flush = r.flags&cmdFlagFUA != 0 && l.WriteCache && !durable && r.length > 0
	}
	return s.left > 0 || s.flush
}

// advance fills in the unit's next request; false when there is none left.
func (s *slot) advance() bool {
	q := &s.req
	q.Flags, q.Data, q.Extents = 0, nil, nil
	if s.left == 0 {
		if !s.flush {
			return false
		}
		s.flush = false
		q.Op, q.Offset, q.Length = block.Flush, 0, 0
		return true
	}
	q.Offset = s.at
	q.Length = s.shape()
	s.at += q.Length
	s.left -= q.Length
	return true
}

// shape makes s.req what the command is to the unit, and says how many bytes of it one request does.
func (s *slot) shape() uint64 {
	l := &s.hub.exp.limits
	q := &s.req
	n := min(s.left, uint64(l.MaxTransfer)) // of what moves data
	switch s.cmd.cmd {
	case cmdRead, cmdWrite:
		at := s.at - s.cmd.offset
		q.Op, q.Data = block.Read, s.mem[at:at+n:at+n]
		if s.cmd.cmd == cmdWrite {
			q.Op = block.Write
		}
		if s.cmd.cmd == cmdWrite && s.cmd.flags&cmdFlagFUA != 0 && l.FUA {
			q.Flags = block.FUA
		}
		return n
	case cmdCache:
		q.Op, q.Data = block.Read, s.mem[:n]
		return n
	case cmdTrim:
		q.Op = block.Discard
		return piece(s.at, s.left, l.MaxDiscard, uint64(l.DiscardGranularity), uint64(l.DiscardAlignment))
	case cmdWriteZeroes:
		q.Op = block.WriteZeroes
		if s.cmd.flags&cmdFlagNoHole != 0 {
			q.Flags = block.NoUnmap
		}
		return piece(s.at, s.left, l.MaxWriteZeroes, uint64(l.BlockSize), 0)
	}
	q.Op = block.Allocation
	q.Data = s.mem[:min(len(s.mem), block.AllocationScratch)]
	q.Extents = s.extents[:0]
	return s.left
}

// piece is how much of the n bytes at off to do in one go of at most limit bytes. If more is to follow it ends on a
// granule, so that no granule is only given back in halves, which is never.
func piece(off, n, limit, granule, alignment uint64) uint64 {
	if n <= limit {
		return n
	}
	if over := (off + limit - alignment) % max(granule, 1); over < limit {
		return limit - over
	}
	return limit
}

// done takes the result of s.req: false when the command has come to its end.
func (s *slot) done(errno syscall.Errno) bool {
	if s.cmd.cmd == cmdBlockStatus {
		s.left = 0
		s.locate(errno)
		return false
	}
	switch {
	case errno != 0:
		s.why = failure(errno)
		return false
	case s.left > 0 && (s.conn.dead || s.hub.exp.impatient.Load()):
		s.why = refuseShutdown
		return false
	}
	return s.advance()
}

// locate keeps the unit's answer to what is allocated. Where it cannot tell, everything is.
func (s *slot) locate(errno syscall.Errno) {
	extents := s.req.Extents
	if errno != 0 || len(extents) == 0 {
		extents = append(s.extents[:0], block.Extent{Length: s.cmd.length})
	}
	n := trim(extents, s.cmd.length)
	if s.cmd.flags&cmdFlagReqOne != 0 {
		n = 1
	}
	s.extents = extents[:n]
}

// trim cuts extents off at most bytes and says how many are left.
func trim(extents []block.Extent, most uint64) int {
	for i := range extents {
		if extents[i].Length >= most {
			extents[i].Length = most
			return i + 1
		}
		most -= extents[i].Length
	}
	return len(extents)
}

// answer makes s's reply.
func (s *slot) answer() {
	r, form := &s.cmd, s.conn.rules.form
	s.head, s.body = s.room[:0], nil
	switch {
	case s.why != nil:
		s.head = appendRefusal(s.head, form, r, s.why)
	case r.length == 0:
		s.head = appendSuccess(s.head, form, r)
	case r.cmd == cmdRead:
		s.body = s.mem[:r.length]
		s.head = appendData(s.head, form, r, len(s.body))
	case r.cmd == cmdBlockStatus:
		s.head = appendStatus(s.mem[:0], form, r, s.extents)
	default:
		s.head = appendSuccess(s.head, form, r)
	}
}

// slotList is a FIFO of slots, linked through slot.next.
type slotList struct{ head, tail *slot }

func (l *slotList) push(s *slot) {
	s.next = nil
	if l.head == nil {
		l.head = s
	} else {
		l.tail.next = s
	}
	l.tail = s
}

// unshift puts s in front: what was used last is warm.
func (l *slotList) unshift(s *slot) {
	if s.next = l.head; s.next == nil {
		l.tail = s
	}
	l.head = s
}

func (l *slotList) pop() *slot {
	s := l.head
	if s != nil {
		l.head, s.next = s.next, nil
	}
	return s
}
