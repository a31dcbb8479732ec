package worker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"iserblk/cmd/iserblk/state"
)

func TestOnlyOneHasTheLock(t *testing.T) {
	f := files{t.TempDir(), fakePrefix + "x"}
	if f.locked() {
		t.Error("locked before anyone took it")
	}
	lock, err := f.acquire()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.acquire(); !errors.Is(err, errLocked) {
		t.Errorf("second acquire: %v, want errLocked", err)
	}
	if !f.locked() {
		t.Error("not locked although someone has it")
	}
	f.removeAll()
	again, err := f.acquire()
	if err != nil {
		t.Errorf("acquire after the file was removed: %v", err)
	} else {
		again.Close()
	}
	lock.Close()
}

func TestStaleFilesNeverBreakAListing(t *testing.T) {
	dirs := state.Dirs{Run: t.TempDir()}
	now := newRecord(Spec{Target: fakePrefix + "rebooted"}, false)
	now.BootID, now.Devices = "another boot", []Device{{Path: "/dev/fake0"}}
	if err := now.write(files{dirs.Run, now.Target}); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		fakePrefix + "torn.json":    `{"version": 1, "tar`,
		fakePrefix + "empty.json":   "",
		fakePrefix + "other.json":   `{"version": 1, "target": "iqn.2020-01.somebody.else"}`,
		fakePrefix + "future.json":  `{"version": 99, "devices": 7}`,
		fakePrefix + "lonely.lock":  "",
		"not a target.json":         "{}",
		fakePrefix + "stranger.txt": "mine",
	} {
		if err := os.WriteFile(filepath.Join(dirs.Run, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all, err := List(context.Background(), dirs)
	if err != nil || len(all) != 0 {
		t.Errorf("list shows %+v, %v; want nothing", all, err)
	}
	left, _ := filepath.Glob(filepath.Join(dirs.Run, "*"))
	for i := range left {
		left[i] = filepath.Base(left[i])
	}
	want := []string{fakePrefix + "stranger.txt", "not a target.json"}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("files left (-want +got):\n%s", diff)
	}
}

func TestEachTargetIsListedOnce(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.json", "a.jz.json", "a.jz.lock", "a.lock", "a.json.json"} {
		if err := os.WriteFile(filepath.Join(dir, fakePrefix+name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := targets(dir)
	if diff := cmp.Diff([]string{fakePrefix + "a", fakePrefix + "a.json", fakePrefix + "a.jz"}, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestAMissingRunDirectoryIsAnEmptyListing(t *testing.T) {
	all, err := List(context.Background(), state.Dirs{Run: filepath.Join(t.TempDir(), "none")})
	if err != nil || len(all) != 0 {
		t.Errorf("got %v, %v", all, err)
	}
}

func TestASocketsPathMayBeLong(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f := files{dir, fakePrefix + strings.Repeat("x", 180)}
	ln, err := f.listen()
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := f.dial()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if info, err := os.Stat(f.socket()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
}

func TestKillSparesAProcessThatOnlyHasTheNumber(t *testing.T) {
	r := newRecord(Spec{}, false)
	r.StartTicks++
	if err := kill(context.Background(), r); err != nil {
		t.Errorf("kill: %v", err)
	}
	r = newRecord(Spec{}, false)
	r.BootID = "another boot"
	if err := kill(context.Background(), r); err != nil {
		t.Errorf("kill: %v", err)
	}
}

func TestStartTicksOfAProcessWithAStrangeName(t *testing.T) {
	want, err := startTicks(os.Getpid())
	if err != nil || want == 0 {
		t.Fatalf("%d, %v", want, err)
	}
	comm := []byte("a) R 1 (b)\x00")
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&comm[0])), 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	got, err := startTicks(os.Getpid())
	if err != nil || got != want {
		t.Errorf("got %d, %v, want %d", got, err, want)
	}
}

func TestTheLogStartsAnewWhenItIsFull(t *testing.T) {
	f := files{t.TempDir(), fakePrefix + "x"}
	log, err := openLog(f)
	if err != nil {
		t.Fatal(err)
	}
	stderr := os.Stderr
	os.Stderr = log
	defer func() { os.Stderr = stderr }()
	l := newLogFile(f)
	line := []byte(strings.Repeat("x", 1023) + "\n")
	for range 2*maxLog/len(line) + 10 {
		if _, err := l.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	log.Close()
	for _, file := range []string{f.log(), f.oldLog()} {
		info, err := os.Stat(file)
		if err != nil || info.Size() == 0 || info.Size() > maxLog {
			t.Errorf("%s: %v, %v", file, info, err)
		}
	}
}

func TestADeadWorkersLastWordsAreItsPanic(t *testing.T) {
	f := files{t.TempDir(), fakePrefix + "x"}
	text := "time=1 msg=started\npanic: it fell over\n\ngoroutine 1 [running]:\nmain.main()\n\texit\n"
	if err := os.WriteFile(f.log(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := logTail(f); got != "panic: it fell over" {
		t.Errorf("got %q", got)
	}
}

func TestLastWordsWaitOnlySoLong(t *testing.T) {
	s := newServer(serverOptions{spec: Spec{Target: fakePrefix + "x"}, out: os.Stderr})
	block := make(chan struct{})
	s.conns.Go(func() { <-block })
	bounds.lastWords = 10 * time.Millisecond
	defer func() { bounds.lastWords = lastWordsTimeout }()
	s.lastWords() // returns
	close(block)
	s.conns.Wait()
}
