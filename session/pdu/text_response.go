package pdu

import "iserblk/session/scsi"

// TextResponse is the view of a Text Response (RFC 7143 11.11).
type TextResponse []byte

// TextResponseFields are the parts of a Text Response.
type TextResponseFields struct {
	Final    bool // F: the negotiation is over
	Continue bool // C: the text goes on in the next response
	DataLen  int  // text behind the header, in bytes
	LUN      scsi.LUN
	ITT      ITT
	TTT      TTT // ReservedTTT exactly when Final
	StatSN   StatSN
	ExpCmdSN CmdSN
	MaxCmdSN CmdSN
}

// Encode writes the header into the first BHSLen bytes of dst, which must
// have that many.
func (f TextResponseFields) Encode(dst []byte) {
	flags := flag(f.Final, finalBit) | flag(f.Continue, continueBit)
	p := begin(dst, OpTextResponse, false, flags, f.DataLen)
	putLUN(p, f.LUN)
	put32(p, offITT, uint32(f.ITT))
	put32(p, offTTT, uint32(f.TTT))
	putSequence(p, f.StatSN, f.ExpCmdSN, f.MaxCmdSN)
}

// Validate reports an *Error unless p is a whole response that names its
// request, has legal flags and the dataLen bytes it announces. Without F there
// must be a target transfer tag to go on with (RFC 7143 11.11.4).
func (p TextResponse) Validate(dataLen int) error {
	if err := checkReply(p, OpTextResponse, dataLen); err != nil {
		return err
	}
	if err := checkTextFlags(p, OpTextResponse); err != nil {
		return err
	}
	if !p.Final() && p.TTT() == ReservedTTT {
		return bad(OpTextResponse, "TargetTransferTag", "reserved value in a response that is not final")
	}
	return nil
}

// Final reports the F bit.
func (p TextResponse) Final() bool { return BHS(p).Final() }

// Continue reports the C bit.
func (p TextResponse) Continue() bool { return p[offFlags]&continueBit != 0 }

// DataSegmentLength returns the length of the text in bytes.
func (p TextResponse) DataSegmentLength() int { return getDataLen(p) }

// LUN returns the LUN to copy along with the TTT.
func (p TextResponse) LUN() scsi.LUN { return getLUN(p) }

// ITT returns the tag of the negotiation.
func (p TextResponse) ITT() ITT { return getITT(p) }

// TTT returns the tag to continue with.
func (p TextResponse) TTT() TTT { return getTTT(p) }

// StatSN returns the status sequence number.
func (p TextResponse) StatSN() StatSN { return BHS(p).StatSN() }

// ExpCmdSN returns the next command the target expects.
func (p TextResponse) ExpCmdSN() CmdSN { return BHS(p).ExpCmdSN() }

// MaxCmdSN returns the last command the target takes now.
func (p TextResponse) MaxCmdSN() CmdSN { return BHS(p).MaxCmdSN() }
