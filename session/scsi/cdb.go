package scsi

import "encoding/binary"

// CDBLen is the size of the buffer every builder writes, in bytes. Builders
// clear all of it and return how much of it the command uses.
const CDBLen = 16

// Operation codes (SPC-4, SBC-3).
const (
	opTestUnitReady    = 0x00
	opRequestSense     = 0x03
	opInquiry          = 0x12
	opModeSense6       = 0x1a
	opReadCapacity10   = 0x25
	opRead10           = 0x28
	opWrite10          = 0x2a
	opSyncCache10      = 0x35
	opWriteSame10      = 0x41
	opUnmap            = 0x42
	opModeSense10      = 0x5a
	opRead16           = 0x88
	opWrite16          = 0x8a
	opSyncCache16      = 0x91
	opWriteSame16      = 0x93
	opServiceActionIn  = 0x9e
	opReportLUNs       = 0xa0
	opMaintenanceIn    = 0xa3
	saReadCapacity16   = 0x10
	saGetLBAStatus     = 0x12
	saReportTargetPort = 0x0a
)

const (
	cdbLen6  = 6
	cdbLen10 = 10
	cdbLen12 = 12
	cdbLen16 = 16
)

const (
	bitEVPD      = 0x01
	bitDesc      = 0x01
	bitDBD       = 0x08
	bitFUA       = 0x08
	bitNDOB      = 0x01
	bitSameUnmap = 0x08
)

// TestUnitReady builds TEST UNIT READY (SPC-4).
func TestUnitReady(cdb *[CDBLen]byte) int {
	start(cdb, opTestUnitReady)
	return cdbLen6
}

// RequestSense builds REQUEST SENSE (SPC-4) for up to alloc bytes, in the
// descriptor format if desc is set.
func RequestSense(cdb *[CDBLen]byte, desc bool, alloc uint8) int {
	start(cdb, opRequestSense)
	cdb[1] = flag(desc, bitDesc)
	cdb[4] = alloc
	return cdbLen6
}

// Inquiry builds a standard INQUIRY (SPC-4) for up to alloc bytes.
func Inquiry(cdb *[CDBLen]byte, alloc uint16) int {
	start(cdb, opInquiry)
	binary.BigEndian.PutUint16(cdb[3:], alloc)
	return cdbLen6
}

// InquiryVPD builds an INQUIRY for a vital product data page (SPC-4) of
// up to alloc bytes.
func InquiryVPD(cdb *[CDBLen]byte, page uint8, alloc uint16) int {
	n := Inquiry(cdb, alloc)
	cdb[1], cdb[2] = bitEVPD, page
	return n
}

// ReportLUNs builds REPORT LUNS (SPC-4) for up to alloc bytes. It asks
// for all units except well-known ones.
func ReportLUNs(cdb *[CDBLen]byte, alloc uint32) int {
	start(cdb, opReportLUNs)
	binary.BigEndian.PutUint32(cdb[6:], alloc)
	return cdbLen12
}

// ReadCapacity10 builds READ CAPACITY (10) (SBC-3), which returns 8 bytes.
func ReadCapacity10(cdb *[CDBLen]byte) int {
	start(cdb, opReadCapacity10)
	return cdbLen10
}

// ReadCapacity16 builds READ CAPACITY (16) (SBC-3) for up to alloc bytes,
// of which there are 32.
func ReadCapacity16(cdb *[CDBLen]byte, alloc uint32) int {
	start(cdb, opServiceActionIn)
	cdb[1] = saReadCapacity16
	binary.BigEndian.PutUint32(cdb[10:], alloc)
	return cdbLen16
}

// ModeSense6 builds MODE SENSE (6) (SPC-4) for the current values of a
// page, without block descriptors, up to alloc bytes.
func ModeSense6(cdb *[CDBLen]byte, page, alloc uint8) int {
	start(cdb, opModeSense6)
	cdb[1], cdb[2], cdb[4] = bitDBD, page&modePageMask, alloc
	return cdbLen6
}

// ModeSense10 builds MODE SENSE (10) (SPC-4) for the current values of a
// page, without block descriptors, up to alloc bytes.
func ModeSense10(cdb *[CDBLen]byte, page uint8, alloc uint16) int {
	start(cdb, opModeSense10)
	cdb[1], cdb[2] = bitDBD, page&modePageMask
	binary.BigEndian.PutUint16(cdb[7:], alloc)
	return cdbLen10
}

// Read10 builds READ (10) (SBC-3). fua asks for the data on the medium.
// Units are logical blocks here and in all builders below.
func Read10(cdb *[CDBLen]byte, lba uint32, blocks uint16, fua bool) int {
	return transfer10(cdb, opRead10, lba, blocks, flag(fua, bitFUA))
}

// Read16 builds READ (16) (SBC-3).
func Read16(cdb *[CDBLen]byte, lba uint64, blocks uint32, fua bool) int {
	return transfer16(cdb, opRead16, lba, blocks, flag(fua, bitFUA))
}

// Write10 builds WRITE (10) (SBC-3). fua asks for the data to be on the
// medium before the status.
func Write10(cdb *[CDBLen]byte, lba uint32, blocks uint16, fua bool) int {
	return transfer10(cdb, opWrite10, lba, blocks, flag(fua, bitFUA))
}

// Write16 builds WRITE (16) (SBC-3).
func Write16(cdb *[CDBLen]byte, lba uint64, blocks uint32, fua bool) int {
	return transfer16(cdb, opWrite16, lba, blocks, flag(fua, bitFUA))
}

// SynchronizeCache10 builds SYNCHRONIZE CACHE (10) (SBC-3), which ends
// when the blocks are on the medium. Zero blocks means up to the last one.
func SynchronizeCache10(cdb *[CDBLen]byte, lba uint32, blocks uint16) int {
	return transfer10(cdb, opSyncCache10, lba, blocks, 0)
}

// SynchronizeCache16 builds SYNCHRONIZE CACHE (16) (SBC-3), which ends
// when the blocks are on the medium. Zero blocks means up to the last one.
func SynchronizeCache16(cdb *[CDBLen]byte, lba uint64, blocks uint32) int {
	return transfer16(cdb, opSyncCache16, lba, blocks, 0)
}

// Unmap builds UNMAP (SBC-3) for a parameter list of length bytes, as
// AppendUnmapList makes it.
func Unmap(cdb *[CDBLen]byte, length uint16) int {
	start(cdb, opUnmap)
	binary.BigEndian.PutUint16(cdb[7:], length)
	return cdbLen10
}

// WriteSame10 builds WRITE SAME (10) (SBC-3): one block of data goes to
// every block of the range. unmap allows the unit to deallocate them instead.
// Zero blocks means up to the last one, if WSNZ permits that.
func WriteSame10(cdb *[CDBLen]byte, lba uint32, blocks uint16, unmap bool) int {
	return transfer10(cdb, opWriteSame10, lba, blocks, flag(unmap, bitSameUnmap))
}

// WriteSame16 builds WRITE SAME (16) (SBC-3). With noData the command
// carries no block and the unit writes zeroes (NDOB).
func WriteSame16(cdb *[CDBLen]byte, lba uint64, blocks uint32, unmap, noData bool) int {
	return transfer16(cdb, opWriteSame16, lba, blocks, flag(unmap, bitSameUnmap)|flag(noData, bitNDOB))
}

// GetLBAStatus builds GET LBA STATUS (SBC-3) from lba on, for up to alloc
// bytes.
func GetLBAStatus(cdb *[CDBLen]byte, lba uint64, alloc uint32) int {
	n := transfer16(cdb, opServiceActionIn, lba, alloc, 0)
	cdb[1] = saGetLBAStatus
	return n
}

// ReportTargetPortGroups builds REPORT TARGET PORT GROUPS (SPC-4) in the
// length-only header format, for up to alloc bytes.
func ReportTargetPortGroups(cdb *[CDBLen]byte, alloc uint32) int {
	start(cdb, opMaintenanceIn)
	cdb[1] = saReportTargetPort
	binary.BigEndian.PutUint32(cdb[6:], alloc)
	return cdbLen12
}

func start(cdb *[CDBLen]byte, op byte) {
	*cdb = [CDBLen]byte{op}
}

func transfer10(cdb *[CDBLen]byte, op byte, lba uint32, blocks uint16, flags byte) int {
	start(cdb, op)
	cdb[1] = flags
	binary.BigEndian.PutUint32(cdb[2:], lba)
	binary.BigEndian.PutUint16(cdb[7:], blocks)
	return cdbLen10
}

func transfer16(cdb *[CDBLen]byte, op byte, lba uint64, blocks uint32, flags byte) int {
	start(cdb, op)
	cdb[1] = flags
	binary.BigEndian.PutUint64(cdb[2:], lba)
	binary.BigEndian.PutUint32(cdb[10:], blocks)
	return cdbLen16
}

func flag(on bool, bit byte) byte {
	if on {
		return bit
	}
	return 0
}
