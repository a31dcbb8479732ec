package ublk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/internal/block"
)

const (
	quickCommand = 30 * time.Second // what a command that waits for nobody may take at most
	nodePatience = 10 * time.Second // how long udev may take to make a node or let go of it
)

// Create makes a block device and returns when it can be used. When it fails nothing is left behind, unless the kernel
// itself is stuck.
func (c *Control) Create(ctx context.Context, cfg Config) (*Device, error) {
	if err := cfg.check(); err != nil {
		return nil, &Error{Op: "create device", Err: err}
	}
	switch {
	case cfg.Share != nil && c.features&featShmemZC == 0:
		return nil, &Error{Op: "share memory", Err: unix.EOPNOTSUPP, Hint: noSharing}
	case cfg.Owner != "" && c.features&recoveryFlags != recoveryFlags:
		return nil, &Error{Op: "create device", Err: unix.EOPNOTSUPP, Hint: "this kernel's ublk cannot hold the requests of a process that died"}
	}
	d, err := c.addDevice(cfg)
	if err != nil {
		return nil, err
	}
	if err := d.bringUp(ctx, cfg); err != nil {
		err = &Error{Op: "create device", Dev: d.path, Err: err, Hint: d.startHint(err)}
		return nil, errors.Join(err, d.abandon())
	}
	return d, nil
}

// abandon takes down what bringUp made. What the partition scan asked for must not keep it.
func (d *Device) abandon() error {
	d.Fail(unix.EIO)
	ctx, cancel := context.WithTimeout(context.Background(), quickCommand)
	defer cancel()
	return d.Stop(ctx)
}

func (cfg *Config) check() error {
	if err := checkLimits(&cfg.Limits); err != nil {
		return err
	}
	if cfg.Owner != "" && cfg.Share != nil {
		return errors.New("a device that shares memory cannot be recovered")
	}
	if n := len(cfg.Queues); n == 0 || n > maxQueues {
		return fmt.Errorf("%d queues are not from 1 to %d", n, maxQueues)
	}
	for i := range cfg.Queues {
		if err := cfg.Queues[i].check(&cfg.Limits); err != nil {
			return fmt.Errorf("queue %d: %w", i, err)
		}
	}
	return nil
}

func (qc *QueueConfig) check(l *block.Limits) error {
	if qc.Lane != nil && qc.Lane.Ring() == nil {
		return fmt.Errorf("a lane without io_uring cannot serve ublk")
	}
	if len(qc.Buffers) != int(l.Depth) {
		return fmt.Errorf("%d buffers for %d tags", len(qc.Buffers), l.Depth)
	}
	for i := range qc.Buffers {
		if n := len(qc.Buffers[i].Mem); n < int(l.MaxTransfer) {
			return fmt.Errorf("buffer of tag %d has %d bytes, not %d", i, n, l.MaxTransfer)
		}
	}
	return nil
}

// addDevice has the kernel make the character device. It does not wait for anybody, so the caller's context need not
// interrupt it and leave a device that nobody knows.
func (c *Control) addDevice(cfg Config) (*Device, error) {
	ctx, cancel := context.WithTimeout(context.Background(), quickCommand)
	defer cancel()
	info := &devInfo{
		nrHWQueues:    uint16(len(cfg.Queues)),
		queueDepth:    cfg.Limits.Depth,
		maxIOBufBytes: cfg.Limits.MaxTransfer,
		devID:         anyDevice,
		flags:         c.wantFlags(cfg),
		ublksrvFlags:  markFor(cfg.Owner),
	}
	if err := c.add(ctx, info); err != nil {
		return nil, &Error{Op: "add device", Err: err, Hint: addHint(err)}
	}
	d := &Device{
		control: c, granted: int(info.nrHWQueues), id: info.devID, mark: info.ublksrvFlags, path: blockPath(info.devID), limits: cfg.Limits,
		fd: -1, turn: make(chan struct{}, 1), events: events{lost: make(chan struct{})},
	}
	d.size.Store(cfg.Limits.Size)
	if err := compare(info, cfg); err != nil {
		return nil, errors.Join(&Error{Op: "add device", Dev: d.path, Err: err}, d.abandon())
	}
	return d, nil
}

// wantFlags asks for what Stop, Resize and Recover can make use of.
func (c *Control) wantFlags(cfg Config) uint64 {
	want := uint64(featIoctlEncode | featUpdateSize | featSafeStop)
	if cfg.NoPartScan {
		want |= featNoAutoPartScan
	}
	if cfg.Share != nil {
		want |= featShmemZC
	}
	if cfg.Owner != "" {
		want |= recoveryFlags
	}
	return want & c.features
}

// compare holds the kernel's answer against what the data path relies on.
func compare(info *devInfo, cfg Config) error {
	switch {
	case info.flags&featIODescSize != 0:
		return fmt.Errorf("the kernel insists on another descriptor size (flags %#x)", info.flags)
	case info.queueDepth != cfg.Limits.Depth:
		return fmt.Errorf("the kernel made the queues %d deep, not %d", info.queueDepth, cfg.Limits.Depth)
	case info.maxIOBufBytes != cfg.Limits.MaxTransfer:
		return fmt.Errorf("the kernel made the largest transfer %d, not %d", info.maxIOBufBytes, cfg.Limits.MaxTransfer)
	case cfg.Owner != "" && info.flags&recoveryFlags != recoveryFlags:
		return fmt.Errorf("the kernel does not hold requests after all (flags %#x)", info.flags)
	case cfg.Share != nil && info.flags&featShmemZC == 0:
		return fmt.Errorf("the kernel does not share memory after all (flags %#x)", info.flags)
	case info.nrHWQueues == 0 || int(info.nrHWQueues) > len(cfg.Queues):
		return fmt.Errorf("the kernel made %d queues, not %d", info.nrHWQueues, len(cfg.Queues))
	}
	return nil
}

// bringUp takes an added device to life, in the one order that the kernel allows.
func (d *Device) bringUp(ctx context.Context, cfg Config) error {
	if err := d.control.setParams(ctx, d.id, newParams(&cfg.Limits)); err != nil {
		return fmt.Errorf("set parameters: %w", err)
	}
	if err := d.openChar(ctx); err != nil {
		return err
	}
	if err := d.share(ctx, cfg); err != nil {
		return fmt.Errorf("share memory: %w", err)
	}
	if err := d.newQueues(cfg.Queues[:d.granted]); err != nil {
		return err
	}
	if err := d.fetch(ctx); err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	d.start = d.control.asyncCall(cmdStartDev, d.id, uint64(os.Getpid()))
	if err := d.started(ctx); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if err := d.nodeReady(ctx); err != nil {
		return err
	}
	d.tune(ctx)
	return nil
}

// openChar opens /dev/ublkcN, which udev may still be making or looking at.
func (d *Device) openChar(ctx context.Context) error {
	path := fmt.Sprintf("/dev/ublkc%d", d.id)
	err := retry(ctx, nodePatience, func() (err error) {
		d.fd, err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		d.fd = -1
		return fmt.Errorf("open %s: %w", path, err)
	}
	return nil
}

// fetch has every lane hand its queue's tags to the kernel: it must be the thread that serves them.
func (d *Device) fetch(ctx context.Context) error {
	for _, q := range d.queues {
		q.fetched = true
		if err := q.lane.Do(ctx, q.fetch); err != nil {
			return err
		}
	}
	return nil
}

// started waits for START_DEV, which waits for the queues and on older kernels reads the partition table through them.
func (d *Device) started(ctx context.Context) error {
	select {
	case <-d.start.done:
		return d.start.err()
	case <-d.events.lost:
		return d.events.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// nodeReady waits until the path leads to this disk, and not to what a former one left there.
func (d *Device) nodeReady(ctx context.Context) error {
	p, err := d.control.getParams(ctx, d.id)
	if err != nil {
		return fmt.Errorf("get parameters: %w", err)
	}
	dev := unix.Mkdev(p.devt.diskMajor, p.devt.diskMinor)
	return retry(ctx, nodePatience, func() error { return isBlock(d.path, dev) })
}

func isBlock(path string, dev uint64) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK || st.Rdev != dev {
		return fmt.Errorf("%s is not block device %d:%d", path, unix.Major(dev), unix.Minor(dev))
	}
	return nil
}

// addHint says what to do about an ADD_DEV that was refused.
func addHint(err error) string {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return "CAP_SYS_ADMIN is needed, and before Linux 6.15 the module takes no more than ublks_max (64) devices"
	}
	return ""
}

// startHint says the same about START_DEV.
func (d *Device) startHint(err error) string {
	if d.start != nil && errors.Is(err, unix.EINVAL) {
		return "Linux 6.17 to 6.18.7 refuses to start a device from within a PID namespace"
	}
	return ""
}
