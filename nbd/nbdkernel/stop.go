package nbdkernel

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// letGo is how long a device that was disconnected may take until it is nobody's: udev may look at it. One that is taken
// away by force may have users for ever.
const (
	letGo       = 3 * time.Second
	letGoForced = 300 * time.Millisecond
)

// Stop disconnects the device: the kernel fails what is in flight and what comes, and forgets the device when its last
// opener closes it. When ctx ends first, Stop may be called again.
func (d *Device) Stop(ctx context.Context) error {
	if err := d.lock(ctx); err != nil {
		return d.wrap("stop", err)
	}
	defer d.unlock()
	return d.wrap("stop", d.takeDown(ctx))
}

// TryStop is Stop unless somebody has the device mounted, which is ErrBusy, and after everything was written that the
// page cache has of it. The kernel does not tell of those who have just opened it.
func (d *Device) TryStop(ctx context.Context) error {
	if err := d.lock(ctx); err != nil {
		return d.wrap("stop", err)
	}
	defer d.unlock()
	if d.gone {
		return nil
	}
	if err := d.disconnectUnused(ctx); err != nil {
		return d.wrap("stop", err)
	}
	d.control.awaitGone(ctx, letGo, d.index, d.cfg.Cookie)
	return nil
}

// disconnectUnused holds the device while it disconnects it, so that nobody can mount it in between.
func (d *Device) disconnectUnused(ctx context.Context) error {
	fd, err := claim(ctx, d.path)
	switch {
	case err == nil:
		defer unix.Close(fd)
	case errors.Is(err, unix.EBUSY):
		return ErrBusy
	case !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.ENODEV): // those: not connected any more
		return err
	}
	return d.disconnect(ctx)
}

// claim opens a device for oneself alone and has the page cache written back. Both may wait for requests, so ctx bounds
// them.
func claim(ctx context.Context, path string) (int, error) {
	type result struct {
		fd  int
		err error
	}
	claimed := make(chan result)
	go func() {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
		if err == nil {
			if err = unix.Fsync(fd); err != nil {
				unix.Close(fd)
			}
		}
		select {
		case claimed <- result{fd, err}:
		case <-ctx.Done():
			if err == nil {
				unix.Close(fd)
			}
		}
	}()
	select {
	case r := <-claimed:
		return r.fd, r.err
	case <-ctx.Done():
		return -1, ctx.Err()
	}
}

// takeDown disconnects and waits until the device is nobody's. An opener that stays keeps it as a device that fails.
func (d *Device) takeDown(ctx context.Context) error {
	if err := d.disconnect(ctx); err != nil {
		return err
	}
	d.control.awaitGone(ctx, letGoForced, d.index, d.cfg.Cookie)
	return nil
}

// disconnect ends the device's service. It may be repeated.
func (d *Device) disconnect(ctx context.Context) error {
	if d.gone {
		return nil
	}
	d.quitOnce.Do(func() { close(d.quit) })
	if d.control.own(d.index, d.cfg.Cookie) == nil {
		if err := d.control.disconnect(ctx, d.index); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	if err := d.awaitConns(ctx); err != nil {
		return err
	}
	d.gone = true
	d.control.untune(d.index)
	d.end(ErrStopped)
	return nil
}

// awaitConns waits until no request of the device is with the logical unit.
func (d *Device) awaitConns(ctx context.Context) error {
	d.mu.Lock()
	conns := append([]Conn(nil), d.conns...)
	d.mu.Unlock()
	for _, conn := range conns {
		conn.Stop()
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.keepers.Wait()
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitGone waits a while for the device to become free.
func (c *Control) awaitGone(ctx context.Context, patience time.Duration, index int, cookie string) {
	_ = retry(ctx, patience, func() error {
		if c.own(index, cookie) == nil {
			return ErrBusy
		}
		return nil
	})
}

// Release disconnects a device that a process which is dead has left. Requests that wait for a new server fail. A device
// that is somebody else's by now is left alone.
func (c *Control) Release(ctx context.Context, index int, cookie string) error {
	if c.own(index, cookie) != nil {
		return nil
	}
	// A request that waits for a server holds the disconnection up until DEAD_CONN_TIMEOUT is over, unless there is one.
	ours, theirs, err := pair()
	if err != nil {
		return &Error{Op: "release", Dev: path(index), Err: err}
	}
	_ = unix.SetNonblock(ours, true)
	drain := os.NewFile(uintptr(ours), "nbd")
	go func() { _, _ = io.Copy(io.Discard, drain) }()
	defer drain.Close()
	err = c.reconfigure(ctx, index, cookie, func(e *netlink.AttributeEncoder) { sockets(e, []int{theirs}) })
	unix.Close(theirs)
	if err == nil {
		err = c.disconnect(ctx, index)
	}
	if err != nil && c.own(index, cookie) == nil {
		return &Error{Op: "release", Dev: path(index), Err: err}
	}
	c.untune(index)
	c.awaitGone(ctx, letGo, index, cookie)
	return nil
}
