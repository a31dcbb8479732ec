package verbs

import (
	"errors"
	"fmt"
)

// Status is the result of a work request (enum ibv_wc_status). It is an error unless it is StatusSuccess.
type Status uint32

// The statuses that the code above branches on; the rest are named by Error.
const (
	StatusSuccess      Status = 0
	StatusLocLenErr    Status = 1
	StatusFlushed      Status = 5
	StatusRemAccessErr Status = 10
	StatusRetryExc     Status = 12
	StatusRNRRetryExc  Status = 13
)

var statusNames = [...]string{
	"success", "local length error", "local QP operation error", "local EE context error",
	"local protection error", "work request flushed", "memory window bind error", "bad response",
	"local access error", "remote invalid request", "remote access error", "remote operation error",
	"transport retries exceeded: the peer does not answer", "receiver-not-ready retries exceeded",
	"local RDD violation", "remote invalid RD request", "remote aborted", "invalid EE context number",
	"invalid EE context state", "fatal error", "response timeout", "general error",
}

// Error names the status in words.
func (s Status) Error() string {
	if int(s) < len(statusNames) {
		return fmt.Sprintf("%s (WC status %d)", statusNames[s], uint32(s))
	}
	return fmt.Sprintf("WC status %d", uint32(s))
}

// Sentinels that callers branch on with errors.Is.
var (
	// ErrNoProvider: the provider's libraries or device nodes are missing on this machine.
	ErrNoProvider = errors.New("RDMA is not available")
	// ErrNoDevice: no RDMA device owns the route to the peer.
	ErrNoDevice = errors.New("no RDMA device on the route")
	// ErrPortDown: the local RDMA port on the route has no link, or its network device is shut.
	ErrPortDown = errors.New("RDMA port is down")
	// ErrMemlock: memory could not be pinned because RLIMIT_MEMLOCK is too low.
	ErrMemlock = errors.New("RLIMIT_MEMLOCK is too low")
	// ErrTimeout: the peer did not answer in time.
	ErrTimeout = errors.New("timed out")
	// ErrRejected: the peer answered and said no.
	ErrRejected = errors.New("connection rejected")
	// ErrClosed: the connection was closed by this side.
	ErrClosed = errors.New("connection closed")
)

// OpError is the error of every operation of a provider.
type OpError struct {
	Op   string // what was tried: "resolve address", "register memory"
	Peer string // "10.0.0.1:3260", "" where there is none
	Hint string // what to do next, "" when there is nothing better than the cause
	Err  error
}

// Error says what failed, on which portal, why, and what to do next.
func (e *OpError) Error() string {
	s := e.Op
	if e.Peer != "" {
		s += " " + e.Peer
	}
	s += ": " + e.Err.Error()
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// Unwrap gives the cause to errors.Is and errors.As.
func (e *OpError) Unwrap() error { return e.Err }

// RejectError is a CM reject with its reason (IBTA volume 1, 12.6.7.2). It matches ErrRejected.
type RejectError struct{ Reason int }

// Error explains the reasons that users meet.
func (e *RejectError) Error() string {
	switch e.Reason {
	case 8:
		return "connection rejected: nothing listens for RDMA on this port (reason 8)"
	case 10:
		return "connection rejected: stale connection (reason 10)"
	case 28:
		return "connection rejected by the target (reason 28)"
	}
	return fmt.Sprintf("connection rejected (reason %d)", e.Reason)
}

// Is makes errors.Is(err, ErrRejected) true.
func (e *RejectError) Is(target error) bool { return target == ErrRejected }
