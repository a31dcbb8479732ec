package nbd

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// refusal is an error as a client is told of it.
type refusal struct {
	code code
	text string // for structured replies, at most maxRefusal bytes
}

const maxRefusal = 64

// Why a request is not carried out. proto "Error values" says which code is for what.
var (
	refuseCommand   = &refusal{codeInval, "unknown command"}
	refuseFlags     = &refusal{codeInval, "this flag is not for this command"}
	refuseReadOnly  = &refusal{codePerm, "the export is read-only"}
	refuseAlignment = &refusal{codeInval, "not a multiple of the minimum block size"}
	refuseRange     = &refusal{codeInval, "beyond the end of the export"}
	refuseSpace     = &refusal{codeNoSpace, "beyond the end of the export"}
	refuseLength    = &refusal{codeInval, "more than the maximum payload size"}
	refuseLongRead  = &refusal{codeOverflow, "more than the maximum payload size"}
	refusePayload   = &refusal{codeInval, "payload and command do not fit together"}
	refuseReserved  = &refusal{codeInval, "offset and length of a flush have to be 0"}
	refuseSlowZero  = &refusal{codeNotSup, "zeroing would be no faster than writing"}
	refuseContext   = &refusal{codeInval, "no metadata context was selected"}
	refuseNothing   = &refusal{codeInval, "there is no status of nothing"}
	refuseShutdown  = &refusal{codeShutdown, "the export is being closed"}
)

// Why a request failed.
var (
	failedPerm     = &refusal{codePerm, "write protected"}
	failedMemory   = &refusal{codeNoMem, "out of memory"}
	failedInvalid  = &refusal{codeInval, "the target refused the request"}
	failedSpace    = &refusal{codeNoSpace, "no space left at the target"}
	failedShutdown = refuseShutdown
	failedIO       = &refusal{codeIO, "input/output error"}
)

// failure is what a client is told of a logical unit's error. The protocol has few codes; ENOTSUP is not for this.
func failure(errno syscall.Errno) *refusal {
	switch errno {
	case unix.EPERM, unix.EACCES, unix.EROFS:
		return failedPerm
	case unix.ENOMEM:
		return failedMemory
	case unix.EINVAL, unix.EOPNOTSUPP:
		return failedInvalid
	case unix.ENOSPC, unix.EDQUOT, unix.EFBIG:
		return failedSpace
	case unix.ESHUTDOWN:
		return failedShutdown
	}
	return failedIO
}
