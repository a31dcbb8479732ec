package pdu

import (
	"encoding/binary"

	"iserblk/session/scsi"
)

const (
	// BHSLen is the length of a basic header segment in bytes (RFC 7143 11.2.1).
	BHSLen = 48
	// MaxDataSegmentLength is the largest value of the 24-bit
	// DataSegmentLength field, in bytes.
	MaxDataSegmentLength = 1<<24 - 1
	// MaxPad is how many bytes may follow the data segment to fill its last
	// four-byte word (RFC 7143 11.1). On iSER they show up as message
	// bytes that DataSegmentLength does not count.
	MaxPad = 3
)

// Offsets of the fields that sit in the same place in every BHS, or in every
// BHS of one direction (RFC 7143 11.2.1).
const (
	offOpcode     = 0
	offFlags      = 1
	offAHSLen     = 4
	offDataLen    = 5
	offLUN        = 8
	offITT        = 16
	offTTT        = 20
	offCmdSN      = 24 // initiator to target
	offExpStatSN  = 28 // initiator to target
	offStatSN     = 24 // target to initiator
	offExpCmdSN   = 28 // target to initiator
	offMaxCmdSN   = 32 // target to initiator
	immediateBit  = 0x40
	opcodeMask    = 0x3f
	finalBit      = 0x80
	continueBit   = 0x40
	allOnes       = 0xffffffff
	dataLenMask   = 0x00ffffff
	reservedFlags = 0x80 // the "1" that opens byte 1 of PDUs without a real F bit
)

// BHS is the common view of any basic header segment (RFC 7143 11.2.1).
type BHS []byte

// Parse returns the header at the start of b as a view, or an *Error if b is
// shorter than one. The view aliases b.
func Parse(b []byte) (BHS, error) {
	if len(b) < BHSLen {
		return nil, short("bhs", len(b))
	}
	return BHS(b[:BHSLen:BHSLen]), nil
}

// Opcode returns the opcode without the immediate bit.
func (p BHS) Opcode() Opcode { return Opcode(p[offOpcode] & opcodeMask) }

// Immediate reports the I bit, which only requests carry (RFC 7143 11.2.1.1).
func (p BHS) Immediate() bool { return p[offOpcode]&immediateBit != 0 }

// Final reports the F bit, called T in login PDUs (RFC 7143 11.2.1.3).
func (p BHS) Final() bool { return p[offFlags]&finalBit != 0 }

// TotalAHSLength returns the length of the additional header segments in
// four-byte words (RFC 7143 11.2.1.5).
func (p BHS) TotalAHSLength() uint8 { return p[offAHSLen] }

// DataSegmentLength returns the length of the data segment in bytes, without
// padding (RFC 7143 11.2.1.6).
func (p BHS) DataSegmentLength() int {
	return int(binary.BigEndian.Uint32(p[offAHSLen:]) & dataLenMask)
}

// SetDataSegmentLength stores n, in bytes, and leaves TotalAHSLength alone.
// n must be within 0..MaxDataSegmentLength.
func (p BHS) SetDataSegmentLength(n int) { putDataLen(p, n) }

// LUN returns bytes 8 to 15. Only some PDUs carry a LUN there (RFC 7143
// 11.2.1.7); login PDUs carry ISID and TSIH.
func (p BHS) LUN() scsi.LUN { return getLUN(p) }

// ITT returns the Initiator Task Tag (RFC 7143 11.2.1.8).
func (p BHS) ITT() ITT { return getITT(p) }

// SetITT stores the Initiator Task Tag.
func (p BHS) SetITT(t ITT) { put32(p, offITT, uint32(t)) }

// CmdSN returns the command sequence number of a request. It is meaningless
// in a response.
func (p BHS) CmdSN() CmdSN { return CmdSN(get32(p, offCmdSN)) }

// SetCmdSN stores the command sequence number of a request.
func (p BHS) SetCmdSN(n CmdSN) { put32(p, offCmdSN, uint32(n)) }

// ExpStatSN returns the status acknowledged by a request. It is meaningless
// in a response.
func (p BHS) ExpStatSN() StatSN { return StatSN(get32(p, offExpStatSN)) }

// SetExpStatSN stores the status acknowledged by a request.
func (p BHS) SetExpStatSN(n StatSN) { put32(p, offExpStatSN, uint32(n)) }

// StatSN returns the status sequence number of a response. It is meaningless
// in a request.
func (p BHS) StatSN() StatSN { return StatSN(get32(p, offStatSN)) }

// ExpCmdSN returns the next CmdSN the target expects, from a response.
func (p BHS) ExpCmdSN() CmdSN { return CmdSN(get32(p, offExpCmdSN)) }

// MaxCmdSN returns the last CmdSN the target takes now, from a response.
func (p BHS) MaxCmdSN() CmdSN { return CmdSN(get32(p, offMaxCmdSN)) }

func get16(p []byte, off int) uint16    { return binary.BigEndian.Uint16(p[off:]) }
func get32(p []byte, off int) uint32    { return binary.BigEndian.Uint32(p[off:]) }
func put16(p []byte, off int, v uint16) { binary.BigEndian.PutUint16(p[off:], v) }
func put32(p []byte, off int, v uint32) { binary.BigEndian.PutUint32(p[off:], v) }

func getLUN(p []byte) scsi.LUN    { return scsi.LUN(p[offLUN : offLUN+8]) }
func putLUN(p []byte, l scsi.LUN) { copy(p[offLUN:offLUN+8], l[:]) }
func getITT(p []byte) ITT         { return ITT(get32(p, offITT)) }
func getTTT(p []byte) TTT         { return TTT(get32(p, offTTT)) }
func getDataLen(p []byte) int     { return BHS(p).DataSegmentLength() }

func putDataLen(p []byte, n int) {
	p[offDataLen], p[offDataLen+1], p[offDataLen+2] = byte(n>>16), byte(n>>8), byte(n)
}

// begin clears the header in dst and writes what every PDU starts with. The
// caller's slice may be reused memory, so each reserved byte is zeroed here.
func begin(dst []byte, op Opcode, immediate bool, flags byte, dataLen int) []byte {
	p := dst[:BHSLen]
	clear(p)
	p[offOpcode] = byte(op)
	if immediate {
		p[offOpcode] |= immediateBit
	}
	p[offFlags] = flags
	putDataLen(p, dataLen)
	return p
}

// putSequence writes the three counters of a target's PDU.
func putSequence(p []byte, stat StatSN, exp, maxCmd CmdSN) {
	put32(p, offStatSN, uint32(stat))
	put32(p, offExpCmdSN, uint32(exp))
	put32(p, offMaxCmdSN, uint32(maxCmd))
}

func flag(on bool, bit byte) byte {
	if on {
		return bit
	}
	return 0
}
