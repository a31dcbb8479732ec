package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// block is what direct I/O has to be aligned to.
const block = 4096

// file is the file under test and what it has to hold.
type file struct {
	*os.File
	want   []byte // the content, as long as the file
	max    int
	unit   int // offsets and lengths are multiples of it
	rand   *rand.Rand
	buf    []byte // page-aligned, max bytes
	mapped bool   // shared mappings are allowed
	steps  []string
}

func open(path string, size int, seed uint64, direct bool) (*file, error) {
	flags, unit := os.O_RDWR|os.O_CREATE|os.O_TRUNC, 1
	if direct {
		flags, unit = flags|unix.O_DIRECT, block
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	size = (size + block - 1) / block * block
	buf, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	return &file{File: f, max: size, unit: unit, buf: buf, mapped: !direct, rand: rand.New(rand.NewPCG(seed, 0))}, nil
}

// span is a random part of the first limit bytes; at least one unit, and mostly short.
func (f *file) span(limit int) (off, n int) {
	units := limit / f.unit
	at := f.rand.IntN(units)
	most := min(units-at, 1+(64<<10)/f.unit)
	if f.rand.IntN(20) == 0 {
		most = units - at
	}
	return at * f.unit, (1 + f.rand.IntN(most)) * f.unit
}

// note remembers the last steps for the report.
func (f *file) note(format string, args ...any) {
	f.steps = append(f.steps, fmt.Sprintf(format, args...))
	if len(f.steps) > 30 {
		f.steps = f.steps[1:]
	}
}

func (f *file) history() string { return strings.Join(f.steps, "\n") }

// fill makes n bytes of random content.
func (f *file) fill(n int) []byte {
	b := f.buf[:n]
	for i := 0; i < n; i += 8 {
		v := f.rand.Uint64()
		for j := i; j < min(i+8, n); j++ {
			b[j] = byte(v >> (8 * (j - i)))
		}
	}
	return b
}

// grow makes want at least n bytes long: what is new reads as zeroes.
func (f *file) grow(n int) {
	if n > len(f.want) {
		f.want = append(f.want, make([]byte, n-len(f.want))...)
	}
}

// check compares what was read at off with what has to be there.
func (f *file) check(what string, off int, got []byte) error {
	want := f.want[off : off+len(got)]
	if bytes.Equal(got, want) {
		return nil
	}
	first, bad := -1, 0
	for i := range got {
		if got[i] != want[i] {
			bad++
			if first < 0 {
				first = i
			}
		}
	}
	return fmt.Errorf("%s of %d bytes at %d: %d bytes are wrong, the first at %d is %#02x, not %#02x",
		what, len(got), off, bad, off+first, got[first], want[first])
}

// checkAll reads the whole file from the disk.
func (f *file) checkAll() error {
	if err := f.cold(); err != nil {
		return err
	}
	got := f.buf[:len(f.want)]
	clear(got)
	n, err := f.ReadAt(f.buf, 0)
	if n != len(f.want) {
		return fmt.Errorf("the file has %d bytes, not %d: %w", n, len(f.want), err)
	}
	return f.check("last read", 0, got)
}
