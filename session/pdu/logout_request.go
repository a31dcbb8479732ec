package pdu

const reasonMask = 0x7f

// LogoutReason says what a logout closes (RFC 7143 11.14.1).
type LogoutReason uint8

// Logout reasons.
const (
	LogoutCloseSession    LogoutReason = 0
	LogoutCloseConnection LogoutReason = 1
	LogoutForRecovery     LogoutReason = 2
)

// String returns the meaning of the reason.
func (r LogoutReason) String() string {
	switch r {
	case LogoutCloseSession:
		return "close the session"
	case LogoutCloseConnection:
		return "close the connection"
	case LogoutForRecovery:
		return "remove the connection for recovery"
	}
	return hexName("reason", uint8(r))
}

// LogoutRequest is the view of a Logout Request (RFC 7143 11.14).
type LogoutRequest []byte

// LogoutRequestFields are the parts of a Logout Request.
type LogoutRequestFields struct {
	Immediate bool
	Reason    LogoutReason
	ITT       ITT
	CID       CID // the connection to close; ignored when closing the session
	CmdSN     CmdSN
	ExpStatSN StatSN
}

// Encode writes the header into the first BHSLen bytes of dst, which must
// have that many.
func (f LogoutRequestFields) Encode(dst []byte) {
	p := begin(dst, OpLogoutRequest, f.Immediate, reservedFlags|byte(f.Reason)&reasonMask, 0)
	put32(p, offITT, uint32(f.ITT))
	put16(p, offCID, uint16(f.CID))
	put32(p, offCmdSN, uint32(f.CmdSN))
	put32(p, offExpStatSN, uint32(f.ExpStatSN))
}

// Validate reports an *Error unless p is a whole request without a data segment.
// dataLen counts the bytes that followed it, which may only be padding.
func (p LogoutRequest) Validate(dataLen int) error {
	if err := check(p, OpLogoutRequest, dataLen); err != nil {
		return err
	}
	return checkBare(p, OpLogoutRequest)
}

// Immediate reports the I bit: the request consumes no CmdSN.
func (p LogoutRequest) Immediate() bool { return BHS(p).Immediate() }

// Reason returns what is to be closed.
func (p LogoutRequest) Reason() LogoutReason { return LogoutReason(p[offFlags] & reasonMask) }

// ITT returns the tag of the request.
func (p LogoutRequest) ITT() ITT { return getITT(p) }

// CID returns the connection to close.
func (p LogoutRequest) CID() CID { return CID(get16(p, offCID)) }

// CmdSN returns the command sequence number.
func (p LogoutRequest) CmdSN() CmdSN { return BHS(p).CmdSN() }

// ExpStatSN returns the acknowledged status.
func (p LogoutRequest) ExpStatSN() StatSN { return BHS(p).ExpStatSN() }
