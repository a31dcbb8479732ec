package softroce

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// wake is what a driver sleeps on: an epoll descriptor over the connection's receiving socket, an eventfd for
// completions that others make, and a timer. It becomes readable as soon as one of them is.
type wake struct {
	epoll, event, timer int
	armed               bool
	signaled            bool
	at                  time.Duration // when the timer fires or has fired, 0 for never
	spec                unix.ItimerSpec
	count               [8]byte
}

func newWake() (w wake, err error) {
	w = wake{epoll: -1, event: -1, timer: -1}
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
		if w.event, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err == nil {
			w.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
		}
	}
	for _, fd := range [...]int{w.event, w.timer} {
		if err == nil {
			err = w.watch(fd)
		}
	}
	if err != nil {
		w.close()
		return w, os.NewSyscallError("epoll", err)
	}
	return w, nil
}

func (w *wake) watch(fd int) error {
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// signal wakes the driver if it wants to be.
func (w *wake) signal() {
	if !w.armed {
		return
	}
	w.armed, w.signaled = false, true
	w.count = [8]byte{1}
	_, _ = unix.Write(w.event, w.count[:]) // a counter at its limit is readable anyway
}

// arm takes what was signaled back and asks for the next.
func (w *wake) arm(now, deadline time.Duration) {
	w.armed = true
	if w.signaled {
		w.signaled = false
		_, _ = unix.Read(w.event, w.count[:])
	}
	if w.at != 0 && w.at <= now || w.at == 0 != (deadline == 0) || deadline != 0 && deadline < w.at {
		w.set(now, deadline)
	}
}

// hurry brings the timer forward while the driver sleeps.
func (w *wake) hurry(now, deadline time.Duration) {
	if w.armed && deadline != 0 && (w.at == 0 || deadline < w.at) {
		w.set(now, deadline)
	}
}

// set starts the timer, or stops it; both take an expiry off it.
func (w *wake) set(now, deadline time.Duration) {
	w.at = deadline
	w.spec = unix.ItimerSpec{}
	if deadline != 0 {
		w.spec.Value = unix.NsecToTimespec(int64(max(deadline-now, 1)))
	}
	_ = unix.TimerfdSettime(w.timer, 0, &w.spec, nil)
}

func (w *wake) close() {
	for _, fd := range [...]int{w.epoll, w.event, w.timer} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
