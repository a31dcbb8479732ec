package ublk

import (
	"syscall"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"iserblk/internal/block"
	"iserblk/internal/lane"
	"iserblk/internal/uring"
)

// fakeRing takes SQEs and looks at the last.
type fakeRing struct {
	sqes [64]uring.SQE
	n    int
	gone bool
}

func (r *fakeRing) SQE() *uring.SQE {
	s := &r.sqes[r.n%len(r.sqes)]
	*s = uring.SQE{}
	r.n++
	return s
}
func (r *fakeRing) Register(lane.CQEHandler) uint64 { return 5 << 32 }
func (r *fakeRing) Unregister(uint64)               { r.gone = true }

// last is the I/O command that was sent last.
func (r *fakeRing) last() (op uint32, cmd ioCmd) {
	s := &r.sqes[(r.n-1)%len(r.sqes)]
	return s.CmdOp, *(*ioCmd)(s.Cmd())
}

// fakeUnit answers at once, or keeps the request when told to.
type fakeUnit struct {
	errno syscall.Errno
	keep  bool
	got   *block.Request
	n     int
}

func (u *fakeUnit) Submit(r *block.Request) {
	u.got = r
	u.n++
	if !u.keep {
		r.Sink.Done(r, u.errno)
	}
}

const testDepth, testTransfer, testSize = 4, 64 << 10, 1 << 30

func testLimits() block.Limits {
	return block.Limits{
		Size: testSize, BlockSize: 4096, PhysicalBlockSize: 4096, MaxTransfer: testTransfer, Depth: testDepth,
		WriteCache: true, FUA: true,
		MaxDiscard: 1 << 40, DiscardGranularity: 65536, MaxWriteZeroes: 1 << 20,
	}
}

func testQueue(unit block.Queue) (*queue, *fakeRing) {
	limits := testLimits()
	d := &Device{limits: limits, events: events{lost: make(chan struct{})}}
	d.size.Store(limits.Size)
	d.events.queues.Store(1)
	r := &fakeRing{}
	q := &queue{
		ring: r, unit: unit, fd: 3, id: 2, descs: make([]ioDesc, testDepth),
		limits: &d.limits, size: &d.size, fail: &d.fail, mute: &d.mute, events: &d.events,
		shared: []Buffer{{Mem: make([]byte, testTransfer), Region: 200}, {}, {Mem: make([]byte, 3*testTransfer), Region: 202}},
	}
	buffers := make([]Buffer, testDepth)
	for i := range buffers {
		buffers[i] = Buffer{Mem: make([]byte, testTransfer+1), Region: uint32(100 + i)}
	}
	q.init(buffers)
	q.fetch()
	return q, r
}

func TestEveryTagIsFetchedWithItsBuffer(t *testing.T) {
	q, r := testQueue(&fakeUnit{})
	for i := range testDepth {
		s := &r.sqes[i]
		want := ioCmd{queue: 2, tag: uint16(i), addr: uint64(uintptr(unsafe.Pointer(&q.tags[i].buf.Mem[0])))}
		if cmd := *(*ioCmd)(s.Cmd()); cmd != want || s.CmdOp != ioFetch || s.FD != 3 || s.UserData != 5<<32+uint64(i) {
			t.Errorf("tag %d: %+v in %+v", i, cmd, s)
		}
	}
}

func TestADescriptorBecomesARequestAndItsEndACommit(t *testing.T) {
	for name, c := range map[string]struct {
		desc   ioDesc
		want   block.Request // Data by length
		errno  syscall.Errno
		result int32
	}{
		"a read":              {ioDesc{opFlags: opRead, nrSectors: 8, startSector: 16}, block.Request{Op: block.Read, Offset: 8192, Length: 4096}, 0, 4096},
		"the longest write":   {ioDesc{opFlags: opWrite, nrSectors: 128}, block.Request{Op: block.Write, Length: 65536}, 0, 65536},
		"a durable write":     {ioDesc{opFlags: opWrite | ioFUA | 1<<8, nrSectors: 8}, block.Request{Op: block.Write, Flags: block.FUA, Length: 4096}, 0, 4096},
		"the last block":      {ioDesc{opFlags: opRead, nrSectors: 8, startSector: testSize/512 - 8}, block.Request{Op: block.Read, Offset: testSize - 4096, Length: 4096}, 0, 4096},
		"a flush":             {ioDesc{opFlags: opFlush, nrSectors: 8, startSector: 8}, block.Request{Op: block.Flush}, 0, 0},
		"a discard":           {ioDesc{opFlags: opDiscard, nrSectors: 1 << 21}, block.Request{Op: block.Discard, Length: 1 << 30}, 0, 0},
		"zeroes":              {ioDesc{opFlags: opWriteZeroes, nrSectors: 8}, block.Request{Op: block.WriteZeroes, Length: 4096}, 0, 0},
		"zeroes, allocated":   {ioDesc{opFlags: opWriteZeroes | ioNoUnmap, nrSectors: 8}, block.Request{Op: block.WriteZeroes, Flags: block.NoUnmap, Length: 4096}, 0, 0},
		"a failed read":       {ioDesc{opFlags: opRead, nrSectors: 8}, block.Request{Op: block.Read, Length: 4096}, unix.EIO, -int32(unix.EIO)},
		"a full disk":         {ioDesc{opFlags: opWrite, nrSectors: 8}, block.Request{Op: block.Write, Length: 4096}, unix.ENOSPC, -int32(unix.ENOSPC)},
		"an unknown error":    {ioDesc{opFlags: opWrite, nrSectors: 8}, block.Request{Op: block.Write, Length: 4096}, unix.ENOTCONN, -int32(unix.EIO)},
		"the abort's number":  {ioDesc{opFlags: opRead, nrSectors: 8}, block.Request{Op: block.Read, Length: 4096}, unix.ENODEV, -int32(unix.EIO)},
		"would-block":         {ioDesc{opFlags: opRead, nrSectors: 8}, block.Request{Op: block.Read, Length: 4096}, unix.EAGAIN, -int32(unix.EIO)},
		"an unsupported trim": {ioDesc{opFlags: opDiscard, nrSectors: 8}, block.Request{Op: block.Discard, Length: 4096}, unix.EOPNOTSUPP, -int32(unix.EOPNOTSUPP)},
	} {
		t.Run(name, func(t *testing.T) {
			unit := &fakeUnit{errno: c.errno}
			q, r := testQueue(unit)
			q.descs[3] = c.desc
			q.HandleCQE(3, 0, 0)
			got := *unit.got
			if isData := got.Op == block.Read || got.Op == block.Write; isData && (uint64(len(got.Data)) != c.want.Length || &got.Data[0] != &q.tags[3].buf.Mem[0]) || !isData && got.Data != nil {
				t.Errorf("data of %d bytes", len(got.Data))
			}
			got.Data, got.Sink = nil, nil
			c.want.Tag, c.want.Region = 3, 103
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			op, cmd := r.last()
			if want := (ioCmd{queue: 2, tag: 3, result: c.result, addr: q.tags[3].addr}); op != ioCommitAndFetch || cmd != want {
				t.Errorf("committed %+v, want %+v", cmd, want)
			}
		})
	}
}

func TestAnImpossibleDescriptorFailsUnseen(t *testing.T) {
	for name, c := range map[string]struct {
		desc ioDesc
		want syscall.Errno
	}{
		"beyond the end":            {ioDesc{opFlags: opRead, nrSectors: 16, startSector: testSize/512 - 8}, unix.EIO},
		"wholly beyond the end":     {ioDesc{opFlags: opRead, nrSectors: 8, startSector: testSize / 512}, unix.EIO},
		"an offset that wraps":      {ioDesc{opFlags: opRead, nrSectors: 8, startSector: 1 << 55}, unix.EIO},
		"a sum that wraps":          {ioDesc{opFlags: opRead, nrSectors: 8, startSector: 1<<55 - 8}, unix.EIO},
		"more than the buffer":      {ioDesc{opFlags: opWrite, nrSectors: 136}, unix.EIO},
		"nothing":                   {ioDesc{opFlags: opRead}, unix.EIO},
		"a part of a block":         {ioDesc{opFlags: opWrite, nrSectors: 1}, unix.EIO},
		"off a block's start":       {ioDesc{opFlags: opRead, nrSectors: 8, startSector: 1}, unix.EIO},
		"a discard beyond the end":  {ioDesc{opFlags: opDiscard, nrSectors: 1<<32 - 8}, unix.EIO},
		"an operation of the zoned": {ioDesc{opFlags: 13, nrSectors: 8}, unix.EOPNOTSUPP},
		"write same":                {ioDesc{opFlags: 4, nrSectors: 8}, unix.EOPNOTSUPP},
	} {
		t.Run(name, func(t *testing.T) {
			unit := &fakeUnit{}
			q, r := testQueue(unit)
			q.descs[1] = c.desc
			q.HandleCQE(1, 0, 0)
			if _, cmd := r.last(); unit.n != 0 || cmd.result != -int32(c.want) || cmd.tag != 1 {
				t.Errorf("unit saw %d, committed %+v", unit.n, cmd)
			}
			if q.stats.errors.Load() != 1 {
				t.Error("not counted")
			}
		})
	}
}

// Whatever the descriptor says, a request lies within the device and its buffer, and a result is all or an error.
func TestNoDescriptorLeadsOutsideTheDevice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		unit := &fakeUnit{errno: syscall.Errno(rapid.IntRange(0, 133).Draw(t, "errno"))}
		q, r := testQueue(unit)
		q.descs[0] = ioDesc{
			opFlags:     rapid.Uint32().Draw(t, "flags"),
			nrSectors:   rapid.OneOf(rapid.Uint32(), rapid.Uint32Range(0, 256)).Draw(t, "sectors"),
			startSector: rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(0, testSize/512)).Draw(t, "start"),
			addr: rapid.OneOf(rapid.Uint64(), rapid.Custom(func(t *rapid.T) uint64 {
				return rapid.Uint64Range(0, 4).Draw(t, "buffer")<<32 + rapid.Uint64Range(0, 4*testTransfer).Draw(t, "offset")
			})).Draw(t, "addr"),
		}
		q.HandleCQE(0, 0, 0)
		_, cmd := r.last()
		got := unit.got
		if got == nil {
			if cmd.result >= 0 {
				t.Fatalf("refused with %d", cmd.result)
			}
			return
		}
		if got.Offset+got.Length > testSize || got.Offset+got.Length < got.Offset || len(got.Data) > testTransfer {
			t.Fatalf("request %+v", got)
		}
		if got.Op == block.Read || got.Op == block.Write {
			lies(t, q, got)
		}
		if cmd.result >= 0 && int(cmd.result) != len(got.Data) {
			t.Fatalf("result %d of %d bytes", cmd.result, len(got.Data))
		}
	})
}

// lies checks that a request's data is where its region says.
func lies(t *rapid.T, q *queue, r *block.Request) {
	t.Helper()
	b := q.tags[r.Tag].buf
	if r.Region >= 200 {
		b = q.shared[r.Region-200]
	}
	start, data := uintptr(unsafe.Pointer(unsafe.SliceData(b.Mem))), uintptr(unsafe.Pointer(unsafe.SliceData(r.Data)))
	if b.Region != r.Region || data < start || data+uintptr(len(r.Data)) > start+uintptr(len(b.Mem)) || cap(r.Data) != len(r.Data) {
		t.Fatalf("%d bytes, capacity %d, at %#x are not in region %d", len(r.Data), cap(r.Data), data, r.Region)
	}
}

func TestARequestInSharedMemoryKeepsItsPlace(t *testing.T) {
	unit := &fakeUnit{}
	q, r := testQueue(unit)
	for i, c := range []struct {
		desc   ioDesc
		region uint32
		mem    *byte
		result int32
		shared uint64
	}{
		{ioDesc{opFlags: opRead | ioShmemZC, nrSectors: 8, addr: 512}, 200, &q.shared[0].Mem[512], 4096, 1},
		{ioDesc{opFlags: opWrite | ioShmemZC | ioFUA, nrSectors: 128, addr: 2<<32 + 2*testTransfer}, 202, &q.shared[2].Mem[2*testTransfer], testTransfer, 2},
		{ioDesc{opFlags: opRead, nrSectors: 8, addr: 512}, 101, &q.tags[1].buf.Mem[0], 4096, 2}, // the same tag goes back to its own
	} {
		q.descs[1] = c.desc
		q.HandleCQE(1, 0, 0)
		_, cmd := r.last()
		if got := unit.got; got.Region != c.region || &got.Data[0] != c.mem || cmd.result != c.result || cmd.addr != q.tags[1].addr {
			t.Errorf("%d: region %d, committed %+v", i, got.Region, cmd)
		}
		if n := q.stats.shared.Load(); n != c.shared {
			t.Errorf("%d: %d in place, want %d", i, n, c.shared)
		}
	}
}

func TestAPlaceOutsideTheSharedMemoryFailsUnseen(t *testing.T) {
	for name, addr := range map[string]uint64{
		"no such buffer":    3 << 32,
		"a buffer's gap":    1 << 32,
		"beyond the end":    testTransfer,
		"across the end":    testTransfer - 2048,
		"far beyond":        1<<32 - 1,
		"a number too long": 1 << 48,
	} {
		unit := &fakeUnit{}
		q, r := testQueue(unit)
		q.descs[1] = ioDesc{opFlags: opWrite | ioShmemZC, nrSectors: 8, addr: addr}
		q.HandleCQE(1, 0, 0)
		if _, cmd := r.last(); unit.n != 0 || cmd.result != -int32(unix.EIO) {
			t.Errorf("%s: unit saw %d, committed %+v", name, unit.n, cmd)
		}
	}
}

func TestFailAnswersWithoutTheUnit(t *testing.T) {
	unit := &fakeUnit{}
	q, r := testQueue(unit)
	q.fail.Store(int32(unix.ETIMEDOUT))
	q.descs[0] = ioDesc{opFlags: opFlush}
	q.HandleCQE(0, 0, 0)
	if _, cmd := r.last(); unit.n != 0 || cmd.result != -int32(unix.ETIMEDOUT) {
		t.Errorf("unit saw %d, committed %+v", unit.n, cmd)
	}
}

func TestTagsRetireOnAbortAndTheLastOneTells(t *testing.T) {
	q, r := testQueue(&fakeUnit{})
	sent := r.n
	for i := range uint32(testDepth) {
		select {
		case <-q.retired:
			t.Fatal("retired early")
		default:
		}
		q.HandleCQE(i, -int32(unix.ENODEV), 0)
	}
	<-q.retired
	<-q.events.lost
	if q.events.error() != ErrStopped || r.n != sent {
		t.Errorf("%v, %d commands after the abort", q.events.error(), r.n-sent)
	}
	q.release()
	r.gone = false
	if q.release(); r.gone {
		t.Error("unregistered twice")
	}
}

func TestARefusedCommandIsToldAtOnce(t *testing.T) {
	q, _ := testQueue(&fakeUnit{})
	q.HandleCQE(0, -int32(unix.EINVAL), 0)
	<-q.events.lost
	if err := q.events.error(); err == nil || err == ErrStopped {
		t.Errorf("error %v", err)
	}
}

func TestACommandThatFoundNoMemoryIsSentAgain(t *testing.T) {
	q, r := testQueue(&fakeUnit{})
	q.descs[1] = ioDesc{opFlags: opRead, nrSectors: 8}
	q.HandleCQE(1, 0, 0)
	opBefore, before := r.last()
	sent := r.n
	q.HandleCQE(1, -int32(unix.ENOMEM), 0)
	if op, cmd := r.last(); r.n != sent+1 || op != opBefore || cmd != before {
		t.Errorf("sent %+v after %+v", cmd, before)
	}
}

func TestCompletingTwicePanics(t *testing.T) {
	unit := &fakeUnit{keep: true}
	q, _ := testQueue(unit)
	q.descs[0] = ioDesc{opFlags: opFlush}
	q.HandleCQE(0, 0, 0)
	q.Done(unit.got, 0)
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	q.Done(unit.got, 0)
}

func TestStatsCountWhatWasDone(t *testing.T) {
	unit := &fakeUnit{}
	q, _ := testQueue(unit)
	do := func(d ioDesc) {
		q.descs[0] = d
		q.HandleCQE(0, 0, 0)
	}
	do(ioDesc{opFlags: opRead, nrSectors: 8})
	do(ioDesc{opFlags: opRead, nrSectors: 16})
	do(ioDesc{opFlags: opWrite | ioFUA, nrSectors: 8})
	do(ioDesc{opFlags: opFlush})
	unit.errno = unix.EIO
	do(ioDesc{opFlags: opWrite, nrSectors: 8})
	unit.keep = true
	do(ioDesc{opFlags: opDiscard, nrSectors: 8})
	got := (&Device{queues: []*queue{q}}).Stats()
	want := Stats{Ops: [5]uint64{2, 1, 1, 0, 0}, Bytes: [5]uint64{12288, 4096, 0, 0, 0}, Errors: 1, FUA: 1, InFlight: 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTheDataPathDoesNotAllocate(t *testing.T) {
	q, _ := testQueue(&fakeUnit{})
	var h lane.CQEHandler = q
	for _, d := range []ioDesc{
		{opFlags: opRead, nrSectors: 8},
		{opFlags: opWrite | ioFUA, nrSectors: 128},
		{opFlags: opFlush},
		{opFlags: opRead, nrSectors: 1},
	} {
		q.descs[2] = d
		if n := testing.AllocsPerRun(100, func() { h.HandleCQE(2, 0, 0) }); n != 0 {
			t.Errorf("%+v: %v allocations", d, n)
		}
	}
}

func BenchmarkARequestThroughTheQueue(b *testing.B) {
	q, _ := testQueue(&fakeUnit{})
	q.descs[2] = ioDesc{opFlags: opRead, nrSectors: 8}
	b.ReportAllocs()
	for b.Loop() {
		q.HandleCQE(2, 0, 0)
	}
}

func TestAMuteQueueNeitherServesNorAnswers(t *testing.T) {
	unit := &fakeUnit{keep: true}
	q, ring := testQueue(unit)
	q.descs[0] = ioDesc{opFlags: opRead, nrSectors: 8}
	q.HandleCQE(0, 0, 0)
	request, sent := unit.got, ring.n
	q.mute.Store(true)
	q.Done(request, 0) // the answer that was on its way is not given
	q.descs[1] = ioDesc{opFlags: opWrite, nrSectors: 8}
	q.HandleCQE(1, 0, 0)
	if unit.n != 1 {
		t.Errorf("%d requests passed on", unit.n)
	}
	if n := ring.n - sent; n != 0 {
		t.Errorf("%d commands sent", n)
	}
}
