package worker

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"

	"iserblk/cmd/iserblk/state"
	"iserblk/nbd/nbdkernel"
	"iserblk/session"
	"iserblk/ublk"
	"iserblk/verbs"
)

// The exit codes of the program: those of iscsiadm wherever one fits (open-iscsi, include/iscsi_err.h).
const (
	ExitOK          = 0
	ExitGeneric     = 1  // anything without a code of its own
	ExitTransport   = 4  // the portal refused the connection, or its name or route is unknown
	ExitInput       = 7  // the command line or a file makes no sense
	ExitTimeout     = 8  // the portal did not answer in time
	ExitNoTransport = 12 // no RDMA, no device for the route, no memory to lock, or a kernel module is missing
	ExitPermission  = 13
	ExitAttached    = 15 // the LUN has a device already
	ExitSilent      = 18 // a worker is alive and does not answer
	ExitLogin       = 19 // the target refused the login for another reason than authentication
	ExitNotFound    = 21
	ExitAuth        = 24
	ExitUnsupported = 27
	ExitBusy        = 28 // the device is mounted or open
)

// exitCodes is searched in order: the closer cause comes first.
var exitCodes = []struct {
	err  error
	code int
}{
	{ErrInput, ExitInput},
	{state.ErrName, ExitInput},
	{ErrBusy, ExitBusy},
	{ErrAttached, ExitAttached},
	{ErrSilent, ExitSilent},
	{session.ErrAuth, ExitAuth},
	{session.ErrForbidden, ExitAuth},
	{ErrNotFound, ExitNotFound},
	{session.ErrTargetNotFound, ExitNotFound},
	{session.ErrTargetRemoved, ExitNotFound},
	{session.ErrNoUnit, ExitNotFound},
	{session.ErrTargetUnavailable, ExitLogin},
	{session.ErrRedirect, ExitLogin},
	{session.ErrNegotiation, ExitLogin},
	{verbs.ErrNoProvider, ExitNoTransport},
	{verbs.ErrNoDevice, ExitNoTransport},
	{verbs.ErrPortDown, ExitNoTransport},
	{verbs.ErrMemlock, ExitNoTransport},
	{fs.ErrPermission, ExitPermission}, // before what a lack of it makes look missing
	{ublk.ErrUnsupported, ExitNoTransport},
	{nbdkernel.ErrUnsupported, ExitNoTransport},
	{ublk.ErrBusy, ExitBusy},
	{ublk.ErrServed, ExitBusy},
	{ErrUnsupported, ExitUnsupported},
	{session.ErrNotDisk, ExitUnsupported},
	{verbs.ErrTimeout, ExitTimeout},
	{session.ErrTimeout, ExitTimeout},
	{verbs.ErrRejected, ExitTransport},
	{session.ErrNexusLost, ExitTransport},
	{session.ErrDropped, ExitTransport},
	{os.ErrDeadlineExceeded, ExitTimeout},
	{context.DeadlineExceeded, ExitTimeout},
}

// ExitCode is the process's exit code for err.
func ExitCode(err error) int {
	var remote *RemoteError
	var dns *net.DNSError
	var login *session.LoginError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &remote):
		return remote.Code
	case errors.As(err, &dns):
		return ExitTransport
	}
	for _, e := range exitCodes {
		if errors.Is(err, e.err) {
			return e.code
		}
	}
	if errors.As(err, &login) {
		return ExitLogin
	}
	return ExitGeneric
}

// RemoteError is an error that a worker reported. It matches the sentinels that have its exit code.
type RemoteError struct {
	Text  string
	Code  int
	Stays bool // the worker goes on: it serves devices
}

// Error is what the worker said.
func (e *RemoteError) Error() string { return e.Text }

// Is makes errors.Is work across the socket.
func (e *RemoteError) Is(target error) bool {
	for _, c := range exitCodes {
		if c.err == target {
			return c.code == e.Code
		}
	}
	return false
}
