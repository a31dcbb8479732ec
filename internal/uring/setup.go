package uring

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// modes are the ways to run completions, the best first. Deferred task work (Linux 6.1) runs only when the lane
// enters the ring: one batching point and no interrupts in between. The others are for older kernels.
var modes = [...]uint32{
	setupSubmitAll | setupSingleIssuer | setupDeferTaskrun | setupTaskrunFlag,
	setupSubmitAll | setupCoopTaskrun | setupTaskrunFlag,
	setupSubmitAll,
	0,
}

const wantFeatures = featSingleMmap | featNoDrop

// New makes a ring that does nothing before Enable. Any thread may make it.
func New(opt Options) (*Ring, error) {
	p, fd, err := setup(opt)
	if err != nil {
		return nil, err
	}
	r := &Ring{fd: fd, flags: p.flags}
	if err := r.mmap(p); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Probe says why io_uring cannot be used here, or nil.
func Probe() error {
	r, err := New(Options{Entries: 2, SQE128: true})
	if err != nil {
		return err
	}
	return r.Close()
}

func setup(opt Options) (*params, int, error) {
	var errno syscall.Errno
	for _, mode := range modes {
		p := &params{flags: mode | setupRDisabled | setupCQSize, cqEntries: opt.CQEntries}
		if opt.CQEntries == 0 {
			p.cqEntries = 2 * opt.Entries
		}
		if opt.SQE128 {
			p.flags |= setupSQE128
		}
		var fd uintptr
		fd, _, errno = syscall.Syscall(unix.SYS_IO_URING_SETUP, uintptr(opt.Entries), uintptr(unsafe.Pointer(p)), 0)
		switch {
		case errno == unix.EINVAL:
			continue
		case errno != 0:
			return nil, 0, setupError(errno)
		case p.features&wantFeatures != wantFeatures:
			unix.Close(int(fd))
			return nil, 0, &Error{Op: "io_uring_setup", Err: unix.EOPNOTSUPP, Hint: "this kernel's io_uring is too old: Linux 5.19 or later is needed"}
		}
		return p, int(fd), nil
	}
	return nil, 0, setupError(errno)
}

// setupError names the switch that has io_uring off.
func setupError(errno syscall.Errno) error {
	e := &Error{Op: "io_uring_setup", Err: errno}
	switch {
	case errors.Is(errno, unix.EPERM) && disabledBySysctl():
		e.Hint = "io_uring is switched off: sysctl kernel.io_uring_disabled=0"
	case errors.Is(errno, unix.EPERM), errors.Is(errno, unix.EACCES):
		e.Hint = "a seccomp filter or security policy (a container's default one does) forbids io_uring: allow io_uring_setup, io_uring_enter and io_uring_register"
	case errors.Is(errno, unix.ENOSYS):
		e.Hint = "this kernel has no io_uring, or a seccomp filter hides it"
	case errors.Is(errno, unix.EINVAL):
		e.Hint = "this kernel's io_uring is too old: Linux 5.19 or later is needed"
	case errors.Is(errno, unix.ENOMEM):
		e.Hint = "memory or RLIMIT_MEMLOCK is short"
	}
	return e
}

// disabledBySysctl reads the sysctl of Linux 6.6: 0 allowed, 1 for a group and CAP_SYS_ADMIN, 2 for nobody.
func disabledBySysctl() bool {
	b, err := os.ReadFile("/proc/sys/kernel/io_uring_disabled")
	return err == nil && strings.TrimSpace(string(b)) != "0"
}

// mmap maps both rings (one mapping, IORING_FEAT_SINGLE_MMAP) and the SQEs.
func (r *Ring) mmap(p *params) error {
	if p.flags&setupSQE128 != 0 {
		r.sqeShift = 7
	} else {
		r.sqeShift = 6
	}
	size := max(p.sqOff.array+p.sqEntries*4, p.cqOff.cqes+p.cqEntries*uint32(unsafe.Sizeof(CQE{})))
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	var err error
	if r.rings, err = unix.Mmap(r.fd, offRings, int(size), prot, flags); err != nil {
		return &Error{Op: "map ring", Err: err}
	}
	if r.sqes, err = unix.Mmap(r.fd, offSQEs, int(p.sqEntries)<<r.sqeShift, prot, flags); err != nil {
		return &Error{Op: "map SQEs", Err: err}
	}
	r.point(p)
	return nil
}

func (r *Ring) point(p *params) {
	word := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[off])) }
	r.sqHead, r.sqTail, r.sqFlags = word(p.sqOff.head), word(p.sqOff.tail), word(p.sqOff.flags)
	r.sqMask, r.sqEntries = *word(p.sqOff.ringMask), p.sqEntries
	r.cqHead, r.cqTail = word(p.cqOff.head), word(p.cqOff.tail)
	r.cqMask = *word(p.cqOff.ringMask)
	r.cqes = unsafe.Pointer(&r.rings[p.cqOff.cqes])
	for i := range p.sqEntries { // SQEs are always submitted in the order of their slots
		*word(p.sqOff.array + 4*i) = i
	}
}
