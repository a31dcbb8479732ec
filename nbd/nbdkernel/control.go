package nbdkernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	module       = "nbd"
	quickCommand = 30 * time.Second // what a command that waits for nobody may take at most
	nodePatience = 10 * time.Second // how long udev may take to make a node or let go of it
	retryPause   = 2 * time.Millisecond
)

// Options says how to get at the driver.
type Options struct {
	// NoModprobe keeps Open from loading the nbd module.
	NoModprobe bool
}

// Control sends commands to the kernel's NBD client. It holds nothing open and is safe for concurrent use.
type Control struct {
	dial  func() (*genetlink.Conn, error)
	sysfs string
	// number is the device number, as sysfs writes it, of the block device that a path leads to.
	number func(path string) (string, error)
}

// Open gets at the driver, loading its module if need be. Its error matches ErrUnsupported and says what is missing.
func Open(ctx context.Context, opt Options) (*Control, error) {
	if !capable() {
		return nil, unsupported("open", unix.EPERM, "attaching by NBD needs CAP_SYS_ADMIN")
	}
	c := &Control{sysfs: "/sys", number: deviceNumber}
	err := c.find()
	if errors.Is(err, fs.ErrNotExist) && !opt.NoModprobe {
		if err := loadModule(ctx); err != nil {
			return nil, err
		}
		err = c.find()
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, unsupported("open", errors.New("no netlink family nbd"), missing())
	}
	if err != nil {
		return nil, unsupported("open", err, "")
	}
	return c, nil
}

// missing explains an absent family where the module was not or need not be loaded.
func missing() string {
	if _, err := os.Stat("/sys/module/" + module); err == nil {
		return "it exists only in the host's network namespace, which cannot be reached from here"
	}
	return "the module is not loaded: modprobe " + module
}

// find learns in which network namespace the driver answers. It registers in the first one only, but a socket of that
// namespace may be used from any other.
func (c *Control) find() error {
	own := func() (*genetlink.Conn, error) { return genetlink.Dial(nil) }
	err := answers(own)
	if err == nil {
		c.dial = own
		return nil
	}
	if herr := answers(dialHost); herr == nil {
		c.dial = dialHost
		return nil
	}
	return err
}

func dialHost() (*genetlink.Conn, error) {
	ns, err := os.Open("/proc/1/ns/net")
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	return genetlink.Dial(&netlink.Config{NetNS: int(ns.Fd())})
}

func answers(dial func() (*genetlink.Conn, error)) error {
	conn, err := dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.GetFamily(familyName)
	return err
}

// capable: the commands want CAP_SYS_ADMIN, in the first user namespace too, which only trying tells.
func capable() bool {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	return unix.Capget(&h, &d[0]) == nil && d[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// loadModule runs modprobe, which heeds modprobe.d.
func loadModule(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "modprobe", module).CombinedOutput()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound):
		return unsupported("load", err, missing())
	}
	if out = bytes.TrimSpace(out); len(out) > 0 {
		err = fmt.Errorf("%s: %w", out, err)
	}
	return unsupported("load", err, "as root: modprobe "+module)
}

// answer is what a command came to.
type answer struct {
	msgs []genetlink.Message
	err  error
}

// execute carries a command out, on a socket of its own, since the kernel does it within the system call and may take
// long over it. When ctx ends first it goes on there, and late, which may be nil, is told how it ended.
func (c *Control) execute(ctx context.Context, command uint8, flags netlink.HeaderFlags, data []byte, late func(answer)) ([]genetlink.Message, error) {
	done := make(chan answer)
	go func() {
		var a answer
		a.msgs, a.err = c.executeNow(command, flags, data)
		select {
		case done <- a:
		case <-ctx.Done():
			if late != nil {
				late(a)
			}
		}
	}()
	select {
	case a := <-done:
		return a.msgs, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *Control) executeNow(command uint8, flags netlink.HeaderFlags, data []byte) ([]genetlink.Message, error) {
	conn, err := c.dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	family, err := conn.GetFamily(familyName)
	if err != nil {
		return nil, err
	}
	m := genetlink.Message{Header: genetlink.Header{Command: command, Version: familyVersion}, Data: data}
	msgs, err := conn.Execute(m, family.ID, netlink.Request|flags)
	var op *netlink.OpError
	if errors.As(err, &op) && op.Err != nil {
		err = op.Err // the errno says more than the name of the system call
	}
	return msgs, err
}

// connect makes a device and says which. A device that comes too late is taken away again.
func (c *Control) connect(ctx context.Context, cfg *Config, fds []int) (int, error) {
	data, err := connectAttrs(cfg, fds)
	if err != nil {
		return 0, err
	}
	msgs, err := c.execute(ctx, cmdConnect, 0, data, func(a answer) {
		if index, err := connectedIndex(a.msgs); a.err == nil && err == nil {
			_ = c.disconnect(context.Background(), index)
		}
	})
	if err != nil {
		return 0, err
	}
	return connectedIndex(msgs)
}

func (c *Control) disconnect(ctx context.Context, index int) error {
	data, err := indexAttrs(index)
	if err != nil {
		return err
	}
	_, err = c.execute(ctx, cmdDisconnect, netlink.Acknowledge, data, nil)
	return err
}

func (c *Control) reconfigure(ctx context.Context, index int, cookie string, more func(*netlink.AttributeEncoder)) error {
	data, err := reconfigureAttrs(index, cookie, more)
	if err != nil {
		return err
	}
	_, err = c.execute(ctx, cmdReconfigure, netlink.Acknowledge, data, nil)
	return err
}

// Status lists the devices that the kernel has.
func (c *Control) Status(ctx context.Context) ([]DeviceStatus, error) {
	msgs, err := c.execute(ctx, cmdStatus, 0, nil, nil)
	if err != nil {
		return nil, &Error{Op: "status", Err: err}
	}
	all, err := deviceList(msgs)
	if err != nil {
		return nil, &Error{Op: "status", Err: err}
	}
	return all, nil
}

// retry calls f until it succeeds, patience is over or ctx ends, and gives f's last error.
func retry(ctx context.Context, patience time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retryPause):
		}
	}
}
