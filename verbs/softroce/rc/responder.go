package rc

import (
	"time"

	"iserblk/verbs"
	"iserblk/verbs/softroce/wire"
)

// plausible is how far, in packets, a request may be ahead of the expected one before it is taken for a forgery.
const plausible = 1 << 16

// responder is what the peer's requests have come to.
type responder struct {
	expected wire.PSN
	msn      uint32 // messages completed
	within   operationInProgress
	quiet    bool // a NAK says already that the expected packet is missing or was not taken
	done     int  // bytes of the message that are in place
	rkey     uint32
	va       uint64
	length   int // of an RDMA WRITE

	refusals, gaps limiter
}

type operationInProgress uint8

const (
	betweenMessages operationInProgress = iota
	withinSend
	withinWrite
)

// limiter bounds how often something is said.
type limiter struct {
	said int // lately
	last time.Duration
}

// NAKs are bounded, lest a stranger's packets make us talk an honest peer to death: those for wrong requests, which
// honest peers do not send, and those for missing packets, of which a bad network loses some thousands a second.
const (
	limitBurst      = 16
	refusalInterval = time.Millisecond
	gapInterval     = 50 * time.Microsecond
)

// allow tells whether it may be said now: limitBurst times at once, and once an interval in the long run.
func (l *limiter) allow(now, interval time.Duration) bool {
	if since := now - l.last; since >= interval {
		l.said = max(0, l.said-int(min(since/interval, limitBurst)))
		l.last = now
	}
	if l.said >= limitBurst {
		return false
	}
	l.said++
	return true
}

func (r *responder) handle(q *QP, now time.Duration, h *wire.Header, data []byte) {
	switch ahead := h.PSN.Sub(r.expected); {
	case ahead >= plausible:
		q.stats.Stale++
	case ahead > 0:
		r.missing(q, now)
	case ahead < 0:
		q.stats.Duplicates++
		r.again(q, h)
	case !h.Opcode.Known():
		r.refuse(q, now, wire.NakInvalidRequest)
	case r.outOfSequence(h.Opcode) || !r.rightLength(q.cfg.MTU, h.Opcode, len(data)):
		r.refuse(q, now, wire.NakInvalidRequest)
	case h.Opcode.IsSend():
		r.send(q, h, data)
	case h.Opcode.IsWrite():
		r.write(q, now, h, data)
	default:
		r.read(q, now, h)
	}
}

// missing says once that packets are missing.
func (r *responder) missing(q *QP, now time.Duration) {
	if r.quiet || !r.gaps.allow(now, gapInterval) {
		return
	}
	r.quiet = true
	q.stats.SequenceNaksSent++
	q.out.say(wire.NakSequence, r.expected, r.msn)
}

// refuse answers a request that is wrong, and forgets it. There are bounds to how often.
func (r *responder) refuse(q *QP, now time.Duration, s wire.Syndrome) {
	if s == wire.NakRemoteAccess {
		q.stats.AccessRefused++
	} else {
		q.stats.InvalidRequests++
	}
	if r.refusals.allow(now, refusalInterval) {
		q.out.say(s, r.expected, r.msn)
	}
}

// outOfSequence tells what cannot follow the packet before (IBTA 9.7.4.1.2), and what is never taken: immediate data.
func (r *responder) outOfSequence(o wire.Opcode) bool {
	if o.HasImmediate() {
		return true
	}
	switch r.within {
	case withinSend:
		return !o.IsSend() || o.Starts()
	case withinWrite:
		return !o.IsWrite() || o.Starts()
	}
	return !o.Starts()
}

// rightLength: all packets of a message but the last are full (IBTA 9.7.4.1.6).
func (r *responder) rightLength(mtu int, o wire.Opcode, n int) bool {
	switch {
	case o == wire.ReadRequest:
		return n == 0
	case !o.Ends():
		return n == mtu
	case !o.Starts():
		return n > 0 && n <= mtu
	}
	return n <= mtu
}

// accept moves on by n packets.
func (r *responder) accept(n int) {
	r.quiet = false
	r.expected = r.expected.Add(n)
}

// end closes a message, if o is its last packet, and acknowledges what wants to be.
func (r *responder) end(q *QP, h *wire.Header, within operationInProgress) {
	// Every NAK costs rxe one of its retries, and nothing but an ACK gives them back: one for each NAK, then, or a long
	// message on a bad network is given up although it gets on.
	repaired := r.quiet
	r.accept(1)
	r.within = within
	if h.Opcode.Ends() {
		r.within = betweenMessages
		r.msn = (r.msn + 1) & wire.PSNMask
	}
	if h.AckReq || repaired {
		q.out.say(wire.AckNoCredits, h.PSN, r.msn)
	}
}

func (r *responder) send(q *QP, h *wire.Header, data []byte) {
	if q.rq.n == 0 {
		r.notReady(q)
		return
	}
	if h.Opcode.Starts() {
		r.done = 0
	}
	buf := q.rq.ring[q.rq.head].buf
	if len(data) > len(buf)-r.done {
		r.tooLong(q)
		return
	}
	r.done += copy(buf[r.done:], data)
	if h.Opcode.Ends() {
		wc := verbs.WC{Len: uint32(r.done)}
		if h.Opcode.Invalidates() {
			wc.Flags, wc.InvRKey = verbs.WCWithInv, h.InvRKey
		}
		q.completeRecv(wc)
	}
	r.end(q, h, withinSend)
}

// notReady asks the peer to come back later, once until the expected packet comes.
func (r *responder) notReady(q *QP) {
	r.quiet = true
	q.stats.RNRNaksSent++
	q.out.say(wire.RNRNak(q.cfg.RNRTimer), r.expected, r.msn)
}

// tooLong ends the connection over a message that does not fit its buffer, as the verbs want it.
func (r *responder) tooLong(q *QP) {
	q.completeRecv(verbs.WC{Status: verbs.StatusLocLenErr})
	q.end(verbs.StatusLocLenErr, verbs.StatusFlushed)
	q.out.say(wire.NakInvalidRequest, r.expected, r.msn)
}

func (r *responder) write(q *QP, now time.Duration, h *wire.Header, data []byte) {
	if h.Opcode.Starts() {
		if !r.beginWrite(q, now, h) {
			return
		}
	}
	left := r.length - r.done
	if len(data) > left || (len(data) == left) != h.Opcode.Ends() {
		r.refuse(q, now, wire.NakInvalidRequest)
		return
	}
	if len(data) > 0 {
		// The window may have been closed since the message began.
		b, ok := q.mem.Resolve(r.rkey, PeerWrites, r.va+uint64(r.done), len(data))
		if !ok {
			r.refuse(q, now, wire.NakRemoteAccess)
			return
		}
		r.done += copy(b, data)
	}
	r.end(q, h, withinWrite)
}

// beginWrite checks the whole range before the first byte is written.
func (r *responder) beginWrite(q *QP, now time.Duration, h *wire.Header) bool {
	if h.Length > maxMessage {
		r.refuse(q, now, wire.NakInvalidRequest)
		return false
	}
	if h.Length > 0 {
		if _, ok := q.mem.Resolve(h.RKey, PeerWrites, h.VA, int(h.Length)); !ok {
			r.refuse(q, now, wire.NakRemoteAccess)
			return false
		}
	}
	r.rkey, r.va, r.length, r.done = h.RKey, h.VA, int(h.Length), 0
	return true
}

func (r *responder) read(q *QP, now time.Duration, h *wire.Header) {
	switch {
	case h.Length > maxMessage || !q.out.room(false):
		r.refuse(q, now, wire.NakInvalidRequest)
		return
	case !r.readable(q, h):
		r.refuse(q, now, wire.NakRemoteAccess)
		return
	}
	n := readPackets(int(h.Length), q.cfg.MTU)
	r.msn = (r.msn + 1) & wire.PSNMask
	q.out.serve(answer{psn: h.PSN, msn: r.msn, rkey: h.RKey, va: h.VA, left: int(h.Length)})
	r.accept(n)
}

func (r *responder) readable(q *QP, h *wire.Header) bool {
	if h.Length == 0 {
		return true
	}
	_, ok := q.mem.Resolve(h.RKey, PeerReads, h.VA, int(h.Length))
	return ok
}

// readPackets is how many packets answer a READ of n bytes.
func readPackets(n, mtu int) int { return max(1, (n+mtu-1)/mtu) }

// again sees to a request that came before: a SEND or WRITE was executed and is acknowledged again, a READ is answered
// again with what the memory holds now, as far as it was asked for before (IBTA 9.7.5.1.1, 9.7.5.1.4).
func (r *responder) again(q *QP, h *wire.Header) {
	if h.Opcode != wire.ReadRequest {
		// Not for what came later as well: rxe takes an ACK for the PSN of a READ as its answer, without the data.
		if h.AckReq {
			q.out.say(wire.AckNoCredits, h.PSN, r.msn)
		}
		return
	}
	if h.Length > maxMessage || !q.out.room(true) || q.out.waits(h.PSN) {
		return
	}
	past := h.PSN.Add(readPackets(int(h.Length), q.cfg.MTU))
	if r.expected.Less(past) || !r.readable(q, h) {
		return
	}
	q.out.serve(answer{psn: h.PSN, msn: r.msn, rkey: h.RKey, va: h.VA, left: int(h.Length), again: true})
}
