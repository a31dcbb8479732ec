package lane

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"iserblk/internal/uring"
)

func TestMain(m *testing.M) {
	if err := uring.Probe(); err != nil {
		println("skipped:", err.Error())
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func startLane(t *testing.T, opt Options) *Lane {
	t.Helper()
	l, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	l.Start()
	t.Cleanup(l.Stop)
	return l
}

// onBoth runs a test on io_uring and on epoll.
func onBoth(t *testing.T, f func(t *testing.T, opt Options)) {
	t.Helper()
	for name, noRing := range map[string]bool{"io_uring": false, "epoll": true} {
		t.Run(name, func(t *testing.T) { f(t, Options{NoRing: noRing}) })
	}
}

func spinning(opt Options, d time.Duration) Options {
	opt.Spin = d
	return opt
}

func on(t *testing.T, l *Lane, f func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := l.Do(ctx, f); err != nil {
		t.Fatal(err)
	}
}

// fakeSource is an eventfd that counts.
type fakeSource struct {
	fd             int
	pending        atomic.Int64 // work that Poll will find
	done           atomic.Int64
	flushes, polls atomic.Int64
	armed          int
	buf            [8]byte
	busy           atomic.Bool
}

func newSource(t *testing.T) *fakeSource {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &fakeSource{fd: fd}
}

func (s *fakeSource) Poll() int {
	s.polls.Add(1)
	n := s.pending.Swap(0)
	s.done.Add(n)
	return int(n)
}
func (s *fakeSource) Flush() { s.flushes.Add(1) }
func (s *fakeSource) Arm() bool {
	_, _ = unix.Read(s.fd, s.buf[:])
	s.armed++
	return s.pending.Load() > 0
}
func (s *fakeSource) Fd() int    { return s.fd }
func (s *fakeSource) Busy() bool { return s.busy.Load() }

func (s *fakeSource) work(t *testing.T) {
	t.Helper()
	s.pending.Add(1)
	if _, err := unix.Write(s.fd, knock); err != nil && err != unix.EAGAIN { // EAGAIN: it is readable still
		t.Fatal(err)
	}
}

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

func TestMessagesRunInOrderOnOneThread(t *testing.T) {
	onBoth(t, func(t *testing.T, opt Options) {
		l := startLane(t, opt)
		const posters, each = 8, 2000
		var last [posters]int
		tids := map[int]bool{}
		var wg sync.WaitGroup
		for p := range posters {
			wg.Go(func() {
				for i := range each {
					l.Post(func() {
						if last[p] != i {
							t.Errorf("poster %d: message %d came when %d was due", p, i, last[p])
						}
						last[p]++
						tids[unix.Gettid()] = true
					})
				}
			})
		}
		wg.Wait()
		on(t, l, func() {
			for p := range last {
				if last[p] != each {
					t.Errorf("poster %d: %d messages ran", p, last[p])
				}
			}
			if len(tids) != 1 {
				t.Errorf("ran on %d threads", len(tids))
			}
		})
	})
}

func TestAMessageMayPostAnother(t *testing.T) {
	l := startLane(t, Options{})
	done := make(chan struct{})
	l.Post(func() { l.Post(func() { close(done) }) })
	<-done
}

func TestDoEndsWithItsContextAndWithTheLane(t *testing.T) {
	l := startLane(t, Options{})
	block := make(chan struct{})
	l.Post(func() { <-block })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Do(ctx, func() {}); !errors.Is(err, context.Canceled) {
		t.Errorf("Do: %v", err)
	}
	close(block)
	l.Stop()
	if err := l.Do(t.Context(), func() {}); !errors.Is(err, ErrStopped) {
		t.Errorf("Do after Stop: %v", err)
	}
}

func TestALaneThatNeverRanStops(t *testing.T) {
	l, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	l.Stop()
	l.Stop()
}

func TestTimersFireInOrderAndCanBeStopped(t *testing.T) {
	onBoth(t, func(t *testing.T, opt Options) {
		l := startLane(t, opt)
		fired := make(chan int, 8)
		on(t, l, func() {
			l.AfterFunc(30*time.Millisecond, func() { fired <- 3 })
			l.AfterFunc(10*time.Millisecond, func() {
				fired <- 1
				l.AfterFunc(10*time.Millisecond, func() { fired <- 2 })
			})
			never := l.AfterFunc(15*time.Millisecond, func() { fired <- -1 })
			if !never.Stop() || never.Stop() {
				t.Error("Stop does not tell the first from the second")
			}
		})
		for want := 1; want <= 3; want++ {
			if got := <-fired; got != want {
				t.Errorf("timer %d fired when %d was due", got, want)
			}
		}
	})
}

func TestASourceIsPolledWhenItsFdWakes(t *testing.T) {
	for name, opt := range map[string]Options{
		"spinning": {Spin: time.Millisecond}, "sleeping": {Spin: -1}, "never napping": {Spin: -1, Nap: -1},
		"spinning on epoll": {Spin: time.Millisecond, NoRing: true}, "sleeping on epoll": {Spin: -1, NoRing: true},
	} {
		t.Run(name, func(t *testing.T) {
			l := startLane(t, opt)
			s := newSource(t)
			s.busy.Store(true)
			on(t, l, func() { l.Add(s) })
			for i := range int64(200) {
				s.work(t)
				until(t, "work done", func() bool { return s.done.Load() == i+1 })
			}
			if s.flushes.Load() == 0 {
				t.Error("never flushed")
			}
			on(t, l, func() { l.Remove(s) })
		})
	}
}

// A Source that finds work between its last Poll and Arm must be polled again although its fd stays silent.
func TestWorkThatComesWhileArmingIsNotLost(t *testing.T) {
	onBoth(t, func(t *testing.T, opt Options) {
		l := startLane(t, spinning(opt, -1))
		s := newSource(t)
		late := &lateSource{fakeSource: s}
		on(t, l, func() { l.Add(late) })
		for i := range int64(100) {
			on(t, l, func() { late.surprise = true })
			s.work(t)
			until(t, "work done", func() bool { return s.done.Load() == 2*(i+1) })
		}
		on(t, l, func() { l.Remove(late) })
	})
}

type lateSource struct {
	*fakeSource
	surprise bool
}

func (s *lateSource) Arm() bool {
	if s.surprise {
		s.surprise = false
		s.pending.Add(1)
	}
	return s.fakeSource.Arm()
}

func TestSourcesComeAndGo(t *testing.T) {
	onBoth(t, func(t *testing.T, opt Options) {
		l := startLane(t, opt)
		for range 300 {
			a, b := newSource(t), newSource(t)
			on(t, l, func() { l.Add(a); l.Add(b) })
			a.work(t)
			until(t, "work done", func() bool { return a.done.Load() == 1 })
			on(t, l, func() { l.Remove(a); l.Remove(b); l.Remove(b) })
		}
		on(t, l, func() {}) // completions of the last removal
		on(t, l, func() {
			if n := len(l.handlers); n > 20 {
				t.Errorf("%d handlers for two sources at a time", n)
			}
		})
	})
}

func TestRemoveLetsGoOfTheFile(t *testing.T) {
	onBoth(t, func(t *testing.T, opt Options) {
		l := startLane(t, opt)
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(p[1])
		s := &fakeSource{fd: p[0]}
		on(t, l, func() { l.Add(s) })
		on(t, l, func() {})
		on(t, l, func() { l.Remove(s) })
		unix.Close(p[0])
		if _, err := unix.Write(p[1], []byte{1}); !errors.Is(err, unix.EPIPE) {
			t.Errorf("the pipe still has a reader: %v", err)
		}
	})
}

// selfRemover leaves from within its own Poll, as a nexus does whose connection died.
type selfRemover struct {
	*fakeSource
	lane *Lane
}

func (s *selfRemover) Poll() int {
	if s.fakeSource.Poll() > 0 {
		s.lane.Remove(s)
		return 1
	}
	return 0
}

func TestASourceMayRemoveItselfWhilePolled(t *testing.T) {
	onBoth(t, func(t *testing.T, opt Options) {
		l := startLane(t, opt)
		s, other := newSource(t), newSource(t)
		on(t, l, func() { l.Add(&selfRemover{s, l}); l.Add(other) })
		s.work(t)
		until(t, "removed", func() bool { return s.done.Load() == 1 })
		other.work(t)
		until(t, "the other served", func() bool { return other.done.Load() == 1 })
		polls := s.polls.Load()
		on(t, l, func() {})
		if s.polls.Load() != polls {
			t.Error("polled after its removal")
		}
		on(t, l, func() { l.Remove(other) })
	})
}

func TestAnIdleLaneSleeps(t *testing.T) {
	onBoth(t, func(t *testing.T, opt Options) {
		l := startLane(t, spinning(opt, time.Millisecond))
		s := newSource(t)
		on(t, l, func() { l.Add(s) })
		var before, after unix.Rusage
		rusage := func(r *unix.Rusage) { on(t, l, func() { _ = unix.Getrusage(unix.RUSAGE_THREAD, r) }) }
		rusage(&before)
		time.Sleep(10 * time.Millisecond) // it may look for more for a while
		polls := s.polls.Load()
		time.Sleep(300 * time.Millisecond)
		if n := s.polls.Load() - polls; n > 20 { // the runtime's signals may wake it now and then
			t.Errorf("%d turns while idle", n)
		}
		rusage(&after)
		if used := cpu(&after) - cpu(&before); used > 10*time.Millisecond {
			t.Errorf("used %v of CPU while idle", used)
		}
		on(t, l, func() { l.Remove(s) })
	})
}

func cpu(r *unix.Rusage) time.Duration {
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func TestATurnDoesNotAllocate(t *testing.T) {
	onBoth(t, func(t *testing.T, opt Options) {
		l, err := New(spinning(opt, time.Microsecond))
		if err != nil {
			t.Fatal(err)
		}
		runtime.LockOSThread() // the test is the lane's thread
		defer runtime.UnlockOSThread()
		l.engine.start()
		s := newSource(t)
		l.engine.watch(l.eventFD, mailData)
		l.Add(s)
		l.AfterFunc(time.Hour, func() {})
		nothing := func() {}
		n := testing.AllocsPerRun(500, func() {
			s.busy.Store(!s.busy.Load())
			s.work(t)
			l.Post(nothing)
			l.turn()
		})
		if n != 0 {
			t.Errorf("%v allocations a turn", n)
		}
		l.Remove(s)
		l.close()
	})
}

// Arming costs system calls of some providers: once a wake-up is enough.
func TestASourceIsArmedOnceAWakeUp(t *testing.T) {
	onBoth(t, func(t *testing.T, opt Options) {
		l := startLane(t, opt)
		s := newSource(t)
		on(t, l, func() { l.Add(s) })
		until(t, "armed", func() (armed bool) { // a lane that has not slept yet has armed nothing
			on(t, l, func() { armed = s.armed > 0 })
			return armed
		})
		for range 50 {
			on(t, l, func() {}) // wakes the lane without the Source
		}
		s.work(t)
		until(t, "work done", func() bool { return s.done.Load() == 1 })
		on(t, l, func() {})
		on(t, l, func() {
			if s.armed > 4 {
				t.Errorf("armed %d times for one wake-up", s.armed)
			}
			l.Remove(s)
		})
	})
}

func TestALaneThatHasJustWorkedNapsUnarmedOnceNothingIsOutstanding(t *testing.T) {
	l := &Lane{nap: napper{limit: defaultNap, recent: true}}
	s := newSource(t)
	l.watches = []*watch{{lane: l, source: s, fd: s.fd, live: true}}
	if !l.resting() {
		t.Error("it arms for a nap with nothing outstanding")
	}
	s.busy.Store(true)
	if l.resting() {
		t.Error("it does not arm though an answer is awaited")
	}
	s.busy.Store(false)
	l.nap.recent = false
	if l.resting() {
		t.Error("it goes to a long sleep unarmed")
	}
}

// silentSource gets more work right after each Poll that found some, and nobody knocks.
type silentSource struct{ *fakeSource }

func (s silentSource) Poll() int {
	n := s.fakeSource.Poll()
	if n > 0 && s.done.Load() < 20 {
		s.pending.Store(1)
	}
	return n
}

func TestWhatComesByItselfAfterIOIsFoundWhenTheNapEnds(t *testing.T) {
	onBoth(t, func(t *testing.T, opt Options) {
		l := startLane(t, opt)
		s := silentSource{newSource(t)}
		on(t, l, func() { l.Add(s) })
		s.work(t)
		until(t, "all of it found", func() bool { return s.done.Load() == 20 })
		on(t, l, func() { l.Remove(s) })
	})
}

func TestTheSpinnerLearns(t *testing.T) {
	const limit = time.Millisecond
	s := spinner{limit: limit}
	now := clock()
	// wait is one that something ends after d; spins says whether it was spun for all the time.
	wait := func(d time.Duration) (spins bool) {
		spins = s.again(now)
		now = now.add(d)
		spins = spins && s.again(now)
		s.found(now)
		return spins
	}
	if !wait(limit / 2) {
		t.Fatal("it does not spin for what comes soon")
	}
	if wait(2 * limit) {
		t.Error("it spins longer than it may")
	}
	for range 30 {
		wait(50 * limit)
	}
	if wait(limit / 2) {
		t.Error("it spins though there is little hope")
	}
	for range 50 {
		wait(limit / 2)
	}
	if !wait(limit / 2) {
		t.Error("it has not learnt that answers come soon again")
	}
	s.again(now)
	s.idle()
	before := s.usual
	s.found(now.add(time.Hour))
	if s.usual != before {
		t.Error("it counts the time in which nothing was awaited")
	}
}

func TestALaneLooksForAsLongAsPaysOnThisMachine(t *testing.T) {
	onBoth(t, func(t *testing.T, opt Options) {
		opt.Spin = 0
		l := startLane(t, opt)
		on(t, l, func() {
			if answers := l.spins.answers.limit; answers < leastSpin || answers > mostSpin || l.spins.requests.limit != answers/2 {
				t.Errorf("%v for answers, %v for requests", answers, l.spins.requests.limit)
			}
		})
	})
	for wakeUp, want := range map[time.Duration]time.Duration{
		time.Nanosecond: leastSpin, 20 * time.Microsecond: 640 * time.Microsecond, time.Second: mostSpin,
	} {
		if got := spinLimit(wakeUp); got != want {
			t.Errorf("%v where waking up takes %v", got, wakeUp)
		}
	}
}

func TestASpinForRequestsEndsWhereAnswersAreAwaited(t *testing.T) {
	var s spins
	s.limit(time.Millisecond)
	now := clock()
	if !s.again(now, 1, false) || s.again(now.add(600*time.Microsecond), 0, false) {
		t.Error("the next request is not looked for, or for too long")
	}
	now = now.add(700 * time.Microsecond)
	if !s.again(now, 1, true) || !s.again(now.add(900*time.Microsecond), 0, true) {
		t.Error("the answer is not looked for")
	}
	now = now.add(950 * time.Microsecond)
	if !s.again(now, 1, false) {
		t.Error("the next request is not looked for again")
	}
	if u := s.requests.usual; u < 80*time.Microsecond || u > 95*time.Microsecond { // an eighth of 700
		t.Errorf("a wait for requests is held to take %v", u)
	}
}

func TestStopLeavesNoThreadAndNoFile(t *testing.T) {
	onBoth(t, func(t *testing.T, opt Options) {
		run := func() {
			l, err := New(opt)
			if err != nil {
				t.Fatal(err)
			}
			l.Start()
			l.Stop()
		}
		run()
		fds, threads := count(t, "/proc/self/fd"), count(t, "/proc/self/task")
		for range 50 {
			run()
		}
		if n := count(t, "/proc/self/fd"); n > fds {
			t.Errorf("%d files, were %d", n, fds)
		}
		if n := count(t, "/proc/self/task"); n > threads+5 {
			t.Errorf("%d threads, were %d", n, threads)
		}
	})
}

func count(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
