package demo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"syscall"
)

// The part of the NBD protocol that a plain client needs (the NBD project's proto.md).
const (
	magicServer      = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption      = 0x49484156454f5054 // "IHAVEOPT"
	magicOptionReply = 0x0003e889045565a9
	magicRequest     = 0x25609513
	magicSimple      = 0x67446698

	optGo      = 7
	repAck     = 1
	repInfo    = 3
	repError   = 1 << 31
	infoExport = 0

	cmdRead  = 0
	cmdWrite = 1
	cmdDisc  = 2
	cmdFlush = 3

	greetingLen    = 18
	optionReplyLen = 20
	requestLen     = 28
	simpleReplyLen = 16
	clientFlags    = 3 // fixed newstyle, no zeroes
	maxOptionReply = 64 << 10
)

// client is an NBD client with several requests in flight: whoever judges the data must not be who moves it.
type client struct {
	conn net.Conn
	size uint64 // bytes

	sending sync.Mutex
	mu      sync.Mutex
	err     error // why there is no connection any more
	slots   []slot
	reading sync.WaitGroup
}

// slot is a place for one request. It belongs to one caller at a time.
type slot struct {
	in      []byte // where a read goes
	waiting bool
	end     chan error
}

// dialNBD connects to the default export of a unix socket's URI.
func dialNBD(ctx context.Context, uri string, depth int) (*client, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return nil, err
	}
	path := u.Query().Get("socket")
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn, slots: make([]slot, depth)}
	for i := range c.slots {
		c.slots[i].end = make(chan error, 1)
	}
	if err := c.greet(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("NBD handshake at %s: %w", path, err)
	}
	c.reading.Go(c.receive)
	return c, nil
}

// greet agrees on the default export, with simple replies.
func (c *client) greet() error {
	var b [greetingLen]byte
	if _, err := io.ReadFull(c.conn, b[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(b[:]) != magicServer || binary.BigEndian.Uint64(b[8:]) != magicOption {
		return errors.New("that is no NBD server")
	}
	out := binary.BigEndian.AppendUint32(nil, clientFlags)
	out = binary.BigEndian.AppendUint64(out, magicOption)
	out = binary.BigEndian.AppendUint32(out, optGo)
	out = binary.BigEndian.AppendUint32(out, 6) // no name, no questions
	out = append(out, 0, 0, 0, 0, 0, 0)
	if _, err := c.conn.Write(out); err != nil {
		return err
	}
	for {
		if done, err := c.optionReply(); done || err != nil {
			return err
		}
	}
}

// optionReply takes one reply to optGo and tells whether it was the last.
func (c *client) optionReply() (bool, error) {
	var h [optionReplyLen]byte
	if _, err := io.ReadFull(c.conn, h[:]); err != nil {
		return false, err
	}
	kind, n := binary.BigEndian.Uint32(h[12:]), binary.BigEndian.Uint32(h[16:])
	if binary.BigEndian.Uint64(h[:]) != magicOptionReply || n > maxOptionReply {
		return false, errors.New("no reply to an option")
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(c.conn, data); err != nil {
		return false, err
	}
	switch {
	case kind&repError != 0:
		return false, fmt.Errorf("the server refuses: %d %s", kind&^repError, data)
	case kind == repInfo && len(data) >= 12 && binary.BigEndian.Uint16(data) == infoExport:
		c.size = binary.BigEndian.Uint64(data[2:])
	}
	return kind == repAck, nil
}

func (c *client) read(at int, off uint64, b []byte) error  { return c.do(at, cmdRead, off, b) }
func (c *client) write(at int, off uint64, b []byte) error { return c.do(at, cmdWrite, off, b) }
func (c *client) flush() error                             { return c.do(0, cmdFlush, 0, nil) }

// do runs one request in a slot.
func (c *client) do(at int, cmd uint16, off uint64, b []byte) error {
	s := &c.slots[at]
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return c.err
	}
	s.waiting, s.in = true, nil
	if cmd == cmdRead {
		s.in = b
	}
	c.mu.Unlock()
	if err := c.send(at, cmd, off, b); err != nil {
		c.fail(err)
	}
	return <-s.end
}

func (c *client) send(at int, cmd uint16, off uint64, b []byte) error {
	h := make([]byte, 0, requestLen)
	h = binary.BigEndian.AppendUint32(h, magicRequest)
	h = binary.BigEndian.AppendUint16(h, 0)
	h = binary.BigEndian.AppendUint16(h, cmd)
	h = binary.BigEndian.AppendUint64(h, uint64(at))
	h = binary.BigEndian.AppendUint64(h, off)
	h = binary.BigEndian.AppendUint32(h, uint32(len(b)))
	out := net.Buffers{h}
	if cmd == cmdWrite {
		out = append(out, b)
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	_, err := out.WriteTo(c.conn)
	return err
}

// receive hands replies out until the connection ends.
func (c *client) receive() {
	for {
		if err := c.reply(); err != nil {
			c.fail(err)
			return
		}
	}
}

func (c *client) reply() error {
	var h [simpleReplyLen]byte
	if _, err := io.ReadFull(c.conn, h[:]); err != nil {
		return fmt.Errorf("the NBD server has hung up: %w", err)
	}
	at := binary.BigEndian.Uint64(h[8:])
	c.mu.Lock()
	known := at < uint64(len(c.slots)) && c.slots[at].waiting
	c.mu.Unlock()
	if binary.BigEndian.Uint32(h[:]) != magicSimple || !known {
		return errors.New("the NBD server has answered what nobody asked")
	}
	var end error
	if e := binary.BigEndian.Uint32(h[4:]); e != 0 {
		end = syscall.Errno(e)
	} else if _, err := io.ReadFull(c.conn, c.slots[at].in); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slots[at].waiting = false
	c.slots[at].end <- end
	return nil
}

// fail ends every request, those to come included.
func (c *client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	for i := range c.slots {
		if c.slots[i].waiting {
			c.slots[i].waiting = false
			c.slots[i].end <- c.err
		}
	}
	c.conn.Close()
}

// close says good-bye.
func (c *client) close() {
	_ = c.send(0, cmdDisc, 0, nil)
	c.fail(net.ErrClosed)
	c.reading.Wait()
}
