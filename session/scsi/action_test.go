package scsi

import (
	"syscall"
	"testing"
)

func TestClassifyAndErrnoAgreeWithTheBlockLayer(t *testing.T) {
	check := func(key SenseKey, asc, ascq uint8) Sense { return Sense{Key: key, ASC: asc, ASCQ: ascq} }
	tests := []struct {
		name   string
		status Status
		sense  Sense
		action Action
		errno  syscall.Errno
	}{
		{"good", StatusGood, Sense{}, ActionOK, 0},
		{"condition met", StatusConditionMet, Sense{}, ActionOK, 0},
		{"sense beside good status is ignored", StatusGood, check(KeyMediumError, 0x11, 0), ActionOK, 0},
		{"busy", StatusBusy, Sense{}, ActionRetryAfterDelay, syscall.ETIMEDOUT},
		{"task set full", StatusTaskSetFull, Sense{}, ActionRetryAfterDelay, syscall.ETIMEDOUT},
		{"aca active", StatusACAActive, Sense{}, ActionRetryAfterDelay, syscall.ETIMEDOUT},
		{"task aborted", StatusTaskAborted, Sense{}, ActionRetry, syscall.EIO},
		{"reservation conflict", StatusReservationConflict, Sense{}, ActionReservationConflict, syscall.EBADE},
		{"unknown status", Status(0x22), Sense{}, ActionFatal, syscall.EIO},
		{"check condition without sense", StatusCheckCondition, Sense{}, ActionRetry, syscall.EIO},
		{"recovered error", StatusCheckCondition, check(KeyRecoveredError, 0x17, 0), ActionOK, 0},
		{"reset", StatusCheckCondition, check(KeyUnitAttention, 0x29, 0), ActionRetry, syscall.EIO},
		{"nexus loss", StatusCheckCondition, check(KeyUnitAttention, 0x29, 7), ActionRetry, syscall.EIO},
		{"commands cleared", StatusCheckCondition, check(KeyUnitAttention, 0x2f, 0), ActionRetry, syscall.EIO},
		{"unknown attention", StatusCheckCondition, check(KeyUnitAttention, 0x77, 0), ActionRetry, syscall.EIO},
		{"capacity changed", StatusCheckCondition, check(KeyUnitAttention, 0x2a, 9), ActionCapacityChanged, syscall.EIO},
		{"luns changed", StatusCheckCondition, check(KeyUnitAttention, 0x3f, 0x0e), ActionLUNsChanged, syscall.EIO},
		{"inquiry changed", StatusCheckCondition, check(KeyUnitAttention, 0x3f, 3), ActionInquiryChanged, syscall.EIO},
		{"mode parameters changed", StatusCheckCondition, check(KeyUnitAttention, 0x2a, 1), ActionInquiryChanged, syscall.EIO},
		{"medium may have changed", StatusCheckCondition, check(KeyUnitAttention, 0x28, 0), ActionInquiryChanged, syscall.EIO},
		{"access state changed", StatusCheckCondition, check(KeyUnitAttention, 0x2a, 6), ActionALUAChanged, syscall.EIO},
		{"implicit transition failed", StatusCheckCondition, check(KeyUnitAttention, 0x2a, 7), ActionALUAChanged, syscall.EIO},
		{"becoming ready", StatusCheckCondition, check(KeyNotReady, 4, 1), ActionRetryAfterDelay, syscall.ETIMEDOUT},
		{"in transition", StatusCheckCondition, check(KeyNotReady, 4, 0x0a), ActionRetryAfterDelay, syscall.ETIMEDOUT},
		{"standby", StatusCheckCondition, check(KeyNotReady, 4, 0x0b), ActionPathInactive, syscall.EIO},
		{"unavailable", StatusCheckCondition, check(KeyNotReady, 4, 0x0c), ActionPathInactive, syscall.EIO},
		{"manual intervention", StatusCheckCondition, check(KeyNotReady, 4, 3), ActionFatal, syscall.EIO},
		{"medium not present", StatusCheckCondition, check(KeyNotReady, 0x3a, 0), ActionFatal, syscall.EIO},
		{"read error", StatusCheckCondition, check(KeyMediumError, 0x11, 0), ActionMediumError, syscall.ENODATA},
		{"write error", StatusCheckCondition, check(KeyMediumError, 0x0c, 0), ActionMediumError, syscall.ENODATA},
		{"blank check", StatusCheckCondition, check(KeyBlankCheck, 0, 0), ActionMediumError, syscall.ENODATA},
		{"hardware error", StatusCheckCondition, check(KeyHardwareError, 0x44, 0), ActionFatal, syscall.EREMOTEIO},
		{"invalid opcode", StatusCheckCondition, check(KeyIllegalRequest, 0x20, 0), ActionUnsupported, syscall.EOPNOTSUPP},
		{"invalid field in cdb", StatusCheckCondition, check(KeyIllegalRequest, 0x24, 0), ActionUnsupported, syscall.EOPNOTSUPP},
		{"invalid field in list", StatusCheckCondition, check(KeyIllegalRequest, 0x26, 0), ActionUnsupported, syscall.EOPNOTSUPP},
		{"no such lun", StatusCheckCondition, check(KeyIllegalRequest, 0x25, 0), ActionNoLUN, syscall.EREMOTEIO},
		{"lba out of range", StatusCheckCondition, check(KeyIllegalRequest, 0x21, 0), ActionFatal, syscall.EREMOTEIO},
		{"guard check in the command", StatusCheckCondition, check(KeyIllegalRequest, 0x10, 1), ActionFatal, syscall.EILSEQ},
		{"guard check in the data", StatusCheckCondition, check(KeyAbortedCommand, 0x10, 1), ActionFatal, syscall.EILSEQ},
		{"write protected", StatusCheckCondition, check(KeyDataProtect, 0x27, 0), ActionWriteProtected, syscall.EREMOTEIO},
		{"software write protected", StatusCheckCondition, check(KeyDataProtect, 0x27, 2), ActionWriteProtected, syscall.EREMOTEIO},
		{"space exhausted", StatusCheckCondition, check(KeyDataProtect, 0x27, 7), ActionSpaceExhausted, syscall.ENOSPC},
		{"access denied", StatusCheckCondition, check(KeyDataProtect, 0x20, 2), ActionFatal, syscall.EREMOTEIO},
		{"aborted", StatusCheckCondition, check(KeyAbortedCommand, 0, 0), ActionRetry, syscall.EIO},
		{"aborted, target failure", StatusCheckCondition, check(KeyAbortedCommand, 0x44, 0), ActionRetry, syscall.EIO},
		{"miscompare", StatusCheckCondition, check(KeyMiscompare, 0x1d, 0), ActionFatal, syscall.EREMOTEIO},
		{
			"deferred write error", StatusCheckCondition,
			Sense{Deferred: true, Key: KeyMediumError, ASC: 0x0c},
			ActionDeferred, syscall.EIO,
		},
		{
			"deferred news", StatusCheckCondition,
			Sense{Deferred: true, Key: KeyRecoveredError},
			ActionRetry, syscall.EIO,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := Classify(test.status, test.sense); got != test.action {
				t.Errorf("action is %v, want %v", got, test.action)
			}
			if got := Errno(test.status, test.sense); got != test.errno {
				t.Errorf("errno is %v, want %v", got, test.errno)
			}
		})
	}
}

// ublkErrnos are the error numbers that keep their meaning through ublk.
var ublkErrnos = map[syscall.Errno]bool{
	syscall.ENOSPC: true, syscall.EOPNOTSUPP: true, syscall.ETIMEDOUT: true, syscall.EREMOTEIO: true,
	syscall.EBADE: true, syscall.ENODATA: true, syscall.EILSEQ: true, syscall.EIO: true,
}

func TestEveryOutcomeHasAnErrnoExactlyIfItIsNotOK(t *testing.T) {
	for status := range 256 {
		for key := range 16 {
			for asc := range 256 {
				for _, ascq := range []uint8{0, 1, 3, 6, 7, 9, 0x0a, 0x0b, 0x0e} {
					s := Sense{Key: SenseKey(key), ASC: uint8(asc), ASCQ: ascq}
					errno := Errno(Status(status), s)
					ok := Classify(Status(status), s) == ActionOK
					if ok != (errno == 0) || (!ok && !ublkErrnos[errno]) {
						t.Fatalf("status %#x sense %v: ok %v, errno %v", status, s, ok, errno)
					}
					if Status(status) != StatusCheckCondition {
						break
					}
				}
			}
		}
	}
}

func TestActionsKnowWhetherTheCommandMayBeSentAgain(t *testing.T) {
	retryable := map[Action]bool{
		ActionRetry: true, ActionRetryAfterDelay: true, ActionDeferred: true, ActionCapacityChanged: true,
		ActionLUNsChanged: true, ActionInquiryChanged: true, ActionALUAChanged: true, ActionPathInactive: true,
	}
	for a := ActionOK; a <= ActionFatal; a++ {
		if a.Retryable() != retryable[a] {
			t.Errorf("%v retryable: %v", a, a.Retryable())
		}
	}
}

func TestEveryCodeHasAPrintableName(t *testing.T) {
	for v := range 256 {
		u := uint8(v)
		for i, name := range []string{
			Status(u).String(), SenseKey(u).String(), Action(u).String(), AccessState(u).String(),
		} {
			if name == "" {
				t.Errorf("code %#02x of kind %d has no name", u, i)
			}
		}
	}
	if got := StatusReservationConflict.String(); got != "RESERVATION CONFLICT" {
		t.Errorf("status is called %q", got)
	}
}
