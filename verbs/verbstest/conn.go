package verbstest

import (
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"iserblk/verbs"
)

var _ verbs.Conn = (*conn)(nil)

// state is that of a queue pair.
type state uint8

const (
	ready  state = iota // RTS
	failed              // ERR: everything posted flushes
	closed
)

const (
	maxInlineBytes = 256
	injectable     = 16 // room for completions that Peer.Inject makes up
)

// send is a posted send. An inline one carries its bytes.
type send struct {
	wr     verbs.SendWR
	inline [maxInlineBytes]byte
	n      int // inline bytes
}

// conn is the active end of a connection.
type conn struct {
	attr      verbs.DialAttr
	local     netip.AddrPort
	maxInline int
	private   []byte
	onClose   func()
	fd        int
	events    chan verbs.Event

	mu         sync.Mutex
	cond       *sync.Cond // whatever a Peer waits for
	mem        memory
	state      state
	sends      ring[send]
	recvs      ring[verbs.RecvWR]
	cq         ring[verbs.WC]
	sendsTaken int  // posted and not yet polled
	silent     int  // of them: done without a completion; the next one that is polled frees them
	recvsTaken int  // posted and not yet polled
	armed      bool // the next completion makes fd readable
	count      [8]byte
	stalled    bool // nothing gets through either way
	holding    bool // flushed work requests do not complete
	gone       bool // the peer has disconnected: sends are not acknowledged
	waits      int  // sends of the peer that found no receive
}

func newConn(n *Net, l *Listener, a verbs.DialAttr) (*conn, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	c := &conn{
		attr: a, fd: fd, maxInline: min(n.inline(a.MaxInline), maxInlineBytes),
		local:  netip.AddrPortFrom(localHost, n.localPort()),
		events: make(chan verbs.Event, 16),
		mem:    newMemory(a.Arena),
		sends:  newRing[send](a.SendDepth),
		recvs:  newRing[verbs.RecvWR](a.RecvDepth),
		cq:     newRing[verbs.WC](a.SendDepth + a.RecvDepth + injectable),
	}
	c.cond = sync.NewCond(&c.mu)
	if a.Src.IsValid() {
		c.local = netip.AddrPortFrom(a.Src, c.local.Port())
	}
	for _, wr := range a.Recvs {
		wr.SGE.LKey = c.mem.lkeyAt(wr.SGE.Addr)
		c.postRecv(wr)
	}
	return c, nil
}

func (c *conn) PeerPrivateData() []byte    { return c.private }
func (c *conn) LocalAddr() netip.AddrPort  { return c.local }
func (c *conn) RemoteAddr() netip.AddrPort { return c.attr.Dst }
func (c *conn) Device() verbs.DeviceInfo   { return device() }
func (c *conn) MaxInline() int             { return c.maxInline }
func (c *conn) Fd() int                    { return c.fd }
func (c *conn) Events() <-chan verbs.Event { return c.events }

func (c *conn) Keys(r verbs.RegionID) verbs.Keys {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mem.keys(r)
}

func (c *conn) Sync() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == closed {
		return verbs.ErrClosed
	}
	c.mem.sync()
	return nil
}

// Arm takes what is on the eventfd off it and asks for the next completion.
func (c *conn) Arm() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == closed {
		return verbs.ErrClosed
	}
	if _, err := unix.Read(c.fd, c.count[:]); err != nil && err != unix.EAGAIN {
		return err
	}
	c.armed = true
	return nil
}

// notify makes fd readable if that was asked for. c.mu is held.
func (c *conn) notify() {
	if !c.armed {
		return
	}
	c.armed = false
	c.count = [8]byte{1}
	_, _ = unix.Write(c.fd, c.count[:]) // a counter at its limit is readable anyway
}

// raise reports an event; a full channel loses it, as no test lets sixteen pile up. c.mu is held.
func (c *conn) raise(kind verbs.EventKind, err error) {
	if c.state == closed {
		return
	}
	select {
	case c.events <- verbs.Event{Kind: kind, Err: err}:
	default:
	}
}

// Abort moves the queue pair to the error state.
func (c *conn) Abort() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.enterError(verbs.StatusFlushed)
	return nil
}

// enterError ends the traffic: the oldest send completes with first, the rest is flushed. c.mu is held.
func (c *conn) enterError(first verbs.Status) {
	if c.state != ready {
		return
	}
	c.state = failed
	c.flush(first)
	c.cond.Broadcast()
}

// flush completes what is posted, unless that is being held back. c.mu is held.
func (c *conn) flush(first verbs.Status) {
	if c.holding {
		return
	}
	for c.sends.n > 0 {
		c.complete(verbs.WC{ID: c.sends.pop().wr.ID, Status: first})
		first = verbs.StatusFlushed
	}
	for c.recvs.n > 0 {
		c.complete(verbs.WC{ID: c.recvs.pop().ID, Status: verbs.StatusFlushed, Op: verbs.WCRecv})
	}
}

// Close ends everything. Events is closed, the descriptor too.
func (c *conn) Close() error {
	c.mu.Lock()
	if c.state == closed {
		c.mu.Unlock()
		return nil
	}
	c.state = closed
	c.sends.n, c.recvs.n, c.cq.n = 0, 0, 0
	close(c.events)
	err := unix.Close(c.fd)
	c.cond.Broadcast()
	c.mu.Unlock()
	if c.onClose != nil {
		c.onClose()
	}
	return err
}
