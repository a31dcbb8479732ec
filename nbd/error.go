package nbd

import (
	"errors"
	"fmt"
)

var (
	// ErrInUse: another server listens on the socket.
	ErrInUse = errors.New("another server listens there")
	// ErrTooMany: the export has as many connections as it may have.
	ErrTooMany = errors.New("too many connections")
	// ErrClosed: the export is closed, or being closed.
	ErrClosed = errors.New("export closed")
	// ErrProtocol: a client said what no client may say.
	ErrProtocol = errors.New("protocol violation")
	// ErrCut: Close ended a connection whose client did not take its replies.
	ErrCut = errors.New("connection cut")
)

// Error is the error of every operation of this package. Err is a syscall.Errno, a context's or a network error, one of the sentinels or
// a plain explanation.
type Error struct {
	Op   string // "listen on /run/iserblk/x.nbd"
	Hint string // what to do next, "" when there is nothing better than the cause
	Err  error
}

// Error says what failed, why and what to do next.
func (e *Error) Error() string {
	s := fmt.Sprintf("nbd: %s: %v", e.Op, e.Err)
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// Unwrap gives the cause to errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }
