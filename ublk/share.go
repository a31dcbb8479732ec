package ublk

import (
	"context"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxShared is the size of the largest buffer that the kernel shares, in bytes (UBLK_SHMEM_BUF_SIZE_MAX).
const MaxShared = 1 << 32

const noSharing = "that takes Linux 7.1 or later; without it each request is copied once"

// share has the kernel know the memory that is shared. The queues must not be there yet: while requests are in flight the
// kernel waits for them.
func (d *Device) share(ctx context.Context, cfg Config) error {
	if cfg.Share == nil {
		return nil
	}
	return cfg.Share(func(b Buffer) error { return d.register(ctx, b) })
}

func (d *Device) register(ctx context.Context, b Buffer) error {
	page := os.Getpagesize()
	addr := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b.Mem))))
	if n := len(b.Mem); n == 0 || n%page != 0 || n > MaxShared || addr%uint64(page) != 0 {
		return fmt.Errorf("%d bytes at %#x: %w: the kernel takes whole pages, at most %d bytes", n, addr, unix.EINVAL, MaxShared)
	}
	reg := &shmemBufReg{addr: addr, len: uint64(len(b.Mem))}
	cl := newCall(cmdRegBuf, d.id)
	cl.point(reg, unsafe.Pointer(reg), int(unsafe.Sizeof(*reg)))
	if err := d.control.do(ctx, cl); err != nil {
		return err
	}
	for int(cl.res) >= len(d.shared) {
		d.shared = append(d.shared, Buffer{})
	}
	d.shared[cl.res] = b
	return nil
}

// inPlace is the part of the shared memory where the kernel says that a request of n bytes has its data.
func (q *queue) inPlace(addr, n uint64) (Buffer, bool) {
	i, off := shmemPlace(addr)
	if i >= uint64(len(q.shared)) {
		return Buffer{}, false
	}
	b := q.shared[i]
	if size := uint64(len(b.Mem)); off > size || n > size-off {
		return Buffer{}, false
	}
	b.Mem = b.Mem[off : off+n : off+n]
	return b, true
}
