package lane

import (
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeFile counts what it is told.
type fakeFile struct{ reads, writes, hangups atomic.Int64 }

func (f *fakeFile) FileReady(events uint32) {
	if events&unix.POLLIN != 0 {
		f.reads.Add(1)
	}
	if events&unix.POLLOUT != 0 {
		f.writes.Add(1)
	}
	if events&(unix.POLLHUP|unix.POLLRDHUP) != 0 {
		f.hangups.Add(1)
	}
}

func socketPair(t *testing.T) (near, far int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pair[0]); unix.Close(pair[1]) })
	return pair[0], pair[1]
}

func within(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("not in time: %s", what)
}

func TestAFileTellsOfWhatComesAndOfTheEnd(t *testing.T) {
	onBoth(t, func(t *testing.T, opt Options) {
		l := startLane(t, opt)
		near, far := socketPair(t)
		var h fakeFile
		var f *File
		on(t, l, func() { f = l.Watch(near, &h) })
		for i := range int64(3) {
			before := h.reads.Load()
			if before < i {
				t.Fatalf("told %d times of %d", before, i)
			}
			_, _ = unix.Write(far, []byte("x"))
			within(t, "a byte", func() bool { return h.reads.Load() > before })
		}
		if n := h.writes.Load(); n != 0 {
			t.Errorf("told %d times of room to write, never asked", n)
		}
		_ = unix.Shutdown(far, unix.SHUT_WR)
		within(t, "the hang-up", func() bool { return h.hangups.Load() > 0 })
		on(t, l, f.Close)
	})
}

func TestAFileTellsOnceThatItTakesDataAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, opt Options) {
		l := startLane(t, opt)
		near, far := socketPair(t)
		var h fakeFile
		var f *File
		on(t, l, func() { f = l.Watch(near, &h) })
		for round := range int64(3) {
			for err := error(nil); err == nil; {
				_, err = unix.Write(near, make([]byte, 4096))
			}
			on(t, l, f.AwaitWriting)
			on(t, l, f.AwaitWriting)
			if n := h.writes.Load(); n != round {
				t.Fatalf("told %d times that there is room, while there is none", n)
			}
			for err := error(nil); err == nil; {
				_, err = unix.Read(far, make([]byte, 1<<16))
			}
			within(t, "room", func() bool { return h.writes.Load() == round+1 })
		}
		on(t, l, f.Close)
	})
}

func TestAClosedFileIsSilentAndItsPlaceIsUsedAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, opt Options) {
		l := startLane(t, opt)
		near, far := socketPair(t)
		for err := error(nil); err == nil; {
			_, err = unix.Write(near, make([]byte, 4096))
		}
		var old, last fakeFile
		for range 20 {
			on(t, l, func() {
				f := l.Watch(near, &old)
				f.AwaitWriting()
				f.Close()
				f.Close()
				f.AwaitWriting()
			})
		}
		on(t, l, func() {}) // the last completions have come
		told := old.reads.Load() + old.writes.Load()
		var f *File
		on(t, l, func() { f = l.Watch(near, &last) })
		_, _ = unix.Write(far, []byte("x"))
		within(t, "a byte", func() bool { return last.reads.Load() > 0 })
		if now := old.reads.Load() + old.writes.Load(); now != told {
			t.Errorf("closed files were told %d times", now-told)
		}
		on(t, l, func() {
			f.Close()
			if n := len(l.handlers) - firstID - len(l.free); n > 1 {
				t.Errorf("%d handlers are left", n)
			}
		})
	})
}

// A lane that spins for the sake of a Source still hears of Files.
func TestAFileIsHeardWhileTheLaneSpins(t *testing.T) {
	onBoth(t, func(t *testing.T, opt Options) {
		l := startLane(t, spinning(opt, 10*time.Second))
		s := newSource(t)
		s.busy.Store(true)
		near, far := socketPair(t)
		var h fakeFile
		var f *File
		on(t, l, func() { l.Add(s); f = l.Watch(near, &h) })
		_, _ = unix.Write(far, []byte("x"))
		within(t, "a byte", func() bool { return h.reads.Load() > 0 })
		s.busy.Store(false)
		on(t, l, func() { f.Close(); l.Remove(s) })
	})
}

// A watch does not end while the kernel is just telling of something: it has to be asked again, or it keeps the file for ever.
func TestAFileIsLetGoEvenIfSomethingComesMeanwhile(t *testing.T) {
	onBoth(t, func(t *testing.T, opt Options) {
		l := startLane(t, opt)
		for range 10 {
			near, far := socketPair(t)
			on(t, l, func() {
				f := l.Watch(near, &fakeFile{})
				l.engine.submit()
				_, _ = unix.Write(far, []byte("x")) // the kernel means to tell, and is asked to end before it does
				f.Close()
			})
			s := newSource(t)
			on(t, l, func() {
				l.Add(s)
				l.engine.submit()
				s.work(t)
				l.Remove(s)
			})
		}
		within(t, "all places are free", func() (ok bool) {
			on(t, l, func() { ok = len(l.handlers)-firstID-len(l.free) == 0 })
			return ok
		})
	})
}
