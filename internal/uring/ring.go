// Package uring is io_uring as a lane needs it: one ring, driven by one thread, for URING_CMD and multishot polls.
//
// It is a thin layer over the three system calls. A Ring has no locks: after Enable everything but Close belongs to
// the thread that called it.
package uring

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Options says what ring to make.
type Options struct {
	// Entries is the size of the submission queue, rounded up to a power of two by the kernel.
	Entries uint32
	// CQEntries is the size of the completion queue; 0 means twice Entries. What does not fit waits in the kernel.
	CQEntries uint32
	// SQE128 makes every SQE 128 bytes, which the control commands of ublk want.
	SQE128 bool
}

// Ring is one io_uring instance.
type Ring struct {
	fd       int
	flags    uint32 // IORING_SETUP_* in force
	rings    []byte
	sqes     []byte
	sqeShift uint

	sqHead, sqTail, sqFlags *uint32
	sqMask, sqEntries       uint32
	tail                    uint32 // next SQE to fill; published by enter

	cqHead, cqTail *uint32
	cqMask         uint32
	cqes           unsafe.Pointer
}

// Enable opens the ring for the calling thread, which must be locked to its goroutine: from here on only that
// thread may use the ring.
func (r *Ring) Enable() error {
	_, _, errno := syscall.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), registerEnableRings, 0, 0, 0, 0)
	if errno != 0 {
		return &Error{Op: "enable ring", Err: errno}
	}
	return nil
}

// NextSQE is the next free SQE, zeroed, or nil while the submission queue is full: Submit makes room. It is handed
// to the kernel by the next Submit or Wait.
func (r *Ring) NextSQE() *SQE {
	if r.tail-atomic.LoadUint32(r.sqHead) >= r.sqEntries {
		return nil
	}
	i := (r.tail & r.sqMask) << r.sqeShift
	r.tail++
	clear(r.sqes[i : i+1<<r.sqeShift])
	return (*SQE)(unsafe.Pointer(&r.sqes[i]))
}

// Pending is how many SQEs wait to be submitted.
func (r *Ring) Pending() uint32 { return r.tail - atomic.LoadUint32(r.sqHead) }

// NeedsEnter says whether the kernel holds completions back until the ring is entered: deferred task work, or
// completions that found the queue full.
func (r *Ring) NeedsEnter() bool { return atomic.LoadUint32(r.sqFlags)&(sqTaskrun|sqCQOverflow) != 0 }

// NextCQE takes the oldest completion. It never enters the kernel.
func (r *Ring) NextCQE() (CQE, bool) {
	head := *r.cqHead // written by this thread alone
	if head == atomic.LoadUint32(r.cqTail) {
		return CQE{}, false
	}
	c := *(*CQE)(unsafe.Add(r.cqes, uintptr(head&r.cqMask)*unsafe.Sizeof(CQE{})))
	atomic.StoreUint32(r.cqHead, head+1)
	return c, true
}

// Ready says whether NextCQE has something.
func (r *Ring) Ready() bool { return *r.cqHead != atomic.LoadUint32(r.cqTail) }

// Submit hands the pending SQEs over and runs deferred work, without waiting. What the kernel did not take (it was
// short of memory) stays pending.
func (r *Ring) Submit() error {
	atomic.StoreUint32(r.sqTail, r.tail)
	// It cannot block, so the scheduler need not hear of it.
	_, _, errno := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.Pending()), 0, enterGetEvents, 0, 0)
	return enterError(errno)
}

// Wait does what Submit does and sleeps until there is a completion or a signal came, which the Go runtime may send at
// any time. It may therefore return with nothing to reap. PrepTimeout bounds it.
func (r *Ring) Wait() error {
	atomic.StoreUint32(r.sqTail, r.tail)
	_, _, errno := syscall.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.Pending()), 1, enterGetEvents, 0, 0)
	return enterError(errno)
}

// Nap is Wait for a short time only, unseen by the scheduler. Telling it costs more than the wait itself where
// requests come fast: its monitor takes the processor away after 20 µs and has to be asked for it back. When the runtime wants the
// world to stop, its signal ends the nap.
func (r *Ring) Nap() error {
	atomic.StoreUint32(r.sqTail, r.tail)
	_, _, errno := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.Pending()), 1, enterGetEvents, 0, 0)
	return enterError(errno)
}

// enterError drops what only means "look again": a signal, no memory for a request right now, a full completion
// queue.
func enterError(errno syscall.Errno) error {
	switch errno {
	case 0, unix.EINTR, unix.EAGAIN, unix.EBUSY:
		return nil
	}
	return &Error{Op: "io_uring_enter", Err: errno}
}

// Close gives the ring back; requests in it are cancelled by the kernel some time later. No thread may be using it.
func (r *Ring) Close() error {
	if r.fd < 0 {
		return nil
	}
	unix.Munmap(r.sqes)
	unix.Munmap(r.rings)
	err := unix.Close(r.fd)
	r.fd, r.sqes, r.rings = -1, nil, nil
	return err
}

// Error is the error of every operation on a ring. Err is a syscall.Errno.
type Error struct {
	Op   string
	Hint string // what to do next, "" when there is nothing better than the cause
	Err  error
}

// Error says what failed, why and what to do next.
func (e *Error) Error() string {
	if e.Hint == "" {
		return fmt.Sprintf("%s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("%s: %v; %s", e.Op, e.Err, e.Hint)
}

// Unwrap gives the errno to errors.Is.
func (e *Error) Unwrap() error { return e.Err }
