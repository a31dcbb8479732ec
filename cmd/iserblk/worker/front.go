package worker

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"iserblk/internal/block"
	"iserblk/internal/lane"
	"iserblk/internal/uring"
	"iserblk/session/multipath"
)

// The front ends by the names that users pick them by.
const (
	FrontAuto   = "auto"
	FrontUblk   = "ublk"
	FrontNBD    = "nbd"
	FrontExport = "export"
)

// Frontends are all of them.
var Frontends = []string{FrontAuto, FrontUblk, FrontNBD, FrontExport}

// frontend makes devices of logical units in one way.
type frontend interface {
	// name is one of the Front constants.
	name() string
	// buffers is how many requests one of a device's queues may have at work, each in a buffer of its own, and the
	// buffers' size in bytes.
	buffers(l *block.Limits, queues int) (n int, size uint32)
	// create makes a device and returns when it can be used. When it fails nothing is left behind; a device that was to be
	// taken over goes on waiting, and after errBegun the plan's queues and buffers stay in use.
	create(ctx context.Context, p plan) (front, error)
	// close frees what the front end has besides its devices, which must be gone.
	close()
}

// front is one device as its front end made it.
type front interface {
	// path is what users name the device by: a block device or a URI.
	path() string
	// tryStop takes the device away unless it is in use (ErrBusy), when its requests have ended.
	tryStop(ctx context.Context) error
	// stop takes it away for good. If ctx ends first it may be repeated.
	stop(ctx context.Context) error
	// fail has requests that come from now on answered with errno, unseen by the logical unit.
	fail(errno syscall.Errno)
	// resize tells who uses the device of its new size in bytes.
	resize(ctx context.Context, size uint64) error
	counters() Counters
	// lost is closed when the device can serve no more; err says why, nil when it was stopped.
	lost() <-chan struct{}
	err() error
	// describe fills in what only the front end knows.
	describe(d *Device)
}

// plan is what a device is made of.
type plan struct {
	target string
	lun    uint64
	limits block.Limits
	queues []queuePlan
	opts   AttachOptions
	adopt  *Device // what a dead worker left and this one takes over, nil for a new device
	// share is called before the device can be used, to have the files of opts.Shared made known to the kernel by
	// register, and then to every connection. nil: there are none.
	share func(register func(requestBuffer) error) error
}

// queuePlan is one of a device's queues: who serves it, and the memory of its requests.
type queuePlan struct {
	lane    *lane.Lane
	unit    *multipath.Queue
	buffers []requestBuffer
}

// requestBuffer is the memory of one request, in a region of the arena.
type requestBuffer struct {
	mem    []byte
	region uint32
}

// frontends are those that an engine has opened.
type frontends struct {
	opened  map[string]frontend
	chosen  string // what auto came to
	openers map[string]func(context.Context, AttachOptions) (frontend, error)
}

func newFrontends(e *engine) frontends {
	return frontends{opened: map[string]frontend{}, openers: map[string]func(context.Context, AttachOptions) (frontend, error){
		FrontUblk:   e.openUblk,
		FrontNBD:    e.openNBD,
		FrontExport: e.openExport,
	}}
}

// pick opens the front end of this name; auto is the first that this machine has.
func (f *frontends) pick(ctx context.Context, o AttachOptions) (frontend, error) {
	name := o.Frontend
	if len(o.Shared) > 0 && name != FrontUblk {
		return nil, fmt.Errorf("%w: memory is shared with clients of ublk devices only", ErrInput)
	}
	if name == "" || name == FrontAuto {
		name = f.chosen
	}
	if name == "" {
		return f.pickAny(ctx, o)
	}
	return f.open(ctx, name, o)
}

func (f *frontends) open(ctx context.Context, name string, o AttachOptions) (frontend, error) {
	if fe := f.opened[name]; fe != nil {
		return fe, nil
	}
	opener := f.openers[name]
	if opener == nil {
		return nil, fmt.Errorf("front end %q: %w", name, ErrUnsupported)
	}
	fe, err := opener(ctx, o)
	if err == nil {
		f.opened[name] = fe
	}
	return fe, err
}

// pickAny takes a real block device if there can be one. A socket is another thing, which one has to ask for.
func (f *frontends) pickAny(ctx context.Context, o AttachOptions) (frontend, error) {
	var why []error
	for _, name := range []string{FrontUblk, FrontNBD} {
		fe, err := f.open(ctx, name, o)
		if err == nil {
			f.chosen = name
			return fe, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		why = append(why, err)
	}
	return nil, fmt.Errorf("no block device can be made here; --frontend export serves the LUN on a socket: %w", noDevice(why))
}

// noDevice is why no front end can make a block device, in one line.
type noDevice []error

// Error lists the reasons.
func (n noDevice) Error() string { return errors.Join(n...).Error() }

// Unwrap gives every reason to errors.Is and errors.As.
func (n noDevice) Unwrap() []error { return n }

func (f *frontends) close() {
	for _, fe := range f.opened {
		fe.close()
	}
	clear(f.opened)
}

// ringless says whether lanes have to do without io_uring: only ublk cannot.
func ringless(fe frontend) bool { return fe.name() != FrontUblk && uring.Probe() != nil }
