package rc

import (
	"time"

	"iserblk/verbs"
	"iserblk/verbs/softroce/wire"
)

// handle takes an answer of the peer.
func (r *requester) handle(q *QP, now time.Duration, h *wire.Header, data []byte) {
	if i := h.PSN.Sub(r.oldest); i < 0 || i >= r.newest.Sub(r.oldest) {
		q.stats.Stale++
		return
	}
	switch {
	case h.Opcode.IsReadResponse():
		r.readResponse(q, now, h, data)
	case h.Opcode != wire.Ack: // an atomic was never asked for
		q.stats.Malformed++
	case h.Syndrome.IsAck():
		r.acknowledged(q, now, h.PSN.Add(1))
	case h.Syndrome.IsRNR():
		if r.acknowledged(q, now, h.PSN) {
			r.notReady(q, now, h.Syndrome.RNRDelay())
		}
	case h.Syndrome == wire.NakSequence:
		if r.acknowledged(q, now, h.PSN) {
			r.lost(q, now)
		}
	case h.Syndrome.IsNak():
		if r.acknowledged(q, now, h.PSN) {
			r.fail(q, nakStatus(h.Syndrome))
		}
	default:
		q.stats.Malformed++
	}
}

func nakStatus(s wire.Syndrome) verbs.Status {
	switch s {
	case wire.NakInvalidRequest:
		return StatusRemInvReq
	case wire.NakRemoteAccess:
		return verbs.StatusRemAccessErr
	}
	return StatusRemOpErr
}

// acknowledged: the peer has executed all before psn. What it answered to READs must be here too; where it is not it
// was lost, and the result is false.
func (r *requester) acknowledged(q *QP, now time.Duration, psn wire.PSN) bool {
	to := psn
	for i := range q.sq.n {
		w := q.sq.at(i)
		if w.op == opRead {
			to = w.first
			if to.Less(r.oldest) {
				to = r.oldest // it has begun to come
			}
			break
		}
		if !w.past().Less(psn) {
			break
		}
	}
	if psn.Less(to) {
		to = psn
	}
	if to != r.oldest {
		r.advance(q, now, to)
	}
	if to == psn {
		return true
	}
	r.gap(q, now)
	return false
}

// advance moves oldest on, past what is done now.
func (r *requester) advance(q *QP, now time.Duration, to wire.PSN) {
	r.win.grow(to.Sub(r.oldest))
	r.oldest = to
	if r.upcoming.Less(to) { // we had gone back, and need not have
		r.upcoming = to // cur follows as requests complete
	}
	for q.sq.n > 0 && r.upcomingIsPast(q, to) {
		q.completeSend(verbs.StatusSuccess)
		r.cur = max(0, r.cur-1)
	}
	r.reads.retire(to)
	r.rtt.answered(now, to)
	r.progress, r.timer = now, now+r.rtt.timeout
	r.rnrs, r.waitUntil, r.nakked, r.gaps, r.wentBack = 0, 0, false, 0, false
}

// upcomingIsPast tells whether the oldest request is done when all before to is.
func (r *requester) upcomingIsPast(q *QP, to wire.PSN) bool {
	w := q.sq.at(0)
	return !to.Less(w.past())
}

// readResponse takes one packet of data that was read. Its place follows from its PSN alone, so that it does not matter
// which of several requests for the same data it answers.
func (r *requester) readResponse(q *QP, now time.Duration, h *wire.Header, data []byte) {
	if h.Opcode.HasAETH() && !h.Syndrome.IsAck() {
		q.stats.Malformed++
		return
	}
	if !r.acknowledged(q, now, h.PSN) {
		return
	}
	w := q.sq.at(0)
	off := h.PSN.Sub(w.first) * q.cfg.MTU
	if w.op != opRead || len(data) != min(q.cfg.MTU, w.length-off) {
		q.stats.Malformed++
		return
	}
	for _, piece := range w.cut(off, len(data)) {
		data = data[copy(piece, data):]
	}
	r.advance(q, now, h.PSN.Add(1))
}

// lost: the peer has seen that a packet is missing.
func (r *requester) lost(q *QP, now time.Duration) {
	q.stats.SequenceNaks++
	if r.nakked || r.waitUntil != 0 {
		return // it says so once; this one was sent twice by the network, or before it knew better
	}
	r.nakked = true
	r.win.halve(r.underWay())
	r.goBack(q, now)
}

// gap: an answer has come while the data of an older READ is missing.
func (r *requester) gap(q *QP, now time.Duration) {
	if r.gaps++; r.gaps < gapsTolerated || r.wentBack {
		return
	}
	r.wentBack = true
	r.win.halve(r.underWay())
	r.goBack(q, now)
}

// notReady: the peer has no receive buffer for the oldest packet.
func (r *requester) notReady(q *QP, now time.Duration, delay time.Duration) {
	q.stats.RNRNaks++
	if r.waitUntil != 0 {
		return
	}
	if r.rnrs++; r.rnrs > int(q.cfg.RNRRetry) && q.cfg.RNRRetry < rnrForEver {
		r.fail(q, verbs.StatusRNRRetryExc)
		return
	}
	r.goBack(q, now)
	r.waitUntil = now + delay
}

// fail ends the connection over the oldest request.
func (r *requester) fail(q *QP, s verbs.Status) { q.end(s, s) }
