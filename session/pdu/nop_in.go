package pdu

import "iserblk/session/scsi"

// NOPIn is the view of a NOP-In (RFC 7143 11.19): the answer to a ping, a
// target's own ping, or bare news about the command window.
type NOPIn []byte

// NOPInFields are the parts of a NOP-In.
type NOPInFields struct {
	DataLen  int // ping data behind the header, in bytes
	LUN      scsi.LUN
	ITT      ITT // of the ping this answers, else ReservedITT
	TTT      TTT // for the answer the target wants, else ReservedTTT
	StatSN   StatSN
	ExpCmdSN CmdSN
	MaxCmdSN CmdSN
}

// Encode writes the header into the first BHSLen bytes of dst, which must
// have that many.
func (f NOPInFields) Encode(dst []byte) {
	p := begin(dst, OpNOPIn, false, reservedFlags, f.DataLen)
	putLUN(p, f.LUN)
	put32(p, offITT, uint32(f.ITT))
	put32(p, offTTT, uint32(f.TTT))
	putSequence(p, f.StatSN, f.ExpCmdSN, f.MaxCmdSN)
}

// Validate reports an *Error unless p is a whole NOP-In followed by the
// dataLen bytes it announces and is not an answer and a ping at once
// (RFC 7143 11.19.1).
func (p NOPIn) Validate(dataLen int) error {
	if err := check(p, OpNOPIn, dataLen); err != nil {
		return err
	}
	if p.ITT() != ReservedITT && p.TTT() != ReservedTTT {
		return bad(OpNOPIn, "TargetTransferTag", "0x%08x in the answer to a ping", uint32(p.TTT()))
	}
	return nil
}

// WantsAnswer reports that the target pings and waits for a NOP-Out with its
// TTT. Without it, answering is a protocol error.
func (p NOPIn) WantsAnswer() bool { return p.TTT() != ReservedTTT }

// DataSegmentLength returns the length of the ping data in bytes.
func (p NOPIn) DataSegmentLength() int { return getDataLen(p) }

// LUN returns the LUN to copy into the answer.
func (p NOPIn) LUN() scsi.LUN { return getLUN(p) }

// ITT returns the tag of the ping this answers, or ReservedITT.
func (p NOPIn) ITT() ITT { return getITT(p) }

// TTT returns the tag to answer with, or ReservedTTT.
func (p NOPIn) TTT() TTT { return getTTT(p) }

// StatSN returns the status sequence number; it counts only in an answer to a
// ping (RFC 7143 11.19.2).
func (p NOPIn) StatSN() StatSN { return BHS(p).StatSN() }

// ExpCmdSN returns the next command the target expects.
func (p NOPIn) ExpCmdSN() CmdSN { return BHS(p).ExpCmdSN() }

// MaxCmdSN returns the last command the target takes now.
func (p NOPIn) MaxCmdSN() CmdSN { return BHS(p).MaxCmdSN() }
