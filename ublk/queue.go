package ublk

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"iserblk/internal/block"
	"iserblk/internal/lane"
	"iserblk/internal/uring"
)

// queue is one hardware queue of a device. Everything but its counters belongs to its lane.
type queue struct {
	lane   *lane.Lane
	ring   ring
	unit   block.Queue
	fd     int // of /dev/ublkcN
	id     uint16
	base   uint64
	descs  []ioDesc // mapped; written by the kernel before a tag's CQE
	tags   []tag
	shared []Buffer // with clients of the device, by the kernel's number
	live   int      // tags that the kernel may still bring requests for

	limits *block.Limits
	size   *atomic.Uint64 // of the device, in bytes
	fail   *atomic.Int32  // the errno to answer everything with, 0 for none
	mute   *atomic.Bool   // nothing is answered, nor passed on

	retired chan struct{} // closed when live has come down to 0
	events  *events       // of the device
	fetched bool          // the lane knows of the queue; belongs to who creates and stops the device

	stats counters
}

// ring is what a queue needs of its lane.
type ring interface {
	SQE() *uring.SQE
	Register(lane.CQEHandler) uint64
	Unregister(base uint64)
}

// tag is one request slot.
type tag struct {
	req    block.Request
	buf    Buffer
	addr   uint64 // of buf
	busy   bool   // the logical unit has req
	shared bool   // its data is in the client's own memory

	// The I/O command that was sent last.
	op     uint32
	result int32
}

// init lays the slots out, before the lane knows of the queue.
func (q *queue) init(buffers []Buffer) {
	q.retired = make(chan struct{})
	q.tags = make([]tag, len(buffers))
	for i := range q.tags {
		t := &q.tags[i]
		t.buf = Buffer{Mem: buffers[i].Mem[:q.limits.MaxTransfer], Region: buffers[i].Region}
		t.addr = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(t.buf.Mem))))
		t.req = block.Request{Tag: uint16(i), Sink: q}
	}
}

// fetch hands every tag to the kernel. From here on the queue's lane is the tags' daemon.
func (q *queue) fetch() {
	q.base = q.ring.Register(q)
	q.live = len(q.tags)
	for i := range q.tags {
		q.tags[i].op = ioFetch
		q.send(uint16(i))
	}
}

// release ends the queue's use of its lane, after retired. It may be repeated.
func (q *queue) release() {
	if q.base != 0 {
		q.ring.Unregister(q.base)
		q.base = 0
	}
}

// commit ends tag i's request and asks for the next.
func (q *queue) commit(i uint16, result int32) {
	if q.mute.Load() {
		return
	}
	t := &q.tags[i]
	t.op, t.result = ioCommitAndFetch, result
	q.send(i)
}

func (q *queue) send(i uint16) {
	t := &q.tags[i]
	sqe := q.ring.SQE()
	sqe.PrepURingCmd(q.fd, t.op, q.base+uint64(i))
	*(*ioCmd)(sqe.Cmd()) = ioCmd{queue: q.id, tag: i, result: t.result, addr: t.addr}
}

// HandleCQE takes a new request from the kernel, or the end of a tag.
func (q *queue) HandleCQE(low uint32, res int32, _ uint32) {
	switch i := uint16(low); res {
	case resOK:
		q.begin(i)
	case -int32(unix.ENOMEM), -int32(unix.EAGAIN): // the command did not get through
		q.send(i)
	default:
		q.retire(res)
	}
}

// begin passes tag i's request on.
func (q *queue) begin(i uint16) {
	if q.mute.Load() {
		return
	}
	t := &q.tags[i]
	errno := q.parse(t, q.descs[i])
	if errno == 0 {
		errno = syscall.Errno(q.fail.Load())
	}
	if errno != 0 {
		q.stats.errors.Add(1)
		q.commit(i, -int32(known(errno)))
		return
	}
	t.busy = true
	q.stats.begin()
	q.unit.Submit(&t.req)
}

// Done returns r to the kernel. It never tells of a part: the kernel would take that for the whole, or ask again.
func (q *queue) Done(r *block.Request, errno syscall.Errno) {
	t := &q.tags[r.Tag]
	if !t.busy {
		panic("ublk: request completed twice")
	}
	t.busy = false
	q.stats.end(r, errno, t.shared)
	q.commit(r.Tag, result(r, errno))
}

// retire takes a tag out of service: the device stops (ENODEV), or the kernel refused a command of ours.
func (q *queue) retire(res int32) {
	if errno := syscall.Errno(-res); errno != unix.ENODEV {
		q.events.refused(errno)
	}
	if q.live--; q.live == 0 {
		close(q.retired)
		q.events.queueDone()
	}
}

// parse turns a descriptor into t's request. The kernel is believed, but not with other people's memory and data.
func (q *queue) parse(t *tag, d ioDesc) syscall.Errno {
	op, ok := opOf(d.opFlags)
	if !ok {
		return unix.EOPNOTSUPP
	}
	r := &t.req
	r.Op, r.Flags, r.Data, r.Region = op, flagsOf(op, d.opFlags), nil, t.buf.Region
	r.Offset, r.Length, t.shared = 0, 0, false
	if op == block.Flush {
		return 0
	}
	if d.startSector > 1<<(64-sectorShift)-1 || !q.inside(d.startSector<<sectorShift, uint64(d.nrSectors)<<sectorShift) {
		return unix.EIO
	}
	r.Offset, r.Length = d.startSector<<sectorShift, uint64(d.nrSectors)<<sectorShift
	if op == block.Read || op == block.Write {
		return q.place(t, d)
	}
	return 0
}

// place finds the memory of a read or a write: the tag's own, which the kernel copies, or the client's.
func (q *queue) place(t *tag, d ioDesc) syscall.Errno {
	r := &t.req
	if r.Length > uint64(len(t.buf.Mem)) {
		return unix.EIO
	}
	b := Buffer{Mem: t.buf.Mem[:r.Length:r.Length], Region: t.buf.Region}
	if t.shared = d.opFlags&ioShmemZC != 0; t.shared {
		var ok bool
		if b, ok = q.inPlace(d.addr, r.Length); !ok {
			return unix.EIO
		}
	}
	r.Data, r.Region = b.Mem, b.Region
	return 0
}

// inside says whether a range is whole blocks of the device and not empty.
func (q *queue) inside(off, n uint64) bool {
	size, mask := q.size.Load(), uint64(q.limits.BlockSize)-1
	return n > 0 && (off|n)&mask == 0 && off < size && n <= size-off
}

func opOf(flags uint32) (block.Op, bool) {
	switch flags & opMask {
	case opRead:
		return block.Read, true
	case opWrite:
		return block.Write, true
	case opFlush:
		return block.Flush, true
	case opDiscard:
		return block.Discard, true
	case opWriteZeroes:
		return block.WriteZeroes, true
	}
	return 0, false
}

func flagsOf(op block.Op, flags uint32) block.Flags {
	switch {
	case op == block.Write && flags&ioFUA != 0:
		return block.FUA
	case op == block.WriteZeroes && flags&ioNoUnmap != 0:
		return block.NoUnmap
	}
	return 0
}

// result is what COMMIT_AND_FETCH reports: all bytes, nothing to count, or an error.
func result(r *block.Request, errno syscall.Errno) int32 {
	switch {
	case errno != 0:
		return -int32(known(errno))
	case r.Op == block.Read || r.Op == block.Write:
		return int32(len(r.Data))
	}
	return 0
}

// known keeps the errors that the kernel's errno_to_blk_status tells apart. EAGAIN is not among them here: it means
// "would block" to a caller that never asked.
func known(errno syscall.Errno) syscall.Errno {
	switch errno {
	case unix.ENOSPC, unix.EOPNOTSUPP, unix.ETIMEDOUT, unix.ENOLINK, unix.EREMOTEIO, unix.EBADE, unix.ENODATA,
		unix.EILSEQ, unix.ENOMEM:
		return errno
	}
	return unix.EIO
}

// mapDescs maps a queue's descriptors. The offset goes by the largest depth that a queue could have, not by its own.
func mapDescs(fd int, id uint16, depth int) ([]byte, error) {
	off := int64(id) * int64(pages(maxQueueDepth*int(unsafe.Sizeof(ioDesc{}))))
	return unix.Mmap(fd, off, pages(depth*int(unsafe.Sizeof(ioDesc{}))), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
}

func pages(n int) int {
	page := unix.Getpagesize()
	return (n + page - 1) / page * page
}
