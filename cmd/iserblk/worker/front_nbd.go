package worker

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/internal/block"
	"iserblk/nbd"
	"iserblk/nbd/nbdkernel"
)

const (
	defaultDeadTimeout = time.Minute
	// forEver is a dead timeout that nobody sees the end of.
	forEver = 10 * 365 * 24 * time.Hour
	// The session's own bounds beyond a command's time: abort it, give its connection up, drain that.
	defaultCommand = 30 * time.Second
	commandEnd     = 15 * time.Second
)

// nbdFrontend makes /dev/nbdN.
type nbdFrontend struct {
	control *nbdkernel.Control
	log     *slog.Logger
	prefix  string
	times   Timeouts
}

func (e *engine) openNBD(ctx context.Context, o AttachOptions) (frontend, error) {
	c, err := nbdkernel.Open(ctx, nbdkernel.Options{NoModprobe: o.NoModprobe})
	if err != nil {
		return nil, err
	}
	return &nbdFrontend{control: c, log: e.log, prefix: cookiePrefix(e.spec.RunDir, e.spec.Target), times: e.spec.Timeouts}, nil
}

func (f *nbdFrontend) name() string { return FrontNBD }
func (f *nbdFrontend) close()       {}

func (f *nbdFrontend) buffers(l *block.Limits, queues int) (n int, size uint32) {
	return nbd.BuffersPerQueue(l.Depth, queues, queues), uint32(nbd.BufferSize(l))
}

// cookiePrefix is what the cookies of a target's devices start with. It holds the boot and the very run directory, so
// that no worker takes another one's device for its own.
func cookiePrefix(run, target string) string {
	var st unix.Stat_t
	_ = unix.Stat(run, &st)
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", bootID(), st.Dev, st.Ino))
	return fmt.Sprintf("iserblk/%s/%s/", hex.EncodeToString(sum[:6]), target)
}

func newCookie(prefix string, lun uint64) string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // it never fails
	return fmt.Sprintf("%s%d/%s", prefix, lun, hex.EncodeToString(b[:]))
}

func (f *nbdFrontend) create(ctx context.Context, p plan) (front, error) {
	x, err := nbdExport(ctx, p, p.sockets(f.times), f.log)
	if err != nil {
		return nil, err
	}
	cfg := nbdkernel.Config{
		Limits: p.limits, Cookie: newCookie(f.prefix, p.lun), Sockets: p.sockets(f.times),
		DeadTimeout: deadTimeout(p.opts.DeadTimeout), Log: f.log,
		Serve: func(queue, fd int) (nbdkernel.Conn, error) {
			return x.ServeConn(fd, nbd.ConnOptions{Queue: queue % len(p.queues), Replies: nbd.Simple})
		},
	}
	if cfg.Sockets > 1 {
		cfg.RequestTimeout = requestTimeout(f.times)
	}
	if p.adopt != nil {
		cfg.Cookie = p.adopt.Cookie
	}
	d, err := f.make(ctx, cfg, p.adopt)
	if err != nil {
		return nil, errors.Join(err, x.Close(context.WithoutCancel(ctx)))
	}
	return &nbdFront{dev: d, export: x, cookie: cfg.Cookie, sockets: cfg.Sockets}, nil
}

// make connects a device, or takes over what a dead worker left.
func (f *nbdFrontend) make(ctx context.Context, cfg nbdkernel.Config, old *Device) (*nbdkernel.Device, error) {
	if old == nil {
		return f.control.Create(ctx, cfg)
	}
	index, err := nbdkernel.Index(old.Path)
	if err != nil {
		return nil, err
	}
	return f.control.Adopt(ctx, index, cfg)
}

// sockets is how many the kernel gets: one a queue, as many as before when a device is taken over. With several of them
// the kernel gives requests up, which must not be where they may wait for ever.
func (p plan) sockets(t Timeouts) int {
	switch {
	case p.adopt != nil:
		return max(p.adopt.Queues, 1)
	case t.NoPath < 0:
		return 1
	}
	return len(p.queues)
}

// requestTimeout is longer than any request can take here: the last try may start when there was no path for just less
// than what is allowed.
func requestTimeout(t Timeouts) time.Duration {
	command := t.Command
	if command <= 0 {
		command = defaultCommand
	}
	return max(t.NoPath, 0) + 2*(command+commandEnd)
}

func deadTimeout(d time.Duration) time.Duration {
	switch {
	case d == 0:
		return defaultDeadTimeout
	case d < 0:
		return forEver
	}
	return d
}

// nbdExport makes what serves NBD connections from a device's queues.
func nbdExport(ctx context.Context, p plan, conns int, log *slog.Logger) (*nbd.Export, error) {
	cfg := nbd.Config{Limits: p.limits, MaxConns: conns, Log: log, Description: fmt.Sprintf("LUN %d of %s", p.lun, p.target)}
	for _, q := range p.queues {
		nq := nbd.QueueConfig{Lane: q.lane, Unit: q.unit}
		for _, b := range q.buffers {
			nq.Buffers = append(nq.Buffers, nbd.Buffer{Mem: b.mem, Region: b.region})
		}
		cfg.Queues = append(cfg.Queues, nq)
	}
	return nbd.NewExport(ctx, cfg)
}

// nbdFront is one /dev/nbdN.
type nbdFront struct {
	dev     *nbdkernel.Device
	export  *nbd.Export
	cookie  string
	sockets int
}

func (f *nbdFront) path() string             { return f.dev.Path() }
func (f *nbdFront) fail(errno syscall.Errno) { f.export.Fail(errno) }
func (f *nbdFront) lost() <-chan struct{}    { return f.dev.Lost() }
func (f *nbdFront) counters() Counters       { return exportCounters(f.export) }

func (f *nbdFront) describe(d *Device) {
	d.Frontend, d.Queues, d.Cookie = FrontNBD, f.sockets, f.cookie
}

func (f *nbdFront) tryStop(ctx context.Context) error {
	err := f.dev.TryStop(ctx)
	if errors.Is(err, nbdkernel.ErrBusy) {
		return fmt.Errorf("%s: %w", f.dev.Path(), ErrBusy)
	}
	if err != nil {
		return err
	}
	return f.export.Close(ctx)
}

func (f *nbdFront) stop(ctx context.Context) error {
	if err := f.dev.Stop(ctx); err != nil {
		return err
	}
	return f.export.Close(ctx)
}

func (f *nbdFront) err() error {
	if err := f.dev.Err(); !errors.Is(err, nbdkernel.ErrStopped) {
		return err
	}
	return nil
}

// resize lets larger requests in before the kernel can send any.
func (f *nbdFront) resize(ctx context.Context, size uint64) error {
	f.export.SetSize(size)
	return f.dev.Resize(ctx, size)
}

func exportCounters(x *nbd.Export) Counters {
	s := x.Stats()
	c := countersOf(s.Ops[:], s.Bytes[:])
	c.Errors, c.InFlight = s.Errors, s.InFlight
	return c
}
