package lane

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"iserblk/internal/uring"
)

// engine is what a lane submits to and sleeps on.
type engine interface {
	start()                                  // on the lane's thread, first of all
	close()                                  // on the lane's thread, last of all
	reap() int                               // dispatches what has completed
	ready() bool                             // reap has something
	submit()                                 // hands over what was queued, without waiting
	wait(now instant, d time.Duration)       // the same, and sleeps until something completes, d after now at the latest
	nap(now instant, d time.Duration)        // the same for naps, whose limit d may be, without telling the Go scheduler
	watch(fd int, data uint64)               // dispatches data each time fd becomes readable
	unwatch(fd int, data uint64) (last bool) // ends that; last: one more completion without CQEMore will come
	watchFile(f *File)                       // tells f of reading, edge triggered
	watchWriting(f *File)                    // tells f of writing, once
	unwatchWriting(f *File)                  // after it was told
	unwatchFile(f *File)                     // ends both; f.over is told when nothing more will come
}

// ringEngine is io_uring.
type ringEngine struct {
	lane   *Lane
	ring   *uring.Ring
	timers alarm
	naps   alarm // apart, as it is nearly always set, and seldom for a timer
}

func newRingEngine(l *Lane) (engine, error) {
	ring, err := uring.New(uring.Options{Entries: l.opt.Entries, CQEntries: l.opt.CQEntries, SQE128: l.opt.SQE128})
	if err != nil {
		return nil, err
	}
	l.ring = ring
	return &ringEngine{lane: l, ring: ring, timers: alarm{data: timersData}, naps: alarm{data: napsData}}, nil
}

func (e *ringEngine) start()      { must(e.ring.Enable()) }
func (e *ringEngine) close()      { e.ring.Close() }
func (e *ringEngine) ready() bool { return e.ring.Ready() }

func (e *ringEngine) wait(now instant, d time.Duration) {
	e.timers.within(e.lane, now, d)
	must(e.ring.Wait())
}

func (e *ringEngine) nap(now instant, d time.Duration) {
	e.naps.within(e.lane, now, d)
	must(e.ring.Nap())
}

func (e *ringEngine) reap() int {
	for n := 0; ; {
		c, ok := e.ring.NextCQE()
		switch {
		case !ok:
			return n
		case c.UserData == timersData:
			e.timers.rang(c.Res)
		case c.UserData == napsData:
			e.naps.rang(c.Res)
		default:
			e.lane.dispatch(c)
			n++
		}
	}
}

// submit enters the ring only if that changes anything: while spinning it mostly does not.
func (e *ringEngine) submit() {
	if e.ring.Pending() > 0 || e.ring.NeedsEnter() {
		must(e.ring.Submit())
	}
}

func (e *ringEngine) watch(fd int, data uint64) {
	e.lane.SQE().PrepPollAddMultishot(fd, unix.POLLIN, data)
}

// unwatch submits at once, so that the kernel lets go of the file before the caller closes it, unless there is just
// something to tell of it.
func (e *ringEngine) unwatch(_ int, data uint64) bool {
	e.lane.SQE().PrepPollRemove(data, data+watchEnds)
	must(e.ring.Submit())
	return true
}

// epollEngine is epoll, edge triggered: Sources are polled every turn anyway, so an event only ends a sleep.
type epollEngine struct {
	lane   *Lane
	fd     int
	events [64]unix.EpollEvent
	n      int // events to reap
}

func newEpollEngine(l *Lane) (engine, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &epollEngine{lane: l, fd: fd}, nil
}

func (e *epollEngine) start()      {}
func (e *epollEngine) close()      { unix.Close(e.fd) }
func (e *epollEngine) ready() bool { return e.n > 0 }

func (e *epollEngine) reap() int {
	n := e.n
	for i := range n {
		ev := &e.events[i]
		e.lane.dispatch(uring.CQE{UserData: uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32, Res: int32(ev.Events), Flags: cqeMore})
	}
	e.n = 0
	return n
}

// submit has nothing to hand over, but Files become ready also while the lane spins.
func (e *epollEngine) submit() {
	if e.n == 0 {
		e.nap(0, 0)
	}
}

// watch stores data where the kernel keeps 64 bits for us (epoll_data_t), which x/sys calls Fd and Pad.
func (e *epollEngine) watch(fd int, data uint64) {
	must(e.control(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN, data))
}

func (e *epollEngine) control(op, fd int, events uint32, data uint64) error {
	ev := unix.EpollEvent{Events: events | unix.EPOLLET&0xffffffff, Fd: int32(uint32(data)), Pad: int32(data >> 32)}
	return unix.EpollCtl(e.fd, op, fd, &ev)
}

func (e *epollEngine) unwatch(fd int, _ uint64) bool {
	_ = unix.EpollCtl(e.fd, unix.EPOLL_CTL_DEL, fd, nil) // the Source may have lost its file already
	return false
}

func (e *epollEngine) wait(_ instant, d time.Duration) {
	n, _, errno := syscall.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(e.fd), uintptr(unsafe.Pointer(&e.events)), uintptr(len(e.events)), milliseconds(d), 0, 0)
	e.took(n, errno)
}

func (e *epollEngine) nap(_ instant, d time.Duration) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(e.fd), uintptr(unsafe.Pointer(&e.events)), uintptr(len(e.events)), milliseconds(d), 0, 0)
	e.took(n, errno)
}

func (e *epollEngine) took(n uintptr, errno syscall.Errno) {
	switch errno {
	case 0:
		e.n = int(n)
	case unix.EINTR:
	default:
		must(errno)
	}
}

// milliseconds rounds up, so that a timer is due when the sleep for it ends. -1 is for ever.
func milliseconds(d time.Duration) uintptr {
	const longest = 24 * time.Hour
	if d == forever {
		return ^uintptr(0)
	}
	return uintptr((min(max(d, 0), longest) + time.Millisecond - 1) / time.Millisecond)
}
