package worker

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/verbs"
)

func TestSignalsAskTwiceBeforeTheyForce(t *testing.T) {
	l := newLab(t)
	l.mustAttach("always-open", 0)
	pid := l.list()[0].PID
	_ = unix.Kill(pid, unix.SIGTERM)
	time.Sleep(300 * time.Millisecond)
	if all := l.list(); len(all) != 1 || all[0].State != StateLive || len(all[0].Devices) != 1 {
		t.Fatalf("after one signal list shows %+v, want the worker to go on", all)
	}
	_ = unix.Kill(pid, unix.SIGTERM)
	l.wantExit(pid)
	l.wantNothing()
}

func TestOneSignalEndsAWorkerWhoseDevicesAreFree(t *testing.T) {
	l := newLab(t)
	l.mustAttach("fine", 0, 1)
	pid := l.list()[0].PID
	_ = unix.Kill(pid, unix.SIGTERM)
	l.wantExit(pid)
	l.wantNothing()
}

// foreground runs Foreground until it is ready and returns how it ends.
func (l *lab) foreground(ctx context.Context, trouble string) (ready <-chan []Device, ended <-chan error) {
	devices, done := make(chan []Device, 1), make(chan error, 1)
	go func() {
		done <- Foreground(ctx, ForegroundOptions{
			Backend: fakeBackend(), Dirs: l.dirs, Spec: l.spec(trouble), LUNs: []uint64{0}, Log: io.Discard,
			Timeout: 2 * time.Second, Ready: func(d []Device) { devices <- d },
		})
	}()
	return devices, done
}

func TestForegroundServesUntilItsLastDeviceIsDetached(t *testing.T) {
	l := newLab(t)
	ready, ended := l.foreground(context.Background(), "fine")
	if got := paths(<-ready); !slices.Equal(got, []string{"/dev/fake0"}) {
		t.Errorf("ready with %v", got)
	}
	if w := l.list()[0]; w.PID != os.Getpid() || !w.Foreground {
		t.Errorf("list shows %+v, want this process", w)
	}
	if _, err := l.attach("fine", 1); err != nil {
		t.Errorf("join: %v", err)
	}
	for _, d := range []string{"/dev/fake1", "/dev/fake0"} {
		// The bounded wait for the process to exit would wait for this very one.
		c, err := files{l.dirs.Run, fakePrefix + "fine"}.client()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Detach(context.Background(), d, false); err != nil {
			t.Errorf("detach %s: %v", d, err)
		}
		c.Close()
	}
	if err := <-ended; err != nil {
		t.Errorf("foreground ended with %v", err)
	}
	l.wantNothing()
}

func TestForegroundEndsWithItsContextByForce(t *testing.T) {
	l := newLab(t)
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := l.foreground(ctx, "always-open")
	<-ready
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("foreground ended with %v", err)
	}
	l.wantNothing()
}

func TestForegroundObeysSignals(t *testing.T) {
	l := newLab(t)
	ready, ended := l.foreground(context.Background(), "always-open")
	<-ready
	_ = unix.Kill(os.Getpid(), unix.SIGTERM)
	select {
	case err := <-ended:
		t.Fatalf("one signal ended it although a device is open: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	_ = unix.Kill(os.Getpid(), unix.SIGTERM)
	if err := <-ended; err != nil {
		t.Errorf("foreground ended with %v", err)
	}
	l.wantNothing()
}

func TestForegroundRefusesATargetThatIsServed(t *testing.T) {
	l := newLab(t)
	l.mustAttach("fine", 1)
	_, ended := l.foreground(context.Background(), "fine")
	if err := <-ended; !errors.Is(err, ErrAttached) {
		t.Errorf("got %v, want ErrAttached", err)
	}
}

func TestForegroundFailsLikeTheEngine(t *testing.T) {
	l := newLab(t)
	_, ended := l.foreground(context.Background(), "login-times-out")
	if err := <-ended; !errors.Is(err, verbs.ErrTimeout) || ExitCode(err) != ExitTimeout {
		t.Errorf("got %v, want a timeout", err)
	}
	l.wantNothing()
}

func TestForegroundGivesUpInTime(t *testing.T) {
	l := newLab(t)
	_, ended := l.foreground(context.Background(), "login-never-ends")
	if err := <-ended; ExitCode(err) != ExitTimeout || !strings.Contains(err.Error(), "not attached within 2s") {
		t.Errorf("got %v, want a timeout", err)
	}
	l.wantNothing()
}

func TestASignalEndsAnAttachUnderWay(t *testing.T) {
	l := newLab(t)
	_, ended := l.foreground(context.Background(), "login-never-ends")
	for len(l.list()) == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond)
	_ = unix.Kill(os.Getpid(), unix.SIGTERM)
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "ended by a signal") {
		t.Errorf("got %v", err)
	}
	l.wantNothing()
}
