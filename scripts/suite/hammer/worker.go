package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"time"
)

// disk is what is hammered: a file opened for direct I/O.
type disk interface {
	ReadAt(b []byte, off int64) (int, error)
	WriteAt(b []byte, off int64) (int, error)
}

// block is what is known of one block: the newest write that was started, and the oldest one that a read may return.
type block struct{ started, floor uint64 }

// worker hammers the blocks that are its own, one request at a time.
type worker struct {
	disk    disk
	o       options
	run     uint64
	numbers []uint64
	blocks  map[uint64]*block
	buf     []byte // aligned for direct I/O
	report  report
}

// run hammers with one worker for each request at a time, until ctx ends or one of them finds something wrong.
func run(ctx context.Context, d disk, o options, settle time.Duration) (report, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	workers, err := makeWorkers(d, o)
	if err != nil {
		return report{}, err
	}
	failed := make([]error, len(workers))
	var wg sync.WaitGroup
	for i, w := range workers {
		wg.Go(func() {
			if failed[i] = w.work(ctx); failed[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	time.Sleep(settle)
	var total report
	for i, w := range workers {
		if failed[i] == nil {
			failed[i] = w.lastLook()
		}
		total.add(w.report)
	}
	return total, errors.Join(failed...)
}

func makeWorkers(d disk, o options) ([]*worker, error) {
	id := rand.Uint64()
	workers := make([]*worker, min(o.depth, o.blocks))
	room := (o.size + 4095) / 4096 * 4096
	mem, err := buffers(o.shared, room*len(workers))
	if err != nil {
		return nil, err
	}
	for i := range workers {
		workers[i] = &worker{disk: d, o: o, run: id, buf: mem[i*room:][:o.size], blocks: map[uint64]*block{}}
	}
	for n := range uint64(o.blocks) {
		w := workers[n%uint64(len(workers))]
		w.numbers = append(w.numbers, n)
		w.blocks[n] = &block{}
	}
	return workers, nil
}

// buffers is memory of its own, or the file's.
func buffers(file string, size int) ([]byte, error) {
	if file == "" {
		return syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() < int64(size) {
		return nil, fmt.Errorf("%s has fewer than %d bytes (%v)", file, size, err)
	}
	return syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
}

func (w *worker) work(ctx context.Context) error {
	for _, n := range w.numbers {
		if err := w.write(n); err != nil {
			return err
		}
	}
	for ctx.Err() == nil {
		n := w.numbers[rand.IntN(len(w.numbers))]
		do := w.write
		if rand.IntN(100) < w.o.reads {
			do = w.read
		}
		if err := do(n); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) offset(n uint64) int64 { return w.o.offset + int64(n)*int64(w.o.size) }

// timed runs one request and books how long it took. An error that is to be expected is booked, too.
func (w *worker) timed(what string, n uint64, do func([]byte, int64) (int, error)) (ok bool, err error) {
	start := time.Now()
	_, err = do(w.buf, w.offset(n))
	w.report.Longest = max(w.report.Longest, time.Since(start).Milliseconds())
	if err == nil {
		return true, nil
	}
	w.report.Errors++
	if w.o.errors {
		return false, w.leftAlone(what, n)
	}
	return false, fmt.Errorf("%s of block %d: %w", what, n, err)
}

// leftAlone waits a little after an error, as a device that fails at once is no reason to spin, and checks that the
// buffer is the caller's again. It leaves bytes there that no block has.
func (w *worker) leftAlone(what string, n uint64) error {
	mark := bytes.Repeat([]byte{0xa5}, len(w.buf))
	copy(w.buf, mark)
	time.Sleep(w.o.watch)
	if !bytes.Equal(w.buf, mark) {
		return fmt.Errorf("%s of block %d has failed, and then its buffer was written", what, n)
	}
	return nil
}

func (w *worker) write(n uint64) error {
	b := w.blocks[n]
	b.started++
	stamp(w.buf, w.run, n, b.started)
	ok, err := w.timed("write", n, w.disk.WriteAt)
	if ok {
		w.report.Writes++
		b.floor = b.started
	}
	return err
}

func (w *worker) read(n uint64) error {
	ok, err := w.timed("read", n, w.disk.ReadAt)
	if !ok {
		return err
	}
	w.report.Reads++
	return w.check(n)
}

func (w *worker) check(n uint64) error {
	b := w.blocks[n]
	if b.floor == 0 && b.started > 0 && w.o.errors {
		return nil // nothing was ever acknowledged here
	}
	seq, err := sequence(w.buf, w.run, n)
	switch {
	case err != nil:
		return err
	case seq < b.floor:
		return fmt.Errorf("block %d went back to write %d after write %d was acknowledged or seen", n, seq, b.floor)
	case seq > b.started:
		return fmt.Errorf("block %d holds write %d, but only %d were made", n, seq, b.started)
	}
	b.floor = seq
	return nil
}

// lastLook reads every block. Nothing may fail any more.
func (w *worker) lastLook() error {
	w.o.errors = false
	for _, n := range w.numbers {
		if w.blocks[n].floor == 0 {
			continue
		}
		if err := w.read(n); err != nil {
			return err
		}
	}
	return nil
}
