package rc

import (
	"iserblk/verbs"
	"iserblk/verbs/softroce/wire"
)

type operation uint8

const (
	opSend operation = iota
	opWrite
	opRead
)

var wcOps = [...]verbs.WCOp{opSend: verbs.WCSend, opWrite: WCWrite, opRead: WCRead}

// sendWQE is a work request of ours until it is acknowledged.
type sendWQE struct {
	id       uint64
	op       operation
	signaled bool
	data     [2][]byte
	length   int
	first    wire.PSN // its packets, or those of the answer to a READ
	packets  int
	rkey     uint32
	va       uint64
	inline   []byte // of this place in the ring
}

// past is the PSN after its last.
func (w *sendWQE) past() wire.PSN { return w.first.Add(w.packets) }

// cut is n bytes of the data from off on, in their pieces.
func (w *sendWQE) cut(off, n int) (d [2][]byte) {
	a := len(w.data[0])
	if off < a {
		end := min(off+n, a)
		d[0] = w.data[0][off:end]
		n -= end - off
		off = end
	}
	if n > 0 {
		d[1] = w.data[1][off-a : off-a+n]
	}
	if len(d[0]) == 0 {
		d[0], d[1] = d[1], nil
	}
	return d
}

// sendQueue is the sends that are not acknowledged, oldest first.
type sendQueue struct {
	ring     []sendWQE
	head, n  int
	unpolled int // completions of sends that still take a place
	psn      wire.PSN
}

func (s *sendQueue) init(c *Config) {
	s.ring = make([]sendWQE, c.SendDepth)
	s.psn = c.SendPSN
	slab := make([]byte, c.SendDepth*c.MaxInline)
	for i := range s.ring {
		s.ring[i].inline = slab[i*c.MaxInline : (i+1)*c.MaxInline : (i+1)*c.MaxInline]
	}
}

// at is the i-th oldest.
func (s *sendQueue) at(i int) *sendWQE {
	i += s.head
	if i >= len(s.ring) {
		i -= len(s.ring)
	}
	return &s.ring[i]
}

func (s *sendQueue) full() bool { return s.n+s.unpolled >= len(s.ring) }

type recvWQE struct {
	id  uint64
	buf []byte
}

// recvQueue is the buffers for incoming SENDs, the next to be used first.
type recvQueue struct {
	ring     []recvWQE
	head, n  int
	unpolled int
}

func (r *recvQueue) full() bool { return r.n+r.unpolled >= len(r.ring) }

func (r *recvQueue) push(id uint64, buf []byte) {
	r.ring[(r.head+r.n)%len(r.ring)] = recvWQE{id: id, buf: buf}
	r.n++
}

// completions is the completion queue. Every work request that is posted has a place in it.
type completions struct {
	ring    []verbs.WC
	head, n int
}

func (c *completions) push(wc verbs.WC) {
	i := c.head + c.n
	if i >= len(c.ring) {
		i -= len(c.ring)
	}
	c.ring[i] = wc
	c.n++
}

// Pending is how many completions wait to be polled.
func (q *QP) Pending() int { return q.done.n }

// Poll takes up to len(wcs) completions, oldest first.
func (q *QP) Poll(wcs []verbs.WC) int {
	n := min(len(wcs), q.done.n)
	for i := range wcs[:n] {
		wcs[i] = q.done.ring[q.done.head]
		if q.done.head++; q.done.head == len(q.done.ring) {
			q.done.head = 0
		}
		// A WC does not tell what it is of when it failed, so that is kept where no WC has anything to tell.
		if wcs[i].VendorErr == ofRecv {
			q.rq.unpolled--
		} else {
			q.sq.unpolled--
		}
		wcs[i].VendorErr = 0
	}
	q.done.n -= n
	return n
}

// ofRecv marks the completion of a receive within the queue.
const ofRecv = 1

// completeSend takes the oldest send off its queue.
func (q *QP) completeSend(status verbs.Status) {
	w := q.sq.at(0)
	if w.signaled || status != verbs.StatusSuccess {
		wc := verbs.WC{ID: w.id, Status: status, Op: wcOps[w.op]}
		if w.op == opRead {
			wc.Len = uint32(w.length)
		}
		q.done.push(wc)
		q.sq.unpolled++
	}
	w.data = [2][]byte{}
	if q.sq.head++; q.sq.head == len(q.sq.ring) {
		q.sq.head = 0
	}
	q.sq.n--
}

// completeRecv takes the next receive off its queue.
func (q *QP) completeRecv(wc verbs.WC) {
	r := &q.rq.ring[q.rq.head]
	wc.ID, wc.Op, wc.VendorErr = r.id, verbs.WCRecv, ofRecv
	q.done.push(wc)
	q.rq.unpolled++
	r.buf = nil
	if q.rq.head++; q.rq.head == len(q.rq.ring) {
		q.rq.head = 0
	}
	q.rq.n--
}
