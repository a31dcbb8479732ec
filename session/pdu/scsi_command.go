package pdu

import "iserblk/session/scsi"

// Offsets in a SCSI Command (RFC 7143 11.3).
const (
	offEDTL = 20
	offCDB  = 32
)

// CDBLen is the room for a command descriptor block in the header, in bytes.
const CDBLen = 16

const (
	commandRead  = 0x40
	commandWrite = 0x20
	attrMask     = 0x07
)

// TaskAttr is the task attribute of a SCSI command (RFC 7143 11.3.1).
type TaskAttr uint8

// Task attributes.
const (
	AttrUntagged    TaskAttr = 0
	AttrSimple      TaskAttr = 1
	AttrOrdered     TaskAttr = 2
	AttrHeadOfQueue TaskAttr = 3
	AttrACA         TaskAttr = 4
)

// SCSICommand is the view of a SCSI Command (RFC 7143 11.3).
type SCSICommand []byte

// SCSICommandFields are the parts of a SCSI Command. Length units are bytes.
type SCSICommandFields struct {
	Immediate bool // most targets reject an immediate SCSI command
	Final     bool // no unsolicited Data-Out follows
	Read      bool
	Write     bool
	Attr      TaskAttr
	DataLen   int // immediate data behind the header
	LUN       scsi.LUN
	ITT       ITT
	EDTL      uint32 // Expected Data Transfer Length
	CmdSN     CmdSN
	ExpStatSN StatSN
	CDB       [CDBLen]byte
}

// Encode writes the header into the first BHSLen bytes of dst, which must
// have that many.
func (f SCSICommandFields) Encode(dst []byte) {
	flags := flag(f.Final, finalBit) | flag(f.Read, commandRead) |
		flag(f.Write, commandWrite) | byte(f.Attr)&attrMask
	p := begin(dst, OpSCSICommand, f.Immediate, flags, f.DataLen)
	putLUN(p, f.LUN)
	put32(p, offITT, uint32(f.ITT))
	put32(p, offEDTL, f.EDTL)
	put32(p, offCmdSN, uint32(f.CmdSN))
	put32(p, offExpStatSN, uint32(f.ExpStatSN))
	copy(p[offCDB:], f.CDB[:])
}

// Validate reports an *Error unless p is a whole SCSI Command whose data
// segment matches the dataLen bytes that followed it.
func (p SCSICommand) Validate(dataLen int) error { return check(p, OpSCSICommand, dataLen) }

// Immediate reports the I bit: the command consumes no CmdSN.
func (p SCSICommand) Immediate() bool { return BHS(p).Immediate() }

// Final reports that no unsolicited Data-Out follows.
func (p SCSICommand) Final() bool { return BHS(p).Final() }

// Read reports that the command expects data from the target.
func (p SCSICommand) Read() bool { return p[offFlags]&commandRead != 0 }

// Write reports that the command brings data to the target.
func (p SCSICommand) Write() bool { return p[offFlags]&commandWrite != 0 }

// Attr returns the task attribute.
func (p SCSICommand) Attr() TaskAttr { return TaskAttr(p[offFlags] & attrMask) }

// DataSegmentLength returns the length of the immediate data in bytes.
func (p SCSICommand) DataSegmentLength() int { return getDataLen(p) }

// LUN returns the logical unit the command is for.
func (p SCSICommand) LUN() scsi.LUN { return getLUN(p) }

// ITT returns the task's tag.
func (p SCSICommand) ITT() ITT { return getITT(p) }

// EDTL returns the Expected Data Transfer Length in bytes (RFC 7143 11.3.4).
func (p SCSICommand) EDTL() uint32 { return get32(p, offEDTL) }

// CmdSN returns the command sequence number.
func (p SCSICommand) CmdSN() CmdSN { return BHS(p).CmdSN() }

// ExpStatSN returns the acknowledged status.
func (p SCSICommand) ExpStatSN() StatSN { return BHS(p).ExpStatSN() }

// CDB returns the command descriptor block in place.
func (p SCSICommand) CDB() *[CDBLen]byte { return (*[CDBLen]byte)(p[offCDB:BHSLen]) }
