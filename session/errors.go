package session

import (
	"errors"
	"fmt"

	"iserblk/session/pdu"
)

// What callers branch on, by errors.Is.
var (
	// ErrNexusLost: the connection died before the command was answered. Command.Sent tells whether the target may
	// still be executing it.
	ErrNexusLost = errors.New("I_T nexus lost")
	// ErrAborted: the target confirmed that an overdue command does not run any more.
	ErrAborted = errors.New("command timed out and was aborted")
	// ErrTargetFailure: the target ended a command without a SCSI status (response code 1, RFC 7143 11.4.3).
	ErrTargetFailure = errors.New("target failure without a SCSI status")
	// ErrOverflow: the target had more data for a command than its buffer holds (RFC 7143 11.4.5.2).
	ErrOverflow = errors.New("residual overflow")
	// ErrTimeout: the target did not answer in time.
	ErrTimeout = errors.New("target did not answer in time")
	// ErrAbortBudget: so many commands were aborted that the target may run out of receive buffers (LIO loses one
	// with each). A new login gives it fresh ones.
	ErrAbortBudget = errors.New("too many aborted commands on one connection")
	// ErrAbortRefused: the target would not abort an overdue command.
	ErrAbortRefused = errors.New("target refused to abort a command")
	// ErrLogoutRequested: the target asked for the end of the session by an asynchronous message.
	ErrLogoutRequested = errors.New("target asked for a logout")
	// ErrDropped: the target announced that it drops the connection.
	ErrDropped = errors.New("target dropped the connection")
	// ErrLoggedOut: this side ended the session in good order.
	ErrLoggedOut = errors.New("logged out")
	// ErrClosed: this side closed the connection.
	ErrClosed = errors.New("connection closed")

	// ErrAuth: CHAP failed, on the target's side or on ours.
	ErrAuth = errors.New("authentication failed")
	// ErrUnproven: the target was to prove itself by mutual CHAP and does not even ask us. It is an ErrAuth.
	ErrUnproven = fmt.Errorf("%w: the target is to prove itself by mutual CHAP, and does not do CHAP with us", ErrAuth)
	// ErrForbidden: the target does not let this initiator in: its access list lacks the initiator's name.
	ErrForbidden = errors.New("initiator not allowed")
	// ErrTargetNotFound: the portal knows no such target, or not for this initiator.
	ErrTargetNotFound = errors.New("target not found")
	// ErrTargetRemoved: the target is gone for good.
	ErrTargetRemoved = errors.New("target removed")
	// ErrTargetUnavailable: the same login may succeed later.
	ErrTargetUnavailable = errors.New("target unavailable")
	// ErrHungUp: the portal ended the connection in place of an answer to the first login request. LIO does so where
	// CHAP is wanted and was not offered.
	ErrHungUp = errors.New("the portal hung up at the first request")
	// ErrRedirect: the target is elsewhere; a *RedirectError says where.
	ErrRedirect = errors.New("target moved")
	// ErrOvertaken: the target calls the first request of the operational stage an error of ours. Most likely it is still
	// in the stage before: tgt moves on when its answer is acknowledged, and rxe hands a message over before it
	// acknowledges it. The same login may succeed on another connection.
	ErrOvertaken = errors.New("login request came too early")
	// ErrNegotiation: the target insists on something that this initiator does not do.
	ErrNegotiation = errors.New("negotiation failed")

	// ErrProtocol: the target broke RFC 7143. Each of the errors below, and every *pdu.Error, comes with it.
	ErrProtocol = errors.New("protocol error")
	// ErrUnknownTask: a response carries a tag that is not, or no longer, in use.
	ErrUnknownTask = fmt.Errorf("%w: response to an unknown task", ErrProtocol)
	// ErrStatSN: a response carries a status sequence number from nowhere near the expected one.
	ErrStatSN = fmt.Errorf("%w: status sequence number out of range", ErrProtocol)
	// ErrResidual: a response claims to have moved less than nothing.
	ErrResidual = fmt.Errorf("%w: impossible residual count", ErrProtocol)
	// ErrSense: sense data contradicts itself.
	ErrSense = fmt.Errorf("%w: malformed sense data", ErrProtocol)
	// ErrUnexpectedPDU: a PDU that a target never sends, or not over iSER, or not in this phase.
	ErrUnexpectedPDU = fmt.Errorf("%w: unexpected PDU", ErrProtocol)
	// ErrRejected: the target answered one of our PDUs by a Reject.
	ErrRejected = fmt.Errorf("%w: PDU rejected by the target", ErrProtocol)
	// ErrPingFlood: the target pings faster than it takes the answers.
	ErrPingFlood = fmt.Errorf("%w: more pings than can be answered", ErrProtocol)
)

// Error is the error of every operation on a nexus.
type Error struct {
	Op     string // what was tried: "log in to", "discover", "probe LUN 3 of"
	Target string // the target's name; "" in discovery
	Err    error  // the cause
}

// Error says what failed, with whom, and why.
func (e *Error) Error() string {
	s := e.Op
	if e.Target != "" {
		s += " " + e.Target
	}
	return s + ": " + e.Err.Error()
}

// Unwrap gives the cause to errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }

// LoginError is a login that the target refused with a status (RFC 7143 11.13.5). It matches ErrAuth,
// ErrForbidden, ErrTargetNotFound, ErrTargetRemoved, ErrTargetUnavailable, ErrRedirect or ErrOvertaken where one fits.
type LoginError struct {
	Class  uint8
	Detail uint8

	early bool // it answers the first request of the operational stage
}

// Status is class and detail as pdu names them.
func (e *LoginError) Status() pdu.LoginStatus {
	return pdu.LoginStatus(uint16(e.Class)<<8 | uint16(e.Detail))
}

// Error gives the RFC's words and the numbers.
func (e *LoginError) Error() string {
	hint := ""
	if e.Status() == pdu.LoginServiceUnavailable {
		hint = "; LIO says so of a target that it does not have, too"
	}
	return fmt.Sprintf("login refused: %v (status %02x/%02x)%s", e.Status(), e.Class, e.Detail, hint)
}

// Is matches the sentinel of the status.
func (e *LoginError) Is(target error) bool {
	s := e.Status()
	switch target {
	case ErrAuth:
		return s == pdu.LoginAuthenticationFailure
	case ErrTargetNotFound:
		return s == pdu.LoginNotFound
	case ErrForbidden:
		return s == pdu.LoginAuthorizationFailure
	case ErrTargetRemoved:
		return s == pdu.LoginTargetRemoved
	case ErrTargetUnavailable:
		return s.Retryable()
	case ErrOvertaken:
		return s == pdu.LoginInitiatorError && e.early
	case ErrRedirect:
		return s.Class() == pdu.LoginClassRedirection
	}
	return false
}

// RedirectError is a login that the target sent elsewhere. It matches ErrRedirect.
type RedirectError struct {
	Address   string // "host:port" or "host", without the portal group tag
	Permanent bool
}

// Error says where to.
func (e *RedirectError) Error() string {
	how := "temporarily"
	if e.Permanent {
		how = "permanently"
	}
	return fmt.Sprintf("target moved %s to %s", how, e.Address)
}

// Is makes errors.Is(err, ErrRedirect) true.
func (e *RedirectError) Is(target error) bool { return target == ErrRedirect }

// TMFError is a task management function that the target did not carry out (RFC 7143 11.6.1).
type TMFError struct {
	Function pdu.TMFunction
	Response pdu.TMResponse
}

// Error says which and why.
func (e *TMFError) Error() string { return fmt.Sprintf("%v: %v", e.Function, e.Response) }

// protocolError makes a malformed PDU match ErrProtocol.
func protocolError(err error) error { return fmt.Errorf("%w: %w", ErrProtocol, err) }
