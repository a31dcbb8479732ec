package ublk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A device with an owner does not end with the process that serves it: the kernel holds its requests back, those that the
// process had as well, until another one has taken the device over (UBLK_F_USER_RECOVERY, UBLK_F_USER_RECOVERY_REISSUE).
// A write that was on its way may be carried out twice. Whoever recovers a device has to see to it first that what the
// dead process had sent out is at an end.

const (
	recoveryFlags = featUserRecovery | featReissue
	// recoverPatience is how long the kernel may take to notice that a process has died, which it does when the process's
	// rings are gone.
	recoverPatience = 15 * time.Second
	// recoverTimeout bounds a whole recovery, which waits for nobody else otherwise: its callers do not call it off.
	recoverTimeout = time.Minute
)

// Cookie tells a device with an owner from every other that had or will have its number. Without an owner it is "".
func (d *Device) Cookie() string { return cookieOf(d.mark) }

func cookieOf(m uint64) string {
	if m>>magicShift != ownedMagic {
		return ""
	}
	return strconv.FormatUint(m, 16)
}

// Left is a device with an owner as the kernel has it.
type Left struct {
	ID     int
	Cookie string
}

// Path is the block device.
func (l Left) Path() string { return blockPath(uint32(l.ID)) }

// Owned lists every device of an owner, served or not. It does not load the module.
func Owned(ctx context.Context, owner string) ([]Left, error) {
	ids, err := devices()
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	c, err := Open(ctx, Options{NoModprobe: true})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var all []Left
	for _, id := range ids {
		info, err := c.info(ctx, id)
		if err == nil && ownedBy(info.ublksrvFlags, owner) {
			all = append(all, Left{int(id), cookieOf(info.ublksrvFlags)})
		}
	}
	return all, nil
}

// left finds a device by number and cookie. If there is none, isGone is true of the error.
func (c *Control) left(ctx context.Context, l Left) (*devInfo, error) {
	info, err := c.info(ctx, uint32(l.ID))
	if err == nil && (l.Cookie == "" || cookieOf(info.ublksrvFlags) != l.Cookie) {
		err = unix.ENODEV
	}
	return info, err
}

// ErrServed: a device cannot be recovered while a process serves it, or has not quite ended.
var ErrServed = errors.New("another process serves it")

// ErrBegun: a device could not be recovered and will be neither served nor given back before this process ends. Its
// buffers stay in use until then.
var ErrBegun = errors.New("the next try takes another process")

// Exists says whether the kernel has a device of this number, as far as can be told without asking the driver.
func (l Left) Exists() bool {
	if _, err := os.Stat("/sys/class"); err != nil {
		return true // nobody can tell
	}
	_, err := os.Stat(fmt.Sprintf("%s/ublkc%d", charClass, l.ID))
	return !errors.Is(err, os.ErrNotExist)
}

// Held says whether the kernel holds the requests of a device back since its process has died. Of one that has just died
// it waits for the kernel to notice, up to recoverPatience: ErrServed.
func (c *Control) Held(ctx context.Context, l Left) (bool, error) {
	var info *devInfo
	err := retryWhile(ctx, ErrServed, func() (err error) {
		if info, err = c.left(ctx, l); err == nil && info.state == stateLive {
			return ErrServed
		}
		return err
	})
	switch {
	case err == nil:
		return info.state == stateQuiesced, nil
	case isGone(err):
		return false, nil
	}
	return false, &Error{Op: "look at", Dev: l.Path(), Err: err}
}

// retryWhile calls f until it fails otherwise than with again, or not at all.
func retryWhile(ctx context.Context, again error, f func() error) error {
	var last error
	_ = retry(ctx, recoverPatience, func() error {
		if last = f(); errors.Is(last, again) {
			return last
		}
		return nil
	})
	return last
}

// Recover takes a device over that Held says is waiting. Its size, its number of queues and the largest transfer stay what
// they were, and cfg has to have room for that. When it fails the device goes on waiting; after ErrBegun for the end of this
// process, and cfg's lanes and buffers must stay until then.
func (c *Control) Recover(ctx context.Context, l Left, cfg Config) (*Device, error) {
	ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	d := &Device{
		control: c, id: uint32(l.ID), path: l.Path(), limits: cfg.Limits,
		fd: -1, turn: make(chan struct{}, 1), events: events{lost: make(chan struct{})},
	}
	err := cfg.check()
	if err == nil {
		err = d.learn(ctx, l, cfg)
	}
	if err == nil {
		err = d.takeOver(ctx, cfg)
	}
	if err != nil {
		return nil, &Error{Op: "recover", Dev: d.path, Err: err, Hint: d.startHint(err)}
	}
	return d, nil
}

// learn finds out what the device was made with.
func (d *Device) learn(ctx context.Context, l Left, cfg Config) error {
	info, err := d.control.left(ctx, l)
	if err != nil {
		return err
	}
	p, err := d.control.getParams(ctx, d.id)
	if err != nil {
		return fmt.Errorf("get parameters: %w", err)
	}
	if err := fits(info, p, &cfg); err != nil {
		return err
	}
	d.mark, d.granted = info.ublksrvFlags, int(info.nrHWQueues)
	d.limits.MaxTransfer, d.limits.WriteCache = info.maxIOBufBytes, p.basic.attrs&attrVolatileCache != 0
	d.size.Store(p.basic.devSectors << sectorShift)
	return d.nodeReady(ctx)
}

// fits says whether cfg can serve what the device was made with.
func fits(info *devInfo, p *params, cfg *Config) error {
	l, size := &cfg.Limits, p.basic.devSectors<<sectorShift
	switch {
	case info.flags&recoveryFlags != recoveryFlags || info.flags&(featShmemZC|featIODescSize) != 0:
		return fmt.Errorf("it was made otherwise (flags %#x)", info.flags)
	case info.queueDepth != l.Depth, int(info.nrHWQueues) > len(cfg.Queues), info.maxIOBufBytes > l.MaxTransfer:
		return fmt.Errorf("it has %d queues of %d requests of up to %d bytes, now there are %d of %d of %d", info.nrHWQueues,
			info.queueDepth, info.maxIOBufBytes, len(cfg.Queues), l.Depth, l.MaxTransfer)
	case p.basic.logicalShift != shift(l.BlockSize), size > l.Size:
		return fmt.Errorf("it has %d bytes in blocks of %d, now there are %d in blocks of %d", size, 1<<p.basic.logicalShift,
			l.Size, l.BlockSize)
	case l.WriteCache && p.basic.attrs&attrVolatileCache == 0:
		return errors.New("there is a volatile write cache now, which nobody would flush")
	case l.WriteCache && !l.FUA && p.basic.attrs&attrFUA != 0:
		return errors.New("it has FUA, which nobody would heed now")
	}
	return nil
}

// takeOver serves the device, in the one order that the kernel allows.
func (d *Device) takeOver(ctx context.Context, cfg Config) error {
	if err := d.startRecovery(ctx); err != nil {
		return err
	}
	if err := d.openChar(ctx); err != nil {
		return err
	}
	if err := d.newQueues(cfg.Queues[:d.granted]); err != nil {
		return errors.Join(err, d.letGo(ctx))
	}
	if err := d.serve(ctx); err != nil {
		d.mute.Store(true) // what the kernel has sent already is for the next process
		return fmt.Errorf("%w; %w", err, ErrBegun)
	}
	return nil
}

// startRecovery fails with ErrServed as long as a process has the device's queues.
func (d *Device) startRecovery(ctx context.Context) error {
	err := retryWhile(ctx, unix.EBUSY, func() error { return d.control.simple(ctx, cmdStartRecovery, d.id, 0) })
	if errors.Is(err, unix.EBUSY) {
		return ErrServed
	}
	return err
}

// serve fetches, from where on requests may come, and ends the recovery.
func (d *Device) serve(ctx context.Context) error {
	if err := d.fetch(ctx); err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	d.start = d.control.asyncCall(cmdEndRecovery, d.id, uint64(os.Getpid()))
	return d.started(ctx)
}

// Discard ends a device with an owner whose process has died. What waits for it fails. One that is gone is no error; one
// that is served is ErrServed.
func (c *Control) Discard(ctx context.Context, l Left) error {
	held, err := c.Held(ctx, l)
	if err != nil {
		return err
	}
	d := &Device{control: c, id: uint32(l.ID), path: l.Path(), fd: -1, turn: make(chan struct{}, 1)}
	info, err := c.left(ctx, l)
	if isGone(err) {
		return nil
	}
	if err == nil && held { // somebody may have its queues all the same, after ErrBegun: the kernel would wait for him
		err = d.startRecovery(ctx)
	}
	if err != nil {
		return d.wrap("stop", err)
	}
	d.mark = info.ublksrvFlags
	return d.Stop(ctx)
}

func blockPath(id uint32) string { return fmt.Sprintf("/dev/ublkb%d", id) }
