package nbdkernel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"iserblk/internal/block"
)

// tick is how often the kernel looks at requests that it never gives up, and so how long those of a server that died
// wait for the next one. At each tick it logs a line for every request that is older.
const tick = 5 * time.Second

// Conn is one served socket.
type Conn interface {
	// Done is closed when the socket is closed and none of its requests is with the logical unit any more.
	Done() <-chan struct{}
	// Stop takes no more requests and closes the socket when those in flight are answered.
	Stop()
}

// Config says what device to make, or what to take over.
type Config struct {
	Limits block.Limits
	// Cookie is by what the device is known again after this process has died. It is readable in sysfs.
	Cookie string
	// Sockets is the number of hardware queues. For Adopt it must be what it was.
	Sockets int
	// Serve serves the socket of a queue, which it takes over also when it fails. It is called again for a queue
	// whose socket has ended.
	Serve func(queue, fd int) (Conn, error)
	// DeadTimeout is how long the kernel holds requests while there is no server, in whole seconds; then they fail.
	DeadTimeout time.Duration
	// RequestTimeout is when the kernel gives a request up: it closes the socket, and sends everything that was in
	// flight on it by another one at once, whatever has become of it. It must be longer than the server can take
	// for any request. 0 is never, which works with one socket only.
	RequestTimeout time.Duration
	// Log takes the device's history. It is never used on the way of an I/O.
	Log *slog.Logger
}

// Device is one /dev/nbdN that this process serves. Its methods are safe for concurrent use.
type Device struct {
	control *Control
	cfg     Config
	index   int
	path    string
	size    atomic.Uint64

	turn     chan struct{}  // held by who stops or resizes
	keepers  sync.WaitGroup // one a socket
	quit     chan struct{}  // closed when nobody shall bring sockets back
	quitOnce sync.Once
	gone     bool // disconnected: nothing left to do

	mu    sync.Mutex
	conns []Conn
	err   error // valid after lost is closed
	lost  chan struct{}
}

func (cfg *Config) check() error {
	switch {
	case cfg.Sockets < 1:
		return errors.New("no socket")
	case cfg.Cookie == "":
		return errors.New("no cookie")
	case cfg.Sockets > 1 && cfg.RequestTimeout <= 0:
		return errors.New("several sockets without a request timeout: the kernel would give requests up after 30 s")
	}
	return checkLimits(&cfg.Limits)
}

// Create makes a block device and returns when it can be used. When it fails nothing is left behind.
func (c *Control) Create(ctx context.Context, cfg Config) (*Device, error) {
	if err := cfg.check(); err != nil {
		return nil, &Error{Op: "create device", Err: err}
	}
	d := c.device(&cfg)
	kernel, err := d.serveAll()
	if err != nil {
		return nil, &Error{Op: "create device", Err: err}
	}
	quick, cancel := context.WithTimeout(context.WithoutCancel(ctx), quickCommand)
	defer cancel()
	d.index, err = c.connect(quick, &cfg, kernel)
	closeAll(kernel)
	if err != nil {
		d.dropAll()
		return nil, &Error{Op: "connect", Err: err, Hint: connectHint(err)}
	}
	d.path = path(d.index)
	c.tune(d.index, &cfg)
	d.keepAll()
	if err := c.nodeReady(ctx, d.index); err != nil {
		return nil, errors.Join(&Error{Op: "create device", Dev: d.path, Err: err}, d.Stop(quick))
	}
	return d, nil
}

func (c *Control) device(cfg *Config) *Device {
	d := &Device{
		control: c, cfg: *cfg, conns: make([]Conn, cfg.Sockets), turn: make(chan struct{}, 1),
		quit: make(chan struct{}), lost: make(chan struct{}),
	}
	d.size.Store(cfg.Limits.Size)
	return d
}

func connectHint(err error) string {
	if errors.Is(err, unix.EPERM) {
		return "it needs CAP_SYS_ADMIN on the host, not only in a user namespace"
	}
	return ""
}

// serveAll makes the sockets and serves our ends of them. It returns the kernel's.
func (d *Device) serveAll() ([]int, error) {
	var kernel []int
	for i := range d.conns {
		ours, theirs, err := pair()
		if err == nil {
			kernel = append(kernel, theirs)
			d.conns[i], err = d.cfg.Serve(i, ours)
		}
		if err != nil {
			closeAll(kernel)
			d.conns = d.conns[:i]
			d.dropAll()
			return nil, err
		}
	}
	return kernel, nil
}

// dropAll ends connections that the kernel has no part in.
func (d *Device) dropAll() {
	for _, conn := range d.conns {
		conn.Stop()
	}
	for _, conn := range d.conns {
		<-conn.Done()
	}
}

// pair makes a socket pair: NBD takes stream sockets of AF_UNIX and TCP only.
func pair() (ours, theirs int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("socket pair: %w", err)
	}
	if unix.SetsockoptInt(fds[1], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
		_ = unix.SetsockoptInt(fds[1], unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	}
	return fds[0], fds[1], nil
}

// sendBuffer lets the kernel send a large write at once, and not in pieces that each wait for us.
const sendBuffer = 1 << 20

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// Path is the block device, such as /dev/nbd0.
func (d *Device) Path() string { return d.path }

// Index is the N of /dev/nbdN.
func (d *Device) Index() int { return d.index }

// Lost is closed when the device is somebody else's or nobody's although nobody called Stop, or because somebody did:
// Err says which.
func (d *Device) Lost() <-chan struct{} { return d.lost }

// Err is why Lost was closed: ErrStopped or ErrGone.
func (d *Device) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

func (d *Device) end(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = err
		close(d.lost)
	}
}

// Resize tells the kernel the device's new size in bytes. The kernel holds new requests back until those in flight have
// ended, so it must not be called by who serves them.
func (d *Device) Resize(ctx context.Context, size uint64) error {
	if err := d.lock(ctx); err != nil {
		return d.wrap("resize", err)
	}
	defer d.unlock()
	switch {
	case size == 0 || size%uint64(d.cfg.Limits.BlockSize) != 0:
		return d.wrap("resize", fmt.Errorf("size %d is not a multiple of the block size %d", size, d.cfg.Limits.BlockSize))
	case d.gone:
		return d.wrap("resize", ErrStopped)
	}
	err := d.control.reconfigure(ctx, d.index, d.cfg.Cookie, func(e *netlink.AttributeEncoder) {
		e.Uint64(attrSizeBytes, size)
	})
	if err == nil {
		d.size.Store(size)
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
