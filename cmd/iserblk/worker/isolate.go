package worker

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"iserblk/cmd/iserblk/state"
)

// A block server may not wait for its own disk. It must not start writeback when it allocates memory
// (PR_SET_IO_FLUSHER, which a process's threads inherit from the one that started it), and it must not be the last one
// in a mount namespace that has its disk mounted, or it waits for itself when it exits. Both are set on a thread
// before a program is executed from it. None is a reason to fail: a container may forbid them.

// isolateThread prepares this thread, which must be locked and never be used again for anything but starting a
// server. keep are paths that it needs besides. It says what could not be done.
func isolateThread(d state.Dirs, keep []string) []string {
	var notes []string
	if err := unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0); err != nil {
		notes = append(notes, "no PR_SET_IO_FLUSHER (needs CAP_SYS_RESOURCE): "+err.Error())
	}
	if err := isolateMounts(append(neededPaths(d), keep...)); err != nil {
		notes = append(notes, "no mount namespace of its own (needs CAP_SYS_ADMIN): "+err.Error())
	}
	return notes
}

// neededPaths are what a server may open while it runs.
func neededPaths(d state.Dirs) []string {
	exe, _ := os.Executable()
	paths := []string{"/dev/shm", "/dev/hugepages", "/proc", "/sys/kernel/config", "/etc", "/usr/lib", "/lib", "/lib64"}
	return append(paths, d.Run, d.Keep, exe)
}

// isolateMounts gives this thread a mount namespace that no later mount reaches, without the disks that the server
// does not need: a copy of their mounts would keep them busy after they are unmounted elsewhere.
func isolateMounts(keep []string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	mounts := parseMounts(string(text))
	for i := len(mounts) - 1; i >= 0; i-- { // the inner ones come last
		if m := mounts[i]; m.onDisk() && !m.holdsAny(keep) {
			_ = unix.Unmount(m.point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
	}
	return nil
}

func (m mountLine) onDisk() bool {
	return !strings.HasPrefix(m.number, "0:") || strings.HasPrefix(m.source, "/dev/")
}

// holdsAny says whether one of the paths may lie on this mount.
func (m mountLine) holdsAny(paths []string) bool {
	for _, p := range paths {
		if rel, err := filepath.Rel(m.point, p); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			return true
		}
	}
	return false
}

// isolatedMark tells a program that executed itself that it has done so. Its value is the process's id.
const isolatedMark = "ISERBLK_ISOLATED"

// Isolate makes this very process a good block server by executing the same program again from a prepared thread. It
// keeps the disks that hold the paths of keep. It returns in the second life, or if the program cannot be executed; then with the notes of what could not be done.
func Isolate(d state.Dirs, keep ...string) []string {
	if os.Getenv(isolatedMark) == strconv.Itoa(os.Getpid()) {
		os.Unsetenv(isolatedMark)
		return nil
	}
	runtime.LockOSThread() // for good: this thread is spoilt for other work
	notes := isolateThread(d, keep)
	exe, err := os.Executable()
	if err == nil {
		env := append(os.Environ(), isolatedMark+"="+strconv.Itoa(os.Getpid()))
		err = syscall.Exec(exe, os.Args, env)
	}
	return append(notes, fmt.Sprintf("cannot execute %s again: %v", exe, err))
}

// hardenProcess does what a server can do for itself once it runs. It says what could not be done.
func hardenProcess() []string {
	var notes []string
	note := func(what string, err error) {
		if err != nil {
			notes = append(notes, what+": "+err.Error())
		}
	}
	unix.Umask(0o077)
	debug.SetTraceback("all")
	note("core dumps stay possible", unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}))
	note("the OOM killer may choose this process", os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0))
	note("RLIMIT_MEMLOCK stays as it is", raiseMemlock())
	note("memory may be swapped out", lockMemory())
	return notes
}

// raiseMemlock lifts the limit as far as this process may.
func raiseMemlock() error {
	err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
	if err == nil {
		return nil
	}
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l) == nil {
		l.Cur = l.Max
		_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &l)
	}
	return err
}

// lockMemory keeps every page in memory from its first use on. It is done only where it cannot make a later mapping
// fail, as every reserved byte counts against the limit.
func lockMemory() error {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l); err != nil {
		return err
	}
	if l.Cur != unix.RLIM_INFINITY {
		return fmt.Errorf("RLIMIT_MEMLOCK is %d bytes", l.Cur)
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return err
	}
	return touchCode()
}

// touchCode brings all code into memory, so that none has to be read from a disk while memory is short.
func touchCode() error {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(maps)) {
		var from, to uintptr
		var access string
		if _, err := fmt.Sscanf(line, "%x-%x %4s", &from, &to, &access); err == nil && access == "r-xp" {
			// Kernels before 5.14 do not know the advice, and the page of the vDSO does not take it.
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_POPULATE_READ)
		}
	}
	return nil
}
