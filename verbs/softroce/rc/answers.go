package rc

import "iserblk/verbs/softroce/wire"

// answer is something that the responder has to say. One to a READ is many packets.
type answer struct {
	read     bool
	syndrome wire.Syndrome
	psn      wire.PSN // of the next packet
	msn      uint32

	again bool // the READ was asked for before
	begun bool // its first packet has been sent
	rkey  uint32
	va    uint64
	left  int // bytes to send
}

// answers is what the responder has to say, in order. It is bounded: two ACKs in a row become one, and READs are limited.
type answers struct {
	ring    []answer
	head, n int
	reads   int // READs that came for the first time and are not answered
	repeats int // READs that came again
	limit   int // of either
}

func (a *answers) init(ird int) {
	a.limit = ird
	a.ring = make([]answer, 2*(2*ird)+1)
}

func (a *answers) clear() { a.head, a.n, a.reads, a.repeats = 0, 0, 0, 0 }

func (a *answers) at(i int) *answer { return &a.ring[(a.head+i)%len(a.ring)] }

// say adds an ACK or NAK. It speaks for all before it, so one that waits already is replaced, unless it says more.
func (a *answers) say(s wire.Syndrome, psn wire.PSN, msn uint32) {
	if a.n > 0 {
		if last := a.at(a.n - 1); !last.read {
			if s.IsAck() && psn.Less(last.psn) {
				return
			}
			a.n--
		}
	}
	*a.at(a.n) = answer{syndrome: s, psn: psn, msn: msn}
	a.n++
}

// room tells whether one more READ may be taken.
func (a *answers) room(again bool) bool {
	if again {
		return a.repeats < a.limit
	}
	return a.reads < a.limit
}

// waits tells whether the READ that begins at psn will yet be answered from its beginning.
func (a *answers) waits(psn wire.PSN) bool {
	for i := range a.n {
		if w := a.at(i); w.read && w.psn == psn {
			return true
		}
	}
	return false
}

// serve adds the answer to a READ for which there is room.
func (a *answers) serve(w answer) {
	w.read = true
	*a.at(a.n) = w
	a.n++
	if w.again {
		a.repeats++
	} else {
		a.reads++
	}
}

func (a *answers) pop() {
	if w := a.at(0); w.read {
		if w.again {
			a.repeats--
		} else {
			a.reads--
		}
	}
	if a.head++; a.head == len(a.ring) {
		a.head = 0
	}
	a.n--
}

// next makes the next packet.
func (a *answers) next(q *QP, p *Packet) bool {
	for a.n > 0 {
		w := a.at(0)
		if !w.read {
			p.Data = [2][]byte{}
			p.set(&wire.Header{Opcode: wire.Ack, DestQP: q.cfg.RemoteQPN, PSN: w.psn, Syndrome: w.syndrome, MSN: w.msn})
			a.pop()
			return true
		}
		if a.nextOfRead(q, w, p) {
			return true
		}
		a.closed(w)
	}
	return false
}

// closed ends the answer at the head, whose window was closed meanwhile. Who asks again for what it had is told nothing.
func (a *answers) closed(w *answer) {
	refusal := answer{syndrome: wire.NakRemoteAccess, psn: w.psn, msn: w.msn}
	if w.again {
		a.pop()
		return
	}
	a.reads--
	*w = refusal
}

func (a *answers) nextOfRead(q *QP, w *answer, p *Packet) bool {
	n := min(w.left, q.cfg.MTU)
	var b []byte
	if n > 0 {
		var ok bool
		if b, ok = q.mem.Resolve(w.rkey, PeerReads, w.va, n); !ok {
			q.stats.AccessRefused++
			return false
		}
	}
	h := wire.Header{
		Opcode: responseOpcode(!w.begun, n == w.left), DestQP: q.cfg.RemoteQPN, PSN: w.psn,
		Syndrome: wire.AckNoCredits, MSN: w.msn,
	}
	p.Data = [2][]byte{b}
	p.set(&h)
	w.begun = true
	w.psn = w.psn.Add(1)
	w.va += uint64(n)
	if w.left -= n; w.left == 0 {
		a.pop()
	}
	return true
}

func responseOpcode(first, last bool) wire.Opcode {
	switch {
	case first && last:
		return wire.ReadResponseOnly
	case first:
		return wire.ReadResponseFirst
	case last:
		return wire.ReadResponseLast
	}
	return wire.ReadResponseMiddle
}
