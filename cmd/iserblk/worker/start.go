package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/cmd/iserblk/state"
)

// AttachRequest is for Attach.
type AttachRequest struct {
	Dirs     state.Dirs
	Spec     Spec
	LUNs     []uint64 // nil means all; an empty list means only what a dead worker has left
	Options  AttachOptions
	Progress func(string) // may be nil
	// Joining is told when a worker of this target is there already, so that most of Spec has no effect. May be nil.
	Joining func()
}

// Attach makes devices of a target's LUNs, in the worker that serves the target or in a new one. If it fails it
// leaves nothing behind: no process, no file, no device.
func Attach(ctx context.Context, r AttachRequest) ([]Device, error) {
	f := files{r.Dirs.Run, r.Spec.Target}
	for {
		lock, err := f.acquire()
		if err == nil {
			return startAndAttach(ctx, f, lock, r)
		}
		if !errors.Is(err, errLocked) {
			return nil, err
		}
		devices, err := join(ctx, f, r)
		if err == nil || !errors.Is(err, errGone) {
			return devices, err
		}
		select { // it starts, or it leaves: look again
		case <-time.After(joinInterval):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrSilent, context.Cause(ctx))
		}
	}
}

const joinInterval = 50 * time.Millisecond

func join(ctx context.Context, f files, r AttachRequest) ([]Device, error) {
	c, err := f.client()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	defer c.Close()
	if r.Joining != nil {
		r.Joining()
	}
	devices, err := c.Attach(ctx, r.LUNs, r.Options, r.Progress)
	if err == nil {
		err = c.takeBackUnseen(ctx, devices)
	}
	return devices, err
}

// takeBackUnseen detaches an export whose socket is not where it was asked for: a worker has only the disks that its
// first attach needed.
func (c *Client) takeBackUnseen(ctx context.Context, devices []Device) error {
	for _, d := range devices {
		path := socketOf(d.Path)
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			_, derr := c.Detach(context.WithoutCancel(ctx), d.Path, true)
			return errors.Join(fmt.Errorf("the worker that serves this target does not see the disk of %s; take a path "+
				"below the run directory: %w", path, err), derr)
		}
	}
	return nil
}

// startAndAttach starts a worker that takes over the lock.
func startAndAttach(ctx context.Context, f files, lock *os.File, r AttachRequest) ([]Device, error) {
	child, c, err := start(f, lock, r)
	lock.Close()
	if err != nil {
		f.bury()
		return nil, err
	}
	defer c.Close()
	devices, err := c.Attach(ctx, r.LUNs, r.Options, r.Progress)
	if remote := new(RemoteError); err == nil || errors.As(err, &remote) && remote.Stays {
		go child.Wait() //nolint:errcheck // only so that it is no zombie while this process lasts
		return devices, err
	}
	c.Close()
	crashed := reap(child)
	if errors.Is(err, errGone) {
		err = fmt.Errorf("the worker of %s died (%s): %s", r.Spec.Target, crashed, logTail(f))
		err = errors.Join(err, removeOrphans(ctx, f))
	}
	f.bury()
	return nil, err
}

// reap waits for a worker that was told to leave, and kills it if it does not. It says how it ended.
func reap(child *exec.Cmd) string {
	kill := time.AfterFunc(reapTimeout, func() { _ = child.Process.Kill() })
	defer kill.Stop()
	_ = child.Wait()
	return child.ProcessState.String()
}

const reapTimeout = 20 * time.Second

// bury removes the files of a target that nobody serves, but for the record of devices that can be taken over.
func (f files) bury() {
	lock, err := f.acquire()
	if err != nil {
		return
	}
	f.leave()
	lock.Close()
}

// start runs this program as a worker and sends it what it needs to know.
func start(f files, lock *os.File, r AttachRequest) (*exec.Cmd, *Client, error) {
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	child, err := command(f, r.Spec.Target)
	if err != nil {
		ours.Close()
		return nil, nil, err
	}
	defer child.Stderr.(*os.File).Close()
	child.ExtraFiles = []*os.File{theirs, lock} // fdHello, fdLock
	notes, err := startIsolated(child, r.Dirs, r.Options.Export.Paths())
	if err != nil {
		ours.Close()
		return nil, nil, fmt.Errorf("start worker: %w", err)
	}
	c := &Client{w: newWire(ours)}
	// That it is gone already shows when it is asked to attach.
	_ = c.w.send(hello{Spec: r.Spec, Run: r.Dirs.Run, Keep: r.Dirs.Keep, Notes: notes})
	return child, c, nil
}

// command is the worker's command line and surroundings. There is no secret in them.
func command(f files, target string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start worker: %w", err)
	}
	_ = os.Remove(f.log()) // of one that died
	log, err := openLog(f)
	if err != nil {
		return nil, fmt.Errorf("log of the worker: %w", err)
	}
	child := exec.Command(exe, "worker", target)
	child.Args[0] = "iserblk"
	child.Dir = "/"
	child.Env = cleanEnv(os.Environ())
	child.Stderr = log
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return child, nil
}

// cleanEnv leaves out what holds secrets or is meant for the process that attaches.
func cleanEnv(env []string) []string {
	var kept []string
	for _, e := range env {
		if !strings.HasPrefix(e, "ISERBLK_CHAP_") && !strings.HasPrefix(e, "NOTIFY_SOCKET=") {
			kept = append(kept, e)
		}
	}
	return kept
}

// startIsolated starts the child from a thread that is prepared for a block server and thrown away.
func startIsolated(child *exec.Cmd, d state.Dirs, keep []string) (notes []string, err error) {
	onSpareThread(func() {
		notes = isolateThread(d, keep)
		err = child.Start()
	})
	return notes, err
}

// onSpareThread runs fn on a thread that ends with it. That may not be the main thread: it never ends, and it stands
// for the process in /proc.
func onSpareThread(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // unlocked only if this is the main thread
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			onSpareThread(fn) // on another, as this one is taken
			return
		}
		fn()
	}()
	<-done
}

func socketpair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	return conn, theirs, nil
}
