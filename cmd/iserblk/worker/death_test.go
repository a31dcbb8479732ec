package worker

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestALoginUnderWayIsEndedByForce(t *testing.T) {
	l := newLab(t)
	started, ended := make(chan string, 10), make(chan error, 1)
	go func() {
		_, err := Attach(context.Background(), AttachRequest{
			Dirs: l.dirs, Spec: l.spec("login-never-ends"), Progress: func(s string) { started <- s },
		})
		ended <- err
	}()
	<-started
	if got := l.list()[0].State; got != StateStarting {
		t.Errorf("the worker is listed as %s", got)
	}
	if err := l.detach(fakePrefix+"login-never-ends", true); err != nil {
		t.Errorf("detach --force: %v", err)
	}
	if err := <-ended; err == nil {
		t.Error("the attach succeeded")
	}
	l.wantNothing()
}

func TestADeadWorkerIsListedAndCleanedUp(t *testing.T) {
	l := newLab(t)
	l.mustAttach("fine", 0, 1)
	pid := l.list()[0].PID
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	l.wantExit(pid)
	all := l.list()
	if len(all) != 1 || all[0].State != StateDead || len(all[0].Devices) != 2 || all[0].Devices[0].State != StateDead {
		t.Fatalf("list shows %+v, want a dead worker with two dead devices", all)
	}
	removed.paths = nil
	if err := l.detach("/dev/fake1", true); err != nil {
		t.Fatalf("detach --force: %v", err)
	}
	if diff := cmp.Diff([]string{"/dev/fake0", "/dev/fake1"}, removed.paths); diff != "" {
		t.Errorf("removed devices (-want +got):\n%s", diff)
	}
	l.wantNothing()
}

func TestWhatCannotBeCleanedUpStaysListed(t *testing.T) {
	l := newLab(t)
	l.mustAttach("fine", 3)
	pid := l.list()[0].PID
	_ = unix.Kill(pid, unix.SIGKILL)
	l.wantExit(pid)
	if err := l.detach("/dev/fake3", true); err == nil || !strings.Contains(err.Error(), "does not let go") {
		t.Errorf("detach: %v", err)
	}
	if all := l.list(); len(all) != 1 || all[0].State != StateDead {
		t.Errorf("list shows %+v", all)
	}
}

func TestAWorkerThatWasKilledJustNowIsListedAsDead(t *testing.T) {
	for range 5 {
		l := newLab(t)
		l.mustAttach("fine", 3)
		pid := l.list()[0].PID
		_ = unix.Kill(pid, unix.SIGKILL)
		if got := l.list()[0].State; got != StateDead {
			t.Errorf("it is %s", got)
		}
		l.wantExit(pid)
		_ = l.detach("/dev/fake3", true)
	}
}

func TestAWorkerThatSpeaksAnotherVersionIsNotAskedAgain(t *testing.T) {
	l := newLab(t)
	f := files{l.dirs.Run, fakePrefix + "fine"}
	lock, err := f.acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	ln, err := f.listen()
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var asked atomic.Int32
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			_ = newWire(conn).send(failure(errors.New("another version")))
		}
	}()
	st, gone := ask(t.Context(), f, Record{})
	if st.State != StateSilent || gone || asked.Load() != 1 {
		t.Errorf("%s, gone: %v, asked %d times", st.State, gone, asked.Load())
	}
}

func TestANewAttachReplacesADeadWorker(t *testing.T) {
	l := newLab(t)
	l.mustAttach("fine", 0)
	pid := l.list()[0].PID
	_ = unix.Kill(pid, unix.SIGKILL)
	l.wantExit(pid)
	l.mustAttach("fine", 1)
	all := l.list()
	if len(all) != 1 || all[0].State != StateLive || all[0].PID == pid {
		t.Errorf("list shows %+v, want a new live worker", all)
	}
	log, _ := os.ReadFile(all[0].Log)
	if !bytes.Contains(log, []byte(`"cleared what a dead worker left" device=/dev/fake0 err=<nil>`)) {
		t.Errorf("the log does not tell that the old device was removed:\n%s", log)
	}
}

func TestAWorkerThatDoesNotAnswerIsKilledByForce(t *testing.T) {
	l := newLab(t)
	l.mustAttach("fine", 0)
	w := l.list()[0]
	if err := unix.Kill(w.PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // its threads stop one by one
	if got := l.list()[0].State; got != StateSilent {
		t.Errorf("a stopped worker is listed as %s", got)
	}
	bounds.force = 500 * time.Millisecond
	defer func() { bounds.force = defaultForceBound }()
	if err := l.detach("/dev/fake0", true); err != nil {
		t.Fatalf("detach --force: %v", err)
	}
	l.wantNothing(w.PID)
}

func TestADetachThatHangsIsKilledByForce(t *testing.T) {
	l := newLab(t)
	l.mustAttach("detach-hangs", 0)
	pid := l.list()[0].PID
	bounds.force = 500 * time.Millisecond
	defer func() { bounds.force = defaultForceBound }()
	if err := l.detach("/dev/fake0", true); err != nil {
		t.Fatalf("detach --force: %v", err)
	}
	l.wantNothing(pid)
}
