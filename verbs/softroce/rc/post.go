package rc

import "iserblk/verbs"

// PostSend posts SENDs and returns how many were taken: all, or those before the one that the error is about, which is
// ErrFull, ErrKey or ErrTooLong. Their memory belongs to the queue pair until their completions. Next is to be called
// afterwards.
func (q *QP) PostSend(wrs []verbs.SendWR) (int, error) {
	for i := range wrs {
		if err := q.postSend(&wrs[i]); err != nil {
			return i, err
		}
	}
	return len(wrs), nil
}

func (q *QP) postSend(wr *verbs.SendWR) error {
	var data [2][]byte
	if wr.NumSGE > 2 {
		return ErrTooLong
	}
	for i := range data[:wr.NumSGE] {
		var err error
		if data[i], err = q.local(&wr.SGE[i], wr.Inline != 0); err != nil {
			return err
		}
	}
	w, err := q.newSend(len(data[0]) + len(data[1]))
	if err != nil {
		return err
	}
	w.id, w.op, w.signaled, w.data = wr.ID, opSend, wr.Signaled != 0, data
	if wr.Inline != 0 {
		if w.length > len(w.inline) {
			return ErrTooLong
		}
		n := copy(w.inline, data[0])
		n += copy(w.inline[n:], data[1])
		w.data = [2][]byte{w.inline[:n]}
	}
	q.take(w)
	return nil
}

func (q *QP) local(s *verbs.SGE, inline bool) ([]byte, error) {
	b, ok := q.mem.Resolve(s.LKey, Local, s.Addr, int(s.Len))
	if !ok && inline {
		b, ok = q.mem.Find(s.Addr, int(s.Len))
	}
	if !ok {
		return nil, ErrKey
	}
	return b, nil
}

// newSend finds the place for a work request. It is not posted before take.
func (q *QP) newSend(length int) (*sendWQE, error) {
	if q.sq.full() {
		return nil, ErrFull
	}
	if length > maxMessage {
		return nil, ErrTooLong
	}
	w := q.sq.at(q.sq.n)
	w.length = length
	w.packets = max(1, (length+q.cfg.MTU-1)/q.cfg.MTU)
	w.first = q.sq.psn
	return w, nil
}

func (q *QP) take(w *sendWQE) {
	q.sq.n++
	q.sq.psn = w.past()
	for q.status != verbs.StatusSuccess && q.sq.n > 0 {
		q.completeSend(verbs.StatusFlushed)
	}
}

// PostMessage posts a SEND of b, which belongs to the queue pair until the completion.
func (q *QP) PostMessage(id uint64, b []byte) error {
	return q.postRDMA(sendWQE{id: id, op: opSend}, b)
}

// PostWrite posts an RDMA WRITE of b to the peer's memory at va. b belongs to the queue pair until the completion.
func (q *QP) PostWrite(id uint64, rkey uint32, va uint64, b []byte) error {
	return q.postRDMA(sendWQE{id: id, op: opWrite, rkey: rkey, va: va}, b)
}

// PostRead posts an RDMA READ that fills b from the peer's memory at va. b belongs to the queue pair until the
// completion.
func (q *QP) PostRead(id uint64, rkey uint32, va uint64, b []byte) error {
	if q.cfg.ORD == 0 {
		return ErrFull
	}
	return q.postRDMA(sendWQE{id: id, op: opRead, rkey: rkey, va: va}, b)
}

func (q *QP) postRDMA(of sendWQE, b []byte) error {
	w, err := q.newSend(len(b))
	if err != nil {
		return err
	}
	w.id, w.op, w.rkey, w.va = of.id, of.op, of.rkey, of.va
	w.signaled, w.data = true, [2][]byte{b}
	q.take(w)
	return nil
}

// PostRecv posts buffers for incoming SENDs and returns how many were taken, as PostSend does. A buffer whose LKey is 0
// is found by its address.
func (q *QP) PostRecv(wrs []verbs.RecvWR) (int, error) {
	for i := range wrs {
		s := &wrs[i].SGE
		b, err := q.local(s, s.LKey == 0)
		if err == nil {
			err = q.PostBuffer(wrs[i].ID, b)
		}
		if err != nil {
			return i, err
		}
	}
	return len(wrs), nil
}

// PostBuffer posts one buffer for an incoming SEND. It belongs to the queue pair until its completion.
func (q *QP) PostBuffer(id uint64, b []byte) error {
	if q.rq.full() {
		return ErrFull
	}
	q.rq.push(id, b)
	if q.status != verbs.StatusSuccess {
		q.completeRecv(verbs.WC{Status: verbs.StatusFlushed})
	}
	return nil
}
