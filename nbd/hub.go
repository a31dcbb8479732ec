package nbd

import (
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"iserblk/internal/block"
	"iserblk/internal/lane"
)

// hub is an export's part on one lane: the slots, and the connections that share them. Everything but its tickets and
// its counters belongs to the lane, which serves it as a Source.
//
// Slots are shared so that nobody starves: one is kept for each connection that has none, whether it is there already
// or may still come, and of the others no connection may have more than shareFactor times what is left. A client that
// does not read its replies keeps the slots that it has, and no more.
type hub struct {
	exp  *Export
	lane *lane.Lane
	unit block.Queue

	slots   []slot
	free    slotList
	nfree   int
	holders int // connections that have slots
	limit   int // connections that the lane may have
	tickets atomic.Int32

	byTag   []*slot
	tags    []uint16 // not in use
	waiting slotList // slots that wait for a tag
	pumping bool

	conns  []*Conn
	ready  connList // there may be something to read
	hungry connList // wait for a slot
	dirty  connList // have replies to send
	fed    bool     // a slot has come back since the hungry were asked
	closed bool

	// Memory for system calls.
	iov  [2 * replyBatch]unix.Iovec
	msg  unix.Msghdr
	skip []byte

	stats counters
}

const (
	// shareFactor lets one connection alone have two thirds of the slots.
	shareFactor = 2
	// skipSize is how much of a payload that nobody wants is read at a time.
	skipSize = 64 << 10
)

func newHub(e *Export, qc QueueConfig, limit int) *hub {
	h := &hub{exp: e, lane: qc.Lane, unit: qc.Unit, limit: limit, skip: make([]byte, skipSize)}
	h.ready.kind, h.hungry.kind, h.dirty.kind = listReady, listHungry, listDirty
	depth := e.limits.Depth
	h.byTag, h.tags = make([]*slot, depth), make([]uint16, depth)
	for i := range h.tags {
		h.tags[i] = depth - 1 - uint16(i)
	}
	h.slots, h.nfree = make([]slot, len(qc.Buffers)), len(qc.Buffers)
	for i := range h.slots {
		s := &h.slots[i]
		s.hub, s.mem = h, qc.Buffers[i].Mem[:e.payload:e.payload]
		s.extents = make([]block.Extent, 0, extentsIn(len(s.mem)))
		s.req = block.Request{Region: qc.Buffers[i].Region, Sink: h}
		h.free.push(s)
	}
	return h
}

// ---- slots ----

// acquire takes a slot for c, nil when it is not c's turn to have another.
func (h *hub) acquire(c *Conn) *slot {
	if h.nfree == 0 || c.held > 0 && !h.allows(c) {
		return nil
	}
	s := h.free.pop()
	if c.held++; c.held == 1 {
		h.holders++
	}
	h.nfree--
	s.conn, s.why = c, nil
	return s
}

// allows tells whether c, which has slots, may have one more.
func (h *hub) allows(c *Conn) bool {
	spare := h.nfree - (h.limit - h.holders)
	return spare > 0 && (h.limit == 1 || c.held <= shareFactor*spare)
}

// release gives s back.
func (h *hub) release(s *slot) {
	c := s.conn
	if c.held--; c.held == 0 {
		h.holders--
	}
	h.nfree++
	h.fed = true
	s.conn, s.body = nil, nil
	h.free.unshift(s)
}

// ---- the logical unit ----

// start carries out s's command, or answers it at once.
func (h *hub) start(s *slot) {
	if errno := h.exp.fail.Load(); s.why == nil && errno != 0 {
		s.why = failure(syscall.Errno(errno))
	}
	if s.why != nil || !s.plan() {
		h.finish(s)
		return
	}
	h.stats.begin()
	h.waiting.push(s)
	h.pump()
}

// pump hands waiting slots to the unit while there are tags. A unit that is done at once makes tags free meanwhile.
func (h *hub) pump() {
	if h.pumping {
		return
	}
	h.pumping = true
	for len(h.tags) > 0 {
		s := h.waiting.pop()
		if s == nil {
			break
		}
		h.enter(s)
	}
	h.pumping = false
}

// enter gives s a tag and its first request to the unit.
func (h *hub) enter(s *slot) {
	if s.conn.dead || !s.advance() {
		h.leave(s)
		return
	}
	last := len(h.tags) - 1
	s.req.Tag = h.tags[last]
	h.tags = h.tags[:last]
	h.byTag[s.req.Tag] = s
	h.submit(s)
}

// submit has the unit carry out s.req and, as long as it does that at once, what comes after it.
func (h *hub) submit(s *slot) {
	for {
		s.inUnit, s.calling, s.ended = true, true, false
		h.unit.Submit(&s.req)
		s.calling = false
		if !s.ended || !h.next(s) {
			return
		}
	}
}

// Done takes a request back from the unit (block.Sink).
func (h *hub) Done(r *block.Request, errno syscall.Errno) {
	s := h.byTag[r.Tag]
	if s == nil || !s.inUnit {
		panic("nbd: request completed twice")
	}
	s.inUnit, s.errno = false, errno
	if s.calling {
		s.ended = true
	} else if h.next(s) {
		h.submit(s)
	}
}

// next looks at the result of s.req: true when another is to be submitted.
func (h *hub) next(s *slot) bool {
	h.stats.end(&s.req, s.errno)
	if s.done(s.errno) {
		return true
	}
	h.tags = append(h.tags, s.req.Tag)
	h.byTag[s.req.Tag] = nil
	h.leave(s)
	h.pump()
	return false
}

// leave ends what start began.
func (h *hub) leave(s *slot) {
	h.stats.leave()
	h.finish(s)
}

// finish queues s's reply, if there is anybody to read it.
func (h *hub) finish(s *slot) {
	c := s.conn
	if c.dead {
		h.release(s)
		h.dirty.push(c) // it may have been the last
		return
	}
	if s.why != nil {
		h.stats.refused.Add(1)
	}
	s.answer()
	c.out.push(s)
	h.dirty.push(c)
}

// ---- the lane ----

// Poll reads from the connections that may have something (lane.Source).
func (h *hub) Poll() int {
	if h.fed {
		h.fed = false
		for c := h.hungry.pop(); c != nil; c = h.hungry.pop() {
			h.ready.push(c)
		}
	}
	n := h.ready.n
	for range n {
		if c := h.ready.pop(); c != nil {
			c.receive()
		}
	}
	return n
}

// Flush sends the replies of this turn (lane.Source).
func (h *hub) Flush() {
	for range h.dirty.n {
		h.dirty.pop().send()
	}
}

// Arm says whether there is something to do at once (lane.Source).
func (h *hub) Arm() bool { return h.ready.n > 0 || h.dirty.n > 0 || h.fed && h.hungry.n > 0 }

// Fd is none: every connection has its own watch (lane.Source).
func (h *hub) Fd() int { return -1 }

// Busy keeps the lane from a nap while there is something to do; of the remote others know (lane.Source).
func (h *hub) Busy() bool { return h.Arm() }
