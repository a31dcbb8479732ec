package pdu

import "iserblk/session/scsi"

// Offsets in a SCSI Response (RFC 7143 11.4).
const (
	offResponse     = 2
	offStatus       = 3
	offSNACKTag     = 20
	offExpDataSN    = 36
	offBidiResidual = 40
	offResidual     = 44
)

const (
	responseBidiOverflow  = 0x10
	responseBidiUnderflow = 0x08
	responseOverflow      = 0x04
	responseUnderflow     = 0x02
)

// ResponseCode says whether a SCSI status is there at all (RFC 7143 11.4.3).
type ResponseCode uint8

// Response codes.
const (
	ResponseCompleted     ResponseCode = 0x00 // the status field is valid
	ResponseTargetFailure ResponseCode = 0x01
)

// SCSIResponse is the view of a SCSI Response (RFC 7143 11.4).
type SCSIResponse []byte

// SCSIResponseFields are the parts of a SCSI Response.
type SCSIResponseFields struct {
	BidiOverflow  bool
	BidiUnderflow bool
	Overflow      bool
	Underflow     bool
	Response      ResponseCode
	Status        scsi.Status
	DataLen       int // sense and response data behind the header, in bytes
	ITT           ITT
	StatSN        StatSN
	ExpCmdSN      CmdSN
	MaxCmdSN      CmdSN
	ExpDataSN     uint32
	BidiResidual  uint32 // bytes
	Residual      uint32 // bytes
}

// Encode writes the header into the first BHSLen bytes of dst, which must
// have that many.
func (f SCSIResponseFields) Encode(dst []byte) {
	flags := reservedFlags | flag(f.BidiOverflow, responseBidiOverflow) |
		flag(f.BidiUnderflow, responseBidiUnderflow) |
		flag(f.Overflow, responseOverflow) | flag(f.Underflow, responseUnderflow)
	p := begin(dst, OpSCSIResponse, false, flags, f.DataLen)
	p[offResponse] = byte(f.Response)
	p[offStatus] = byte(f.Status)
	put32(p, offITT, uint32(f.ITT))
	putSequence(p, f.StatSN, f.ExpCmdSN, f.MaxCmdSN)
	put32(p, offExpDataSN, f.ExpDataSN)
	put32(p, offBidiResidual, f.BidiResidual)
	put32(p, offResidual, f.Residual)
}

// Validate reports an *Error unless p is a whole SCSI Response, names a task,
// has a data segment that matches the dataLen bytes behind it, and does not
// claim an overflow and an underflow at once.
func (p SCSIResponse) Validate(dataLen int) error {
	if err := checkReply(p, OpSCSIResponse, dataLen); err != nil {
		return err
	}
	if p.Overflow() && p.Underflow() {
		return bad(OpSCSIResponse, "Flags", "residual overflow and underflow both set")
	}
	if p.BidiOverflow() && p.BidiUnderflow() {
		return bad(OpSCSIResponse, "Flags", "bidirectional overflow and underflow both set")
	}
	return nil
}

// Transferred returns how many of edtl bytes the target says it moved. An
// overflow moved them all. A residual above edtl is an *Error.
func (p SCSIResponse) Transferred(edtl uint32) (uint32, error) {
	if !p.Underflow() {
		return edtl, nil
	}
	r := p.Residual()
	if r > edtl {
		return 0, bad(OpSCSIResponse, "ResidualCount", "%d of %d bytes missing", r, edtl)
	}
	return edtl - r, nil
}

// BidiOverflow reports the o bit (RFC 7143 11.4.1).
func (p SCSIResponse) BidiOverflow() bool { return p[offFlags]&responseBidiOverflow != 0 }

// BidiUnderflow reports the u bit.
func (p SCSIResponse) BidiUnderflow() bool { return p[offFlags]&responseBidiUnderflow != 0 }

// Overflow reports the O bit: the unit had more data than was asked for.
func (p SCSIResponse) Overflow() bool { return p[offFlags]&responseOverflow != 0 }

// Underflow reports the U bit: Residual bytes were not moved.
func (p SCSIResponse) Underflow() bool { return p[offFlags]&responseUnderflow != 0 }

// Response returns the iSCSI service response.
func (p SCSIResponse) Response() ResponseCode { return ResponseCode(p[offResponse]) }

// Status returns the SCSI status. It has a meaning only if Response is
// ResponseCompleted.
func (p SCSIResponse) Status() scsi.Status { return scsi.Status(p[offStatus]) }

// DataSegmentLength returns the length of the sense and response data in bytes.
func (p SCSIResponse) DataSegmentLength() int { return getDataLen(p) }

// ITT returns the tag of the task that ended.
func (p SCSIResponse) ITT() ITT { return getITT(p) }

// StatSN returns the status sequence number.
func (p SCSIResponse) StatSN() StatSN { return BHS(p).StatSN() }

// ExpCmdSN returns the next command the target expects.
func (p SCSIResponse) ExpCmdSN() CmdSN { return BHS(p).ExpCmdSN() }

// MaxCmdSN returns the last command the target takes now.
func (p SCSIResponse) MaxCmdSN() CmdSN { return BHS(p).MaxCmdSN() }

// ExpDataSN returns the number of Data-In PDUs sent, which iSER does not use.
func (p SCSIResponse) ExpDataSN() uint32 { return get32(p, offExpDataSN) }

// BidiResidual returns the bidirectional read residual in bytes.
func (p SCSIResponse) BidiResidual() uint32 { return get32(p, offBidiResidual) }

// Residual returns the residual count in bytes; the flags say of which kind.
func (p SCSIResponse) Residual() uint32 { return get32(p, offResidual) }

// String returns the meaning of the response code.
func (c ResponseCode) String() string {
	switch c {
	case ResponseCompleted:
		return "command completed at target"
	case ResponseTargetFailure:
		return "target failure"
	}
	return hexName("response", uint8(c))
}
