// Package lane is one locked OS thread with one event loop on one io_uring (or epoll, see Options.NoRing). Everything that happens to a request
// happens on its lane, so what runs there needs no locks.
//
// A turn reaps completions, runs messages and timers, polls every Source, rings every Source's doorbell, and enters
// the ring once: to submit, and to sleep when there is nothing left to do. An idle lane costs no CPU. A panic on a lane ends the
// process, as it must: a block server that lost its lane would only hang its clients.
package lane

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/internal/uring"
)

// ErrStopped is what Do answers when the lane is no more.
var ErrStopped = errors.New("lane stopped")

// Options says how a lane runs. The zero value is good.
type Options struct {
	// CPU pins the thread when Pin is set.
	CPU int
	Pin bool
	// Spin is the longest time to look for answers of a busy Source before sleeping, and twice the longest to look
	// for what comes next when none is; while that usually takes longer the lane sleeps at once. 0 means as long as pays
	// on this machine, going by what waking up takes, and at most 10 ms; negative means never.
	Spin time.Duration
	// Nap is the longest sleep that the Go scheduler is not told of, which makes waking up cheaper while requests come
	// that fast. 0 means 10 ms, negative never.
	Nap time.Duration
	// Entries and CQEntries size the ring; 0 means 1024 and 8192, enough for 8000 requests in flight.
	Entries, CQEntries uint32
	// SQE128 makes the ring fit for ublk's control commands.
	SQE128 bool
	// NoRing lets the lane run on epoll, for where io_uring is not allowed. Such a lane serves Sources, messages and
	// timers, but no ublk queues.
	NoRing bool
}

// Lane is one event loop. Its methods are for the lane's own thread unless they say otherwise.
type Lane struct {
	opt     Options
	engine  engine
	ring    *uring.Ring // nil on epoll
	eventFD int

	handlers []CQEHandler // by the upper half of the user data
	free     []uint32     // handlers to use again

	watches []*watch // one a Source; nil where one was just removed
	holes   bool

	timers timerHeap
	spins  spins
	nap    napper
	tenure tenure

	mail     mailbox
	stopping bool
	exited   chan struct{}
	started  atomic.Bool
	stop     sync.Once
}

// New makes a lane that does nothing before Start. Its error names what keeps io_uring from being used.
func New(opt Options) (*Lane, error) {
	if opt.Entries == 0 {
		opt.Entries = 1024
	}
	if opt.CQEntries == 0 {
		opt.CQEntries = 8 * opt.Entries
	}
	if opt.Nap == 0 {
		opt.Nap = defaultNap
	}
	l := &Lane{opt: opt, exited: make(chan struct{})}
	l.spins.limit(max(opt.Spin, 0))
	l.nap.limit = max(opt.Nap, 0)
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("make lane: %w", err)
	}
	return l, nil
}

func (l *Lane) open() error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	if l.opt.NoRing {
		l.engine, err = newEpollEngine(l)
	} else {
		l.engine, err = newRingEngine(l)
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	l.eventFD, l.mail.fd = fd, fd
	return nil
}

// Start begins the loop on a thread of its own, and finds out how long it may spin unless it was told. Any goroutine may
// call it, once.
func (l *Lane) Start() {
	l.started.Store(true)
	go l.run()
	if l.opt.Spin == 0 {
		limit := spinLimit(l.waking())
		l.Post(func() { l.spins.limit(limit) })
	}
}

// Stop ends the loop after the messages posted so far and waits for it. Whatever uses the lane (ublk devices, Sources)
// must be gone by then. Any goroutine but the lane's own may call it, and again.
func (l *Lane) Stop() {
	l.stop.Do(func() {
		if !l.started.Load() {
			l.close()
			return
		}
		l.Post(func() { l.stopping = true })
	})
	<-l.exited
}

// Post has f run on the lane soon, after what was posted before it. It never blocks and may be called from anywhere, also from the
// lane. After Stop it does nothing.
func (l *Lane) Post(f func()) { l.mail.post(f) }

// Do posts f and waits until it ran. When ctx ends first, f may still run later. It must not be called on the lane.
func (l *Lane) Do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	l.Post(func() {
		defer close(done)
		f()
	})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.exited:
		return ErrStopped
	}
}

// Ring is the lane's ring, for reading its state, or nil on epoll. SQEs come from SQE.
func (l *Lane) Ring() *uring.Ring { return l.ring }

// SQE is an empty SQE that goes out at the end of the turn. When the queue is full it submits at once to make room,
// and keeps trying while the kernel has no memory for requests: nothing else could make progress either.
func (l *Lane) SQE() *uring.SQE {
	for {
		if s := l.ring.NextSQE(); s != nil {
			return s
		}
		must(l.ring.Submit())
	}
}

// run is the lane's thread. It is never unlocked, so it ends with the goroutine and nobody inherits its state.
func (l *Lane) run() {
	runtime.LockOSThread()
	if l.nap.limit > 0 || l.opt.Spin >= 0 {
		reserveProcessor()
		defer returnProcessor()
	}
	if l.opt.Pin {
		l.pin()
	}
	l.engine.start()
	l.engine.watch(l.eventFD, mailData)
	for !l.stopping {
		l.turn()
	}
	l.close()
}

// pin is a wish: a CPU that went away or is not ours must not keep the lane from running.
func (l *Lane) pin() {
	var set unix.CPUSet
	set.Set(l.opt.CPU)
	_ = unix.SchedSetaffinity(0, &set)
}

func (l *Lane) close() {
	l.mail.close()
	l.engine.close()
	unix.Close(l.eventFD)
	close(l.exited)
}

// must stops the process: there is nothing a lane could do about a broken ring.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
