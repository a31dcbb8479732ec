package pdu

const (
	offReason       = 2
	offRejectDataSN = 36
)

// RejectReason says why a target rejected a PDU (RFC 7143 11.17.1).
type RejectReason uint8

// Reject reasons.
const (
	RejectDataDigest       RejectReason = 0x02
	RejectSNACK            RejectReason = 0x03
	RejectProtocolError    RejectReason = 0x04
	RejectNotSupported     RejectReason = 0x05
	RejectImmediate        RejectReason = 0x06 // too many immediate commands
	RejectTaskInProgress   RejectReason = 0x07
	RejectInvalidDataAck   RejectReason = 0x08
	RejectInvalidField     RejectReason = 0x09
	RejectLongOperation    RejectReason = 0x0a
	RejectWaitingForLogout RejectReason = 0x0c
)

var rejectNames = [...]string{
	RejectDataDigest:       "data digest error",
	RejectSNACK:            "snack reject",
	RejectProtocolError:    "protocol error",
	RejectNotSupported:     "command not supported",
	RejectImmediate:        "too many immediate commands",
	RejectTaskInProgress:   "task in progress",
	RejectInvalidDataAck:   "invalid data ack",
	RejectInvalidField:     "invalid pdu field",
	RejectLongOperation:    "out of resources for long operation",
	RejectWaitingForLogout: "waiting for logout",
}

// String returns the meaning of the reason.
func (r RejectReason) String() string {
	if int(r) < len(rejectNames) && rejectNames[r] != "" {
		return rejectNames[r]
	}
	return hexName("reason", uint8(r))
}

// Reject is the view of a Reject (RFC 7143 11.17).
type Reject []byte

// RejectFields are the parts of a Reject.
type RejectFields struct {
	Reason   RejectReason
	DataLen  int // header of the rejected PDU behind this one, in bytes
	StatSN   StatSN
	ExpCmdSN CmdSN
	MaxCmdSN CmdSN
	DataSN   uint32
}

// Encode writes the header into the first BHSLen bytes of dst, which must
// have that many.
func (f RejectFields) Encode(dst []byte) {
	p := begin(dst, OpReject, false, reservedFlags, f.DataLen)
	p[offReason] = byte(f.Reason)
	put32(p, offITT, uint32(ReservedITT))
	putSequence(p, f.StatSN, f.ExpCmdSN, f.MaxCmdSN)
	put32(p, offRejectDataSN, f.DataSN)
}

// Validate reports an *Error unless p is a whole Reject followed by the
// dataLen bytes it announces. It asks no more, because the reason of a badly
// filled Reject is still worth telling the user.
func (p Reject) Validate(dataLen int) error { return check(p, OpReject, dataLen) }

// Rejected returns the view of the header the target rejected, which opens the
// data segment (RFC 7143 11.17.4). It aliases data.
func (p Reject) Rejected(data []byte) (BHS, error) {
	if len(data) < BHSLen {
		return nil, bad(OpReject, "DataSegment", "%d bytes, a rejected header has %d", len(data), BHSLen)
	}
	return Parse(data)
}

// Reason returns why the PDU was rejected.
func (p Reject) Reason() RejectReason { return RejectReason(p[offReason]) }

// DataSegmentLength returns the length of the rejected header in bytes.
func (p Reject) DataSegmentLength() int { return getDataLen(p) }

// StatSN returns the status sequence number.
func (p Reject) StatSN() StatSN { return BHS(p).StatSN() }

// ExpCmdSN returns the next command the target expects.
func (p Reject) ExpCmdSN() CmdSN { return BHS(p).ExpCmdSN() }

// MaxCmdSN returns the last command the target takes now.
func (p Reject) MaxCmdSN() CmdSN { return BHS(p).MaxCmdSN() }

// DataSN returns the data or R2T sequence number of a rejected SNACK.
func (p Reject) DataSN() uint32 { return get32(p, offRejectDataSN) }
