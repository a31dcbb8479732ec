package scsi

import "fmt"

// Action is what an initiator should do about the end of a command.
type Action uint8

// Actions. Retries are for the caller to bound, in count or in time.
const (
	// ActionOK: the command did what was asked.
	ActionOK Action = iota
	// ActionRetry: the command was not performed or may be repeated; retry now.
	ActionRetry
	// ActionRetryAfterDelay: the unit or the path is busy; retry after a pause.
	ActionRetryAfterDelay
	// ActionDeferred: an earlier write that already had good status failed, and
	// this command was not performed. Retry it, and fail the next flush.
	ActionDeferred
	// ActionCapacityChanged: read the capacity again, then retry.
	ActionCapacityChanged
	// ActionLUNsChanged: list the units again, then retry.
	ActionLUNsChanged
	// ActionInquiryChanged: read identity, limits and mode pages of the unit
	// again, then retry.
	ActionInquiryChanged
	// ActionALUAChanged: read the target port groups again, then retry.
	ActionALUAChanged
	// ActionPathInactive: this target port is in standby or unavailable state;
	// retry on another path.
	ActionPathInactive
	// ActionMediumError: the data cannot be read or written; do not retry.
	ActionMediumError
	// ActionWriteProtected: the unit takes no writes.
	ActionWriteProtected
	// ActionUnsupported: the unit knows no such command or field.
	ActionUnsupported
	// ActionNoLUN: the target has no such unit, or no longer.
	ActionNoLUN
	// ActionSpaceExhausted: a thin unit has no space left.
	ActionSpaceExhausted
	// ActionReservationConflict: another host holds the unit. It is no fault of
	// the path, so never fail over for it.
	ActionReservationConflict
	// ActionFatal: the command failed for a reason no retry helps.
	ActionFatal
)

var actionNames = [...]string{
	ActionOK:                  "ok",
	ActionRetry:               "retry",
	ActionRetryAfterDelay:     "retry after delay",
	ActionDeferred:            "deferred error",
	ActionCapacityChanged:     "capacity changed",
	ActionLUNsChanged:         "luns changed",
	ActionInquiryChanged:      "inquiry data changed",
	ActionALUAChanged:         "access state changed",
	ActionPathInactive:        "path inactive",
	ActionMediumError:         "medium error",
	ActionWriteProtected:      "write protected",
	ActionUnsupported:         "unsupported",
	ActionNoLUN:               "no such lun",
	ActionSpaceExhausted:      "space exhausted",
	ActionReservationConflict: "reservation conflict",
	ActionFatal:               "fatal",
}

// String returns the name of the action in lower case.
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action %d", uint8(a))
}

// Retryable reports whether the same command may be sent again, at once or
// after what the action asks for.
func (a Action) Retryable() bool { return a >= ActionRetry && a <= ActionPathInactive }

// Classify says what to do about a command that ended with status. sense is
// looked at only for CHECK CONDITION; its zero value stands for missing or
// unreadable sense, which is worth a bounded retry.
func Classify(status Status, sense Sense) Action {
	switch status {
	case StatusGood, StatusConditionMet:
		return ActionOK
	case StatusCheckCondition:
		return classifySense(sense)
	case StatusBusy, StatusTaskSetFull, StatusACAActive:
		return ActionRetryAfterDelay
	case StatusTaskAborted:
		return ActionRetry
	case StatusReservationConflict:
		return ActionReservationConflict
	}
	return ActionFatal
}

func classifySense(s Sense) Action {
	if s.Deferred {
		return classifyDeferred(s)
	}
	switch s.Key {
	case KeyRecoveredError, KeyCompleted:
		return ActionOK
	case KeyNoSense:
		return ActionRetry
	case KeyNotReady:
		return classifyNotReady(s)
	case KeyMediumError, KeyBlankCheck:
		return ActionMediumError
	case KeyIllegalRequest:
		return classifyIllegal(s)
	case KeyUnitAttention:
		return classifyAttention(s)
	case KeyDataProtect:
		return classifyProtect(s)
	case KeyAbortedCommand:
		return classifyAborted(s)
	}
	return ActionFatal
}

// classifyDeferred keeps the news that need no command to have failed apart
// from real deferred errors.
func classifyDeferred(s Sense) Action {
	if s.Key == KeyNoSense || s.Key == KeyRecoveredError || s.Key == KeyUnitAttention {
		return ActionRetry
	}
	return ActionDeferred
}

func classifyNotReady(s Sense) Action {
	switch ascKey(s.ASC, s.ASCQ) {
	case 0x0401, 0x0404, 0x0405, 0x0406, 0x0407, 0x0408, 0x0409, 0x040a, 0x0414, 0x041a, 0x041b:
		return ActionRetryAfterDelay // each ends by itself
	case 0x040b, 0x040c:
		return ActionPathInactive
	}
	return ActionFatal
}

func classifyIllegal(s Sense) Action {
	switch s.ASC {
	case 0x20, 0x24, 0x26:
		return ActionUnsupported
	case 0x25:
		return ActionNoLUN
	}
	return ActionFatal
}

func classifyAttention(s Sense) Action {
	switch ascKey(s.ASC, s.ASCQ) {
	case 0x2a06, 0x2a07:
		return ActionALUAChanged
	case 0x2a09:
		return ActionCapacityChanged
	case 0x2800, 0x2a01, 0x3f03, 0x3f05:
		return ActionInquiryChanged
	case 0x3f0e:
		return ActionLUNsChanged
	}
	return ActionRetry
}

func classifyProtect(s Sense) Action {
	switch {
	case s.ASC == 0x27 && s.ASCQ == 0x07:
		return ActionSpaceExhausted
	case s.ASC == 0x27:
		return ActionWriteProtected
	}
	return ActionFatal
}

// classifyAborted retries everything but protection errors: the unit has seen
// the data and found it bad.
func classifyAborted(s Sense) Action {
	if s.ASC == ascProtection {
		return ActionFatal
	}
	return ActionRetry
}
