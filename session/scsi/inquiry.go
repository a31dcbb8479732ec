package scsi

import "strings"

// InquiryLen is the length of the standard INQUIRY data every device must
// return, in bytes (SPC-4).
const InquiryLen = 36

// Peripheral device types (SPC-4) a block initiator tells apart.
const (
	TypeDisk         = 0x00
	TypeTape         = 0x01
	TypeCDROM        = 0x05
	TypeEnclosure    = 0x0d
	TypeSimplified   = 0x0e // simplified direct access
	TypeController   = 0x0c
	TypeZonedDisk    = 0x14
	TypeUnknown      = 0x1f
	peripheralType   = 0x1f
	qualifierShift   = 5
	removableBit     = 0x80
	protectBit       = 0x01
	tpgsShift        = 4
	tpgsMask         = 0x03
	additionalLenAt  = 4
	additionalPrefix = 5
)

// StandardInquiry is what a unit says about itself (SPC-4).
type StandardInquiry struct {
	// Qualifier is 0 if a unit is there, 1 if it could be, 3 if there can be
	// none at this LUN.
	Qualifier uint8
	Type      uint8 // peripheral device type
	Removable bool
	Version   uint8  // of SPC
	TPGS      uint8  // bit 0: implicit ALUA, bit 1: explicit
	Protect   bool   // can be formatted with T10 protection information
	Vendor    string // trimmed, printable ASCII
	Product   string
	Revision  string
}

// Present reports that a unit is connected at this LUN.
func (i StandardInquiry) Present() bool { return i.Qualifier == 0 && i.Type != TypeUnknown }

// ParseInquiry reads standard INQUIRY data.
func ParseInquiry(b []byte) (StandardInquiry, error) {
	const name = "standard inquiry data"
	if len(b) < InquiryLen {
		return StandardInquiry{}, tooShort(name, len(b), InquiryLen)
	}
	if n := int(b[additionalLenAt]) + additionalPrefix; n < InquiryLen {
		return StandardInquiry{}, lie(name, "claims %d bytes, need %d", n, InquiryLen)
	}
	return StandardInquiry{
		Qualifier: b[0] >> qualifierShift,
		Type:      b[0] & peripheralType,
		Removable: b[1]&removableBit != 0,
		Version:   b[2],
		TPGS:      b[5] >> tpgsShift & tpgsMask,
		Protect:   b[5]&protectBit != 0,
		Vendor:    asciiField(b[8:16]),
		Product:   asciiField(b[16:32]),
		Revision:  asciiField(b[32:36]),
	}, nil
}

// asciiField turns an ASCII data field (SPC-4) into text that is safe to
// print: blanks and NULs trimmed, anything unprintable replaced.
func asciiField(b []byte) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, string(trimField(b)))
	return clean
}

func trimField(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == 0) {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == 0) {
		b = b[:len(b)-1]
	}
	return b
}
