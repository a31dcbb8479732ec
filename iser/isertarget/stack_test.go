package isertarget_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

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

// stack is a whole initiator on a target with two portals: a logical unit on a lane, with a path that logs in by the
// first portal that lets it in.
type stack struct {
	t       *testing.T
	net     *verbstest.Net
	target  *isertarget.Target
	disk    *isertarget.Disk
	portals []*isertarget.Portal
	arena   *verbs.Arena
	lane    *lane.Lane
	path    *multipath.Path
	unit    *multipath.Unit
	queue   *multipath.Queue
	scratch session.Buffer
	data    session.Buffer
	logins  atomic.Int32
}

const (
	stackTransfer = 64 << 10
	stackDepth    = 4
	stackPatience = 10 * time.Second
)

var stackPortals = []netip.AddrPort{
	netip.MustParseAddrPort("10.0.0.1:3260"), netip.MustParseAddrPort("10.0.0.2:3260"),
}

func newStack(t *testing.T, o isertarget.Options, d isertarget.DiskOptions) *stack {
	t.Helper()
	s := &stack{t: t, net: verbstest.New(), target: isertarget.New(o)}
	s.disk = s.target.AddDisk(0, d)
	for i, a := range stackPortals {
		s.portals = append(s.portals, must[*isertarget.Portal](t)(s.target.Listen(t.Context(), s.net, a, uint16(i+1))))
	}
	s.arena = must[*verbs.Arena](t)(verbs.NewArena(64 << 20))
	t.Cleanup(s.close)
	s.scratch, s.data = s.carve(session.ProbeSize), s.carve(stackDepth*stackTransfer)
	s.lane = must[*lane.Lane](t)(lane.New(lane.Options{Spin: -1, NoRing: true}))
	s.lane.Start()
	s.path = multipath.NewPath(multipath.Config{
		Lane: s.lane, Dial: s.dial, NoPathTimeout: stackPatience, Log: slog.New(slog.DiscardHandler),
	})
	link := must[*multipath.Link](t)(s.dial(t.Context()))
	lu := must[session.LogicalUnit](t)(session.Probe(t.Context(), link.Nexus, scsi.LUN{}, s.scratch))
	s.unit = multipath.NewUnit(lu, stackTransfer, stackDepth)
	s.queue = s.unit.AddQueue(s.path, multipath.Memory{Params: s.carve(stackDepth * multipath.ParamSize), Zeroes: s.carve(4096)})
	if err := errors.Join(s.path.AddUnit(t.Context(), s.unit, s.queue), s.path.Start(t.Context(), link)); err != nil {
		t.Fatal(err)
	}
	s.target.ResetLog()
	return s
}

func (s *stack) close() {
	if s.unit != nil {
		s.unit.Fail()
	}
	s.path.Stop()
	s.lane.Stop()
	s.target.Close()
	if err := s.arena.Close(); err != nil {
		s.t.Error(err)
	}
	for _, v := range s.target.Violations() {
		s.t.Errorf("the initiator broke the protocol: %s", v)
	}
}

func (s *stack) carve(size int) session.Buffer {
	id := must[verbs.RegionID](s.t)(s.arena.Carve(size, verbs.AccessRemote))
	return session.Buffer{Mem: s.arena.Mem(id)[:size], Region: uint32(id)}
}

// dial logs in by the first portal that lets it in, always with the same ISID.
func (s *stack) dial(ctx context.Context) (link *multipath.Link, err error) {
	for _, p := range s.portals {
		if link, err = s.dialAt(ctx, p.Addr()); err == nil {
			return link, nil
		}
	}
	return nil, err
}

func (s *stack) dialAt(ctx context.Context, portal netip.AddrPort) (*multipath.Link, error) {
	c, err := iser.Dial(ctx, s.net, iser.Options{Target: portal, Arena: s.arena})
	if err != nil {
		return nil, err
	}
	n, err := session.Login(ctx, c, session.Params{
		InitiatorName: "iqn.2026-01.test:initiator", TargetName: s.target.Name(), ISID: pdu.NewISID(1, 2),
		CommandTimeout: 200 * time.Millisecond, AbortTimeout: time.Second, LoginTimeout: 200 * time.Millisecond,
		NOPInterval: 100 * time.Millisecond, NOPTimeout: 100 * time.Millisecond,
	})
	if err != nil {
		c.Close()
		return nil, err
	}
	s.logins.Add(1)
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
	return &multipath.Link{Nexus: n, Scratch: s.scratch, Lost: lost, Portal: portal.String()}, nil
}

// order is one request of a block device.
type order struct {
	r   block.Request
	end chan syscall.Errno
}

// Done implements block.Sink.
func (o *order) Done(_ *block.Request, errno syscall.Errno) { o.end <- errno }

// submit starts a request in one of stackDepth places.
func (s *stack) submit(place int, op block.Op, off uint64, data []byte) *order {
	o := &order{end: make(chan syscall.Errno, 1)}
	mem := s.data.Mem[place*stackTransfer:][:len(data)]
	o.r = block.Request{
		Op: op, Tag: uint16(place), Offset: off, Length: uint64(len(data)), Data: mem, Sink: o, Region: s.data.Region,
	}
	if op == block.Write {
		copy(mem, data)
	}
	s.lane.Post(func() { s.queue.Submit(&o.r) })
	return o
}

func (s *stack) wait(o *order) syscall.Errno {
	s.t.Helper()
	select {
	case errno := <-o.end:
		return errno
	case <-time.After(stackPatience):
		s.t.Fatal("the request did not end")
		return 0
	}
}

func (s *stack) write(off uint64, data []byte) syscall.Errno {
	s.t.Helper()
	return s.wait(s.submit(0, block.Write, off, data))
}

func (s *stack) read(off uint64, n int) ([]byte, syscall.Errno) {
	s.t.Helper()
	o := s.submit(1, block.Read, off, make([]byte, n))
	errno := s.wait(o)
	return o.r.Data, errno
}

func (s *stack) eventually(what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(stackPatience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s did not come true", what)
		}
	}
}
