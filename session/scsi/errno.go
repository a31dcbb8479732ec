package scsi

import "syscall"

// ascProtection is the ASC of T10 protection information errors (SPC-4).
const ascProtection = 0x10

// Errno returns the error number to end a block request with once nothing more
// is to be tried, or 0 if the command succeeded. It returns only numbers that
// ublk hands on to the block layer, which gives each a meaning of its own:
// ENODATA is a medium error, EREMOTEIO a fault of the target that no other
// path will cure, EBADE a reservation conflict, EILSEQ a protection
// information error, ETIMEDOUT a unit that stayed busy.
func Errno(status Status, sense Sense) syscall.Errno {
	action := Classify(status, sense)
	if isProtectionError(status, sense) {
		return syscall.EILSEQ
	}
	switch action {
	case ActionOK:
		return 0
	case ActionRetryAfterDelay:
		return syscall.ETIMEDOUT
	case ActionMediumError:
		return syscall.ENODATA
	case ActionUnsupported:
		return syscall.EOPNOTSUPP
	case ActionSpaceExhausted:
		return syscall.ENOSPC
	case ActionReservationConflict:
		return syscall.EBADE
	case ActionWriteProtected, ActionNoLUN:
		return syscall.EREMOTEIO
	}
	if status == StatusCheckCondition && isTargetError(sense) {
		return syscall.EREMOTEIO
	}
	return syscall.EIO
}

func isProtectionError(status Status, s Sense) bool {
	return status == StatusCheckCondition && s.ASC == ascProtection &&
		(s.Key == KeyIllegalRequest || s.Key == KeyAbortedCommand)
}

func isTargetError(s Sense) bool {
	switch s.Key {
	case KeyHardwareError, KeyIllegalRequest, KeyDataProtect, KeyMiscompare:
		return true
	}
	return false
}
