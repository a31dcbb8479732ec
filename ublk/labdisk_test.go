package ublk_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/internal/block"
	"iserblk/internal/lane"
	"iserblk/ublk"
)

// The tests of this file's package need a kernel with ublk and are for the lab: ISERBLK_LAB=1.

// ramDisk is a logical unit in memory. Each queue has a ramQueue over the same memory.
type ramDisk struct {
	mem     []byte
	flushes atomic.Int64
	fua     atomic.Int64
	zeroes  atomic.Int64
	noUnmap atomic.Int64
	largest atomic.Int64 // bytes of the largest discard or write-zeroes
}

type ramQueue struct {
	disk *ramDisk
	lane *lane.Lane
	// delay has every request finish that much later, by a timer. hang has it never finish before release.
	delay time.Duration
	hang  bool
	held  []*block.Request
}

func (q *ramQueue) Submit(r *block.Request) {
	switch {
	case q.hang:
		q.held = append(q.held, r)
	case q.delay > 0:
		q.lane.AfterFunc(q.delay, func() { q.finish(r) })
	default:
		q.finish(r)
	}
}

// release fails what hangs, as a logical unit does whose paths are gone.
func (q *ramQueue) release(errno syscall.Errno) {
	q.hang = false
	for _, r := range q.held {
		r.Sink.Done(r, errno)
	}
	q.held = nil
}

func (q *ramQueue) finish(r *block.Request) {
	d := q.disk
	switch r.Op {
	case block.Read:
		copy(r.Data, d.mem[r.Offset:])
	case block.Write:
		copy(d.mem[r.Offset:], r.Data)
		if r.Flags&block.FUA != 0 {
			d.fua.Add(1)
		}
	case block.Flush:
		d.flushes.Add(1)
	case block.Discard, block.WriteZeroes:
		d.clear(r)
	}
	r.Sink.Done(r, 0)
}

func (d *ramDisk) clear(r *block.Request) {
	mem := d.mem[r.Offset : r.Offset+r.Length]
	if r.Length < 1<<20 || unix.Madvise(mem, unix.MADV_REMOVE) != nil { // which is faster, and aligned ranges only
		clear(mem)
	}
	d.largest.Store(max(d.largest.Load(), int64(r.Length)))
	if r.Op == block.WriteZeroes {
		d.zeroes.Add(1)
		if r.Flags&block.NoUnmap != 0 {
			d.noUnmap.Add(1)
		}
	}
}

// rig is a device with everything under it.
type rig struct {
	control *ublk.Control
	dev     *ublk.Device
	disk    *ramDisk
	queues  []*ramQueue
	lanes   []*lane.Lane
	memory  [][]byte
}

func ramLimits(size uint64) block.Limits {
	return block.Limits{
		Size: size, BlockSize: 512, PhysicalBlockSize: 4096, MaxTransfer: 1 << 20, Depth: 128,
		WriteCache: true, FUA: true,
		MaxDiscard: 1 << 40, DiscardGranularity: 4096, MaxWriteZeroes: 1 << 40,
	}
}

const labDiskSize = 64 << 20

// onFile puts the disk of labDiskSize into a file, where another process finds it.
func (r *rig) onFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(labDiskSize); err != nil {
		return err
	}
	r.disk.mem, err = unix.Mmap(int(f.Fd()), 0, labDiskSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return err
}

func anonymous(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
}

// newRig makes lanes, memory and a Control, but no device.
func newRig(limits block.Limits, queues int, opt lane.Options) (*rig, error) {
	r := &rig{disk: &ramDisk{}}
	var err error
	if r.control, err = ublk.Open(context.Background(), ublk.Options{}); err != nil {
		return nil, err
	}
	if r.disk.mem, err = anonymous(int(limits.Size)); err != nil {
		return nil, err
	}
	for range queues {
		l, err := lane.New(opt)
		if err != nil {
			return nil, err
		}
		l.Start()
		mem, err := anonymous(int(limits.Depth) * int(limits.MaxTransfer))
		if err != nil {
			return nil, err
		}
		r.lanes, r.memory = append(r.lanes, l), append(r.memory, mem)
		r.queues = append(r.queues, &ramQueue{disk: r.disk, lane: l})
	}
	return r, nil
}

func (r *rig) config(limits block.Limits) ublk.Config {
	cfg := ublk.Config{Limits: limits}
	for i, l := range r.lanes {
		qc := ublk.QueueConfig{Lane: l, Unit: r.queues[i]}
		for t := range int(limits.Depth) {
			n := int(limits.MaxTransfer)
			qc.Buffers = append(qc.Buffers, ublk.Buffer{Mem: r.memory[i][t*n : (t+1)*n]})
		}
		cfg.Queues = append(cfg.Queues, qc)
	}
	return cfg
}

func (r *rig) close() {
	for _, l := range r.lanes {
		l.Stop()
	}
	r.control.Close()
	for _, m := range append(r.memory, r.disk.mem) {
		unix.Munmap(m)
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// serve makes a device for the test's duration.
func serve(t *testing.T, limits block.Limits, queues int) *rig {
	t.Helper()
	inLab(t)
	r, err := newRig(limits, queues, lane.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	if r.dev, err = r.control.Create(within(t, 30*time.Second), r.config(limits)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.dev.Stop(within(t, 30*time.Second)); err != nil {
			t.Error(err)
		}
		mustBeGone(t, r.dev.Path())
	})
	return r
}

func mustBeGone(t *testing.T, path string) {
	t.Helper()
	char := strings.Replace(path, "ublkb", "ublkc", 1)
	for _, p := range []string{path, char} {
		gone := func() bool { _, err := os.Stat(p); return os.IsNotExist(err) }
		for end := time.Now().Add(5 * time.Second); !gone(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("%s is still there", p)
				return
			}
		}
	}
}

func inLab(t *testing.T) {
	t.Helper()
	if os.Getenv("ISERBLK_LAB") == "" {
		t.Skip("needs the lab: ISERBLK_LAB=1")
	}
}

// command runs a program and gives its output; it fails the test if that fails.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(within(t, 120*time.Second), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// sysfs reads one attribute of the device's queue.
func sysfs(t *testing.T, dev, attr string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/sys/block/%s/%s", strings.TrimPrefix(dev, "/dev/"), attr))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}
