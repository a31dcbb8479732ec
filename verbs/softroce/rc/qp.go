package rc

import (
	"time"

	"iserblk/verbs"
	"iserblk/verbs/softroce/wire"
)

// QP is one end of a connection. Its methods, and those of its Memory, must not run at the same time. The time that
// they take is monotonic, from any origin.
type QP struct {
	cfg    Config
	mem    *Memory
	status verbs.Status
	stats  Stats

	sq   sendQueue
	rq   recvQueue
	done completions
	req  requester
	resp responder
	out  answers
}

// New makes a queue pair that is ready to send and to receive.
func New(c Config) (*QP, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	q := &QP{cfg: c, mem: c.Memory}
	q.sq.init(&c)
	q.rq.ring = make([]recvWQE, c.RecvDepth)
	q.done.ring = make([]verbs.WC, c.SendDepth+c.RecvDepth)
	q.req.init(&c)
	q.resp.expected = c.RecvPSN
	q.out.init(c.IRD)
	return q, nil
}

// Status is StatusSuccess while the queue pair works, then why it ended: StatusFlushed after Abort.
func (q *QP) Status() verbs.Status { return q.status }

// Stats is what has been counted.
func (q *QP) Stats() Stats { return q.stats }

// Config is what the queue pair was made with, defaults filled in.
func (q *QP) Config() Config { return q.cfg }

// Receive takes one packet: the payload of a datagram without its ICRC, which the caller has checked, as well as the
// address that it came from. Whatever it holds is safe to pass. b is not kept. Next is to be called afterwards, once
// for all packets that have come together: then they share an acknowledgement.
func (q *QP) Receive(now time.Duration, b []byte) {
	if q.status != verbs.StatusSuccess {
		return
	}
	q.stats.PacketsReceived++
	h, data, err := wire.Parse(b)
	switch {
	case err != nil && err != wire.ErrOpcode || h.DestQP != q.cfg.LocalQPN || !h.Opcode.IsRC():
		q.stats.Malformed++
	case err == nil && int(h.Pad) != wire.PadLen(len(data)):
		q.stats.Malformed++
	case h.Opcode.IsResponse():
		q.req.handle(q, now, &h, data)
	default:
		q.resp.handle(q, now, &h, data)
	}
}

// Next makes the next packet to send now, if there is one. Call it until it returns false; what it gave must be sent
// before any other method is called.
func (q *QP) Next(now time.Duration, p *Packet) bool {
	if !q.out.next(q, p) && !q.req.next(q, now, p) {
		return false
	}
	q.stats.PacketsSent++
	return true
}

// Deadline is when Tick is to be called next; false means that nothing is waited for.
func (q *QP) Deadline() (time.Duration, bool) {
	if q.status != verbs.StatusSuccess {
		return 0, false
	}
	return q.req.deadline()
}

// Tick sees to what is due. Next is to be called afterwards.
func (q *QP) Tick(now time.Duration) {
	if q.status == verbs.StatusSuccess {
		q.req.tick(q, now)
	}
}

// Abort ends the connection at once. From its return on the peer reaches no memory, and all work requests have
// completed with StatusFlushed, in the order in which they were posted. Those that are posted later do too.
func (q *QP) Abort() {
	if q.status == verbs.StatusSuccess {
		q.end(verbs.StatusFlushed, verbs.StatusFlushed)
	}
}

// end moves to the error state. The oldest send gets a status of its own.
func (q *QP) end(reason, oldest verbs.Status) {
	q.status = reason
	q.out.clear()
	q.req.stop()
	for q.sq.n > 0 {
		q.completeSend(oldest)
		oldest = verbs.StatusFlushed
	}
	for q.rq.n > 0 {
		q.completeRecv(verbs.WC{Status: verbs.StatusFlushed})
	}
}
