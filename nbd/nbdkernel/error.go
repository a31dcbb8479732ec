package nbdkernel

import (
	"errors"
	"fmt"
)

var (
	// ErrUnsupported: this machine has no kernel NBD that can be used; the error around it says what is missing.
	ErrUnsupported = errors.New("kernel NBD is not available")
	// ErrBusy: somebody has the device mounted or open.
	ErrBusy = errors.New("mounted or open")
	// ErrGone: the device is not, or no longer, the one that was made with this cookie.
	ErrGone = errors.New("the device belongs to somebody else or to nobody")
	// ErrStopped: Stop or TryStop has taken the device down.
	ErrStopped = errors.New("device stopped")
)

// Error is the error of every operation of this package. Err is a syscall.Errno, a context's error, one of the sentinels
// or a plain explanation.
type Error struct {
	Op   string // "connect"
	Dev  string // "/dev/nbd0", "" where there is none yet
	Hint string // what to do next, "" when there is nothing better than the cause
	Err  error
}

// Error says what failed, on which device, why and what to do next.
func (e *Error) Error() string {
	s := "nbd: " + e.Op
	if e.Dev != "" {
		s += " " + e.Dev
	}
	s = fmt.Sprintf("%s: %v", s, e.Err)
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// Unwrap gives the cause to errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }

func unsupported(op string, err error, hint string) error {
	return &Error{Op: op, Err: fmt.Errorf("%w: %w", ErrUnsupported, err), Hint: hint}
}
