package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"iserblk/cmd/iserblk/state"
)

// lab is one run directory with what tests do in it.
type lab struct {
	t    *testing.T
	dirs state.Dirs
}

func newLab(t *testing.T) *lab {
	t.Helper()
	dirs, err := state.Dirs{Run: filepath.Join(t.TempDir(), "run"), Keep: filepath.Join(t.TempDir(), "keep")}.Ensure()
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t, dirs}
	t.Cleanup(l.killAll)
	return l
}

// killAll ends the workers that a failed test left.
func (l *lab) killAll() {
	all, _ := List(context.Background(), l.dirs)
	for _, w := range all {
		if w.State != StateDead {
			_ = kill(context.Background(), w.record)
		}
	}
}

func (l *lab) spec(trouble string) Spec {
	seed, err := l.dirs.Seed()
	if err != nil {
		l.t.Fatal(err)
	}
	return Spec{
		Version: SpecVersion, Target: fakePrefix + trouble, InitiatorName: "iqn.2026-11.local.test:us",
		Portals: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:3260")}, Seed: seed,
		CHAP: Credentials{User: "user", Secret: "open-sesame-123", TargetUser: "target", TargetSecret: "who-goes-there-456"},
	}
}

func (l *lab) attach(trouble string, luns ...uint64) ([]Device, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return Attach(ctx, AttachRequest{Dirs: l.dirs, Spec: l.spec(trouble), LUNs: luns})
}

func (l *lab) mustAttach(trouble string, luns ...uint64) []Device {
	l.t.Helper()
	devices, err := l.attach(trouble, luns...)
	if err != nil {
		l.t.Fatalf("attach: %v", err)
	}
	return devices
}

func (l *lab) detach(name string, force bool) error {
	return Detach(context.Background(), DetachRequest{
		Backend: fakeBackend(), Dirs: l.dirs, Name: name, Force: force, Timeout: 5 * time.Second,
		Warn: func(s string) { l.t.Log(s) },
	})
}

func (l *lab) list() []Worker {
	l.t.Helper()
	all, err := List(context.Background(), l.dirs)
	if err != nil {
		l.t.Fatalf("list: %v", err)
	}
	return all
}

// wantNothing fails if a file is left, or the process.
func (l *lab) wantNothing(pids ...int) {
	l.t.Helper()
	entries, err := os.ReadDir(l.dirs.Run)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, e := range entries {
		l.t.Errorf("%s is left in the run directory", e.Name())
	}
	for _, pid := range pids {
		l.wantExit(pid)
	}
}

func (l *lab) wantExit(pid int) {
	l.t.Helper()
	for range 100 {
		if err := unix.Kill(pid, 0); errors.Is(err, unix.ESRCH) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	l.t.Errorf("worker %d is still there", pid)
}

func paths(devices []Device) []string {
	var all []string
	for _, d := range devices {
		all = append(all, d.Path)
	}
	return all
}

func TestAttachStartsAWorkerThatLeavesWithItsLastDevice(t *testing.T) {
	l := newLab(t)
	got := paths(l.mustAttach("fine", 0, 2))
	if diff := cmp.Diff([]string{"/dev/fake0", "/dev/fake2"}, got); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	all := l.list()
	if len(all) != 1 || all[0].State != StateLive || all[0].PID == os.Getpid() || all[0].PID == 0 {
		t.Fatalf("list shows %+v, want one live worker in a process of its own", all)
	}
	if err := l.detach("/dev/fake0", false); err != nil {
		t.Fatalf("detach: %v", err)
	}
	if got := paths(l.list()[0].Devices); !slices.Equal(got, []string{"/dev/fake2"}) {
		t.Errorf("after the first detach the worker has %v", got)
	}
	if err := l.detach("fake2", false); err != nil {
		t.Fatalf("detach: %v", err)
	}
	l.wantNothing(all[0].PID)
}

func TestAnotherAttachJoinsTheWorker(t *testing.T) {
	l := newLab(t)
	l.mustAttach("fine", 0)
	joined := false
	_, err := Attach(context.Background(), AttachRequest{
		Dirs: l.dirs, Spec: l.spec("fine"), LUNs: []uint64{1}, Joining: func() { joined = true },
	})
	if err != nil || !joined {
		t.Fatalf("attach: %v, joined: %v", err, joined)
	}
	all := l.list()
	if len(all) != 1 || len(all[0].Devices) != 2 {
		t.Fatalf("want one worker with two devices, got %+v", all)
	}
	if err := l.detach(fakePrefix+"fine", false); err != nil {
		t.Fatalf("detach of the whole target: %v", err)
	}
	l.wantNothing(all[0].PID)
}

func TestManyAttachesAtOnceShareOneWorker(t *testing.T) {
	l := newLab(t)
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for lun := range errs {
		wg.Go(func() { _, errs[lun] = l.attach("login-takes-a-while", uint64(lun)) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	all := l.list()
	if len(all) != 1 || len(all[0].Devices) != 4 {
		t.Fatalf("want one worker with four devices, got %+v", all)
	}
	if err := l.detach(fakePrefix+"login-takes-a-while", true); err != nil {
		t.Fatal(err)
	}
	l.wantNothing(all[0].PID)
}

func TestAttachingTwiceIsRefusedAndChangesNothing(t *testing.T) {
	l := newLab(t)
	l.mustAttach("fine", 0)
	_, err := l.attach("fine", 0)
	if !errors.Is(err, ErrAttached) || ExitCode(err) != ExitAttached {
		t.Errorf("second attach: %v (code %d), want ErrAttached", err, ExitCode(err))
	}
	if got := len(l.list()[0].Devices); got != 1 {
		t.Errorf("%d devices after a refused attach, want 1", got)
	}
}

func TestAFailedAttachLeavesNothingBehind(t *testing.T) {
	tests := []struct {
		name string
		lun  uint64
		code int
		text string
	}{
		{"login-times-out", 0, ExitTimeout, "10.0.0.1:3260: timed out"},
		{"login-panics", 0, ExitGeneric, "the engine fell over"},
		{"fine", 9, ExitNotFound, "LUN 9: not found"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			_, err := l.attach(tt.name, tt.lun)
			if ExitCode(err) != tt.code || !strings.Contains(fmt.Sprint(err), tt.text) {
				t.Errorf("got %v (code %d), want %q and code %d", err, ExitCode(err), tt.text, tt.code)
			}
			l.wantNothing()
		})
	}
}

func TestAnInterruptedAttachLeavesNothingBehind(t *testing.T) {
	l := newLab(t)
	ctx, cancel := context.WithCancel(context.Background())
	seen := make(chan string, 10)
	go func() {
		<-seen
		cancel()
	}()
	_, err := Attach(ctx, AttachRequest{
		Dirs: l.dirs, Spec: l.spec("login-never-ends"), Progress: func(s string) { seen <- s },
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	l.wantNothing()
}

func TestProgressShowsTheEnginesLog(t *testing.T) {
	l := newLab(t)
	var lines []string
	_, err := Attach(context.Background(), AttachRequest{
		Dirs: l.dirs, Spec: l.spec("fine"), Progress: func(s string) { lines = append(lines, s) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(lines, "\n"); !strings.HasPrefix(text, "logging in portal=10.0.0.1:3260") ||
		!strings.Contains(text, "\nattached devices=4") {
		t.Errorf("progress is %q", text)
	}
	if err := l.detach(fakePrefix+"fine", false); err != nil {
		t.Fatal(err)
	}
}

func TestSecretsAreNeitherInTheProcessTableNorInFiles(t *testing.T) {
	t.Setenv("ISERBLK_CHAP_SECRET", "open-sesame-123")
	l := newLab(t)
	l.mustAttach("fine", 0)
	pid := l.list()[0].PID
	files, _ := filepath.Glob(filepath.Join(l.dirs.Run, "*"))
	for _, name := range []string{"cmdline", "environ", "comm"} {
		files = append(files, fmt.Sprintf("/proc/%d/%s", pid, name))
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, unix.ENXIO) { // the socket
			t.Error(err)
		}
		for _, secret := range []string{"open-sesame", "who-goes-there"} {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s shows a secret", file)
			}
		}
		if info, err := os.Stat(file); err == nil && strings.HasPrefix(file, l.dirs.Run) && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", file, info.Mode())
		}
	}
	log, _ := os.ReadFile(files[slices.IndexFunc(files, func(f string) bool { return strings.HasSuffix(f, ".log") })])
	if !bytes.Contains(log, []byte("worker started")) {
		t.Errorf("the log is %q", log)
	}
}

func TestAWorkerIsItsOwnSessionLeader(t *testing.T) {
	l := newLab(t)
	l.mustAttach("fine", 0)
	pid := l.list()[0].PID
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("session %d of worker %d: %v", sid, pid, err)
	}
	if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || dir != "/" {
		t.Errorf("the worker is in %q: %v", dir, err)
	}
	for _, fd := range []int{0, 1} {
		if file, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); file != "/dev/null" {
			t.Errorf("descriptor %d of the worker is %s", fd, file)
		}
	}
}

func TestADeviceInUseIsDetachedByForceOnly(t *testing.T) {
	l := newLab(t)
	l.mustAttach("always-open", 0)
	pid := l.list()[0].PID
	for _, name := range []string{"/dev/fake0", fakePrefix + "always-open", fakePrefix + "always-open/0"} {
		if err := l.detach(name, false); !errors.Is(err, ErrBusy) || ExitCode(err) != ExitBusy {
			t.Errorf("detach %s: %v, want ErrBusy", name, err)
		}
	}
	if err := l.detach("iser://10.0.0.1/"+fakePrefix+"always-open/0", true); err != nil {
		t.Errorf("detach --force: %v", err)
	}
	l.wantNothing(pid)
}
