package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// client speaks the transmission phase from the other side.
type client struct {
	t      testing.TB
	net    net.Conn
	form   Replies
	cookie uint64
	got    int               // bytes received
	reads  map[uint64]uint64 // cookies of reads, with their lengths
}

func newClient(t testing.TB, fd int, form Replies) *client {
	t.Helper()
	f := os.NewFile(uintptr(fd), "client")
	defer f.Close()
	n, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return dialed(t, n, form)
}

func dialed(t testing.TB, n net.Conn, form Replies) *client {
	c := &client{t: t, net: n, form: form, reads: map[uint64]uint64{}}
	t.Cleanup(func() { n.Close() })
	_ = n.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

// encode is a request as it goes over the wire.
func encode(form Replies, r request, data []byte) []byte {
	magic := uint32(magicRequest)
	if form == Extended {
		magic = magicExtRequest
	}
	b := binary.BigEndian.AppendUint32(nil, magic)
	b = binary.BigEndian.AppendUint16(b, r.flags)
	b = binary.BigEndian.AppendUint16(b, uint16(r.cmd))
	b = binary.BigEndian.AppendUint64(b, r.cookie)
	b = binary.BigEndian.AppendUint64(b, r.offset)
	if form == Extended {
		b = binary.BigEndian.AppendUint64(b, r.length)
	} else {
		b = binary.BigEndian.AppendUint32(b, uint32(r.length))
	}
	return append(b, data...)
}

// request numbers a request and encodes it.
func (c *client) request(r request, data []byte) (uint64, []byte) {
	c.cookie++
	r.cookie = c.cookie
	if r.cmd == cmdRead {
		c.reads[r.cookie] = r.length
	}
	if c.form == Extended && r.cmd == cmdWrite {
		r.flags |= cmdFlagPayloadLen
	}
	return r.cookie, encode(c.form, r, data)
}

func (c *client) send(r request, data []byte) uint64 {
	c.t.Helper()
	cookie, b := c.request(r, data)
	if _, err := c.net.Write(b); err != nil {
		c.t.Fatal(err)
	}
	return cookie
}

// result is a reply.
type result struct {
	cookie  uint64
	err     code
	text    string
	data    []byte
	extents [][2]uint64 // length and status
}

// receive reads one reply, checking all that it must be.
func (c *client) receive() result {
	c.t.Helper()
	r, err := c.next()
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

func (c *client) next() (r result, err error) {
	head, err := c.read(4)
	if err != nil {
		return r, err
	}
	switch magic := binary.BigEndian.Uint32(head); {
	case magic == magicSimple && c.form != Extended:
		return c.simple()
	case magic == magicChunk && c.form == Structured, magic == magicExtChunk && c.form == Extended:
		return c.chunk()
	default:
		return r, fmt.Errorf("magic %#x among %v replies", magic, c.form)
	}
}

func (c *client) simple() (r result, err error) {
	b, err := c.read(simpleLen - 4)
	if err != nil {
		return r, err
	}
	r.err, r.cookie = code(binary.BigEndian.Uint32(b)), binary.BigEndian.Uint64(b[4:])
	n, isRead := c.reads[r.cookie]
	if isRead && c.form != Simple {
		return r, errors.New("a simple reply to a read among structured ones")
	}
	if r.err == 0 && isRead {
		r.data, err = c.read(int(n))
	}
	return r, err
}

func (c *client) chunk() (r result, err error) {
	size := chunkLen
	if c.form == Extended {
		size = extChunkLen
	}
	b, err := c.read(size - 4)
	if err != nil {
		return r, err
	}
	flags, kind := binary.BigEndian.Uint16(b), chunkType(binary.BigEndian.Uint16(b[2:]))
	r.cookie = binary.BigEndian.Uint64(b[4:])
	n := uint64(binary.BigEndian.Uint32(b[size-8:]))
	if c.form == Extended {
		n = binary.BigEndian.Uint64(b[size-12:])
	}
	if flags != chunkFlagDone || n > 64<<20 {
		return r, fmt.Errorf("chunk with flags %#x and %d bytes", flags, n)
	}
	body, err := c.read(int(n))
	if err != nil {
		return r, err
	}
	return r, c.body(&r, kind, body)
}

func (c *client) body(r *result, kind chunkType, b []byte) error {
	switch {
	case kind == chunkNone && len(b) == 0:
	case kind == chunkOffsetData && len(b) > offsetDataLen:
		r.data = b[offsetDataLen:]
		if uint64(len(r.data)) != c.reads[r.cookie] {
			return fmt.Errorf("%d bytes for a read of %d", len(r.data), c.reads[r.cookie])
		}
	case kind == chunkError && len(b) >= errorLen:
		r.err, r.text = code(binary.BigEndian.Uint32(b)), string(b[errorLen:])
		if r.err == 0 || len(r.text) != int(binary.BigEndian.Uint16(b[4:])) {
			return fmt.Errorf("error chunk %x", b)
		}
	case kind == chunkBlockStatus && c.form == Structured:
		for d := b[blockStatusLen:]; len(d) > 0; d = d[descriptorLen:] {
			r.extents = append(r.extents, [2]uint64{uint64(binary.BigEndian.Uint32(d)), uint64(binary.BigEndian.Uint32(d[4:]))})
		}
	case kind == chunkBlockStatusExt && c.form == Extended:
		for d := b[blockStatusExtLen:]; len(d) > 0; d = d[descriptorExtLen:] {
			r.extents = append(r.extents, [2]uint64{binary.BigEndian.Uint64(d), binary.BigEndian.Uint64(d[8:])})
		}
		if int(binary.BigEndian.Uint32(b[4:])) != len(r.extents) {
			return fmt.Errorf("%d extents announced, %d there", binary.BigEndian.Uint32(b[4:]), len(r.extents))
		}
	default:
		return fmt.Errorf("chunk of type %d with %d bytes", kind, len(b))
	}
	return nil
}

func (c *client) read(n int) ([]byte, error) {
	b := make([]byte, n)
	n, err := io.ReadFull(c.net, b)
	c.got += n
	return b, err
}

// do sends one request and waits for its reply.
func (c *client) do(r request, data []byte) result {
	c.t.Helper()
	cookie := c.send(r, data)
	got := c.receive()
	if got.cookie != cookie {
		c.t.Fatalf("reply to %d, asked %d", got.cookie, cookie)
	}
	return got
}

// must is do for what has to succeed.
func (c *client) must(r request, data []byte) result {
	c.t.Helper()
	got := c.do(r, data)
	if got.err != 0 {
		c.t.Fatalf("%+v: error %d %q", r, got.err, got.text)
	}
	return got
}

// closed fails unless the server hangs up now, without another word.
func (c *client) closed() {
	c.t.Helper()
	if n, err := io.Copy(io.Discard, c.net); n != 0 || err != nil && !broken(err) {
		c.t.Fatalf("%d bytes and %v instead of the end", n, err)
	}
}
