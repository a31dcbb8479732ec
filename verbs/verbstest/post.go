package verbstest

import (
	"golang.org/x/sys/unix"

	"iserblk/verbs"
)

// takenBySend tells the completions of sends from those of receives, to count what is free; a real WC of a failed
// work request does not say.
const takenBySend verbs.WCOp = 1 << 30

func (c *conn) PostSend(wrs []verbs.SendWR) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == closed {
		return 0, verbs.ErrClosed
	}
	for i := range wrs {
		if err := c.postSend(&wrs[i]); err != nil {
			return i, err
		}
	}
	if c.gone {
		c.enterError(verbs.StatusRetryExc)
	}
	c.cond.Broadcast()
	return len(wrs), nil
}

func (c *conn) postSend(wr *verbs.SendWR) error {
	if c.sendsTaken == c.attr.SendDepth {
		return unix.ENOMEM
	}
	if wr.NumSGE < 1 || wr.NumSGE > 2 {
		return unix.EINVAL
	}
	s := c.sends.push()
	s.wr, s.n = *wr, 0
	if wr.Inline != 0 {
		if !c.copyInline(s) {
			c.sends.n--
			return unix.EINVAL
		}
	}
	c.sendsTaken++
	if c.state == failed {
		c.flush(verbs.StatusFlushed)
	}
	return nil
}

// copyInline takes the bytes of an inline send at once.
func (c *conn) copyInline(s *send) bool {
	for _, sge := range s.wr.SGE[:s.wr.NumSGE] {
		b, ok := c.mem.anywhere(sge.Addr, int(sge.Len))
		if !ok || s.n+len(b) > c.maxInline {
			return false
		}
		s.n += copy(s.inline[s.n:], b)
	}
	return true
}

func (c *conn) PostRecv(wrs []verbs.RecvWR) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == closed {
		return 0, verbs.ErrClosed
	}
	for i := range wrs {
		if c.recvsTaken == c.attr.RecvDepth {
			return i, unix.ENOMEM
		}
		c.postRecv(wrs[i])
	}
	if c.state == failed {
		c.flush(verbs.StatusFlushed)
	}
	c.cond.Broadcast()
	return len(wrs), nil
}

func (c *conn) postRecv(wr verbs.RecvWR) {
	*c.recvs.push() = wr
	c.recvsTaken++
}

// complete adds a completion. c.mu is held.
func (c *conn) complete(wc verbs.WC) {
	if wc.Op != verbs.WCRecv {
		wc.Op = takenBySend
	}
	*c.cq.push() = wc
	c.notify()
}

func (c *conn) Poll(wcs []verbs.WC) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == closed {
		return 0, verbs.ErrClosed
	}
	n := 0
	for n < len(wcs) && c.cq.n > 0 {
		wcs[n] = *c.cq.pop()
		c.polled(&wcs[n])
		n++
	}
	return n, nil
}

// polled gives the place of a completed work request free and hides what a device would not tell.
func (c *conn) polled(wc *verbs.WC) {
	if wc.Op == takenBySend {
		c.sendsTaken -= 1 + c.silent
		c.silent = 0
		wc.Op = verbs.WCSend
	} else {
		c.recvsTaken--
	}
	if wc.Status != verbs.StatusSuccess {
		wc.Op = ^verbs.WCOp(0)
	}
}
