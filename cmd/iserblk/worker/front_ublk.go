package worker

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"iserblk/internal/block"
	"iserblk/ublk"
)

// ublkFrontend makes /dev/ublkbN.
type ublkFrontend struct {
	control *ublk.Control
	owner   string // of devices that outlive their worker
}

func (e *engine) openUblk(ctx context.Context, o AttachOptions) (frontend, error) {
	c, err := ublk.Open(ctx, ublk.Options{NoModprobe: o.NoModprobe})
	if err != nil {
		return nil, err
	}
	return &ublkFrontend{c, cookiePrefix(e.spec.RunDir, e.spec.Target)}, nil
}

func (f *ublkFrontend) name() string { return FrontUblk }
func (f *ublkFrontend) close()       { _ = f.control.Close() } // its devices are gone: there is nothing left to lose

func (f *ublkFrontend) buffers(l *block.Limits, _ int) (n int, size uint32) {
	return int(l.Depth), l.MaxTransfer
}

func (f *ublkFrontend) create(ctx context.Context, p plan) (front, error) {
	cfg := ublk.Config{Limits: p.limits}
	if p.opts.DeadTimeout < 0 {
		cfg.Owner = f.owner
	}
	for _, q := range p.queues {
		if q.lane.Ring() == nil {
			return nil, fmt.Errorf("ublk: %w: the worker of this target started without io_uring", ErrUnsupported)
		}
		uq := ublk.QueueConfig{Lane: q.lane, Unit: q.unit}
		for _, b := range q.buffers {
			uq.Buffers = append(uq.Buffers, ublk.Buffer{Mem: b.mem, Region: b.region})
		}
		cfg.Queues = append(cfg.Queues, uq)
	}
	if p.share != nil {
		cfg.Share = func(register func(ublk.Buffer) error) error {
			return p.share(func(b requestBuffer) error { return register(ublk.Buffer{Mem: b.mem, Region: b.region}) })
		}
	}
	d, err := f.make(ctx, cfg, p.adopt)
	switch {
	case p.share != nil && errors.Is(err, errors.ErrUnsupported):
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	case err != nil:
		return nil, err
	}
	return &ublkFront{d}, nil
}

// make makes a device, or takes over what a dead worker left.
func (f *ublkFrontend) make(ctx context.Context, cfg ublk.Config, old *Device) (*ublk.Device, error) {
	if old == nil {
		return f.control.Create(ctx, cfg)
	}
	left, err := leftOf(*old)
	if err != nil {
		return nil, err
	}
	d, err := f.control.Recover(ctx, left, cfg)
	if errors.Is(err, ublk.ErrBegun) {
		err = fmt.Errorf("%w: %w", errBegun, err)
	}
	return d, err
}

// ublkFront is one /dev/ublkbN.
type ublkFront struct{ dev *ublk.Device }

func (f *ublkFront) path() string                   { return f.dev.Path() }
func (f *ublkFront) stop(ctx context.Context) error { return f.dev.Stop(ctx) }
func (f *ublkFront) fail(errno syscall.Errno)       { f.dev.Fail(errno) }
func (f *ublkFront) lost() <-chan struct{}          { return f.dev.Lost() }

func (f *ublkFront) describe(d *Device) {
	d.Size, d.WriteCache = f.dev.Size(), f.dev.WriteCache()
	d.Frontend, d.Queues, d.ZeroCopy, d.Cookie = FrontUblk, f.dev.Queues(), f.dev.Shares(), f.dev.Cookie()
	d.DeadTimeout = min(d.DeadTimeout, 0) // for ever or not at all
}

func (f *ublkFront) tryStop(ctx context.Context) error {
	err := f.dev.TryStop(ctx)
	if errors.Is(err, ublk.ErrBusy) {
		err = fmt.Errorf("%s: %w", f.dev.Path(), ErrBusy)
	}
	return err
}

func (f *ublkFront) err() error {
	if err := f.dev.Err(); !errors.Is(err, ublk.ErrStopped) {
		return err
	}
	return nil
}

func (f *ublkFront) resize(ctx context.Context, size uint64) error {
	err := f.dev.Resize(ctx, size)
	if errors.Is(err, errors.ErrUnsupported) {
		err = fmt.Errorf("%w; detach and attach again to see the new size", err)
	}
	return err
}

func (f *ublkFront) counters() Counters {
	s := f.dev.Stats()
	c := countersOf(s.Ops[:], s.Bytes[:])
	c.Errors, c.InFlight, c.ZeroCopy = s.Errors, s.InFlight, s.Shared
	return c
}

// countersOf puts counts by block.Op in the listing's words.
func countersOf(ops, bytes []uint64) Counters {
	return Counters{
		Reads: ops[block.Read], ReadBytes: bytes[block.Read],
		Writes: ops[block.Write], WriteBytes: bytes[block.Write],
		Flushes: ops[block.Flush], Discards: ops[block.Discard] + ops[block.WriteZeroes],
	}
}
