package worker

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"iserblk/cmd/iserblk/state"
)

// ioFlusher are the flags that PR_SET_IO_FLUSHER gives a thread (linux/sched.h: PF_MEMALLOC_NOIO, PF_LOCAL_THROTTLE).
const ioFlusher = 0x180000

// needCapability skips unless this process has it.
func needCapability(t *testing.T, number uint) {
	t.Helper()
	text, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(text), "CapEff:")
	caps, _ := strconv.ParseUint(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]), 16, 64)
	if caps&(1<<number) == 0 {
		t.Skipf("capability %d is missing", number)
	}
}

const (
	capSysAdmin    = 21
	capSysResource = 24
)

// flagsOf are the flags of every thread of a process (proc_pid_stat(5), field 9).
func flagsOf(t *testing.T, pid int) []uint64 {
	t.Helper()
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	var all []uint64
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(text[strings.LastIndex(string(text), ")")+2:]))
		flags, _ := strconv.ParseUint(fields[6], 10, 64)
		all = append(all, flags)
	}
	return all
}

func read(t *testing.T, format string, args ...any) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf(format, args...))
	if err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(string(text))
}

func TestEveryThreadOfAWorkerIsAnIOFlusher(t *testing.T) {
	needCapability(t, capSysResource)
	l := newLab(t)
	l.mustAttach("fine", 0)
	pid := l.list()[0].PID
	flags := flagsOf(t, pid)
	for _, f := range flags {
		if f&ioFlusher != ioFlusher {
			t.Errorf("a thread of the worker has flags %#x", f)
		}
	}
	if len(flags) < 2 {
		t.Errorf("only %d threads seen", len(flags))
	}
	for _, f := range flagsOf(t, os.Getpid()) {
		if f&ioFlusher != 0 {
			t.Errorf("a thread of the process that attached is left with flags %#x", f)
		}
	}
	if got := read(t, "/proc/%d/oom_score_adj", pid); got != "-1000" {
		t.Errorf("oom_score_adj is %s", got)
	}
	if limits := read(t, "/proc/%d/limits", pid); !strings.Contains(limits, "Max locked memory         unlimited") {
		t.Errorf("limits are\n%s", limits)
	}
}

func TestAWorkersMemoryIsLockedAndStaysSmall(t *testing.T) {
	needCapability(t, capSysResource)
	l := newLab(t)
	l.mustAttach("fine", 0)
	status := read(t, "/proc/%d/status", l.list()[0].PID)
	if kb := kilobytes(status, "VmLck:"); kb == 0 {
		t.Errorf("no memory is locked:\n%s", status)
	}
	if kb := kilobytes(status, "VmRSS:"); kb == 0 || kb > 200<<10 {
		t.Errorf("the worker takes %d KiB", kb)
	}
}

func kilobytes(status, field string) int {
	_, rest, _ := strings.Cut(status, field)
	var kb int
	_, _ = fmt.Sscan(rest, &kb)
	return kb
}

func TestAWorkerHasAMountNamespaceThatLaterMountsDoNotReach(t *testing.T) {
	needCapability(t, capSysAdmin)
	l := newLab(t)
	dropped := t.TempDir()
	if err := unix.Mount("none", dropped, "tmpfs", 0, ""); err != nil {
		t.Skip("mounting is not allowed here: ", err)
	}
	defer func() { _ = unix.Unmount(dropped, unix.MNT_DETACH) }()
	l.mustAttach("fine", 0)
	pid := l.list()[0].PID
	ours, _ := os.Readlink("/proc/self/ns/mnt")
	if theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid)); err != nil || theirs == ours {
		t.Errorf("the worker's mount namespace is %s, ours %s: %v", theirs, ours, err)
	}
	later := t.TempDir()
	if err := unix.Mount("none", later, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(later, unix.MNT_DETACH) }()
	if strings.Contains(read(t, "/proc/%d/mountinfo", pid), later) {
		t.Error("a mount made later is seen by the worker")
	}
	if strings.Contains(read(t, "/proc/%d/mountinfo", pid), "shared:") {
		t.Error("the worker has shared mounts")
	}
}

func TestASpareThreadIsNeverTheMainThread(t *testing.T) {
	for range 200 {
		onSpareThread(func() {
			if unix.Gettid() == unix.Getpid() {
				t.Error("it is the main thread")
			}
		})
	}
}

// isolated is what a process that called Isolate says of itself.
type isolated struct {
	PID     int
	Mounts  string
	Flusher int
	Notes   []string
	Args    []string
}

// beIsolated is the other life of TestIsolateMakesThisProcessABlockServer, called by TestMain.
func beIsolated() {
	notes := Isolate(state.Dirs{Run: os.TempDir(), Keep: os.TempDir()})
	runtime.LockOSThread()
	me := isolated{PID: os.Getpid(), Notes: notes, Args: os.Args}
	me.Mounts, _ = os.Readlink("/proc/self/ns/mnt")
	flags, _, _ := unix.Syscall6(unix.SYS_PRCTL, unix.PR_GET_IO_FLUSHER, 0, 0, 0, 0, 0)
	me.Flusher = int(flags)
	_ = json.NewEncoder(os.Stdout).Encode(me)
}

func TestIsolateMakesThisProcessABlockServer(t *testing.T) {
	cmd := exec.Command(os.Args[0], "isolate-me", "and", "keep", "the arguments")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got isolated
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	if got.PID != cmd.Process.Pid || len(got.Args) != 5 {
		t.Errorf("it became %+v, not the same process again", got)
	}
	ours, _ := os.Readlink("/proc/self/ns/mnt")
	t.Run("mounts", func(t *testing.T) {
		needCapability(t, capSysAdmin)
		if got.Mounts == ours {
			t.Errorf("it shares our mount namespace: %+v", got)
		}
	})
	t.Run("flusher", func(t *testing.T) {
		needCapability(t, capSysResource)
		if got.Flusher != 1 {
			t.Errorf("it is no I/O flusher: %+v", got)
		}
	})
}
