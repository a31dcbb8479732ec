package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/cmd/iserblk/state"
)

// DetachRequest is for Detach.
type DetachRequest struct {
	Backend Backend
	Dirs    state.Dirs
	Name    string // as for Find
	Force   bool
	Timeout time.Duration // how long requests under way may take without Force
	Warn    func(string)  // is told what else a forced detach took with it
}

// Detach takes away a device, or all of a target's, and waits until a worker without devices has left. Without Force
// it refuses a device in use with ErrBusy. With Force it always takes it away: a worker that does not answer is
// killed, with everything it served.
func Detach(ctx context.Context, r DetachRequest) error {
	w, device, err := Find(ctx, r.Dirs, r.Name)
	if err != nil {
		return err
	}
	if w.State == StateDead {
		return r.clean(ctx, w, device)
	}
	err = r.ask(ctx, w, device)
	switch {
	case errors.Is(err, errGone) && !w.files.locked():
		return r.clean(ctx, w, device) // it died meanwhile, or left with what was to be detached
	case !errors.Is(err, ErrSilent) && !errors.Is(err, errGone):
		return err
	case !r.Force:
		return fmt.Errorf("%w; detach --force kills it", err)
	}
	r.Warn(fmt.Sprintf("worker %d of %s does not answer: killing it with every device it serves", w.PID, w.Target))
	if err := kill(ctx, w.record); err != nil {
		return err
	}
	return r.clean(ctx, w, "")
}

// defaultForceBound is longer than a worker that can still answer needs.
const defaultForceBound = 2*tokenTimeout + forceTimeout + logoutTimeout

// bounds are waits that tests cannot sit out.
var bounds = struct{ force, lastWords time.Duration }{defaultForceBound, lastWordsTimeout}

// ask has a living worker do it.
func (r DetachRequest) ask(ctx context.Context, w Worker, device string) error {
	bound := r.Timeout
	if r.Force {
		bound = bounds.force
	}
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	c, err := w.files.client()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSilent, err)
	}
	defer c.Close()
	pidfd, err := unix.PidfdOpen(c.peerPID(), 0)
	if err == nil {
		defer unix.Close(pidfd)
	}
	leaving, err := c.Detach(ctx, device, r.Force)
	switch {
	case errors.Is(err, context.DeadlineExceeded) && r.Force:
		return fmt.Errorf("%w: %w", ErrSilent, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: its requests did not end within %v; detach --force fails them", ErrBusy, bound)
	case err == nil && leaving && pidfd >= 0:
		return awaitExit(ctx, pidfd)
	}
	return err
}

// awaitExit waits until the process is gone.
func awaitExit(ctx context.Context, pidfd int) error {
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 100)
		if n > 0 || (err != nil && !errors.Is(err, unix.EINTR)) {
			return err
		}
	}
	return fmt.Errorf("the worker does not exit: %w", context.Cause(ctx))
}

// kill ends the process of a record, if it is still the one that wrote it.
func kill(ctx context.Context, r Record) error {
	if r.PID == 0 {
		return nil // nobody knows of one
	}
	pidfd, err := unix.PidfdOpen(r.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("worker %d: %w", r.PID, err)
	}
	defer unix.Close(pidfd)
	// The descriptor holds on to the process, so that its number cannot pass to another between look and kill.
	if ticks, err := startTicks(r.PID); err != nil || ticks != r.StartTicks || r.BootID != bootID() {
		return nil
	}
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil {
		return fmt.Errorf("kill worker %d: %w", r.PID, err)
	}
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	return awaitExit(ctx, pidfd)
}

const killTimeout = 10 * time.Second

// clean takes away what a dead worker left: every device it had, then its files. If one device is named, those stay
// that the next worker can take over.
func (r DetachRequest) clean(ctx context.Context, w Worker, device string) error {
	lock, err := w.files.acquireSoon()
	if err != nil {
		return fmt.Errorf("%s: %w", w.Target, err)
	}
	defer lock.Close()
	record, _ := readRecord(w.files) // it may have gone in good order
	ctx, cancel := context.WithTimeout(ctx, forceTimeout)
	defer cancel()
	kept, gone := r.split(ctx, record.Devices, device)
	if !r.Force {
		if err := unused(gone); err != nil {
			return err
		}
	}
	for _, d := range gone {
		if err := r.Backend.RemoveDevice(ctx, d); err != nil {
			return fmt.Errorf("remove %s of a dead worker: %w", d.Path, err)
		}
		if d.Path != r.Name {
			r.Warn("removed " + d.Path + " of the dead worker")
		}
	}
	if len(kept) > 0 {
		record.Devices = kept
		return record.write(w.files)
	}
	w.files.removeAll()
	return nil
}

// split tells what to take away of a dead worker's devices from what has to stay.
func (r DetachRequest) split(ctx context.Context, all []Device, device string) (kept, gone []Device) {
	for _, d := range all {
		if device != "" && d.Path != device && r.Backend.parked(ctx, d) {
			kept = append(kept, d)
		} else {
			gone = append(gone, d)
		}
	}
	return kept, gone
}

func unused(devices []Device) error {
	for _, d := range devices {
		if who := Users(d.Path); len(who) > 0 {
			return fmt.Errorf("%s is %w: %s; stop that first, or take it away with --force", d.Path, ErrBusy,
				strings.Join(who, ", "))
		}
	}
	return nil
}
