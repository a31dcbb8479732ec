package rdmacore

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// poller waits on a library's descriptor with Go's own poller: no thread is held, Close and deadlines end the wait.
// It works on a duplicate, because the library closes the original.
type poller struct {
	file *os.File
	raw  syscall.RawConn
}

// newPoller takes a descriptor in non-blocking mode.
func newPoller(fd int, name string) (*poller, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	file := os.NewFile(uintptr(dup), name)
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &poller{file: file, raw: raw}, nil
}

// wait calls try whenever something may have happened, until it returns true.
func (p *poller) wait(try func() bool) error {
	return p.raw.Read(func(uintptr) bool { return try() })
}

// setDeadline ends waits at t; the zero time takes that back.
func (p *poller) setDeadline(t time.Time) { _ = p.file.SetReadDeadline(t) }

// interrupt ends the wait that is going on and those to come.
func (p *poller) interrupt() { p.setDeadline(time.Unix(1, 0)) }

func (p *poller) close() { _ = p.file.Close() }
