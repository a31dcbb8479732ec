package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"iserblk/verbs"
)

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
	for _, path := range d.opts.Shared {
		if err := e.shareFile(d, path, register); err != nil {
			return err
		}
	}
	return e.sync()
}

func (e *engine) shareFile(d *device, path string, register func(requestBuffer) error) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w; make it first: truncate -s 64M %s", ErrInput, err, path)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	defer f.Close()
	id, err := e.arena.CarveFile(f, verbs.AccessRemote)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	d.regions = append(d.regions, id)
	if err := register(requestBuffer{mem: e.arena.Mem(id), region: uint32(id)}); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
