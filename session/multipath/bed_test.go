package multipath_test

import (
	"context"
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

var portalAddr = netip.MustParseAddrPort("10.0.0.1:3260")

// bed is a unit of a target in memory, served on real lanes. Its first way is at hand as its own.
type bed struct {
	*way
	portal  *verbstest.Listener
	net     *verbstest.Net
	target  *isertarget.Target
	disk    *isertarget.Disk
	arena   *verbs.Arena
	unit    *multipath.Unit
	ways    []*way
	closed  bool
	setting setting
}

// way is one lane with its path and its queue of the unit.
type way struct {
	t       *testing.T
	bed     *bed
	isid    pdu.ISID
	lane    *lane.Lane
	path    *multipath.Path
	queue   *multipath.Queue
	scratch session.Buffer
	data    session.Buffer
	free    chan uint16 // tags

	door atomic.Pointer[netip.AddrPort]        // where to log in when it is not portalAddr
	meet atomic.Pointer[func(*multipath.Link)] // sees every new link before the path does
}

type setting struct {
	target  isertarget.Options
	disk    isertarget.DiskOptions
	noPath  time.Duration // 0 is patience
	atOnce  bool          // no wait for a path at all
	command time.Duration
	lanes   int
}

func newBed(t *testing.T, s setting) *bed {
	t.Helper()
	if s.noPath == 0 {
		s.noPath = patience
	}
	if s.atOnce {
		s.noPath = 0
	}
	b := &bed{net: verbstest.New(), target: isertarget.New(s.target), setting: s}
	b.disk = b.target.AddDisk(0, s.disk)
	must(b.target.Listen(t.Context(), b.net, portalAddr, 1))
	b.portal = b.net.At(portalAddr)
	b.arena = must(verbs.NewArena(64 << 20))
	t.Cleanup(b.close)
	for i := range max(s.lanes, 1) {
		b.open(t, i)
	}
	b.way = b.ways[0]
	b.target.ResetLog()
	return b
}

// open adds a way; the first finds out what the unit is.
func (b *bed) open(t *testing.T, i int) {
	t.Helper()
	w := &way{t: t, bed: b, isid: pdu.ISID{0x80, 1, 2, 3, 4, byte(i)}, free: make(chan uint16, depth)}
	b.ways = append(b.ways, w)
	w.scratch, w.data = b.carve(session.ProbeSize), b.carve(depth*maxTransfer)
	params, zeroes := b.carve(depth*multipath.ParamSize), b.carve(4096)
	for tag := range uint16(depth) {
		w.free <- tag
	}
	w.lane = must(lane.New(lane.Options{Spin: -1}))
	w.lane.Start()
	w.path = multipath.NewPath(multipath.Config{
		Lane: w.lane, Dial: w.dial, NoPathTimeout: b.setting.noPath, Log: slog.New(slog.DiscardHandler),
	})
	link := must(w.dial(t.Context()))
	lu := must(session.Probe(t.Context(), link.Nexus, scsi.LUN{}, w.scratch))
	if b.unit == nil {
		b.unit = multipath.NewUnit(lu, maxTransfer, depth)
	}
	w.queue = b.unit.AddQueue(w.path, multipath.Memory{Params: params, Zeroes: zeroes})
	if err := w.path.AddUnit(t.Context(), b.unit, w.queue); err != nil {
		t.Fatal(err)
	}
	if err := w.path.Start(t.Context(), link); err != nil {
		t.Fatal(err)
	}
}

func (b *bed) close() {
	if b.closed {
		return
	}
	b.closed = true
	b.unit.Fail()
	for _, w := range b.ways {
		w.path.Stop()
		w.lane.Stop()
	}
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
func (w *way) dial(ctx context.Context) (*multipath.Link, error) {
	b := w.bed
	portal := portalAddr
	if p := w.door.Load(); p != nil {
		portal = *p
	}
	c, err := iser.Dial(ctx, b.net, iser.Options{Target: portal, Arena: b.arena})
	if err != nil {
		return nil, err
	}
	n, err := session.Login(ctx, c, session.Params{
		InitiatorName: "iqn.2026-01.test:initiator", TargetName: b.target.Name(), ISID: w.isid,
		CommandTimeout: b.setting.command, AbortTimeout: time.Second, LoginTimeout: 2 * time.Second,
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
	link := &multipath.Link{Nexus: n, Scratch: w.scratch, Lost: lost, Portal: portal.String()}
	if meet := w.meet.Load(); meet != nil {
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
func (w *way) begin(op block.Op, flags block.Flags, off, length uint64, data []byte) *result {
	w.t.Helper()
	tag := <-w.free
	x := &result{errno: make(chan syscall.Errno, 1)}
	x.r = block.Request{Op: op, Flags: flags, Tag: tag, Offset: off, Length: length, Sink: x, Region: w.data.Region}
	if op == block.Read || op == block.Write {
		x.r.Data = w.data.Mem[int(tag)*maxTransfer:][:min(length, maxTransfer)]
		copy(x.r.Data, data)
	}
	w.lane.Post(func() { w.queue.Submit(&x.r) })
	return x
}

// end waits for a request.
func (w *way) end(x *result) syscall.Errno {
	w.t.Helper()
	select {
	case errno := <-x.errno:
		w.free <- x.r.Tag
		return errno
	case <-time.After(patience):
		w.t.Fatalf("%v of %d bytes at %d did not end", x.r.Op, x.r.Length, x.r.Offset)
		return 0
	}
}

func (w *way) do(op block.Op, flags block.Flags, off, length uint64, data []byte) syscall.Errno {
	w.t.Helper()
	return w.end(w.begin(op, flags, off, length, data))
}

func (w *way) write(off uint64, data []byte) syscall.Errno {
	w.t.Helper()
	return w.do(block.Write, 0, off, uint64(len(data)), data)
}

func (w *way) read(off, n uint64) ([]byte, syscall.Errno) {
	w.t.Helper()
	x := w.begin(block.Read, 0, off, n, nil)
	errno := w.end(x)
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
