package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

// pollSlice is how long the control goroutine sleeps at most before it looks at its context.
const pollSlice = 100 * time.Millisecond

// await polls dm until done or until ctx ends.
func await(ctx context.Context, dm Datamover, n Notifier, done func() bool) error {
	for {
		got, err := dm.Poll(n)
		switch {
		case done():
			return nil
		case err != nil:
			return err
		case got > 0:
			continue
		case ctx.Err() != nil:
			return ended(ctx)
		}
		if err := dm.Arm(); err != nil {
			return err
		}
		if got, err = dm.Poll(n); got > 0 || err != nil {
			if err != nil && !done() {
				return err
			}
			continue
		}
		sleep(ctx, dm.Fd(), pollSlice)
	}
}

// ended is why ctx did, with ErrTimeout for every kind of deadline.
func ended(ctx context.Context) error {
	err := context.Cause(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return ErrTimeout
	}
	return err
}

// sleep waits until fd is readable, ctx ends or d is over; it notices the end of ctx with a delay of pollSlice at
// most.
func sleep(ctx context.Context, fd int, d time.Duration) {
	if fd < 0 {
		_ = pause(ctx, min(d, time.Millisecond))
		return
	}
	timeout := min(d, pollSlice).Milliseconds()
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	_, _ = unix.Poll(fds[:], int(max(timeout, 1))) // EINTR and timeouts alike: the caller looks again
}

// pause waits for d or for the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ended(ctx)
	case <-t.C:
		return nil
	}
}

// drive runs n on this goroutine until done, until ctx ends or until n is dead.
func drive(ctx context.Context, n *Nexus, done func() bool) error {
	for {
		got := n.Poll()
		if done() {
			n.Flush()
			return nil
		}
		if n.state == stateDead {
			return n.Cause()
		}
		if ctx.Err() != nil {
			return ended(ctx)
		}
		next := n.Tick(time.Now())
		n.Flush()
		if got > 0 || n.Arm() {
			continue
		}
		if done() {
			return nil
		}
		sleep(ctx, n.Fd(), next)
	}
}

// settle drives n, which has something of ours in its hands, until that has come back, if need be by force: after it
// no buffer can be touched.
func settle(n *Nexus, cause error, done func() bool) {
	n.ConnectionLost(cause)
	ctx, cancel := context.WithTimeout(context.Background(), DrainTimeout)
	defer cancel()
	if drive(ctx, n, done) != nil && !done() {
		_ = n.Close() // done or not, it ends every access
		n.Closed()
	}
}

// waiter notices the end of one command.
type waiter struct{ done bool }

// CommandDone implements Completer.
func (w *waiter) CommandDone(*Command) { w.done = true }

// Do submits c and drives n on this goroutine until c is done. It is for the time before a lane has the nexus. It
// returns c.Err; a nil error means that c.Status counts. When ctx ends first, the nexus is given up, because there is
// no other way to get the buffer back at once.
func Do(ctx context.Context, n *Nexus, c *Command) error {
	w := &waiter{}
	c.Done = w
	n.Submit(c)
	err := drive(ctx, n, func() bool { return w.done })
	if !w.done {
		settle(n, err, func() bool { return w.done })
	}
	if err == nil {
		err = c.Err
	}
	if err == nil {
		return nil
	}
	if c.Err == ErrNexusLost && n.Cause() != nil {
		err = fmt.Errorf("%w: %w", ErrNexusLost, n.Cause())
	}
	return &Error{Op: "command to", Target: n.params.TargetName, Err: err}
}

// await drives n until the operation that start began has called back.
func (n *Nexus) await(ctx context.Context, op string, start func(done func(error))) error {
	var result error
	called := false
	start(func(err error) { result, called = err, true })
	done := func() bool { return called }
	if err := drive(ctx, n, done); err != nil && !called {
		settle(n, err, done)
		result = err
	}
	if result != nil {
		return &Error{Op: op, Target: n.params.TargetName, Err: result}
	}
	return nil
}

// ResetLogicalUnit sends a LOGICAL UNIT RESET and drives n on this goroutine until it is answered: then no command
// that any initiator had sent to the unit before runs any more (RFC 7143 4.2.3.2).
func ResetLogicalUnit(ctx context.Context, n *Nexus, lun scsi.LUN) error {
	return n.await(ctx, "reset LUN "+lun.String()+" of", func(done func(error)) {
		n.TaskManagement(pdu.TMLogicalUnitReset, lun, done)
	})
}

// Logout logs n out and drives it on this goroutine until that is answered. The connection is dead afterwards and
// still to be closed.
func Logout(ctx context.Context, n *Nexus) error {
	return n.await(ctx, "log out of", n.Logout)
}
