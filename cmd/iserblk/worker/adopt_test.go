package worker

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/cmd/iserblk/state"
)

// attachBy attaches with a front end; fake devices of "nbd" outlive their worker.
func (l *lab) attachBy(front, trouble string, luns []uint64) ([]Device, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return Attach(ctx, AttachRequest{
		Dirs: l.dirs, Spec: l.spec(trouble), LUNs: luns, Options: AttachOptions{Frontend: front},
	})
}

// park leaves LUNs 0 and 1 of a target behind a worker that was killed.
func (l *lab) park(trouble string) {
	l.t.Helper()
	if _, err := l.attachBy(FrontNBD, trouble, []uint64{0, 1}); err != nil {
		l.t.Fatal(err)
	}
	pid := l.list()[0].PID
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		l.t.Fatal(err)
	}
	l.wantExit(pid)
}

func pathsOf(devices []Device) string { return strings.Join(paths(devices), " ") }

func (l *lab) wantDevices(want string) {
	l.t.Helper()
	var got []string
	for _, w := range l.list() {
		for _, d := range w.Devices {
			got = append(got, d.Path)
		}
	}
	slices.Sort(got)
	if strings.Join(got, " ") != want {
		l.t.Errorf("devices: %v, want %s", got, want)
	}
}

func TestTheNextWorkerTakesOverAllThatTheDeadOneLeft(t *testing.T) {
	l := newLab(t)
	l.park("fine")
	devices, err := l.attachBy(FrontAuto, "fine", []uint64{1})
	if err != nil || pathsOf(devices) != "/dev/fake1" {
		t.Fatalf("attach: %v, %v", pathsOf(devices), err)
	}
	l.wantDevices("/dev/fake0 /dev/fake1")
	if st := l.list()[0]; st.State != StateLive || st.Devices[0].State != StateLive {
		t.Errorf("%+v", st)
	}
	if _, err := l.attachBy(FrontAuto, "fine", []uint64{1}); !errors.Is(err, ErrAttached) {
		t.Errorf("once more: %v", err)
	}
	for _, d := range []string{"/dev/fake0", "/dev/fake1"} {
		if err := l.detach(d, false); err != nil {
			t.Error(err)
		}
	}
	l.wantNothing()
}

func TestAnAttachOfAllLUNsPrintsWhatItTookOverToo(t *testing.T) {
	l := newLab(t)
	l.park("fine")
	devices, err := l.attachBy(FrontNBD, "fine", nil)
	if err != nil || !strings.HasPrefix(pathsOf(devices), "/dev/fake0 /dev/fake1") {
		t.Errorf("attach: %v, %v", pathsOf(devices), err)
	}
}

func TestARecoveryAttachesNothingElse(t *testing.T) {
	l := newLab(t)
	l.park("fine")
	devices, err := l.attachBy(FrontNBD, "fine", []uint64{})
	if err != nil || pathsOf(devices) != "/dev/fake0 /dev/fake1" {
		t.Errorf("recover: %v, %v", pathsOf(devices), err)
	}
	l.wantDevices("/dev/fake0 /dev/fake1")
}

func TestANewWorkerIsTheSameInitiatorAsTheOneBefore(t *testing.T) {
	l := newLab(t)
	l.park("fine")
	spec := l.spec("fine")
	spec.InitiatorName, spec.Seed, spec.Queues = "iqn.2026-11.local.test:somebody", state.Seed{1}, 7
	if _, err := Attach(t.Context(), AttachRequest{Dirs: l.dirs, Spec: spec, LUNs: []uint64{0}}); err != nil {
		t.Fatal(err)
	}
	r, err := readRecord(files{l.dirs.Run, spec.Target})
	want := l.spec("fine")
	if err != nil || r.Spec.InitiatorName != want.InitiatorName || r.Spec.Seed != want.Seed || r.Spec.Queues != 1 {
		t.Errorf("%+v, %v", r.Spec, err)
	}
	if r.Spec.CHAP.Secret != "" || r.Spec.CHAP.TargetSecret != "" {
		t.Error("the record has secrets")
	}
}

func TestADeviceWhoseLUNIsAnotherNowStaysParked(t *testing.T) {
	l := newLab(t)
	l.park("another-unit")
	if _, err := l.attachBy(FrontNBD, "another-unit", []uint64{0}); err == nil || !strings.Contains(err.Error(), "not the same") {
		t.Errorf("attach: %v", err)
	}
	l.wantDevices("/dev/fake0 /dev/fake1")
	if w := l.list()[0]; w.State != StateDead || w.record.Spec.Queues != 1 {
		t.Errorf("the worker is %s, its successor gets %d queues", w.State, w.record.Spec.Queues)
	}
	if err := l.detach("/dev/fake0", false); err != nil {
		t.Error(err)
	}
	l.wantDevices("/dev/fake1")
	if err := l.detach(fakePrefix+"another-unit", false); err != nil {
		t.Error(err)
	}
	l.wantNothing()
}

func TestADeviceOfWhichNobodyCanTellIsKept(t *testing.T) {
	l := newLab(t)
	if _, err := l.attachBy(FrontUblk, "another-unit", []uint64{0}); err != nil {
		t.Fatal(err)
	}
	pid := l.list()[0].PID
	_ = unix.Kill(pid, unix.SIGKILL)
	l.wantExit(pid)
	if _, err := l.attachBy("", "another-unit", []uint64{2}); err != nil {
		t.Fatal(err)
	}
	l.wantDevices("/dev/fake0 /dev/fake2")
	if err := l.detach("/dev/fake0", true); err != nil {
		t.Error(err)
	}
	l.wantDevices("/dev/fake2")
}

func TestADeviceThatIsToOutliveItsWorkerIsNotMadeWithoutARecord(t *testing.T) {
	l := newLab(t)
	l.mustAttach("fine", 0)
	record := files{l.dirs.Run, fakePrefix + "fine"}.record()
	if err := errors.Join(os.Remove(record), os.Mkdir(record, 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.attachBy(FrontNBD, "fine", []uint64{1}); err == nil || !strings.Contains(err.Error(), record) {
		t.Errorf("attach: %v", err)
	}
	l.wantDevices("/dev/fake0")
	if err := os.Remove(record); err != nil {
		t.Fatal(err)
	}
	if _, err := l.attachBy(FrontNBD, "fine", []uint64{1}); err != nil {
		t.Error(err)
	}
}

func TestALivingWorkerGivesUpWhatItCouldNotTakeOver(t *testing.T) {
	l := newLab(t)
	l.park("another-unit")
	if _, err := l.attachBy("", "another-unit", []uint64{2}); err != nil {
		t.Fatal(err)
	}
	l.wantDevices("/dev/fake0 /dev/fake1 /dev/fake2")
	if err := l.detach("/dev/fake0", true); err != nil {
		t.Error(err)
	}
	l.wantDevices("/dev/fake1 /dev/fake2")
	if err := l.detach(fakePrefix+"another-unit", true); err != nil {
		t.Error(err)
	}
	l.wantNothing()
}

func TestAParkedLUNIsNotMadeAnotherDevice(t *testing.T) {
	l := newLab(t)
	l.park("fine")
	if _, err := l.attachBy(FrontExport, "fine", []uint64{0}); !errors.Is(err, ErrAttached) {
		t.Errorf("attach: %v", err)
	}
	l.wantDevices("/dev/fake0 /dev/fake1") // it is served all the same
	if w := l.list()[0]; w.State != StateLive {
		t.Errorf("the worker is %s", w.State)
	}
}

func TestAnExportThatTheWorkerServesElsewhereIsTakenBack(t *testing.T) {
	l := newLab(t)
	l.mustAttach("fine", 0)
	_, err := l.attachBy(FrontExport, "fine", []uint64{1})
	if err == nil || !strings.Contains(err.Error(), "does not see the disk of /nowhere/dev/fake1") {
		t.Error(err)
	}
	l.wantDevices("/dev/fake0")
}
