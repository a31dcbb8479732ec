package softroce

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/verbs"
	"iserblk/verbs/softroce/cm"
	"iserblk/verbs/softroce/rc"
	"iserblk/verbs/softroce/wire"
)

var _ verbs.Conn = (*conn)(nil)

var errDisconnected = errors.New("the peer ended the connection")

// conn is a connection, of either end.
type conn struct {
	end      *endpoint
	listener *listener // of the passive end
	peer     netip.AddrPort
	gid      netip.Addr // the peer's address as packets show it: without a zone
	local    netip.AddrPort
	info     verbs.DeviceInfo
	events   *eventQueue
	qpn      uint32
	id       cm.ID     // guarded by endpoint.mu
	cfg      rc.Config // what is known before the peer has answered
	first    []verbs.RecvWR
	private  []byte
	fd       int // of the sending socket

	outcome chan error // of the attempt to connect, once
	decided atomic.Bool
	gone    sync.Once     // closes ended
	ended   chan struct{} // the connection manager has forgotten the connection
	isGone  atomic.Bool   // the peer has ended it
	heard   atomic.Bool   // a packet has come

	closeOnce sync.Once

	mu        sync.Mutex
	qp        *rc.QP // nil until the peer has answered
	mem       *memory
	in        *inBatch // the driver's
	out       *outBatch
	flowIn    *wire.Flow
	receiver  int            // the receiving socket, -1 until there is one
	from      netip.AddrPort // where it receives from
	learned   time.Duration  // when
	inbound   int            // see InboundLimit; the driver's
	wake      wake
	blocked   time.Duration // until when sending rests because the socket is full
	broken    bool          // the queue pair's error was told
	quiet     bool          // by Abort, which is not news
	silent    bool          // the peer does not answer
	closed    bool
	strays    int // packets of the batch in in that are for somebody else
	strayAt   [batchLen]uint8
	undrained bool

	buffers   []byte // of the passive end, for receives
	bufferLen int
}

func (c *conn) PeerPrivateData() []byte    { return c.private }
func (c *conn) LocalAddr() netip.AddrPort  { return c.local }
func (c *conn) RemoteAddr() netip.AddrPort { return c.peer }
func (c *conn) Device() verbs.DeviceInfo   { return c.info }
func (c *conn) MaxInline() int             { return c.cfg.MaxInline }
func (c *conn) Fd() int                    { return c.wake.epoll }
func (c *conn) Events() <-chan verbs.Event { return c.events.ch }

// Keys are the keys of a region on this connection alone, zero if it is not registered.
func (c *conn) Keys(r verbs.RegionID) verbs.Keys {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mem.keys(r)
}

// Sync gives keys to new regions of the arena and takes those of released ones.
func (c *conn) Sync() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return verbs.ErrClosed
	}
	c.mem.sync()
	return nil
}

// Abort ends the traffic: nothing that arrives is looked at any more, and all that is posted is flushed.
func (c *conn) Abort() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.quiet = true
		c.qp.Abort()
		c.after(now())
	}
	return nil
}

// Arm asks for a wake-up by Fd.
func (c *conn) Arm() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return verbs.ErrClosed
	}
	c.wake.arm(now(), c.deadline())
	if c.undrained {
		c.wake.signal()
	}
	return nil
}

// deadline is when the protocol or the socket wants attention, 0 for never.
func (c *conn) deadline() time.Duration {
	d, ok := c.qp.Deadline()
	if !ok {
		d = 0
	}
	if c.blocked != 0 && (d == 0 || c.blocked < d) {
		d = c.blocked
	}
	return d
}

// after follows whatever may have made packets, completions or an error. c.mu is held.
func (c *conn) after(t time.Duration) {
	c.transmit(t)
	c.report()
	if c.qp.Pending() > 0 {
		c.wake.signal()
	}
	c.wake.hurry(t, c.deadline())
}

// report tells, once, that the queue pair is in error, unless we did that. c.mu is held.
func (c *conn) report() {
	s := c.qp.Status()
	if s == verbs.StatusSuccess || c.broken {
		return
	}
	c.broken, c.silent = true, s == verbs.StatusRetryExc
	if !c.quiet {
		c.events.post(verbs.EventQPError, s)
	}
}

// blockTime is how long sending rests when the socket is full: about what a network of 10 Gb/s needs for a MiB.
const blockTime = time.Millisecond

// transmit sends what the queue pair has to send. c.mu is held.
func (c *conn) transmit(t time.Duration) {
	if c.blocked != 0 {
		if t < c.blocked {
			return
		}
		c.blocked = 0
	}
	for c.out.fill(c.qp, t) {
		blocked, failed := c.out.flush()
		switch {
		case failed == unix.EMSGSIZE:
			c.tooLong()
			return
		case blocked:
			c.blocked = t + blockTime
			return
		}
	}
}

// tooLong ends the connection: the path's MTU has fallen below what both ends agreed on. The next connection takes the
// new one.
func (c *conn) tooLong() {
	c.quiet = true
	c.qp.Abort()
	c.events.post(verbs.EventQPError, &verbs.OpError{
		Op: "send to", Peer: c.peer.String(), Err: unix.EMSGSIZE, Hint: "the path's MTU has become smaller",
	})
}

// disconnected: the connection manager says that the peer has ended the connection.
func (c *conn) disconnected(err error) {
	c.isGone.Store(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.qp == nil {
		return
	}
	c.quiet = true
	c.qp.Abort()
	c.events.post(verbs.EventDisconnected, err)
	c.after(now())
}

// decide tells the outcome of the attempt to connect, and says whether this is the first word about it.
func (c *conn) decide(err error) bool {
	if !c.decided.CompareAndSwap(false, true) {
		return false
	}
	c.outcome <- err
	return true
}
