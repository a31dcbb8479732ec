package pdu

import "iserblk/session/scsi"

// TextRequest is the view of a Text Request (RFC 7143 11.10).
type TextRequest []byte

// TextRequestFields are the parts of a Text Request.
type TextRequestFields struct {
	Immediate bool
	Final     bool // F: the initiator has no more text
	Continue  bool // C: the text goes on in the next request
	DataLen   int  // text behind the header, in bytes
	LUN       scsi.LUN
	ITT       ITT
	TTT       TTT // copied from the response this continues, else ReservedTTT
	CmdSN     CmdSN
	ExpStatSN StatSN
}

// Encode writes the header into the first BHSLen bytes of dst, which must
// have that many.
func (f TextRequestFields) Encode(dst []byte) {
	flags := flag(f.Final, finalBit) | flag(f.Continue, continueBit)
	p := begin(dst, OpTextRequest, f.Immediate, flags, f.DataLen)
	putLUN(p, f.LUN)
	put32(p, offITT, uint32(f.ITT))
	put32(p, offTTT, uint32(f.TTT))
	put32(p, offCmdSN, uint32(f.CmdSN))
	put32(p, offExpStatSN, uint32(f.ExpStatSN))
}

// Validate reports an *Error unless p is a whole request with legal flags and
// the dataLen bytes it announces.
func (p TextRequest) Validate(dataLen int) error {
	if err := check(p, OpTextRequest, dataLen); err != nil {
		return err
	}
	return checkTextFlags(p, OpTextRequest)
}

func checkTextFlags(p []byte, op Opcode) error {
	if p[offFlags]&finalBit != 0 && p[offFlags]&continueBit != 0 {
		return bad(op, "Flags", "F and C both set")
	}
	return nil
}

// Immediate reports the I bit: the request consumes no CmdSN.
func (p TextRequest) Immediate() bool { return BHS(p).Immediate() }

// Final reports the F bit.
func (p TextRequest) Final() bool { return BHS(p).Final() }

// Continue reports the C bit.
func (p TextRequest) Continue() bool { return p[offFlags]&continueBit != 0 }

// DataSegmentLength returns the length of the text in bytes.
func (p TextRequest) DataSegmentLength() int { return getDataLen(p) }

// LUN returns the LUN copied along with the TTT.
func (p TextRequest) LUN() scsi.LUN { return getLUN(p) }

// ITT returns the tag of the negotiation.
func (p TextRequest) ITT() ITT { return getITT(p) }

// TTT returns the target's tag for the negotiation.
func (p TextRequest) TTT() TTT { return getTTT(p) }

// CmdSN returns the command sequence number.
func (p TextRequest) CmdSN() CmdSN { return BHS(p).CmdSN() }

// ExpStatSN returns the acknowledged status.
func (p TextRequest) ExpStatSN() StatSN { return BHS(p).ExpStatSN() }
