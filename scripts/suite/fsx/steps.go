package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// step does one operation.
func (f *file) step() error {
	switch n := f.rand.IntN(100); {
	case len(f.want) == 0 || n < 35:
		return f.write()
	case n < 65:
		return f.read()
	case n < 75:
		return f.writeMapped()
	case n < 82:
		return f.truncate()
	case n < 90:
		return f.punch()
	case n < 96:
		f.note("sync")
		return f.Sync()
	}
	return f.cold()
}

func (f *file) write() error {
	off, n := f.span(f.max)
	f.note("write %d at %d", n, off)
	b := f.fill(n)
	if _, err := f.WriteAt(b, int64(off)); err != nil {
		return err
	}
	f.grow(off + n)
	copy(f.want[off:], b)
	return nil
}

func (f *file) read() error {
	off, n := f.span(len(f.want))
	f.note("read %d at %d", n, off)
	b := f.buf[:n]
	if _, err := f.ReadAt(b, int64(off)); err != nil {
		return err
	}
	return f.check("read", off, b)
}

// writeMapped changes the file through a shared mapping, after looking at what is there.
func (f *file) writeMapped() error {
	if !f.mapped {
		return f.write()
	}
	off, n := f.span(len(f.want))
	f.note("mapped write %d at %d", n, off)
	start := off / block * block
	m, err := unix.Mmap(int(f.Fd()), int64(start), off+n-start, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	defer func() { _ = unix.Munmap(m) }()
	if err := f.check("mapped read", start, m); err != nil {
		return err
	}
	copy(m[off-start:], f.fill(n))
	copy(f.want[off:], f.buf[:n])
	return nil
}

func (f *file) truncate() error {
	n := f.rand.IntN(f.max/f.unit+1) * f.unit
	f.note("truncate to %d", n)
	if err := f.Truncate(int64(n)); err != nil {
		return err
	}
	if n < len(f.want) {
		f.want = f.want[:n]
		return nil
	}
	f.grow(n)
	return nil
}

// punch makes a hole: on a device that can discard, the filesystem may hand it on.
func (f *file) punch() error {
	off, n := f.span(len(f.want))
	f.note("hole %d at %d", n, off)
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(n))
	if err != nil {
		return fmt.Errorf("fallocate: %w", err)
	}
	clear(f.want[off : off+n])
	return nil
}

// cold throws the page cache of the file away, so that what is read next comes from the device.
func (f *file) cold() error {
	f.note("sync, drop caches")
	if err := f.Sync(); err != nil {
		return err
	}
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}
