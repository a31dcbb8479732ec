package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"iserblk/ublk"
	"iserblk/verbs"
)

// StatShared finds a file that shall be shared. Errors: ErrInput, fs.ErrPermission.
func StatShared(path string) (SharedFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return SharedFile{}, fmt.Errorf("%w: %w; make it first: truncate -s 64M %s", ErrInput, err, path)
	case errors.Is(err, fs.ErrPermission):
		return SharedFile{}, err
	case err != nil:
		return SharedFile{}, fmt.Errorf("%w: %w", ErrInput, err)
	}
	defer f.Close()
	s, size, err := identify(f)
	if err == nil && size > ublk.MaxShared {
		err = fmt.Errorf("%w: %s has %d bytes: the kernel shares files of 4 GiB at most", ErrInput, path, size)
	}
	return s, err
}

func identify(f *os.File) (SharedFile, int64, error) {
	st, err := f.Stat()
	if err != nil {
		return SharedFile{}, 0, err
	}
	sys := st.Sys().(*syscall.Stat_t)
	return SharedFile{Path: f.Name(), Device: sys.Dev, Inode: sys.Ino}, st.Size(), nil
}

// canShare refuses to share memory where that would not spare a copy.
func (e *engine) canShare(o AttachOptions) error {
	if name, _ := describeProvider(e.provider); len(o.Shared) > 0 && name == softRoCE {
		return fmt.Errorf("%w: memory is shared with clients for an RDMA device to move data there by itself; provider %s copies it",
			ErrInput, name)
	}
	return nil
}

// share makes the files known to d's kernel device by register, and only then to the connections: if their owner cuts one
// off and fills it again in between, the kernel takes no request by the pages that a connection does not know, where
// the other way round data would go to pages that nobody has any more.
func (e *engine) share(d *device, register func(requestBuffer) error) error {
	e.target.registering.Lock()
	defer e.target.registering.Unlock()
	for _, file := range d.opts.Shared {
		if err := e.shareFile(d, file, register); err != nil {
			return err
		}
	}
	return e.sync()
}

func (e *engine) shareFile(d *device, file SharedFile, register func(requestBuffer) error) error {
	f, err := file.open()
	if err != nil {
		return err
	}
	defer f.Close()
	id, err := e.arena.CarveFile(f, verbs.AccessRemote)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	d.regions = append(d.regions, id)
	err = register(requestBuffer{mem: e.arena.Mem(id), region: uint32(id)})
	switch {
	case errors.Is(err, unix.EFAULT):
		return fmt.Errorf("%s: %w: there is not so much memory, or so many huge pages, as the file is long", file.Path, err)
	case err != nil:
		return fmt.Errorf("%s: %w", file.Path, err)
	}
	return nil
}

// open opens the very file that was asked for.
func (s SharedFile) open() (*os.File, error) {
	f, err := os.OpenFile(s.Path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err == nil {
		var is SharedFile
		if is, _, err = identify(f); err == nil && is == s {
			return f, nil
		}
		f.Close()
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: the worker of this target sees no such file as %s: it was mounted after the worker has started; detach the target's devices first",
			ErrInput, s.Path)
	}
	return nil, err
}

// missShared tells when a new connection lacks shared memory, whose owner has cut it off since.
func (l *linkState) missShared(knows func(verbs.RegionID) bool) {
	for id, r := range l.d.arena.Regions() {
		if r.Shared && r.Len > 0 && !knows(verbs.RegionID(id)) {
			l.d.log.Error("shared memory was cut off: what lies there fails from now on; attach the device again", "bytes", r.Len)
		}
	}
}
