package worker

import "errors"

// Sentinels that an Engine returns (wrapped, with the device or LUN) and that decide the exit code.
var (
	// ErrBusy: the device is mounted or open. Detach with force takes it away nevertheless.
	ErrBusy = errors.New("in use")
	// ErrAttached: the LUN has a device already.
	ErrAttached = errors.New("already attached")
	// ErrNotFound: no such LUN, device or target.
	ErrNotFound = errors.New("not found")
	// ErrMismatch: another logical unit answers than the one that was there before.
	ErrMismatch = errors.New("not the same logical unit as before")
	// ErrUnsupported: the kernel or the program lacks what was asked for; the error names it.
	ErrUnsupported = errors.New("not supported here")
	// ErrInput: what the user gave makes no sense.
	ErrInput = errors.New("bad input")
	// ErrSilent: a worker is alive and does not answer.
	ErrSilent = errors.New("the worker does not answer")
)
