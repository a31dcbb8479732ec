package rdmacore

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pipe is a poller on a pipe, and the pipe's two ends.
func pipe(t *testing.T) (p *poller, r, w int) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	p, err := newPoller(fds[0], "pipe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.close(); unix.Close(fds[0]); unix.Close(fds[1]) })
	return p, fds[0], fds[1]
}

func never() bool { return false }

func TestAPollerEndsItsWaitWhenSomethingHappens(t *testing.T) {
	p, r, w := pipe(t)
	time.AfterFunc(10*time.Millisecond, func() { unix.Write(w, []byte{1}) })
	var b [1]byte
	err := p.wait(func() bool {
		n, _ := unix.Read(r, b[:])
		return n == 1
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAPollerEndsItsWaitAtTheDeadlineAndWhenInterrupted(t *testing.T) {
	p, _, _ := pipe(t)
	p.setDeadline(time.Now().Add(10 * time.Millisecond))
	if err := p.wait(never); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	p.setDeadline(time.Time{})
	time.AfterFunc(10*time.Millisecond, p.interrupt)
	if err := p.wait(never); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

func TestAPollerEndsItsWaitWhenClosed(t *testing.T) {
	p, _, _ := pipe(t)
	time.AfterFunc(10*time.Millisecond, p.close)
	if err := p.wait(never); err == nil {
		t.Error("no error")
	}
}
