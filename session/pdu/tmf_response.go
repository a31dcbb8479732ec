package pdu

// TMResponse is the outcome of a task management function (RFC 7143 11.6.1).
type TMResponse uint8

// Task management outcomes.
const (
	TMComplete              TMResponse = 0
	TMNoTask                TMResponse = 1
	TMNoLUN                 TMResponse = 2
	TMTaskStillAllegiant    TMResponse = 3
	TMReassignNotSupported  TMResponse = 4
	TMFunctionNotSupported  TMResponse = 5
	TMFunctionNotAuthorized TMResponse = 6
	TMFunctionRejected      TMResponse = 255
)

var tmResponseNames = [...]string{
	TMComplete:              "function complete",
	TMNoTask:                "task does not exist",
	TMNoLUN:                 "lun does not exist",
	TMTaskStillAllegiant:    "task still allegiant",
	TMReassignNotSupported:  "task allegiance reassignment not supported",
	TMFunctionNotSupported:  "function not supported",
	TMFunctionNotAuthorized: "function authorization failed",
}

// String returns the meaning of the outcome.
func (r TMResponse) String() string {
	switch {
	case int(r) < len(tmResponseNames):
		return tmResponseNames[r]
	case r == TMFunctionRejected:
		return "function rejected"
	}
	return hexName("response", uint8(r))
}

// TMFResponse is the view of a Task Management Function Response (RFC 7143
// 11.6).
type TMFResponse []byte

// TMFResponseFields are the parts of a Task Management Function Response.
type TMFResponseFields struct {
	Response TMResponse
	ITT      ITT
	StatSN   StatSN
	ExpCmdSN CmdSN
	MaxCmdSN CmdSN
}

// Encode writes the header into the first BHSLen bytes of dst, which must
// have that many.
func (f TMFResponseFields) Encode(dst []byte) {
	p := begin(dst, OpTMFResponse, false, reservedFlags, 0)
	p[offResponse] = byte(f.Response)
	put32(p, offITT, uint32(f.ITT))
	putSequence(p, f.StatSN, f.ExpCmdSN, f.MaxCmdSN)
}

// Validate reports an *Error unless p is a whole response that names its
// request and has no data segment. dataLen counts the bytes that followed it,
// which may only be padding.
func (p TMFResponse) Validate(dataLen int) error {
	if err := checkReply(p, OpTMFResponse, dataLen); err != nil {
		return err
	}
	return checkBare(p, OpTMFResponse)
}

// Response returns the outcome.
func (p TMFResponse) Response() TMResponse { return TMResponse(p[offResponse]) }

// ITT returns the tag of the request this answers.
func (p TMFResponse) ITT() ITT { return getITT(p) }

// StatSN returns the status sequence number.
func (p TMFResponse) StatSN() StatSN { return BHS(p).StatSN() }

// ExpCmdSN returns the next command the target expects.
func (p TMFResponse) ExpCmdSN() CmdSN { return BHS(p).ExpCmdSN() }

// MaxCmdSN returns the last command the target takes now.
func (p TMFResponse) MaxCmdSN() CmdSN { return BHS(p).MaxCmdSN() }
