package rc

import (
	"time"

	"iserblk/verbs"
	"iserblk/verbs/softroce/wire"
)

// requester is how far our sends have come. Packets between oldest and next are under way.
type requester struct {
	oldest   wire.PSN // not acknowledged
	upcoming wire.PSN // to send
	newest   wire.PSN // past what was ever sent: answers to anything else are forged or stale
	cur      int      // place in the send queue of the request that upcoming is of
	silent   int      // packets since one that asked for an acknowledgement

	reads readsUnderWay
	chunk int // packets that one READ on the wire asks for at most
	win   congestion
	rtt   roundTrip

	timer     time.Duration // when to send again, while packets are under way
	progress  time.Duration // when the peer last let us get on
	waitUntil time.Duration // the peer has no receive buffer before; 0: it does not say so
	rnrs      int           // times in a row that it said so
	nakked    bool          // a NAK has made us go back to oldest already
	gaps      int           // answers that came while an older one was missing
	wentBack  bool          // and we went back for it
}

// gapsTolerated is how many answers may overtake one: as many as TCP allows before it believes in a loss.
const gapsTolerated = 3

// longestRead is how many packets one READ on the wire asks for at most.
const longestRead = 32

func (r *requester) init(c *Config) {
	r.oldest, r.upcoming, r.newest = c.SendPSN, c.SendPSN, c.SendPSN
	r.reads.ring = make([]wire.PSN, c.ORD)
	r.chunk = max(1, min(longestRead, c.Window/2))
	r.win = newCongestion(c.Window)
	r.rtt = newRoundTrip(c.AckTimeout)
}

func (r *requester) stop() { r.reads.n, r.waitUntil, r.cur = 0, 0, 0 }

func (r *requester) underWay() int { return r.upcoming.Sub(r.oldest) }

// next makes the next packet of a request, if it may go now.
func (r *requester) next(q *QP, now time.Duration, p *Packet) bool {
	if r.cur >= q.sq.n || r.waitUntil != 0 || r.underWay() >= r.win.size {
		return false
	}
	w := q.sq.at(r.cur)
	h := wire.Header{DestQP: q.cfg.RemoteQPN, PSN: r.upcoming}
	n := 1
	if w.op == opRead {
		if n = r.readChunk(w); n == 0 {
			return false
		}
		r.askFor(q.cfg.MTU, w, n, &h, p)
	} else {
		r.carry(q.cfg.MTU, w, &h, p)
	}
	p.set(&h)
	r.sent(now, w, n)
	return true
}

// carry fills in a packet of a SEND or WRITE.
func (r *requester) carry(mtu int, w *sendWQE, h *wire.Header, p *Packet) {
	i := r.upcoming.Sub(w.first)
	last := i == w.packets-1
	size := min(mtu, w.length-i*mtu)
	p.Data = w.cut(i*mtu, size)
	h.Opcode = requestOpcode(w.op, i == 0, last)
	if h.Opcode.HasRETH() {
		h.VA, h.RKey, h.Length = w.va, w.rkey, uint32(w.length)
	}
	r.silent++
	h.AckReq = last || r.silent >= r.win.ackEvery() || r.underWay()+1 >= r.win.size
	if h.AckReq {
		r.silent = 0
	}
}

func requestOpcode(op operation, first, last bool) wire.Opcode {
	o := wire.SendFirst
	if op == opWrite {
		o = wire.WriteFirst
	}
	// First, middle, last and only follow each other; between the latter is one with immediate data.
	switch {
	case first && last:
		return o + 4
	case last:
		return o + 2
	case !first:
		return o + 1
	}
	return o
}

// readChunk is how many packets of w the next request asks for. A READ that is long becomes several on the wire. Where they end is
// fixed: a request that is repeated must not ask for more than the first one did, or it is no repetition to the peer.
func (r *requester) readChunk(w *sendWQE) int {
	i := r.upcoming.Sub(w.first)
	n := min((i/r.chunk+1)*r.chunk, w.packets) - i
	if r.reads.full() || n > r.win.size-r.underWay() && r.underWay() > 0 {
		return 0
	}
	return n
}

// askFor fills in a READ request for n packets.
func (r *requester) askFor(mtu int, w *sendWQE, n int, h *wire.Header, p *Packet) {
	off := r.upcoming.Sub(w.first) * mtu
	p.Data = [2][]byte{}
	h.Opcode, h.AckReq = wire.ReadRequest, true
	h.VA, h.RKey, h.Length = w.va+uint64(off), w.rkey, uint32(min(n*mtu, w.length-off))
	r.reads.push(r.upcoming.Add(n))
	r.silent = 0
}

// sent moves on by n packets of w.
func (r *requester) sent(now time.Duration, w *sendWQE, n int) {
	if r.newest == r.oldest {
		r.timer, r.progress = now+r.rtt.timeout, now
	}
	if !r.upcoming.Less(r.newest) { // what is sent again tells nothing about time: which one is answered?
		r.rtt.begin(now, r.upcoming)
	}
	if r.upcoming = r.upcoming.Add(n); r.newest.Less(r.upcoming) {
		r.newest = r.upcoming
	}
	if r.upcoming == w.past() {
		r.cur++
	}
}

// goBack begins again with the oldest packet that is not acknowledged.
func (r *requester) goBack(q *QP, now time.Duration) {
	q.stats.Retransmits++
	r.upcoming, r.cur, r.silent = r.oldest, 0, 0
	r.reads.n = 0
	r.rtt.cancel()
	r.timer = min(now+r.rtt.timeout, r.progress+q.cfg.patience())
}

func (r *requester) deadline() (time.Duration, bool) {
	if r.waitUntil != 0 {
		return r.waitUntil, true
	}
	return r.timer, r.newest != r.oldest
}

func (r *requester) tick(q *QP, now time.Duration) {
	switch {
	case r.waitUntil != 0:
		if now >= r.waitUntil {
			r.waitUntil = 0
			r.timer, r.progress = now+r.rtt.timeout, now
		}
	case r.newest == r.oldest || now < r.timer:
	case now-r.progress >= q.cfg.patience():
		r.fail(q, verbs.StatusRetryExc)
	default:
		q.stats.Timeouts++
		r.win.collapse(r.underWay())
		r.rtt.backOff()
		r.goBack(q, now)
		r.nakked, r.gaps, r.wentBack = false, 0, false
	}
}

// patience is how long a peer may be silent.
func (c *Config) patience() time.Duration { return c.AckTimeout * time.Duration(int(c.RetryCount)+1) }

// readsUnderWay holds, for each READ on the wire, the PSN after its last, in order.
type readsUnderWay struct {
	ring    []wire.PSN
	head, n int
}

func (u *readsUnderWay) full() bool { return u.n == len(u.ring) }

func (u *readsUnderWay) push(past wire.PSN) {
	u.ring[(u.head+u.n)%len(u.ring)] = past
	u.n++
}

// retire drops those that are answered whole.
func (u *readsUnderWay) retire(oldest wire.PSN) {
	for u.n > 0 && !oldest.Less(u.ring[u.head]) {
		u.head = (u.head + 1) % len(u.ring)
		u.n--
	}
}
