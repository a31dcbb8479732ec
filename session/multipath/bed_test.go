package multipath_test

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"iserblk/internal/block"
	"iserblk/internal/lane"
	"iserblk/iser"
	"iserblk/iser/isertarget"
	"iserblk/session"
	"iserblk/session/multipath"
	"iserblk/session/pdu"
	"iserblk/session/scsi"
	"iserblk/verbs"
	"iserblk/verbs/verbstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	depth       = 16
	maxTransfer = 64 << 10
	patience    = 10 * time.Second
)

var (
	portalAddr = netip.MustParseAddrPort("10.0.0.1:3260")
	isid       = pdu.ISID{0x80, 1, 2, 3, 4, 5}
)

// bed is a unit of a target in memory, served over one path on a real lane.
type bed struct {
	t       *testing.T
	portal  *verbstest.Listener
	net     *verbstest.Net
	target  *isertarget.Target
	disk    *isertarget.Disk
	arena   *verbs.Arena
	lane    *lane.Lane
	path    *multipath.Path
	unit    *multipath.Unit
	queue   *multipath.Queue
	scratch session.Buffer
	data    session.Buffer
	free    chan uint16 // tags

	meet atomic.Pointer[func(*multipath.Link)] // sees every new link before the path does
}

type setting struct {
	target  isertarget.Options
	disk    isertarget.DiskOptions
	noPath  time.Duration
	command time.Duration
}

func newBed(t *testing.T, s setting) *bed {
	t.Helper()
	b := &bed{t: t, net: verbstest.New(), target: isertarget.New(s.target), free: make(chan uint16, depth)}
	b.disk = b.target.AddDisk(0, s.disk)
	b.portal = must(b.net.Listen(portalAddr))
	b.target.Serve(isertarget.InMemory(b.portal), 1)
	b.arena = must(verbs.NewArena(64 << 20))
	b.scratch, b.data = b.carve(session.ProbeSize), b.carve(depth*maxTransfer)
	params, zeroes := b.carve(depth*multipath.ParamSize), b.carve(4096)
	for i := range uint16(depth) {
		b.free <- i
	}
	b.lane = must(lane.New(lane.Options{Spin: -1}))
	b.lane.Start()
	if s.noPath == 0 {
		s.noPath = patience
	}
	b.path = multipath.NewPath(multipath.Config{
		Lane: b.lane, Dial: func(ctx context.Context) (*multipath.Link, error) { return b.dial(ctx, s.command) },
		NoPathTimeout: s.noPath, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	b.start(multipath.Memory{Params: params, Zeroes: zeroes}, s.command)
	t.Cleanup(b.close)
	return b
}

func (b *bed) start(m multipath.Memory, command time.Duration) {
	b.t.Helper()
	link := must(b.dial(b.t.Context(), command))
	lu := must(session.Probe(b.t.Context(), link.Nexus, scsi.LUN{}, b.scratch))
	b.unit = multipath.NewUnit(lu, maxTransfer, depth)
	b.queue = b.unit.AddQueue(b.path, m)
	if err := b.path.AddUnit(b.t.Context(), b.unit, b.queue); err != nil {
		b.t.Fatal(err)
	}
	if err := b.path.Start(b.t.Context(), link); err != nil {
		b.t.Fatal(err)
	}
	b.target.ResetLog()
}

func (b *bed) close() {
	b.unit.Fail()
	b.path.Stop()
	b.lane.Stop()
	b.target.Close()
	if err := b.arena.Close(); err != nil {
		b.t.Error(err)
	}
}

func (b *bed) carve(size int) session.Buffer {
	id := must(b.arena.Carve(size, verbs.AccessRemote))
	return session.Buffer{Mem: b.arena.Mem(id)[:size], Region: uint32(id)}
}

// dial logs in as the product does: one ISID for good.
func (b *bed) dial(ctx context.Context, command time.Duration) (*multipath.Link, error) {
	c, err := iser.Dial(ctx, b.net, iser.Options{Target: portalAddr, Arena: b.arena})
	if err != nil {
		return nil, err
	}
	n, err := session.Login(ctx, c, session.Params{
		InitiatorName: "iqn.2026-01.test:initiator", TargetName: b.target.Name(), ISID: isid,
		CommandTimeout: command, AbortTimeout: time.Second, LoginTimeout: 2 * time.Second,
	})
	if err != nil {
		c.Close()
		return nil, err
	}
	lost := make(chan error, 1)
	go func() {
		defer close(lost)
		for e := range c.Events() {
			if e.Kind == verbs.EventDisconnected {
				lost <- session.ErrDropped
				return
			}
		}
	}()
	link := &multipath.Link{Nexus: n, Scratch: b.scratch, Lost: lost, Portal: portalAddr.String()}
	if meet := b.meet.Load(); meet != nil {
		(*meet)(link)
	}
	return link, nil
}

// result is the end of one request.
type result struct {
	r     block.Request
	errno chan syscall.Errno
}

// Done implements block.Sink.
func (x *result) Done(_ *block.Request, errno syscall.Errno) { x.errno <- errno }

// begin submits a request; data is copied in for a write.
func (b *bed) begin(op block.Op, flags block.Flags, off, length uint64, data []byte) *result {
	b.t.Helper()
	tag := <-b.free
	x := &result{errno: make(chan syscall.Errno, 1)}
	x.r = block.Request{Op: op, Flags: flags, Tag: tag, Offset: off, Length: length, Sink: x, Region: b.data.Region}
	if op == block.Read || op == block.Write {
		x.r.Data = b.data.Mem[int(tag)*maxTransfer:][:length]
		copy(x.r.Data, data)
	}
	b.lane.Post(func() { b.queue.Submit(&x.r) })
	return x
}

// end waits for a request.
func (b *bed) end(x *result) syscall.Errno {
	b.t.Helper()
	select {
	case errno := <-x.errno:
		b.free <- x.r.Tag
		return errno
	case <-time.After(patience):
		b.t.Fatalf("%v of %d bytes at %d did not end", x.r.Op, x.r.Length, x.r.Offset)
		return 0
	}
}

func (b *bed) do(op block.Op, flags block.Flags, off, length uint64, data []byte) syscall.Errno {
	b.t.Helper()
	return b.end(b.begin(op, flags, off, length, data))
}

func (b *bed) write(off uint64, data []byte) syscall.Errno {
	b.t.Helper()
	return b.do(block.Write, 0, off, uint64(len(data)), data)
}

func (b *bed) read(off, n uint64) ([]byte, syscall.Errno) {
	b.t.Helper()
	x := b.begin(block.Read, 0, off, n, nil)
	errno := b.end(x)
	return append([]byte(nil), x.r.Data...), errno
}

// cut kills every connection of the target as a dead link does.
func (b *bed) cut() {
	for _, p := range b.portal.Peers() {
		p.Kill(verbs.StatusRetryExc)
	}
}

func (b *bed) eventually(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("%s did not come true", what)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
