package pdu

import "iserblk/session/scsi"

// NOPOut is the view of a NOP-Out (RFC 7143 11.18): a ping, or the answer to a
// target's ping.
type NOPOut []byte

// NOPOutFields are the parts of a NOP-Out. A ping has an ITT of its own and
// ReservedTTT. An answer has ReservedITT, the TTT and the LUN of the NOP-In,
// and is immediate.
type NOPOutFields struct {
	Immediate bool
	DataLen   int // ping data behind the header, in bytes
	LUN       scsi.LUN
	ITT       ITT
	TTT       TTT
	CmdSN     CmdSN
	ExpStatSN StatSN
}

// Encode writes the header into the first BHSLen bytes of dst, which must
// have that many.
func (f NOPOutFields) Encode(dst []byte) {
	p := begin(dst, OpNOPOut, f.Immediate, reservedFlags, f.DataLen)
	putLUN(p, f.LUN)
	put32(p, offITT, uint32(f.ITT))
	put32(p, offTTT, uint32(f.TTT))
	put32(p, offCmdSN, uint32(f.CmdSN))
	put32(p, offExpStatSN, uint32(f.ExpStatSN))
}

// Validate reports an *Error unless p is a whole NOP-Out followed by the
// dataLen bytes it announces. One that expects no answer must be immediate
// (RFC 7143 11.18.1).
func (p NOPOut) Validate(dataLen int) error {
	if err := check(p, OpNOPOut, dataLen); err != nil {
		return err
	}
	if p.ITT() == ReservedITT && !p.Immediate() {
		return bad(OpNOPOut, "InitiatorTaskTag", "reserved value, but not immediate")
	}
	return nil
}

// Immediate reports the I bit: the ping consumes no CmdSN.
func (p NOPOut) Immediate() bool { return BHS(p).Immediate() }

// DataSegmentLength returns the length of the ping data in bytes.
func (p NOPOut) DataSegmentLength() int { return getDataLen(p) }

// LUN returns the LUN of the NOP-In this answers.
func (p NOPOut) LUN() scsi.LUN { return getLUN(p) }

// ITT returns the tag of the ping, or ReservedITT if no answer is wanted.
func (p NOPOut) ITT() ITT { return getITT(p) }

// TTT returns the tag of the NOP-In this answers, or ReservedTTT.
func (p NOPOut) TTT() TTT { return getTTT(p) }

// CmdSN returns the command sequence number.
func (p NOPOut) CmdSN() CmdSN { return BHS(p).CmdSN() }

// ExpStatSN returns the acknowledged status.
func (p NOPOut) ExpStatSN() StatSN { return BHS(p).ExpStatSN() }
