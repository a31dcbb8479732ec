package iser

import "errors"

// What a peer can get wrong on the iSER level. Each ends the connection; errors.Is finds them in an *Error.
var (
	// ErrTruncated: a message without room for both headers.
	ErrTruncated = errors.New("message shorter than its headers")
	// ErrHello: a Hello or HelloReply, which was never asked for (RFC 7145 6.3).
	ErrHello = errors.New("unexpected hello message")
	// ErrHeader: an iSER header of a type that does not exist (RFC 7145 9.2).
	ErrHeader = errors.New("unknown iSER header type")
	// ErrAHS: additional header segments, which no PDU for an initiator has.
	ErrAHS = errors.New("unexpected additional header segment")
	// ErrDataLength: DataSegmentLength and the length of the message contradict each other.
	ErrDataLength = errors.New("data segment length does not fit the message")
	// ErrInvalidated: the peer invalidated a memory key although this side had said that it cannot.
	ErrInvalidated = errors.New("unexpected remote invalidation")
	// ErrCompletion: the device completed something that was not posted.
	ErrCompletion = errors.New("completion of unknown work")
)

// errAborted is the cause given for whatever is asked of a connection after Abort or Close.
var errAborted = errors.New("connection was aborted")

// Error is the error of every operation of a connection. Unless it comes from SendCommand or SendControl the
// connection is lost.
type Error struct {
	Op   string // what was tried: "receive", "post sends"
	Peer string // the target's portal
	Err  error  // the cause: a sentinel of this package, a verbs.Status, a *verbs.OpError
}

// Error says what failed, with whom, and why.
func (e *Error) Error() string { return "iser: " + e.Op + " " + e.Peer + ": " + e.Err.Error() }

// Unwrap gives the cause to errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }
