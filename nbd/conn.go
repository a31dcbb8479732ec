package nbd

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"golang.org/x/sys/unix"

	"iserblk/internal/lane"
)

// Conn is one client after its handshake. All but its exported methods belongs to its hub's lane.
type Conn struct {
	hub    *hub
	fd     int
	file   *lane.File
	rules  rules
	header int // length of a request's header
	done   chan struct{}
	err    error // valid after done is closed
	links  connLinks

	// Reading.
	in       [inSize]byte
	r, w     int   // the unread part of in
	payload  *slot // whose payload is on its way
	want     uint64
	got      uint64 // of want
	writes   int    // reads of one header at a time left to do, see room
	readable bool
	hangup   bool // the client has ended its side: read to the end

	// Writing.
	out     slotList // replies
	sent    int      // bytes of the first of them
	blocked bool     // the socket takes no more

	held    int  // slots
	closing bool // no more requests
	dead    bool // no more replies
	gone    bool
}

const (
	// inSize is how much is read at once while requests have no payload: many headers.
	inSize = 32 * extRequestLen
	// singly is for how many requests after a write headers are read one by one, so that payloads need not be copied.
	singly = 16
	// receiveBudget is how many reads a connection has in one turn.
	receiveBudget = 8
)

// Done is closed when the connection is over and its slots have come back. Any goroutine may call it.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why, after Done: nil when the client said goodbye (NBD_CMD_DISC) or the connection was stopped, io.EOF when it hung up between
// two requests.
func (c *Conn) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// Stop has the connection take no more requests, answer those in flight and end. It returns at once, on any goroutine.
func (c *Conn) Stop() { c.hub.lane.Post(c.drain) }

// open begins to serve the connection, on the lane.
func (c *Conn) open() {
	h := c.hub
	if h.closed {
		c.err = ErrClosed
		c.end()
		return
	}
	h.conns = append(h.conns, c)
	c.file = h.lane.Watch(c.fd, c)
	if h.exp.closing.Load() {
		c.drain()
	}
}

// FileReady notes what the socket is ready for (lane.FileHandler).
func (c *Conn) FileReady(events uint32) {
	if events&(unix.POLLHUP|unix.POLLERR|unix.POLLRDHUP) != 0 {
		c.hangup = true
	}
	if events&(unix.POLLOUT|unix.POLLHUP|unix.POLLERR) != 0 && c.blocked {
		c.blocked = false
		c.hub.dirty.push(c)
	}
	c.readable = true
	c.hub.ready.push(c)
}

// receive takes what the client has sent until there is no more of it, no slot for it, or others should have a turn.
func (c *Conn) receive() {
	for range receiveBudget {
		if !c.parse() || !c.readable {
			return
		}
		c.read()
	}
	c.hub.ready.push(c)
}

// parse begins the requests that have come. It is false when nothing is to be read until something completes.
func (c *Conn) parse() bool {
	for !c.closing && !c.blocked {
		switch {
		case c.payload != nil:
			if !c.fill() {
				return true
			}
		case c.w-c.r < c.header:
			c.w = copy(c.in[:], c.in[c.r:c.w])
			c.r = 0
			return true
		case !c.request():
			return false
		}
	}
	return false
}

// request begins the request whose header has come. It is false when it has to wait for a slot, and after the last.
func (c *Conn) request() bool {
	r, ok := c.parseHeader()
	switch {
	case !ok:
		c.fail(fmt.Errorf("%w: no request where one should be", ErrProtocol))
		return false
	case r.cmd == cmdDisc:
		c.drain()
		return false
	}
	payload := c.rules.follows(&r)
	if payload > mostSkipped {
		c.fail(fmt.Errorf("%w: a payload of %d bytes", ErrProtocol, payload))
		return false
	}
	s := c.hub.acquire(c)
	if s == nil {
		c.hub.hungry.push(c)
		return false
	}
	c.r += c.header
	s.cmd, s.why = r, c.rules.check(&r, c.hub.exp.size.Load())
	if payload == 0 {
		c.writes = max(c.writes-1, 0)
		c.hub.start(s)
		return true
	}
	c.writes = singly
	c.payload, c.want, c.got = s, payload, 0
	return true
}

func (c *Conn) parseHeader() (request, bool) {
	if c.rules.form == Extended {
		return parseExtRequest(c.in[c.r:c.w])
	}
	return parseRequest(c.in[c.r:c.w])
}

// fill gives the payload what came along with its header, and starts the request when all of it is there.
func (c *Conn) fill() bool {
	if n := min(c.want-c.got, uint64(c.w-c.r)); n > 0 {
		if c.payload.why == nil {
			copy(c.payload.mem[c.got:c.want], c.in[c.r:c.w])
		}
		c.r += int(n)
		c.got += n
	}
	if c.got < c.want {
		return false
	}
	s := c.payload
	c.payload = nil
	c.hub.start(s)
	return true
}

// read makes one system call: for the rest of a payload, if one is on its way, and then for headers.
func (c *Conn) read() {
	h := c.hub
	v := h.iov[:0]
	want := 0
	if c.payload != nil {
		p := c.target()
		v, want = appendIovec(v, p), len(p)
		c.r, c.w = 0, 0 // the payload has had what was there
	}
	if c.payload == nil || uint64(want) == c.want-c.got {
		p := c.in[c.w:c.room()]
		v, want = appendIovec(v, p), want+len(p)
	}
	n, errno := h.call(unix.SYS_RECVMSG, c.fd, v)
	switch {
	case errno == unix.EAGAIN:
		c.readable = false
	case errno == unix.EINTR:
	case errno != 0:
		c.fail(&Error{Op: "read", Err: errno})
	case n == 0:
		c.eof()
	default:
		c.readable = n == want || c.hangup
		c.took(n)
	}
}

// target is where the payload goes on: to the slot, or nowhere if the request is refused.
func (c *Conn) target() []byte {
	left := c.want - c.got
	if c.payload.why != nil {
		return c.hub.skip[:min(left, uint64(len(c.hub.skip)))]
	}
	return c.payload.mem[c.got:c.want]
}

// room is how far in may be filled: up to the end of a header where payloads are to be expected after it.
func (c *Conn) room() int {
	if c.writes > 0 || c.payload != nil {
		return c.header
	}
	return len(c.in)
}

// took shares n bytes out among payload and headers.
func (c *Conn) took(n int) {
	if c.payload != nil {
		m := min(uint64(n), c.want-c.got)
		if c.payload.why != nil {
			m = min(m, skipSize)
		}
		c.got += m
		n -= int(m)
	}
	c.w += n
}

// eof ends the reading side. In the middle of a request that is an error.
func (c *Conn) eof() {
	if c.payload != nil || c.w > c.r {
		c.fail(&Error{Op: "read", Err: io.ErrUnexpectedEOF})
		return
	}
	c.err = io.EOF
	c.drain()
}

// drain takes no more requests, and ends the connection when its last reply has left.
func (c *Conn) drain() {
	c.closing = true
	c.dropPayload()
	c.hub.dirty.push(c)
}

// fail ends the connection: replies not sent are dropped, requests that the unit has come to their end by themselves.
func (c *Conn) fail(err error) {
	if c.gone || c.dead {
		return
	}
	c.err, c.dead, c.closing = err, true, true
	_ = unix.Shutdown(c.fd, unix.SHUT_RDWR) // the client need not wait for our unit to know
	c.dropPayload()
	for s := c.out.pop(); s != nil; s = c.out.pop() {
		c.hub.release(s)
	}
	c.hub.dirty.push(c)
}

func (c *Conn) dropPayload() {
	if s := c.payload; s != nil {
		c.payload = nil
		c.hub.release(s)
	}
}

// settle ends the connection if there is nothing left to wait for.
func (c *Conn) settle() {
	if !c.closing || c.held > 0 || c.gone {
		return
	}
	c.file.Close()
	c.hub.forget(c)
	c.end()
}

// end closes the socket, gives the ticket back and tells.
func (c *Conn) end() {
	c.gone = true
	_ = unix.Shutdown(c.fd, unix.SHUT_RDWR) // the kernel may hold on to the file a moment longer
	_ = unix.Close(c.fd)
	c.hub.tickets.Add(-1)
	close(c.done)
}

// broken tells whether an error only says that the client is no more.
func broken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.ErrUnexpectedEOF)
}
