package pdu

import "time"

// Offsets in a Logout Response (RFC 7143 11.15).
const (
	offTime2Wait   = 40
	offTime2Retain = 42
)

// LogoutOutcome is the response code of a logout (RFC 7143 11.15.1).
type LogoutOutcome uint8

// Logout outcomes.
const (
	LogoutClosed          LogoutOutcome = 0
	LogoutCIDNotFound     LogoutOutcome = 1
	LogoutRecoveryNotSupp LogoutOutcome = 2
	LogoutCleanupFailed   LogoutOutcome = 3
)

var logoutOutcomeNames = [...]string{
	LogoutClosed:          "closed",
	LogoutCIDNotFound:     "cid not found",
	LogoutRecoveryNotSupp: "connection recovery not supported",
	LogoutCleanupFailed:   "cleanup failed",
}

// String returns the meaning of the outcome.
func (o LogoutOutcome) String() string {
	if int(o) < len(logoutOutcomeNames) {
		return logoutOutcomeNames[o]
	}
	return hexName("response", uint8(o))
}

// LogoutResponse is the view of a Logout Response (RFC 7143 11.15).
type LogoutResponse []byte

// LogoutResponseFields are the parts of a Logout Response.
type LogoutResponseFields struct {
	Response    LogoutOutcome
	ITT         ITT
	StatSN      StatSN
	ExpCmdSN    CmdSN
	MaxCmdSN    CmdSN
	Time2Wait   uint16 // seconds
	Time2Retain uint16 // seconds
}

// Encode writes the header into the first BHSLen bytes of dst, which must
// have that many.
func (f LogoutResponseFields) Encode(dst []byte) {
	p := begin(dst, OpLogoutResponse, false, reservedFlags, 0)
	p[offResponse] = byte(f.Response)
	put32(p, offITT, uint32(f.ITT))
	putSequence(p, f.StatSN, f.ExpCmdSN, f.MaxCmdSN)
	put16(p, offTime2Wait, f.Time2Wait)
	put16(p, offTime2Retain, f.Time2Retain)
}

// Validate reports an *Error unless p is a whole response that names its
// request and has no data segment. dataLen counts the bytes that followed it,
// which may only be padding.
func (p LogoutResponse) Validate(dataLen int) error {
	if err := checkReply(p, OpLogoutResponse, dataLen); err != nil {
		return err
	}
	return checkBare(p, OpLogoutResponse)
}

// Response returns the outcome.
func (p LogoutResponse) Response() LogoutOutcome { return LogoutOutcome(p[offResponse]) }

// ITT returns the tag of the request this answers.
func (p LogoutResponse) ITT() ITT { return getITT(p) }

// StatSN returns the status sequence number.
func (p LogoutResponse) StatSN() StatSN { return BHS(p).StatSN() }

// ExpCmdSN returns the next command the target expects.
func (p LogoutResponse) ExpCmdSN() CmdSN { return BHS(p).ExpCmdSN() }

// MaxCmdSN returns the last command the target takes now.
func (p LogoutResponse) MaxCmdSN() CmdSN { return BHS(p).MaxCmdSN() }

// Time2Wait returns how long to wait before logging in again.
func (p LogoutResponse) Time2Wait() time.Duration { return getSeconds(p, offTime2Wait) }

// Time2Retain returns how long, after Time2Wait, tasks stay recoverable.
func (p LogoutResponse) Time2Retain() time.Duration { return getSeconds(p, offTime2Retain) }

func getSeconds(p []byte, off int) time.Duration {
	return time.Duration(get16(p, off)) * time.Second
}
