package scsi

import "encoding/binary"

// Vital product data pages (SPC-4, SBC-3).
const (
	VPDSupportedPages      = 0x00
	VPDUnitSerial          = 0x80
	VPDDeviceID            = 0x83
	VPDBlockLimits         = 0xb0
	VPDBlockDevice         = 0xb1
	VPDLogicalProvisioning = 0xb2
	vpdHeaderLen           = 4
	vpdName                = "vpd page"
)

var vpdNames = map[uint8]string{
	VPDSupportedPages:      "vpd page 0x00",
	VPDUnitSerial:          "vpd page 0x80",
	VPDDeviceID:            "vpd page 0x83",
	VPDBlockLimits:         "vpd page 0xb0",
	VPDBlockDevice:         "vpd page 0xb1",
	VPDLogicalProvisioning: "vpd page 0xb2",
}

// vpdBody returns what follows the header of a page after checking that it is
// the page asked for, all there and at least atLeast bytes long.
func vpdBody(b []byte, page uint8, atLeast int) ([]byte, error) {
	name := vpdNames[page]
	if len(b) < vpdHeaderLen {
		return nil, tooShort(name, len(b), vpdHeaderLen)
	}
	if b[1] != page {
		return nil, lie(name, "device returned page 0x%02x", b[1])
	}
	n, body := int(binary.BigEndian.Uint16(b[2:])), b[vpdHeaderLen:]
	if n > len(body) {
		return nil, lie(name, "claims %d bytes, but %d arrived", n, len(body))
	}
	if n < atLeast {
		return nil, tooShort(name, n, atLeast)
	}
	return body[:n], nil
}

// VPDLength returns how many bytes a page has in all, from its first four
// bytes, so that a page cut by a small allocation length can be asked again.
func VPDLength(b []byte) (int, error) {
	if len(b) < vpdHeaderLen {
		return 0, tooShort(vpdName, len(b), vpdHeaderLen)
	}
	return vpdHeaderLen + int(binary.BigEndian.Uint16(b[2:])), nil
}

// ParseSupportedPages reads VPD page 0x00: the codes of the pages there are.
// The result aliases b.
func ParseSupportedPages(b []byte) ([]uint8, error) {
	return vpdBody(b, VPDSupportedPages, 0)
}

// ParseUnitSerial reads VPD page 0x80. The serial number may be empty.
func ParseUnitSerial(b []byte) (string, error) {
	body, err := vpdBody(b, VPDUnitSerial, 0)
	if err != nil {
		return "", err
	}
	return asciiField(body), nil
}

// BlockLimits is VPD page 0xb0 (SBC-3). Units are logical blocks; zero
// means that the device reports no limit, except where noted.
type BlockLimits struct {
	// WriteSameNonZero (WSNZ): WRITE SAME with zero blocks is refused.
	WriteSameNonZero           bool
	MaxCompareAndWrite         uint8 // zero: not supported
	OptimalTransferGranularity uint16
	MaxTransfer                uint32
	OptimalTransfer            uint32
	MaxUnmapLBAs               uint32 // zero: UNMAP not supported; all ones: no limit
	MaxUnmapDescriptors        uint32 // as MaxUnmapLBAs
	OptimalUnmapGranularity    uint32
	UnmapAlignment             uint32 // valid if UnmapAlignmentValid
	UnmapAlignmentValid        bool
	MaxWriteSame               uint64
}

// Lengths of the page without its header: as SBC-2 defined it, with the unmap
// fields of early SBC-3, and with the write same limit.
const (
	limitsBasicLen     = 12
	limitsUnmapLen     = 32
	limitsWriteSameLen = 40
	limitsWSNZ         = 0x01
	unmapAlignmentOK   = 1 << 31
)

// ParseBlockLimits reads VPD page 0xb0. Fields a short page lacks are zero.
func ParseBlockLimits(b []byte) (BlockLimits, error) {
	p, err := vpdBody(b, VPDBlockLimits, limitsBasicLen)
	if err != nil {
		return BlockLimits{}, err
	}
	l := BlockLimits{
		WriteSameNonZero:           p[0]&limitsWSNZ != 0,
		MaxCompareAndWrite:         p[1],
		OptimalTransferGranularity: binary.BigEndian.Uint16(p[2:]),
		MaxTransfer:                binary.BigEndian.Uint32(p[4:]),
		OptimalTransfer:            binary.BigEndian.Uint32(p[8:]),
	}
	if len(p) >= limitsUnmapLen {
		alignment := binary.BigEndian.Uint32(p[28:])
		l.MaxUnmapLBAs = binary.BigEndian.Uint32(p[16:])
		l.MaxUnmapDescriptors = binary.BigEndian.Uint32(p[20:])
		l.OptimalUnmapGranularity = binary.BigEndian.Uint32(p[24:])
		l.UnmapAlignmentValid = alignment&unmapAlignmentOK != 0
		l.UnmapAlignment = alignment &^ unmapAlignmentOK
	}
	if len(p) >= limitsWriteSameLen {
		l.MaxWriteSame = binary.BigEndian.Uint64(p[32:])
	}
	return l, nil
}

// RotationNone is the rotation rate of a medium that does not turn.
const RotationNone = 1

// BlockDevice is VPD page 0xb1 (SBC-3).
type BlockDevice struct {
	// RotationRate is in revolutions a minute; 0 is unknown, RotationNone solid
	// state.
	RotationRate uint16
	// Zoned is the ZONED field: 0 none, 1 host-aware, 2 device-managed.
	Zoned uint8
}

// ParseBlockDevice reads VPD page 0xb1.
func ParseBlockDevice(b []byte) (BlockDevice, error) {
	const least, zonedShift, zonedMask = 5, 4, 0x03
	p, err := vpdBody(b, VPDBlockDevice, least)
	if err != nil {
		return BlockDevice{}, err
	}
	return BlockDevice{
		RotationRate: binary.BigEndian.Uint16(p),
		Zoned:        p[4] >> zonedShift & zonedMask,
	}, nil
}

// Provisioning is VPD page 0xb2 (SBC-3).
type Provisioning struct {
	ThresholdExponent uint8
	Unmap             bool  // LBPU: UNMAP is supported
	WriteSame16       bool  // LBPWS: WRITE SAME (16) can unmap
	WriteSame10       bool  // LBPWS10: WRITE SAME (10) can unmap
	ReadZeroes        bool  // LBPRZ: unmapped blocks read as zeroes
	Type              uint8 // 1 resource provisioned, 2 thin
}

// ParseProvisioning reads VPD page 0xb2.
func ParseProvisioning(b []byte) (Provisioning, error) {
	const (
		least     = 4
		lbpu      = 0x80
		lbpws     = 0x40
		lbpws10   = 0x20
		lbprz     = 0x04
		typeMask  = 0x07
		flagsByte = 1
		typeByte  = 2
	)
	p, err := vpdBody(b, VPDLogicalProvisioning, least)
	if err != nil {
		return Provisioning{}, err
	}
	return Provisioning{
		ThresholdExponent: p[0],
		Unmap:             p[flagsByte]&lbpu != 0,
		WriteSame16:       p[flagsByte]&lbpws != 0,
		WriteSame10:       p[flagsByte]&lbpws10 != 0,
		ReadZeroes:        p[flagsByte]&lbprz != 0,
		Type:              p[typeByte] & typeMask,
	}, nil
}
