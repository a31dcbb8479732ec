package nbdkernel

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// settle is what the kernel gets to say goodbye: when somebody disconnects the device, its sockets end before
	// the device does.
	settle = 100 * time.Millisecond
	// insist is how long a new socket is offered: the kernel takes none before it has noticed that the old one is
	// dead.
	insist     = 10 * time.Second
	offerPause = 20 * time.Millisecond
)

// errRefused: the kernel let go of a socket that it was offered.
var errRefused = errors.New("the kernel takes no new socket: the old ones are alive")

// Adopt takes a device over that a process which is dead has made with cfg.Cookie, and returns when it can be used
// again. What that process has sent to the logical unit must have ended for good, since the kernel sends again
// whatever was not answered: what was in flight after its timeout, see Config.RequestTimeout.
func (c *Control) Adopt(ctx context.Context, index int, cfg Config) (*Device, error) {
	if err := cfg.check(); err != nil {
		return nil, &Error{Op: "adopt", Dev: path(index), Err: err}
	}
	d := c.device(&cfg)
	d.index, d.path = index, path(index)
	s, err := c.Lookup(index)
	if err == nil && s.Cookie != cfg.Cookie {
		err = ErrGone
	}
	if err == nil {
		err = sameShape(s, c.read(index, "queue/logical_block_size"), &cfg.Limits)
	}
	if err != nil {
		return nil, d.wrap("adopt", err)
	}
	if err := d.reconnectAll(ctx); err != nil {
		return nil, d.wrap("adopt", err)
	}
	d.keepAll()
	if s.Size < cfg.Limits.Size {
		if err := d.Resize(ctx, cfg.Limits.Size); err != nil {
			d.log("the device keeps its old size", err)
		}
	}
	return d, nil
}

// reconnectAll gives the kernel a new socket for each of its own. When that fails none is served.
func (d *Device) reconnectAll(ctx context.Context) error {
	for i := range d.conns {
		conn, err := d.reconnect(ctx, i)
		if err != nil {
			d.conns = d.conns[:i]
			d.dropAll()
			return err
		}
		d.conns[i] = conn
	}
	return nil
}

// reconnect offers sockets until the kernel takes one for queue i, and serves it.
func (d *Device) reconnect(ctx context.Context, i int) (Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, insist)
	defer cancel()
	for {
		fd, err := d.offer(ctx)
		if err == nil {
			return d.cfg.Serve(i, fd)
		}
		if !errors.Is(err, errRefused) {
			return nil, err
		}
		select {
		case <-d.quit:
			return nil, ErrStopped
		case <-ctx.Done():
			return nil, err
		case <-time.After(offerPause):
		}
	}
}

// offer has the kernel put a new socket in the place of a dead one, and returns our end.
func (d *Device) offer(ctx context.Context) (int, error) {
	ours, theirs, err := pair()
	if err != nil {
		return -1, err
	}
	err = d.control.reconfigure(ctx, d.index, d.cfg.Cookie, func(e *netlink.AttributeEncoder) {
		timeouts(e, &d.cfg)
		sockets(e, []int{theirs})
	})
	unix.Close(theirs)
	if err == nil && hungUp(ours) {
		err = errRefused
	}
	if err != nil {
		unix.Close(ours)
		return -1, err
	}
	return ours, nil
}

// hungUp: nobody has the other end. The kernel reports no error for a socket that it has no use for.
func hungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	_, err := unix.Poll(p, 0)
	return err == nil && p[0].Revents&unix.POLLHUP != 0
}

func (d *Device) keepAll() {
	for i, conn := range d.conns {
		d.keepers.Go(func() { d.keep(i, conn) })
	}
}

// keep brings the socket of queue i back when it ends, until the device does.
func (d *Device) keep(i int, conn Conn) {
	for {
		<-conn.Done()
		select {
		case <-d.quit:
			return
		case <-time.After(settle):
		}
		if err := d.control.own(d.index, d.cfg.Cookie); err != nil {
			d.end(err)
			return
		}
		d.log("the kernel gave a socket up; it gets another", nil)
		next, err := d.reconnect(context.Background(), i)
		if err != nil {
			d.end(err)
			return
		}
		conn = next
		if !d.replace(i, conn) {
			conn.Stop()
			<-conn.Done()
			return
		}
	}
}

// replace notes the connection in charge of queue i, unless the device is being stopped.
func (d *Device) replace(i int, conn Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.quit:
		return false
	default:
		d.conns[i] = conn
		return true
	}
}

func (d *Device) log(what string, err error) {
	if d.cfg.Log != nil {
		d.cfg.Log.Warn(strings.TrimSpace(what), "device", d.path, "err", err)
	}
}
