package softroce

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/verbs"
	"iserblk/verbs/softroce/rc"
	"iserblk/verbs/softroce/wire"
)

// maxRounds bounds how many batches one Poll takes.
const maxRounds = 16

// PostSend posts the batch and sends it.
func (c *conn) PostSend(wrs []verbs.SendWR) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, verbs.ErrClosed
	}
	t := now()
	n, err := c.qp.PostSend(wrs)
	c.after(t)
	return n, err
}

// PostRecv posts the batch.
func (c *conn) PostRecv(wrs []verbs.RecvWR) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, verbs.ErrClosed
	}
	n, err := c.qp.PostRecv(wrs)
	if c.qp.Pending() > 0 {
		c.wake.signal()
	}
	return n, err
}

// Poll receives, runs the protocol, sends, and takes completions.
func (c *conn) Poll(wcs []verbs.WC) (int, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return 0, verbs.ErrClosed
	}
	c.work()
	n := c.qp.Poll(wcs)
	strays := c.strays
	c.mu.Unlock()
	if strays > 0 {
		c.redirect(strays)
	}
	return n, nil
}

// work is what a driver does for its connection. c.mu is held.
func (c *conn) work() {
	c.strays, c.undrained = 0, false
	t := now()
	for round := 0; c.receiver >= 0; round++ {
		n := c.in.receive(c.receiver)
		if c.inbound == 0 && c.in.overflowed(n) {
			c.limitInbound()
		}
		for i := range n {
			c.take(t, i)
		}
		if n < batchLen || c.strays > 0 {
			c.undrained = n == batchLen
			break
		}
		if round == maxRounds {
			c.undrained = true
			break
		}
		c.transmit(t)
	}
	if d := c.deadline(); d != 0 && d <= t {
		c.qp.Tick(t)
	}
	c.transmit(t)
	c.report()
}

// take gives packet i of the driver's batch to the queue pair.
func (c *conn) take(t time.Duration, i int) {
	pkt, from := c.in.packet(i)
	qpn, ok := wire.DestQP(pkt)
	switch {
	case !ok:
	case qpn != c.qpn:
		c.strayAt[c.strays] = uint8(i)
		c.strays++
	default:
		c.input(t, pkt, from)
	}
}

// redirect brings packets of the driver's batch to whom they are for: two peers may send from the same port.
func (c *conn) redirect(n int) {
	for _, i := range c.strayAt[:n] {
		pkt, from := c.in.packet(int(i))
		c.end.dispatch(pkt, from, true)
	}
}

// input checks where a packet is from and that it is whole. It says whether the queue pair got it. c.mu is held.
func (c *conn) input(t time.Duration, pkt []byte, from netip.AddrPort) bool {
	if from.Addr() != c.gid || !c.flowIn.Check(from.Port(), pkt) {
		return false
	}
	c.qp.Receive(t, pkt[:len(pkt)-wire.ICRCLen])
	return true
}

// takeFromLobby takes a packet that came to the lobby, because the connection does not receive from its port yet.
func (c *conn) takeFromLobby(pkt []byte, from netip.AddrPort) {
	c.mu.Lock()
	if c.closed || c.qp == nil {
		c.mu.Unlock()
		return
	}
	t := now()
	if c.input(t, pkt, from) {
		c.learn(t, from)
		c.after(t)
	}
	c.mu.Unlock()
	if c.listener != nil && c.heard.CompareAndSwap(false, true) {
		c.end.heard(c)
	}
}

// relearn is how often a connection may change the port it receives from: a peer's never changes, as far as is known, and
// a stranger must not be able to keep us busy with it.
const relearn = time.Second

// learn makes the socket that receives from the peer's port. Without it the lobby does its work, slower. c.mu is held.
func (c *conn) learn(t time.Duration, from netip.AddrPort) {
	if from == c.from || c.receiver >= 0 && t-c.learned < relearn {
		return
	}
	fd, err := openReceiver(c.end.local, netip.AddrPortFrom(from.Addr().WithZone(c.end.local.Zone()), from.Port()))
	if err != nil {
		return
	}
	if err := c.wake.watch(fd); err != nil {
		unix.Close(fd)
		return
	}
	if c.receiver >= 0 {
		unix.Close(c.receiver)
	}
	c.receiver, c.from, c.learned = fd, from, t
}

// fill makes packets until the batch is full or there are no more; false when there are none at all.
func (b *outBatch) fill(qp *rc.QP, t time.Duration) bool {
	for !b.full() && qp.Next(t, &b.packets[b.n]) {
		b.add()
	}
	return b.n > 0
}
