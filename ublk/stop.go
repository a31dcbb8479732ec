package ublk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// insist is how often STOP_DEV is repeated while tags stay in service. A tag that was committed while the kernel was
// cancelling may have slipped through; a second round finds it.
const insist = time.Second

// kernelENOTSUPP is what old kernels answer to commands they do not know; user space has no name for it.
const kernelENOTSUPP = unix.Errno(524)

// Stop takes the device down: the kernel writes back what it holds (not of a device with an owner: it fails that), waits for
// the requests in flight, ends every tag, and the device goes away. The queues keep serving meanwhile, so a remote that answers no more must be dealt with
// first (Fail, and failing what is in flight). When ctx ends before the device is gone, Stop may be called again to wait on.
func (d *Device) Stop(ctx context.Context) error {
	if err := d.lock(ctx); err != nil {
		return d.wrap("stop", err)
	}
	defer d.unlock()
	err := d.takeDown(ctx)
	if err == ErrBusy { // the end of a TryStop that nobody waited for
		err = d.takeDown(ctx)
	}
	return d.wrap("stop", err)
}

// TryStop is Stop unless somebody has the device mounted or open, which is ErrBusy. Before Linux 7.0 it sees only
// mounts and other exclusive users.
func (d *Device) TryStop(ctx context.Context) error {
	if err := d.lock(ctx); err != nil {
		return d.wrap("stop", err)
	}
	defer d.unlock()
	if d.stop != nil || d.gone {
		return d.wrap("stop", d.takeDown(ctx))
	}
	if d.control.features&featSafeStop != 0 {
		return d.wrap("stop", d.kernelTryStop(ctx))
	}
	return d.wrap("stop", d.exclusiveStop(ctx))
}

func (d *Device) kernelTryStop(ctx context.Context) error {
	d.stop = d.control.asyncCall(cmdTryStopDev, d.id, 0)
	return d.takeDown(ctx)
}

// exclusiveStop claims the device so that nobody can mount it in between.
func (d *Device) exclusiveStop(ctx context.Context) error {
	fd, err := openExclusive(ctx, d.path, d.Cookie() != "")
	switch {
	case errors.Is(err, unix.EBUSY):
		return ErrBusy
	case err != nil:
		return fmt.Errorf("claim: %w", err)
	}
	d.stop = d.control.asyncCall(cmdStopDev, d.id, 0)
	err = d.awaitStop(ctx)
	unix.Close(fd) // before DEL_DEV, which waits for it
	if err != nil {
		return err
	}
	return d.takeDown(ctx)
}

// openExclusive opens the device for oneself alone, and if asked to has written back what the kernel holds of it. That may
// take I/O, so ctx bounds it.
func openExclusive(ctx context.Context, path string, sync bool) (int, error) {
	type result struct {
		fd  int
		err error
	}
	opened := make(chan result)
	go func() {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
		if err == nil && sync {
			if err = unix.Fsync(fd); err != nil {
				unix.Close(fd)
			}
		}
		select {
		case opened <- result{fd, err}:
		case <-ctx.Done():
			if err == nil {
				unix.Close(fd)
			}
		}
	}()
	select {
	case r := <-opened:
		return r.fd, r.err
	case <-ctx.Done():
		return -1, ctx.Err()
	}
}

// takeDown does what is left to do of: stop, wait for the tags, let go, delete.
func (d *Device) takeDown(ctx context.Context) error {
	if d.gone {
		return nil
	}
	if d.stop == nil {
		d.stop = d.control.asyncCall(cmdStopDev, d.id, 0)
	}
	if err := d.awaitStop(ctx); err != nil {
		return err
	}
	for _, q := range d.queues {
		if err := d.awaitRetired(ctx, q); err != nil {
			return err
		}
	}
	if err := d.letGo(ctx); err != nil {
		return err
	}
	if err := d.remove(ctx); err != nil && !isGone(err) {
		return fmt.Errorf("delete: %w", err)
	}
	d.gone = true
	return nil
}

// awaitStop waits for the stop command. One that failed does not count, so that the next attempt sends another.
func (d *Device) awaitStop(ctx context.Context) error {
	err := d.control.wait(ctx, d.stop)
	switch {
	case err == nil || isGone(err):
		return nil
	case d.stop.finished():
		d.stop = nil
	}
	if errors.Is(err, unix.EBUSY) {
		return ErrBusy
	}
	return d.stillBusy(err)
}

// isGone: somebody else has deleted the device.
func isGone(err error) bool { return errors.Is(err, unix.ENODEV) }

// stillBusy says what a stop that did not come to its end waits for.
func (d *Device) stillBusy(err error) error {
	if n := d.Stats().InFlight; n > 0 {
		return fmt.Errorf("%d requests are in flight: %w", n, err)
	}
	return err
}

// awaitRetired waits until the kernel has ended all tags of q.
func (d *Device) awaitRetired(ctx context.Context, q *queue) error {
	if !q.fetched {
		return nil
	}
	again := time.NewTicker(insist)
	defer again.Stop()
	for {
		select {
		case <-q.retired:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("queue %d is still in service: %w", q.id, ctx.Err())
		case <-again.C:
			d.control.asyncCall(cmdStopDev, d.id, 0)
		}
	}
}

// letGo gives back everything that keeps the kernel's device alive.
func (d *Device) letGo(ctx context.Context) error {
	for _, q := range d.queues {
		if !q.fetched {
			continue
		}
		if err := q.lane.Do(ctx, q.release); err != nil {
			return err
		}
		q.fetched = false
	}
	for _, m := range d.maps {
		unix.Munmap(m)
	}
	d.maps = nil
	if d.fd >= 0 {
		unix.Close(d.fd)
		d.fd = -1
	}
	return nil
}

// remove deletes the stopped and closed device. Its number may be another's by now, if somebody else was faster.
func (d *Device) remove(ctx context.Context) error {
	if d.delete == nil {
		info, err := d.control.info(ctx, d.id)
		if err != nil {
			return err
		}
		if info.ublksrvFlags != d.mark {
			return nil
		}
		if err := d.control.deleteAsync(ctx, d.id); !unknownCommand(err) {
			return err
		}
		d.delete = d.control.asyncCall(cmdDelDev, d.id, 0)
	}
	return d.control.wait(ctx, d.delete)
}

// deleteAsync deletes a device without waiting for those who still have its block device open.
func (c *Control) deleteAsync(ctx context.Context, id uint32) error {
	return c.simple(ctx, cmdDelDevAsync, id, 0)
}

// unknownCommand: the kernel does not know the command, as those before Linux 6.9 do not know DEL_DEV_ASYNC.
func unknownCommand(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, kernelENOTSUPP)
}

// Resize tells the kernel the device's new size in bytes. Before Linux 6.16 that is errors.ErrUnsupported.
func (d *Device) Resize(ctx context.Context, size uint64) error {
	if err := d.lock(ctx); err != nil {
		return d.wrap("resize", err)
	}
	defer d.unlock()
	switch {
	case d.control.features&featUpdateSize == 0:
		return d.wrap("resize", fmt.Errorf("%w: it takes Linux 6.16", errors.ErrUnsupported))
	case size == 0 || size%uint64(d.limits.BlockSize) != 0:
		return d.wrap("resize", fmt.Errorf("size %d is not a multiple of the block size %d", size, d.limits.BlockSize))
	case d.stop != nil || d.gone: // on a device without a disk some kernels crash
		return d.wrap("resize", ErrStopped)
	}
	old := d.size.Load()
	d.size.Store(max(old, size)) // requests beyond the old end may come before the answer does
	err := d.control.simple(ctx, cmdUpdateSize, d.id, size>>sectorShift)
	if errno := unix.Errno(0); err == nil {
		d.size.Store(size)
	} else if errors.As(err, &errno) {
		d.size.Store(old) // the kernel has refused
	}
	return d.wrap("resize", err)
}

func (d *Device) lock(ctx context.Context) error {
	select {
	case d.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Device) unlock() { <-d.turn }

func (d *Device) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Dev: d.path, Err: err}
}
