package demo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	depth = 8         // requests in flight
	chunk = 256 << 10 // bytes of one
)

// load is one pass over the whole disk: writing a pattern, or reading it back and comparing.
type load struct {
	c     *client
	seed  uint64
	check bool
	tick  func(done, total uint64) // may be nil; called from several goroutines

	next    atomic.Uint64 // bytes handed out
	done    atomic.Uint64 // bytes finished
	slowest atomic.Int64  // nanoseconds of one request
}

// Pass is what one pass over the disk came to.
type Pass struct {
	Bytes   uint64        `json:"bytes"`
	Seconds float64       `json:"seconds"`
	MBps    float64       `json:"megabytesPerSecond"` // 10^6 bytes
	Slowest time.Duration `json:"slowestNanoseconds"` // request
}

// run makes the pass; the first error ends it.
func (l *load) run(ctx context.Context) (Pass, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begin := time.Now()
	var wg sync.WaitGroup
	for at := range depth {
		wg.Go(func() {
			if err := l.work(ctx, at); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	err := context.Cause(ctx)
	if err == nil && !l.check {
		err = l.c.flush()
	}
	took := time.Since(begin).Seconds()
	return Pass{
		Bytes: l.done.Load(), Seconds: took, MBps: float64(l.done.Load()) / 1e6 / took,
		Slowest: time.Duration(l.slowest.Load()),
	}, err
}

// work does chunks until none is left.
func (l *load) work(ctx context.Context, at int) error {
	data, want := make([]byte, chunk), make([]byte, chunk)
	for ctx.Err() == nil {
		off := l.next.Add(chunk) - chunk
		if off >= l.c.size {
			return nil
		}
		n := min(chunk, l.c.size-off)
		if err := l.one(at, off, data[:n], want[:n]); err != nil {
			return err
		}
		if done := l.done.Add(n); l.tick != nil {
			l.tick(done, l.c.size)
		}
	}
	return nil
}

func (l *load) one(at int, off uint64, data, want []byte) error {
	fill(want, off, l.seed)
	begin, what, err := time.Now(), "write", error(nil)
	if l.check {
		what, err = "read", l.c.read(at, off, data)
	} else {
		err = l.c.write(at, off, want)
	}
	l.note(time.Since(begin))
	switch {
	case err != nil:
		return fmt.Errorf("%s of %d bytes at %d: %w", what, len(data), off, err)
	case l.check && !bytes.Equal(data, want):
		return fmt.Errorf("at %d: %w", off+uint64(firstDifference(data, want)), errWrongData)
	}
	return nil
}

// errWrongData is the one thing that must not be.
var errWrongData = errors.New("what was read is not what was written")

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

func (l *load) note(took time.Duration) {
	for old := l.slowest.Load(); int64(took) > old; old = l.slowest.Load() {
		if l.slowest.CompareAndSwap(old, int64(took)) {
			return
		}
	}
}

// fill makes the bytes that belong at off: each eight of them differ from all others, and from those of another seed.
func fill(b []byte, off, seed uint64) {
	for i := 0; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], mix(off+uint64(i)+seed<<48))
	}
}

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
