package nbd

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"iserblk/internal/block"
	"iserblk/internal/lane"
	"iserblk/internal/uring"
)

func TestMain(m *testing.M) {
	drainGrace /= 10
	goleak.VerifyTestMain(m)
}

// unit is a logical unit in memory. What it is asked it does at once, or at its lane's next turn, or when it is let.
type unit struct {
	lane   *lane.Lane
	data   *image
	limits block.Limits

	// The lane's own.
	late    bool // answer in a later turn
	held    bool // and not before release
	random  *rand.Rand
	pending []*block.Request
	flushes int
	fua     int
	pieces  int
	errno   func(*block.Request) syscall.Errno // nil: all goes well
	extents func(*block.Request)

	inFlight atomic.Int32
	most     atomic.Int32
}

// image is the content of a disk that has several queues: requests at one time do not overlap, as with a real one.
type image struct{ bytes []byte }

func (u *unit) Submit(r *block.Request) {
	if n := u.inFlight.Add(1); n > u.most.Load() {
		u.most.Store(n)
	}
	if !u.late {
		u.finish(r)
		return
	}
	u.pending = append(u.pending, r)
}

func (u *unit) finish(r *block.Request) {
	u.inFlight.Add(-1)
	r.Sink.Done(r, u.do(r))
}

func (u *unit) do(r *block.Request) syscall.Errno {
	u.pieces++
	if u.errno != nil {
		if errno := u.errno(r); errno != 0 {
			return errno
		}
	}
	l := u.limits
	if (r.Offset|r.Length)%uint64(l.BlockSize) != 0 || r.Offset+r.Length > l.Size {
		return syscall.EILSEQ // the front end has to keep this from us
	}
	part := u.data.bytes[r.Offset : r.Offset+r.Length]
	switch r.Op {
	case block.Read:
		if len(r.Data) != len(part) || len(part) > int(l.MaxTransfer) {
			return syscall.EILSEQ
		}
		copy(r.Data, part)
	case block.Write:
		if len(r.Data) != len(part) || len(part) > int(l.MaxTransfer) {
			return syscall.EILSEQ
		}
		copy(part, r.Data)
		if r.Flags&block.FUA != 0 {
			u.fua++
		}
	case block.Flush:
		u.flushes++
	case block.Discard:
		if r.Length > l.MaxDiscard {
			return syscall.EILSEQ
		}
		clear(part)
	case block.WriteZeroes:
		if r.Length > l.MaxWriteZeroes {
			return syscall.EILSEQ
		}
		clear(part)
	case block.Allocation:
		if u.extents == nil {
			return syscall.EOPNOTSUPP
		}
		u.extents(r)
	}
	return 0
}

// Poll answers what is pending, in any order.
func (u *unit) Poll() int {
	if u.held {
		return 0
	}
	all := u.pending
	u.pending = nil
	if u.random != nil {
		u.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
	for _, r := range all {
		u.finish(r)
	}
	return len(all)
}
func (u *unit) Flush()     {}
func (u *unit) Arm() bool  { return len(u.pending) > 0 && !u.held }
func (u *unit) Fd() int    { return -1 }
func (u *unit) Busy() bool { return u.Arm() }

const (
	testBlock    = 512
	testTransfer = 64 << 10
	testSize     = 1 << 20
	testDepth    = 16
)

func testLimits() block.Limits {
	return block.Limits{
		Size: testSize, BlockSize: testBlock, PhysicalBlockSize: 4096, MaxTransfer: testTransfer, Depth: testDepth,
		WriteCache: true, FUA: true, MaxDiscard: 256 << 10, DiscardGranularity: 4096, MaxWriteZeroes: 192 << 10, FastZeroes: true,
	}
}

// bed is an export with a unit in memory behind every lane.
type bed struct {
	t      testing.TB
	export *Export
	units  []*unit
	data   *image
	path   string
	fds    int
}

type bedOptions struct {
	lane   lane.Options
	limits block.Limits
	queues int
	conns  int
	buffer int // bytes of each, 0: as many as the unit transfers
	unit   func(*unit)
	listen bool
}

// engines are the kinds of lanes that this machine has.
func engines() map[string]lane.Options {
	all := map[string]lane.Options{"epoll": {NoRing: true}}
	if err := uring.Probe(); err == nil {
		all["io_uring"] = lane.Options{}
	} else {
		println("without io_uring:", err.Error())
	}
	return all
}

// onBoth runs a test on every engine.
func onBoth(t *testing.T, f func(t *testing.T, o bedOptions)) {
	t.Helper()
	for name, opt := range engines() {
		t.Run(name, func(t *testing.T) { f(t, bedOptions{lane: opt}) })
	}
}

func newBed(t testing.TB, o bedOptions) *bed {
	t.Helper()
	b := &bed{t: t, fds: countFDs(t)}
	if o.limits.BlockSize == 0 {
		o.limits = testLimits()
	}
	if o.queues == 0 {
		o.queues = 1
	}
	b.data = &image{bytes: make([]byte, o.limits.Size)}
	cfg := Config{Name: "disk", Description: "a test", Limits: o.limits, MaxConns: o.conns}
	var lanes []*lane.Lane
	for range o.queues {
		l, err := lane.New(o.lane)
		if err != nil {
			t.Fatal(err)
		}
		l.Start()
		lanes = append(lanes, l)
		u := &unit{lane: l, data: b.data, limits: o.limits}
		if o.unit != nil {
			o.unit(u)
		}
		b.units = append(b.units, u)
		b.on(u, func() { l.Add(u) })
		cfg.Queues = append(cfg.Queues, QueueConfig{Lane: l, Unit: u, Buffers: buffers(o)})
	}
	var err error
	if b.export, err = NewExport(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.close(lanes) })
	if o.listen {
		b.path = t.TempDir() + "/s"
		if _, err := b.export.Listen(t.Context(), ListenConfig{Network: "unix", Address: b.path}); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func buffers(o bedOptions) []Buffer {
	n := BuffersPerQueue(o.limits.Depth, o.conns, o.queues)
	size := o.buffer
	if size == 0 {
		size = int(o.limits.MaxTransfer)
	}
	mem := make([]byte, n*size)
	var out []Buffer
	for range n {
		out = append(out, Buffer{Mem: mem[:size:size]})
		mem = mem[size:]
	}
	return out
}

// close ends the export and looks for what it has left: slots, tags, descriptors. Goroutines are for TestMain.
func (b *bed) close(lanes []*lane.Lane) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, u := range b.units {
		b.on(u, func() { u.held = false })
	}
	if err := b.export.Close(ctx); err != nil {
		b.t.Error(err)
	}
	for _, h := range b.export.hubs {
		b.checkHub(h)
	}
	for _, l := range lanes {
		l.Stop()
	}
	if now := countFDs(b.t); now > b.fds {
		b.t.Errorf("%d descriptors are open, %d were before", now, b.fds)
	}
}

func (b *bed) checkHub(h *hub) {
	if h.nfree != len(h.slots) || h.holders != 0 || len(h.tags) != len(h.byTag) || len(h.conns) != 0 || h.tickets.Load() != 0 {
		b.t.Errorf("left behind: %d of %d slots, %d holders, %d of %d tags, %d connections, %d tickets", len(h.slots)-h.nfree,
			len(h.slots), h.holders, len(h.byTag)-len(h.tags), len(h.byTag), len(h.conns), h.tickets.Load())
	}
	seen := map[*slot]bool{}
	for s := h.free.head; s != nil; s = s.next {
		if seen[s] {
			b.t.Error("a slot is free twice")
			break
		}
		seen[s] = true
	}
	if tags := slices.Clone(h.tags); len(slices.Compact(slices.Sorted(slices.Values(tags)))) != len(h.byTag) {
		b.t.Errorf("tags in use or free twice: %v", tags)
	}
	if s := b.export.Stats(); s.InFlight != 0 {
		b.t.Errorf("%d requests in flight after the end", s.InFlight)
	}
}

// with is the same bed for another test, within which it is used.
func (b *bed) with(t testing.TB) *bed {
	c := *b
	c.t = t
	return &c
}

// content is what the unit holds now.
func (b *bed) content() []byte {
	b.t.Helper()
	var all []byte
	b.on(b.units[0], func() { all = bytes.Clone(b.data.bytes) })
	return all
}

// on runs f on u's lane.
func (b *bed) on(u *unit, f func()) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := u.lane.Do(ctx, f); err != nil {
		b.t.Fatal(err)
	}
}

func countFDs(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range all {
		if to, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil && to != "anon_inode:[eventpoll]" && to != "anon_inode:[eventfd]" {
			n++
		}
	}
	return n
}

// connect is a client past its handshake.
func (b *bed) connect(o ConnOptions) *client {
	b.t.Helper()
	c, _ := b.connectBoth(o)
	return c
}

func (b *bed) connectBoth(o ConnOptions) (*client, *Conn) {
	b.t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	served, err := b.export.ServeConn(pair[0], o)
	if err != nil {
		unix.Close(pair[1])
		b.t.Fatal(err)
	}
	return newClient(b.t, pair[1], o.Replies), served
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("not in time: %s", what)
}

func pattern(n int, seed byte) []byte {
	return bytes.Repeat([]byte{seed, seed ^ 0x5a, seed + 3, 7}, n/4)
}
