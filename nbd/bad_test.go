package nbd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/internal/block"
)

func TestAClientThatReadsNoRepliesHurtsNobody(t *testing.T) {
	onBoth(t, func(t *testing.T, o bedOptions) {
		o.conns = 4
		b := newBed(t, o)
		stalled := b.connect(ConnOptions{Queue: 0})
		_ = unix.SetsockoptInt(rawFD(t, stalled), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096)
		_ = stalled.net.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		sent := 0
		for ; ; sent++ {
			_, r := stalled.request(request{cmd: cmdRead, length: testTransfer}, nil)
			if _, err := stalled.net.Write(r); err != nil {
				break // nobody reads our requests any more
			}
			if sent > 1<<20 {
				t.Fatal("requests are taken without end")
			}
		}
		h := b.export.hubs[0]
		b.on(b.units[0], func() {
			if free := h.nfree - 3; free < len(h.slots)/4 {
				t.Errorf("the stalled client left %d of %d slots", free, len(h.slots))
			}
		})
		var all sync.WaitGroup
		for i := range 3 {
			c := b.connect(ConnOptions{Queue: 0})
			all.Go(func() { busy(t, c, uint64(i)*testTransfer, 50) })
		}
		all.Wait()
	})
}

// busy writes and reads back, n times.
func busy(t testing.TB, c *client, at uint64, n int) {
	for i := range n {
		data := pattern(testTransfer, byte(i))
		c.must(request{cmd: cmdWrite, offset: at, length: testTransfer}, data)
		if got := c.must(request{cmd: cmdRead, offset: at, length: testTransfer}, nil); !bytes.Equal(got.data, data) {
			t.Error("wrong bytes")
			return
		}
	}
}

func rawFD(t testing.TB, c *client) (fd int) {
	t.Helper()
	raw, err := c.net.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(own uintptr) { fd = int(own) })
	return fd
}

func TestEveryStalledClientLeavesASlotForEachOther(t *testing.T) {
	onBoth(t, func(t *testing.T, o bedOptions) {
		o.conns = 16
		o.unit = func(u *unit) { u.late = true }
		b := newBed(t, o)
		for range 15 {
			c := b.connect(ConnOptions{Replies: Extended})
			_ = c.net.SetWriteDeadline(time.Now().Add(30 * time.Millisecond))
			for err := error(nil); err == nil; {
				_, r := c.request(request{cmd: cmdRead, length: testTransfer}, nil)
				_, err = c.net.Write(r)
			}
		}
		busy(t, b.connect(ConnOptions{}), 0, 50)
	})
}

func TestAClientThatDiesLeavesItsSlotsWithTheUnitUntilItIsDone(t *testing.T) {
	onBoth(t, func(t *testing.T, o bedOptions) {
		o.unit = func(u *unit) { u.late, u.held = true, true }
		b := newBed(t, o)
		u, h := b.units[0], b.export.hubs[0]
		c, served := b.connectBoth(ConnOptions{})
		for i := range uint64(5) {
			c.send(request{cmd: cmdWrite, offset: i * testTransfer, length: testTransfer}, pattern(testTransfer, 9))
		}
		c.send(request{cmd: cmdRead, length: testTransfer}, nil)
		_, half := c.request(request{cmd: cmdWrite, offset: 1 << 19, length: 1024}, pattern(1024, 9))
		_, _ = c.net.Write(half[:700])
		eventually(t, "all at the unit", func() bool { return u.inFlight.Load() == 6 })
		c.net.Close()
		eventually(t, "the half request dropped", func() (ok bool) {
			b.on(u, func() { ok = h.nfree == len(h.slots)-6 })
			return ok
		})
		select {
		case <-served.Done():
			t.Fatal("the connection is over while the unit has its memory")
		default:
		}
		b.on(u, func() { u.held = false })
		<-served.Done()
		if err := served.Err(); !broken(err) {
			t.Errorf("the connection ended with %v", err)
		}
		busy(t, b.connect(ConnOptions{}), 0, 1)
	})
}

func TestSixtyFourConnectionsAtOnceAndNotOneMore(t *testing.T) {
	onBoth(t, func(t *testing.T, o bedOptions) {
		o.queues, o.listen, o.limits = 2, true, testLimits()
		o.limits.Size = DefaultMaxConns * testTransfer
		o.unit = func(u *unit) { u.late = true }
		b := newBed(t, o)
		var all sync.WaitGroup
		var clients []*client
		for range DefaultMaxConns {
			c := b.dial(Structured)
			clients = append(clients, c)
		}
		n, err := negotiated(t, b, Structured)
		n.Close()
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte("too many connections")) {
			t.Errorf("one connection too many: %v", err)
		}
		for i, c := range clients {
			all.Go(func() { busy(t, c, uint64(i)*testTransfer, 10) })
		}
		all.Wait()
		if n := b.export.Stats().Conns; n != DefaultMaxConns {
			t.Errorf("%d connections", n)
		}
		clients[0].send(request{cmd: cmdDisc}, nil)
		clients[0].closed()
		eventually(t, "a place is free again", func() bool { return b.export.Stats().Conns < DefaultMaxConns })
		busy(t, b.dial(Simple), 0, 1)
	})
}

func TestTagsAreSharedByAllConnectionsOfALane(t *testing.T) {
	onBoth(t, func(t *testing.T, o bedOptions) {
		o.unit = func(u *unit) { u.late = true }
		o.conns = 32
		b := newBed(t, o)
		var all sync.WaitGroup
		for i := range 32 {
			c := b.connect(ConnOptions{})
			all.Go(func() {
				for range 20 {
					for j := range uint64(4) {
						c.send(request{cmd: cmdRead, offset: uint64(i) * 512 * j, length: 4096}, nil)
					}
					for range 4 {
						c.receive()
					}
				}
			})
		}
		all.Wait()
		if most := b.units[0].most.Load(); most > testDepth {
			t.Errorf("%d requests at once, with a depth of %d", most, testDepth)
		}
	})
}

func TestGarbageEndsTheConnection(t *testing.T) {
	onEveryForm(t, func(t *testing.T, o bedOptions, form Replies) {
		b := newBed(t, o)
		for name, stream := range map[string][]byte{
			"no magic":       bytes.Repeat([]byte{1}, 64),
			"other header":   encode(Extended-form, request{cmd: cmdRead, length: 512}, make([]byte, 8)),
			"endless write":  encode(form, request{cmd: cmdWrite, flags: payloadFlag(form), length: mostSkipped + 1}, nil),
			"endless nobody": encode(form, request{cmd: cmdWrite, flags: payloadFlag(form), length: 1<<32 - 1}, nil),
		} {
			if name == "other header" && form == Structured {
				continue // the same as simple
			}
			c, served := b.connectBoth(ConnOptions{Replies: form})
			if _, err := c.net.Write(stream); err != nil {
				t.Fatal(err)
			}
			c.closed()
			<-served.Done()
			if err := served.Err(); !errors.Is(err, ErrProtocol) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func payloadFlag(form Replies) uint16 {
	if form == Extended {
		return cmdFlagPayloadLen
	}
	return 0
}

func TestHowAConnectionEndsIsTold(t *testing.T) {
	onBoth(t, func(t *testing.T, o bedOptions) {
		b := newBed(t, o)
		for name, x := range map[string]struct {
			f    func(*client, *Conn)
			want error
		}{
			"goodbye":          {func(c *client, _ *Conn) { c.send(request{cmd: cmdDisc}, nil) }, nil},
			"hang-up":          {func(c *client, _ *Conn) { c.net.Close() }, io.EOF},
			"hang-up mid-word": {func(c *client, _ *Conn) { _, _ = c.net.Write([]byte{0x25, 0x60}); c.net.Close() }, io.ErrUnexpectedEOF},
			"stop":             {func(_ *client, s *Conn) { s.Stop() }, nil},
		} {
			c, served := b.connectBoth(ConnOptions{})
			c.must(request{cmd: cmdRead, length: 512}, nil)
			x.f(c, served)
			<-served.Done()
			if err := served.Err(); !errors.Is(err, x.want) {
				t.Errorf("%s: %v, not %v", name, err, x.want)
			}
		}
	})
}

func TestAGoodbyeWaitsForTheRequestsBeforeIt(t *testing.T) {
	onBoth(t, func(t *testing.T, o bedOptions) {
		o.unit = func(u *unit) { u.late, u.held = true, true }
		b := newBed(t, o)
		c := b.connect(ConnOptions{})
		c.send(request{cmd: cmdWrite, length: 512}, pattern(512, 1))
		c.send(request{cmd: cmdDisc}, nil)
		eventually(t, "the write at the unit", func() bool { return b.units[0].inFlight.Load() == 1 })
		b.on(b.units[0], func() { b.units[0].held = false })
		if got := c.receive(); got.err != 0 {
			t.Errorf("error %d", got.err)
		}
		c.closed()
	})
}

func TestCloseAnswersWhatIsInFlightAndCutsWhoTakesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, o bedOptions) {
		o.unit = func(u *unit) { u.late, u.held = true, true }
		b := newBed(t, o)
		c, stalled := b.connect(ConnOptions{}), b.connect(ConnOptions{})
		for range 8 {
			stalled.send(request{cmd: cmdRead, length: testTransfer}, nil)
		}
		c.send(request{cmd: cmdRead, length: 512}, nil)
		eventually(t, "all at the unit", func() bool { return b.units[0].inFlight.Load() == 9 })
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := b.export.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("closed while the unit has requests: %v", err)
		}
		if _, err := b.export.ServeConn(-1, ConnOptions{}); !errors.Is(err, ErrClosed) {
			t.Errorf("serves when closing: %v", err)
		}
		b.on(b.units[0], func() { b.units[0].held = false })
		if err := b.export.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := c.receive(); got.err != 0 {
			t.Errorf("error %d", got.err)
		}
		c.closed()
	})
}

func TestCloseDoesNotWaitForWhatTakesForEver(t *testing.T) {
	onBoth(t, func(t *testing.T, o bedOptions) {
		o.limits = testLimits()
		o.limits.MaxDiscard, o.limits.DiscardGranularity = testBlock, testBlock
		o.unit = func(u *unit) {
			u.late = true
			u.errno = func(*block.Request) syscall.Errno {
				time.Sleep(5 * time.Millisecond) // 2048 pieces of it take longer than anybody waits
				return 0
			}
		}
		b := newBed(t, o)
		c := b.connect(ConnOptions{})
		c.send(request{cmd: cmdTrim, length: testSize}, nil)
		start := time.Now()
		eventually(t, "the trim has begun", func() bool { return b.export.Stats().InFlight == 1 })
		if err := b.export.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := c.receive(); got.err != codeShutdown || time.Since(start) > 5*time.Second {
			t.Errorf("error %d after %v", got.err, time.Since(start))
		}
	})
}

func TestFailAnswersWithoutTheUnit(t *testing.T) {
	onBoth(t, func(t *testing.T, o bedOptions) {
		b := newBed(t, o)
		c := b.connect(ConnOptions{})
		b.export.Fail(syscall.ESHUTDOWN)
		if got := c.do(request{cmd: cmdRead, length: 512}, nil); got.err != codeShutdown {
			t.Errorf("error %d", got.err)
		}
		b.export.Fail(0)
		c.must(request{cmd: cmdRead, length: 512}, nil)
		b.export.SetSize(1024)
		if got := c.do(request{cmd: cmdRead, offset: 1024, length: 512}, nil); got.err != codeInval {
			t.Errorf("beyond the new end: error %d", got.err)
		}
		if s := b.export.Stats(); s.Refused != 2 || s.Ops[0] != 1 || s.Bytes[0] != 512 {
			t.Errorf("counted %s", fmt.Sprintf("%+v", s))
		}
	})
}

func TestServeConnTakesOnlyStreamSockets(t *testing.T) {
	b := newBed(t, bedOptions{lane: engines()["epoll"]})
	for name, fd := range map[string]func() (int, error){
		"eventfd":  func() (int, error) { return unix.Eventfd(0, unix.EFD_CLOEXEC) },
		"datagram": func() (int, error) { return unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0) },
		"nothing":  func() (int, error) { return 1 << 20, nil },
	} {
		n, err := fd()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.export.ServeConn(n, ConnOptions{}); err == nil {
			t.Errorf("%s is served", name)
		}
	}
}
