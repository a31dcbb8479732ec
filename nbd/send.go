package nbd

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// replyBatch is how many replies go out with one system call.
const replyBatch = 64

// send writes replies until there are none or the socket is full.
func (c *Conn) send() {
	for c.out.head != nil && !c.blocked && !c.dead {
		v, want := c.replies()
		n, errno := c.hub.call(unix.SYS_SENDMSG, c.fd, v)
		switch errno {
		case 0:
			c.wrote(n)
			if n < want {
				c.block()
			}
		case unix.EAGAIN:
			c.block()
		case unix.EINTR:
		default:
			c.fail(&Error{Op: "write", Err: errno})
		}
	}
	c.settle()
}

// block waits until the socket takes more. Until then no more requests are read, either.
func (c *Conn) block() {
	if c.hub.exp.impatient.Load() {
		c.fail(ErrCut)
		return
	}
	c.blocked = true
	c.file.AwaitWriting()
}

// replies lists the parts of the replies to send, as many as go with one call.
func (c *Conn) replies() (v []unix.Iovec, size int) {
	v = c.hub.iov[:0]
	skip := c.sent
	for s := c.out.head; s != nil && len(v)+2 <= cap(v); s = s.next {
		if skip < len(s.head) {
			v = appendIovec(v, s.head[skip:])
			size += len(s.head) - skip
			skip = 0
		} else {
			skip -= len(s.head)
		}
		if skip < len(s.body) {
			v = appendIovec(v, s.body[skip:])
			size += len(s.body) - skip
		}
		skip = 0
	}
	return v, size
}

// wrote gives the slots back whose replies have left.
func (c *Conn) wrote(n int) {
	c.sent += n
	for s := c.out.head; s != nil && c.sent >= len(s.head)+len(s.body); s = c.out.head {
		c.sent -= len(s.head) + len(s.body)
		c.hub.release(c.out.pop())
	}
}

// call is recvmsg or sendmsg on a non-blocking socket. It cannot sleep, so the scheduler need not hear of it.
func (h *hub) call(trap uintptr, fd int, v []unix.Iovec) (int, syscall.Errno) {
	h.msg.Iov = unsafe.SliceData(v)
	h.msg.SetIovlen(len(v))
	n, _, errno := syscall.RawSyscall(trap, uintptr(fd), uintptr(unsafe.Pointer(&h.msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

func appendIovec(v []unix.Iovec, b []byte) []unix.Iovec {
	if len(b) == 0 {
		return v
	}
	v = append(v, unix.Iovec{Base: unsafe.SliceData(b)})
	v[len(v)-1].SetLen(len(b))
	return v
}
