package softroce

import (
	"context"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"iserblk/verbs"
)

// peer is the passive end of a connection. One goroutine drives it; operations wait for their completions.
type peer struct {
	c      *conn
	file   *os.File // the connection's Fd, for Go's poller
	raw    syscall.RawConn
	driver chan struct{} // closed when the driver has ended

	wcs    [batchLen]verbs.WC // the driver's, as are got and failed
	got    int
	failed error

	slots    chan int // free operations
	ops      [peerSends]chan verbs.Status
	messages chan message
	dead     chan struct{} // closed when the connection is over
	deadOnce sync.Once
	close    sync.Once
}

// message is a filled receive buffer.
type message struct {
	buffer int
	len    int
}

// recvID marks the work request IDs of receives.
const recvID = 1 << 32

// receives gives the queue pair of a passive connection its buffers. They take memory only once they are used.
func (c *conn) receives(depth, size int) {
	c.buffers, c.bufferLen = make([]byte, depth*size), size
	for i := range depth {
		_ = c.qp.PostBuffer(recvID|uint64(i), c.buffer(i)) // there is room for all of them
	}
}

func (c *conn) buffer(i int) []byte { return c.buffers[i*c.bufferLen : (i+1)*c.bufferLen] }

// established hands a connection to Accept. e.mu is held.
func (l *listener) established(c *conn) {
	if !c.decide(nil) {
		return
	}
	p, err := newPeer(c)
	if err != nil {
		go c.Close()
		return
	}
	select {
	case <-l.done:
		go p.Close()
		return
	default:
	}
	select {
	case l.queue <- p:
	default:
		go p.Close()
	}
}

func newPeer(c *conn) (*peer, error) {
	fd, err := unix.FcntlInt(uintptr(c.wake.epoll), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &peer{
		c: c, file: os.NewFile(uintptr(fd), "softroce-peer"), driver: make(chan struct{}), dead: make(chan struct{}),
		slots: make(chan int, peerSends), messages: make(chan message, c.cfg.RecvDepth),
	}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		p.file.Close()
		return nil, err
	}
	for i := range p.ops {
		p.ops[i] = make(chan verbs.Status, 1)
		p.slots <- i
	}
	go p.drive()
	return p, nil
}

func (p *peer) PrivateData() []byte        { return p.c.private }
func (p *peer) LocalAddr() netip.AddrPort  { return p.c.listener.attr.Addr }
func (p *peer) RemoteAddr() netip.AddrPort { return p.c.peer }

// drive polls the connection until Close.
func (p *peer) drive() {
	defer close(p.driver)
	poll := p.poll // made once
	for {
		if err := p.raw.Read(poll); err != nil || p.failed != nil {
			return
		}
		p.complete(p.wcs[:p.got])
	}
}

// poll says whether there is something to do; if not, the poller waits for Fd.
func (p *peer) poll(uintptr) bool {
	p.got = 0
	if p.failed = p.c.Arm(); p.failed == nil {
		p.got, p.failed = p.c.Poll(p.wcs[:])
	}
	return p.got > 0 || p.failed != nil
}

func (p *peer) complete(wcs []verbs.WC) {
	for i := range wcs {
		wc := &wcs[i]
		switch {
		case wc.ID&recvID == 0:
			p.ops[wc.ID] <- wc.Status
		case wc.Status == verbs.StatusSuccess:
			p.messages <- message{int(wc.ID &^ recvID), int(wc.Len)} // there is room for all buffers
		}
		if wc.Status != verbs.StatusSuccess {
			p.over()
		}
	}
}

// over ends all waiting: the queue pair is in error.
func (p *peer) over() { p.deadOnce.Do(func() { close(p.dead) }) }

// Recv waits for one message. What came before the connection ended is still received.
func (p *peer) Recv(ctx context.Context, buf []byte) (int, error) {
	select {
	case m := <-p.messages:
		return p.consume(m, buf)
	default:
	}
	select {
	case m := <-p.messages:
		return p.consume(m, buf)
	case <-p.dead:
		return 0, verbs.ErrClosed
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// consume copies a message and posts its buffer again.
func (p *peer) consume(m message, buf []byte) (int, error) {
	b := p.c.buffer(m.buffer)
	n := copy(buf, b[:m.len])
	p.c.mu.Lock()
	if !p.c.closed {
		_ = p.c.qp.PostBuffer(recvID|uint64(m.buffer), b) // where it came from there is room
		p.c.after(now())
	}
	p.c.mu.Unlock()
	if n < m.len {
		return n, verbs.StatusLocLenErr
	}
	return n, nil
}

// Send delivers one message. It returns when the other end has it.
func (p *peer) Send(msg []byte) error { return p.do(work{send: true, data: msg}) }

// RDMAWrite writes b to the other end's memory, and returns when it is there.
func (p *peer) RDMAWrite(rkey uint32, va uint64, b []byte) error {
	return p.do(work{write: true, rkey: rkey, va: va, data: b})
}

// RDMARead fills b from the other end's memory.
func (p *peer) RDMARead(rkey uint32, va uint64, b []byte) error {
	return p.do(work{rkey: rkey, va: va, data: b})
}

// work is a SEND, an RDMA WRITE, or else an RDMA READ.
type work struct {
	send, write bool
	rkey        uint32
	va          uint64
	data        []byte
}

// do posts an operation and waits until it is done.
func (p *peer) do(w work) error {
	var slot int
	select {
	case slot = <-p.slots:
	case <-p.dead:
		return verbs.ErrClosed
	}
	if err := p.post(uint64(slot), w); err != nil {
		p.slots <- slot
		return err
	}
	status := <-p.ops[slot]
	p.slots <- slot
	if status != verbs.StatusSuccess {
		return status
	}
	return nil
}

func (p *peer) post(id uint64, w work) (err error) {
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return verbs.ErrClosed
	case w.send:
		err = c.qp.PostMessage(id, w.data)
	case w.write:
		err = c.qp.PostWrite(id, w.rkey, w.va, w.data)
	default:
		err = c.qp.PostRead(id, w.rkey, w.va, w.data)
	}
	c.after(now())
	return err
}

// Close disconnects. Operations that wait fail.
func (p *peer) Close() error {
	p.close.Do(func() {
		p.file.Close()
		<-p.driver
		p.over()
		_ = p.c.Abort()
		p.flush()
		_ = p.c.Close()
	})
	return nil
}

// flush fails the operations that were aborted, and those that are posted until the connection is closed for good.
func (p *peer) flush() {
	p.c.mu.Lock()
	p.c.closed = true
	p.c.mu.Unlock()
	var wcs [batchLen]verbs.WC
	for n := p.c.qp.Poll(wcs[:]); n > 0; n = p.c.qp.Poll(wcs[:]) {
		p.complete(wcs[:n])
	}
}
