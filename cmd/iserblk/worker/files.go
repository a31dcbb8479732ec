package worker

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// files are the files of one target in the run directory.
type files struct{ dir, target string }

func (f files) path(suffix string) string { return filepath.Join(f.dir, f.target+suffix) }
func (f files) lock() string              { return f.path(lockSuffix) }
func (f files) record() string            { return f.path(recordSuffix) }
func (f files) log() string               { return f.path(".log") }
func (f files) oldLog() string            { return f.path(".log.1") }

// socket has a short name, as the target's may be longer than a socket's address.
func (f files) socket() string {
	sum := sha256.Sum256([]byte(f.target))
	return filepath.Join(f.dir, hex.EncodeToString(sum[:8])+".sock")
}

const (
	lockSuffix   = ".lock"
	recordSuffix = ".json"
)

// removeAll takes away everything of the target. Only who has the lock may call it; the lock's file goes last.
func (f files) removeAll() {
	for _, file := range []string{f.socket(), f.record(), f.log(), f.oldLog(), f.lock()} {
		_ = os.Remove(file)
	}
}

// leave is removeAll for who may leave devices behind that the next worker takes over: then their record stays.
func (f files) leave() {
	if r, err := readRecord(f); err != nil || len(r.Devices) == 0 {
		f.removeAll()
		return
	}
	for _, file := range []string{f.socket(), f.lock()} {
		_ = os.Remove(file)
	}
}

// errLocked: another process serves the target.
var errLocked = errors.New("another process serves this target")

// acquire takes the target's lock: whoever has it serves the target. The lock belongs to the open file, so it passes
// to a child with it and ends with the last process that has it open. Its content is nothing.
func (f files) acquire() (*os.File, error) {
	for {
		file, err := os.OpenFile(f.lock(), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		l := unix.Flock_t{Type: unix.F_WRLCK}
		if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &l); err != nil {
			file.Close()
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
				return nil, errLocked
			}
			return nil, fmt.Errorf("lock %s: %w", f.lock(), err)
		}
		if stillThere(file, f.lock()) {
			return file, nil
		}
		file.Close() // its last owner has removed it meanwhile
	}
}

// acquireSoon is acquire for who knows that the worker is dead: others may have the lock for a moment to see to that.
func (f files) acquireSoon() (*os.File, error) {
	for end := time.Now().Add(soon); ; time.Sleep(soon / 100) {
		lock, err := f.acquire()
		if !errors.Is(err, errLocked) || time.Now().After(end) {
			return lock, err
		}
	}
}

const soon = 2 * time.Second

func stillThere(file *os.File, path string) bool {
	a, errA := file.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// locked says whether some process serves the target, without touching the lock.
func (f files) locked() bool {
	file, err := os.OpenFile(f.lock(), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer file.Close()
	l := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(file.Fd(), unix.F_OFD_GETLK, &l)
	return err == nil && l.Type != unix.F_UNLCK
}

// shortSocket calls fn with a path of the socket that is short whatever the directory's is: a socket's address has
// room for 107 bytes only.
func (f files) shortSocket(fn func(path string) error) error {
	if len(f.socket()) <= 107 {
		return fn(f.socket())
	}
	dir, err := os.OpenFile(f.dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	return fn(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(f.socket())))
}

func (f files) listen() (net.Listener, error) {
	var ln *net.UnixListener
	err := f.shortSocket(func(path string) (err error) {
		_ = os.Remove(path)
		ln, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	ln.SetUnlinkOnClose(false)
	if err := os.Chmod(f.socket(), 0o600); err != nil {
		ln.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return ln, nil
}

func (f files) dial() (net.Conn, error) {
	var conn net.Conn
	err := f.shortSocket(func(path string) (err error) {
		conn, err = net.DialTimeout("unix", path, dialTimeout)
		return err
	})
	return conn, err
}

const dialTimeout = 2 * time.Second
