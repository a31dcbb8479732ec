// Package ublk makes block devices (/dev/ublkbN) that this process serves: the kernel's ublk driver hands the
// requests over by io_uring, lanes take them to a logical unit (block.Queue) and return what became of them.
//
// Three threads meet here. Control commands sleep in the kernel for as long as requests take to finish, so they have
// a ring and a thread of their own; a queue never sends one, or it would wait for itself. Everything of one queue
// happens on its lane. Create and Stop are ordinary blocking calls from anywhere.
package ublk

import (
	"context"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"iserblk/internal/lane"
)

const controlPath = "/dev/ublk-control"

// Control sends commands to the ublk driver. It is safe for concurrent use.
type Control struct {
	fd       int
	lane     *lane.Lane
	base     uint64
	calls    []*call // by the lower half of the user data; the lane's
	features uint64
}

// call is one control command on its way. The kernel reads and writes what it points at until done.
type call struct {
	op   uint32
	cmd  ctrlCmd
	buf  any // keeps the memory behind cmd.addr
	res  int32
	done chan struct{}
}

// Options says how to open ublk.
type Options struct {
	// NoModprobe keeps Open from loading the ublk_drv module.
	NoModprobe bool
}

// Open gets at the ublk driver, loading its module if need be. Its error matches ErrUnsupported and says what is
// missing. The Control must outlive its devices.
func Open(ctx context.Context, opt Options) (*Control, error) {
	fd, err := openControl(ctx, opt)
	if err != nil {
		return nil, err
	}
	c := &Control{fd: fd}
	c.lane, err = lane.New(lane.Options{Entries: 64, CQEntries: 256, SQE128: true, Spin: -1, Nap: -1})
	if err != nil {
		unix.Close(fd)
		return nil, unsupported("open "+controlPath, err, "")
	}
	c.lane.Start()
	if err := c.start(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// start learns what the driver can do.
func (c *Control) start(ctx context.Context) error {
	if err := c.lane.Do(ctx, func() { c.base = c.lane.Register(c) }); err != nil {
		return &Error{Op: "open " + controlPath, Err: err}
	}
	features := new(uint64)
	cl := newCall(cmdGetFeatures, anyDevice)
	cl.point(features, unsafe.Pointer(features), 8)
	err := c.do(ctx, cl)
	switch {
	case err == nil && *features&featIoctlEncode != 0:
		c.features = *features
		return nil
	case ctx.Err() != nil:
		return &Error{Op: "get features", Err: err}
	}
	return unsupported("get features", err, tooOld)
}

// Close ends the control thread. Devices made with c must have been stopped.
func (c *Control) Close() error {
	c.lane.Stop()
	return unix.Close(c.fd)
}

// Features is the driver's UBLK_F_* mask.
func (c *Control) Features() uint64 { return c.features }

func newCall(op, dev uint32) *call {
	return &call{op: op, cmd: ctrlCmd{devID: dev, queueID: noQueue}, done: make(chan struct{})}
}

// point makes n bytes at p the command's buffer; owner keeps them alive.
func (cl *call) point(owner any, p unsafe.Pointer, n int) {
	cl.buf, cl.cmd.addr, cl.cmd.len = owner, uint64(uintptr(p)), uint16(n)
}

// do sends a command and waits for it. When ctx ends first the command goes on in the kernel.
func (c *Control) do(ctx context.Context, cl *call) error {
	c.send(cl)
	return c.wait(ctx, cl)
}

func (c *Control) send(cl *call) { c.lane.Post(func() { c.submit(cl) }) }

// wait is for a command that was sent; it may be called again.
func (c *Control) wait(ctx context.Context, cl *call) error {
	select {
	case <-cl.done:
		return cl.err()
	case <-ctx.Done():
		if cl.finished() { // both were ready, and then the answer counts
			return cl.err()
		}
		return ctx.Err()
	}
}

// finished says whether the kernel has answered.
func (cl *call) finished() bool {
	select {
	case <-cl.done:
		return true
	default:
		return false
	}
}

func (cl *call) err() error {
	if cl.res < 0 {
		return syscall.Errno(-cl.res)
	}
	return nil
}

// submit runs on the control lane.
func (c *Control) submit(cl *call) {
	slot := uint32(len(c.calls))
	for i, other := range c.calls {
		if other == nil {
			slot = uint32(i)
			break
		}
	}
	if slot == uint32(len(c.calls)) {
		c.calls = append(c.calls, nil)
	}
	c.calls[slot] = cl
	sqe := c.lane.SQE()
	sqe.PrepURingCmd(c.fd, cl.op, c.base+uint64(slot))
	*(*ctrlCmd)(sqe.Cmd()) = cl.cmd
}

// HandleCQE ends a command. It is called by the control lane.
func (c *Control) HandleCQE(low uint32, res int32, _ uint32) {
	cl := c.calls[low]
	c.calls[low] = nil
	cl.res = res
	close(cl.done)
}

// simple sends a command that has no buffer.
func (c *Control) simple(ctx context.Context, op, dev uint32, data uint64) error {
	return c.wait(ctx, c.asyncCall(op, dev, data))
}

// add makes a device. The kernel's answer, in info, may be less than what was asked for.
func (c *Control) add(ctx context.Context, info *devInfo) error {
	cl := newCall(cmdAddDev, info.devID)
	cl.point(info, unsafe.Pointer(info), int(unsafe.Sizeof(*info)))
	return c.do(ctx, cl)
}

func (c *Control) info(ctx context.Context, dev uint32) (*devInfo, error) {
	info := new(devInfo)
	cl := newCall(cmdGetDevInfo, dev)
	cl.point(info, unsafe.Pointer(info), int(unsafe.Sizeof(*info)))
	return info, c.do(ctx, cl)
}

func (c *Control) setParams(ctx context.Context, dev uint32, p *params) error {
	cl := newCall(cmdSetParams, dev)
	cl.point(p, unsafe.Pointer(p), int(unsafe.Sizeof(*p)))
	return c.do(ctx, cl)
}

func (c *Control) getParams(ctx context.Context, dev uint32) (*params, error) {
	p := &params{len: uint32(unsafe.Sizeof(params{}))}
	cl := newCall(cmdGetParams, dev)
	cl.point(p, unsafe.Pointer(p), int(unsafe.Sizeof(*p)))
	return p, c.do(ctx, cl)
}

// asyncCall begins a command that sleeps in the kernel for as long as others make it.
func (c *Control) asyncCall(op, dev uint32, data uint64) *call {
	cl := newCall(op, dev)
	cl.cmd.data = data
	c.send(cl)
	return cl
}
