package ublk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/internal/uring"
)

// module is what has /dev/ublk-control.
const module = "ublk_drv"

const tooOld = "this kernel's ublk is too old: Linux 6.5 or later is needed; use the nbd or export front end"

// probe caches the answer of Supported.
var probe struct {
	sync.Mutex
	done bool
	err  error
}

// Supported says whether Open can succeed here: nil, or an error that matches ErrUnsupported and says what is
// missing and what to do. It loads the ublk_drv module if need be. The answer is cached.
func Supported(ctx context.Context) error {
	probe.Lock()
	defer probe.Unlock()
	if probe.done {
		return probe.err
	}
	c, err := Open(ctx, Options{})
	if err == nil {
		err = c.Close()
	}
	if ctx.Err() == nil {
		probe.done, probe.err = true, err
	}
	return err
}

// unsupported makes the error of a machine that has no usable ublk.
func unsupported(op string, err error, hint string) error {
	if err == nil {
		err = unix.EOPNOTSUPP
	}
	return &Error{Op: op, Err: fmt.Errorf("%w: %w", ErrUnsupported, err), Hint: hint}
}

// openControl opens the control device, with the module loaded if that is wanted.
func openControl(ctx context.Context, opt Options) (int, error) {
	if err := uring.Probe(); err != nil {
		return -1, unsupported("probe io_uring", err, "")
	}
	fd, err := openNode()
	if errors.Is(err, fs.ErrNotExist) && !opt.NoModprobe {
		if err := loadModule(ctx); err != nil {
			return -1, err
		}
		err = retry(ctx, 2*time.Second, func() (err error) {
			fd, err = openNode()
			return err
		})
		return fd, openError(err)
	}
	return fd, openError(err)
}

func openNode() (int, error) { return unix.Open(controlPath, unix.O_RDWR|unix.O_CLOEXEC, 0) }

// openError explains why the control device cannot be opened.
func openError(err error) error {
	hint := ""
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		hint = missing()
	case errors.Is(err, fs.ErrPermission):
		hint = "this needs root, or a udev rule and device cgroup that allow " + controlPath
	}
	return unsupported("open "+controlPath, err, hint)
}

// missing explains an absent control device where the module was not or need not be loaded.
func missing() string {
	if _, err := os.Stat("/sys/module/" + module); err == nil {
		return "the module is loaded but the node is not here: a container needs it passed in (--device " + controlPath + ")"
	}
	return "the module is not loaded: modprobe " + module
}

// loadModule runs modprobe, which heeds modprobe.d.
func loadModule(ctx context.Context) error {
	if _, err := os.Stat("/sys/module/" + module); err == nil {
		return nil
	}
	out, err := exec.CommandContext(ctx, "modprobe", module).CombinedOutput()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound):
		return unsupported("load ublk", err, "the module is not loaded: modprobe "+module)
	case bytes.Contains(out, []byte("not found")):
		return unsupported("load ublk", modprobeError(out, err), "kernel "+release()+" has no ublk: it takes Linux 6.5 or later with CONFIG_BLK_DEV_UBLK; use the nbd or export front end")
	}
	return unsupported("load ublk", modprobeError(out, err), "as root: modprobe "+module)
}

func modprobeError(out []byte, err error) error {
	if out = bytes.TrimSpace(out); len(out) == 0 {
		return fmt.Errorf("modprobe: %w", err)
	}
	return fmt.Errorf("%s: %w", out, err)
}

func release() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return unix.ByteSliceToString(u.Release[:])
}

// retryPause is how often things that udev or the kernel will settle are looked at again.
const retryPause = 2 * time.Millisecond

// retry calls f until it succeeds, patience is over or ctx ends, and gives f's last error.
func retry(ctx context.Context, patience time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retryPause):
		}
	}
}
