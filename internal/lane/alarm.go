package lane

import (
	"time"

	"golang.org/x/sys/unix"

	"iserblk/internal/uring"
)

// forever is the length of a sleep that no timer ends.
const forever time.Duration = 1<<63 - 1

// alarm is a timeout with the kernel that outlasts the sleeps which it bounds. One of its own for each of them, set and
// cancelled twice an I/O, costs more than an alarm that ends one of a thousand sleeps early.
type alarm struct {
	data uint64         // user data of its completion
	when instant        // when it rings, 0 when it is not set
	ts   uring.Timespec // read by the kernel as it takes the request
}

// within has the alarm ring d from now or before. One that is set already and rings later stays, to ring in vain.
func (a *alarm) within(l *Lane, now instant, d time.Duration) {
	if d == forever {
		return
	}
	when := now.add(d)
	if a.when != 0 && a.when <= when {
		return
	}
	d = max(d, 0)
	a.when = when
	a.ts = uring.Timespec{Sec: int64(d / time.Second), Nsec: int64(d % time.Second)}
	l.SQE().PrepTimeout(&a.ts, a.data)
}

// rang takes the completion of the alarm, or of an earlier setting. Any result but ETIME says that the kernel has not taken
// it: then it must be set again, or a sleep would have no end.
func (a *alarm) rang(res int32) {
	if res != -int32(unix.ETIME) || clock() >= a.when {
		a.when = 0
	}
}
