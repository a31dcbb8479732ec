package demo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is the other side of the client: an NBD server over memory, with faults.
type server struct {
	mu     sync.Mutex
	mem    []byte
	errno  uint32 // every request ends with it
	hangUp int    // after as many requests, where it is not 0
	lose   bool   // writes change nothing
}

// serve takes one connection at a socket and returns its URI.
func (s *server) serve(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Write(greeting(uint64(len(s.mem))))
		_, _ = io.ReadFull(conn, make([]byte, 4+16+6))
		for n := 0; s.hangUp == 0 || n < s.hangUp; n++ {
			if s.one(conn) != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return "nbd+unix:///?socket=" + path
}

// greeting is all that a server says before the first request.
func greeting(size uint64) []byte {
	b := binary.BigEndian.AppendUint64(nil, magicServer)
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = append(b, 0, 3)
	b = optionReply(b, repInfo, append(binary.BigEndian.AppendUint64([]byte{0, infoExport}, size), 0, 1))
	return optionReply(b, repAck, nil)
}

func optionReply(b []byte, kind uint32, data []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, magicOptionReply)
	b = binary.BigEndian.AppendUint32(b, optGo)
	b = binary.BigEndian.AppendUint32(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

func (s *server) one(conn net.Conn) error {
	var h [requestLen]byte
	if _, err := io.ReadFull(conn, h[:]); err != nil {
		return err
	}
	cmd, off, n := binary.BigEndian.Uint16(h[6:]), binary.BigEndian.Uint64(h[16:]), binary.BigEndian.Uint32(h[24:])
	data := make([]byte, n)
	if cmd == cmdDisc {
		return io.EOF
	}
	if cmd == cmdWrite {
		if _, err := io.ReadFull(conn, data); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if cmd == cmdWrite && !s.lose {
		copy(s.mem[off:], data)
	}
	out := binary.BigEndian.AppendUint32(nil, magicSimple)
	out = binary.BigEndian.AppendUint32(out, s.errno)
	out = append(out, h[8:16]...)
	if cmd == cmdRead && s.errno == 0 {
		out = append(out, s.mem[off:off+uint64(n)]...)
	}
	_, err := conn.Write(out)
	return err
}

func (s *server) change(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
}

func (s *server) dial(t *testing.T) *client {
	t.Helper()
	c, err := dialNBD(t.Context(), s.serve(t), depth)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

const testSize = 5*chunk + 4096

func pass(t *testing.T, c *client, seed uint64, check bool) (Pass, error) {
	t.Helper()
	return (&load{c: c, seed: seed, check: check}).run(t.Context())
}

func TestAPassWritesAndChecksEveryByte(t *testing.T) {
	s := &server{mem: make([]byte, testSize)}
	c := s.dial(t)
	w, err := pass(t, c, 1, false)
	if err != nil || w.Bytes != testSize || w.Slowest <= 0 {
		t.Fatalf("%+v, %v", w, err)
	}
	if r, err := pass(t, c, 1, true); err != nil || r.Bytes != testSize {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := pass(t, c, 2, true); !errors.Is(err, errWrongData) {
		t.Errorf("another pattern was found good: %v", err)
	}
}

func TestOneWrongByteIsFound(t *testing.T) {
	for _, at := range []int{0, 4095, 2*chunk + 77, testSize - 1} {
		s := &server{mem: make([]byte, testSize)}
		c := s.dial(t)
		if _, err := pass(t, c, 1, false); err != nil {
			t.Fatal(err)
		}
		s.change(func() { s.mem[at] ^= 1 })
		if _, err := pass(t, c, 1, true); !errors.Is(err, errWrongData) || !strings.Contains(err.Error(), fmt.Sprintf("at %d:", at)) {
			t.Errorf("byte %d: %v", at, err)
		}
	}
}

func TestALostWriteIsFound(t *testing.T) {
	s := &server{mem: make([]byte, testSize)}
	c := s.dial(t)
	if _, err := pass(t, c, 1, false); err != nil {
		t.Fatal(err)
	}
	s.change(func() { s.lose = true })
	_, _ = pass(t, c, 2, false)
	if _, err := pass(t, c, 2, true); !errors.Is(err, errWrongData) {
		t.Errorf("error is %v", err)
	}
}

func TestAnErrorOfTheServerEndsThePass(t *testing.T) {
	s := &server{mem: make([]byte, testSize), errno: uint32(syscall.EIO)}
	if _, err := pass(t, s.dial(t), 1, false); !errors.Is(err, syscall.EIO) {
		t.Errorf("error is %v", err)
	}
	s = &server{mem: make([]byte, testSize), hangUp: 3}
	begin := time.Now()
	if _, err := pass(t, s.dial(t), 1, false); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("error is %v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v to notice", took)
	}
}

func TestPatternsDifferByPlaceAndSeed(t *testing.T) {
	a, b, c := make([]byte, 4096), make([]byte, 4096), make([]byte, 4096)
	fill(a, 0, 1)
	fill(b, 4096, 1)
	fill(c, 0, 2)
	if bytes.Equal(a, b) || bytes.Equal(a, c) || bytes.Equal(b, c) {
		t.Error("two patterns are the same")
	}
	fill(b, 0, 1)
	if !bytes.Equal(a, b) {
		t.Error("a pattern is not what it was")
	}
}

// FuzzServer lets a server say anything: the client neither hangs nor panics, nor calls a read good that was not answered.
func FuzzServer(f *testing.F) {
	f.Add(greeting(1 << 20))
	f.Add(append(greeting(1<<20), 0x67, 0x44, 0x66, 0x98, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0))
	f.Add(append(greeting(8), 0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8))
	f.Add(optionReply([]byte("NBDMAGICIHAVEOPT\x00\x03"), repError|1, []byte("no")))
	f.Fuzz(func(t *testing.T, said []byte) {
		ours, theirs := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		go func() {
			_, _ = theirs.Write(said)
			theirs.Close()
		}()
		c := &client{conn: ours, slots: []slot{{end: make(chan error, 1)}}}
		defer ours.Close()
		if c.greet() != nil {
			return
		}
		c.reading.Go(c.receive)
		got := make([]byte, 8)
		if err := c.read(0, 0, got); err == nil && !bytes.Contains(said, got) {
			t.Errorf("read %x of a server that has said %x", got, said)
		}
		c.close()
	})
}
